"""The dialects of clouds: one frozen record per generation says what it accepts.

No other code asks which dialect it speaks to; it reads a field.
A fact that is the same everywhere is not here: all are addressed by path, and a machine's manifest
always carries its kernel's and ramdisk's ids, since every server reads them there.

Where a record covers several versions, it says what all of them take: `euca3` is 3.1 to 3.4, and since 3.2
refuses a filter, no Eucalyptus 3 is sent one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from uecwatchd.types import Arch, Role

# What RegisterImage takes beside ImageLocation, from the generation on that first bound each name.
# Older servers refuse the whole request for one parameter that they do not know.
_DESCRIBED = frozenset({"Name", "Description", "Architecture", "KernelId", "RamdiskId"})
_VIRTUALIZED = _DESCRIBED | {"VirtualizationType"}
_MAPPED = frozenset({"RootDeviceName", "BlockDeviceMapping"})

# What RunInstances takes beside ImageId and the counts. Up to 2.0 there is no token, and Eucalyptus 3 binds
# the end of an instance to no name. Tags at the launch go to Amazon alone: not every version of the later
# Eucalyptus takes them.
_LAUNCHED = frozenset({"InstanceType", "KeyName", "UserData", "SecurityGroup"})
_LAUNCHED_ONCE = _LAUNCHED | {"ClientToken"}
_LAUNCHED_IN_NETWORKS = _LAUNCHED_ONCE | {
    "SecurityGroupId",
    "SubnetId",
    "InstanceInitiatedShutdownBehavior",
}

# Accepted by every server that takes a name at all: dots came with Eucalyptus 4.0.
_NAME_EVERYWHERE = re.compile(r"[A-Za-z0-9()/_-]{3,128}")
_NAME_WITH_DOTS = re.compile(r"[A-Za-z0-9()./_-]{3,128}")
_NAME_OF_AWS = re.compile(r"[A-Za-z0-9()\[\] ./'@_-]{3,128}")

# Case counts: an id is compared as it is written. From Eucalyptus 4.0 on its administrator chooses the case
# (`cloud.identifier_canonicalizer`): a new one has lower case, one that was a 3 before has capitals.
_ID_UPPER = re.compile(r"e[mkr]i-[0-9A-F]{8}")
_ID_EUCALYPTUS = re.compile(r"e[mkr]i-[0-9A-Fa-f]{8}")
_ID_LONG = re.compile(r"[ae][mkr]i-([0-9A-Fa-f]{8}|[0-9A-Fa-f]{17})")
_ID_SHORT_OF_AWS = re.compile(r"a[mkr]i-([0-9a-f]{8}|[0-9a-f]{17})")

# Eucalyptus has no other words, whatever its nodes are.
_ARCHITECTURES: Mapping[Arch, str] = {"i386": "i386", "x86_64": "x86_64"}
# Nova's, who has them from libvirt: an instance of an image with any other is refused.
_ARCHITECTURES_OF_NOVA: Mapping[Arch, str] = {
    **_ARCHITECTURES,
    "arm64": "aarch64",
    "arm": "armv7l",
    "ppc64le": "ppc64le",
    "ppc64": "ppc64",
    "ppc": "ppc",
    "s390x": "s390x",
    "s390": "s390",
    "ia64": "ia64",
    "alpha": "alpha",
    "parisc": "parisc",
    "mips64el": "mips64el",
    "mips64": "mips64",
    "mipsel": "mipsel",
    "mips": "mips",
}

ACCOUNT_NUMBER = re.compile(r"[0-9]{12}")

# Everywhere.
NAME_MINIMUM, NAME_LIMIT = 3, 128

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


@dataclass(frozen=True, slots=True)
class Limit:
    """The size limit of an image, in bytes. Unless it is `fixed`, an administrator may have changed it."""

    size: int
    fixed: bool


@dataclass(frozen=True, slots=True)
class AccountFormat:
    """The names of accounts that an image may be shared with; `looks` describes them to people."""

    pattern: re.Pattern[str]
    looks: str


_BY_NUMBER = AccountFormat(ACCOUNT_NUMBER, "12 digits")
# Up to 2.0 ModifyImageAttribute looks its users up by their names; the numbers in their eucarcs are nobody's.
_BY_NAME = AccountFormat(re.compile(r"(?![0-9]+$)[A-Za-z0-9_@.+=,:-]{1,128}"), "the name of a user")


@dataclass(frozen=True, slots=True)
class ClockTolerance:
    """The accepted difference between our clock and the cloud's, in seconds."""

    ahead: int
    behind: int


# Walrus, and from 4.0 on the gateway in front of it unless its administrator restricts it, take what the
# first region of Amazon took. Today's S3 wants names of hosts.
_BUCKET_OF_WALRUS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,254}")
_BUCKET_OF_AWS = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_BUCKET_EVERYWHERE = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")


@dataclass(frozen=True, slots=True)
class Dialect:
    """The protocol of one generation of cloud."""

    name: str
    versions: str  # for people

    # Signatures
    ec2_signature: Literal["v2", "v4"]
    s3_signature: Literal["s3", "s3v4"]  # botocore's words for S3's V2 and V4
    signs_whole_path: bool  # a V2 signature for S3 covers the URL's path with the service's part of it
    replay_refused: bool  # a V2 signature is taken once, and it holds the time in whole seconds
    window: ClockTolerance  # of EC2; S3's is 15 minutes both ways everywhere

    # S3
    canned_acl: str | None  # lets the cloud itself read manifest and parts; None: it reads them anyway
    head_bucket: bool
    key_prefix: bool  # manifest and parts may be below a prefix; we use the bucket's root everywhere
    unknown_query_keys: bool  # passes over a query key it does not know; others refuse the request
    bucket_pattern: re.Pattern[str]  # of the name of a bucket that can be made
    bucket_quota: int | None  # buckets of one account
    bucket_size: int | None  # bytes that one bucket holds

    # Registration
    register_parameters: frozenset[str]  # what RegisterImage may be sent beside ImageLocation
    name_pattern: re.Pattern[str] | None  # of a whole image name; None: an image has no name
    id_pattern: re.Pattern[str]
    found_by_id: bool  # DescribeImages answers a question by id rightly
    paravirtual_needs: frozenset[Role]  # what a paravirtual machine image must have beside it
    paravirtual_demands: frozenset[Role]  # without which it refuses such an image, whatever the sidecar says
    windows_needs: frozenset[Role]  # the same for Windows: a loader and its floppy where no disk boots alone
    boots_disk_alone: bool  # a whole disk without kernel and ramdisk boots (HVM)
    kernels_by_administrators: bool  # nobody else may register kernels and ramdisks
    disk_mapping: str | None  # the device that a manifest maps `ami` to, to say: a whole disk, paravirtual
    manifest_limit: int | None  # bytes; a longer manifest is misread or refused
    image_limit: Limit | None
    architectures: Mapping[Arch, str]  # that it registers images for, and its word for each
    pending_states: frozenset[str]  # an image in one of these may still become available

    # After registration
    filters: bool  # questions may carry filters
    tag_limit: int  # tags on one image; 0: there are none
    shares_with: AccountFormat | None  # None: with everybody alone
    attributes: frozenset[str]  # what ModifyImageAttribute can change: `launchPermission`, `description`
    public_by_default: bool  # or may be: 3.1 makes new images public, 3.2 does not
    deprecates: bool  # an image can be deprecated
    tells_references: bool  # tells what refers to an image: launch templates and the like
    has_parameters: bool  # has a parameter store beside it

    # Instances
    launch_parameters: frozenset[str]  # what RunInstances may be sent beside ImageId and the counts
    token_listed: bool  # DescribeInstances shows the token that an instance was requested with
    shutdown_needs_volume: bool  # says how an instance ends only of those whose root is a volume
    console_by_list: bool  # names the instance of a console in a list of one
    launch_dry_run: bool  # RunInstances can be asked if it would work, and starts nothing then

    # Elsewhere
    account_checked: bool  # the account number in a manifest must be the one of the access key
    opens_bundles: bool  # once an image is available, the cloud has opened its bundle with its own key
    offers_certificate: bool  # gives the certificate that bundles are sealed for to everybody
    regional: bool  # has a known address per region, and wants a new bucket's region named


UEC = Dialect(
    name="uec",
    versions="UEC and Eucalyptus 1.6 to 2.0",
    ec2_signature="v2",
    s3_signature="s3",
    signs_whole_path=True,
    replay_refused=False,
    window=ClockTolerance(ahead=20, behind=15 * 60),
    canned_acl=None,
    head_bucket=False,
    key_prefix=False,
    unknown_query_keys=False,
    bucket_pattern=_BUCKET_OF_WALRUS,
    bucket_quota=5,
    bucket_size=5 * GIB,
    register_parameters=frozenset(),
    name_pattern=None,
    id_pattern=_ID_UPPER,
    found_by_id=False,
    paravirtual_needs=frozenset({"kernel"}),
    paravirtual_demands=frozenset(),
    windows_needs=frozenset({"kernel", "ramdisk"}),
    boots_disk_alone=False,
    kernels_by_administrators=True,
    disk_mapping=None,
    manifest_limit=100 * KIB,
    image_limit=None,
    architectures=_ARCHITECTURES,
    pending_states=frozenset(),
    filters=False,
    tag_limit=0,
    shares_with=_BY_NAME,
    attributes=frozenset({"launchPermission"}),
    public_by_default=True,
    deprecates=False,
    tells_references=False,
    has_parameters=False,
    launch_parameters=_LAUNCHED,
    token_listed=False,
    shutdown_needs_volume=False,
    console_by_list=True,
    launch_dry_run=False,
    account_checked=False,
    opens_bundles=False,
    offers_certificate=False,
    regional=False,
)
EUCA3 = replace(
    UEC,
    name="euca3",
    versions="Eucalyptus 3.1 to 3.4",
    replay_refused=True,
    bucket_size=None,
    register_parameters=_DESCRIBED | _MAPPED,
    name_pattern=_NAME_EVERYWHERE,
    id_pattern=_ID_EUCALYPTUS,
    found_by_id=True,
    manifest_limit=10_000_000,
    image_limit=Limit(30 * GIB, fixed=False),
    shares_with=_BY_NUMBER,
    attributes=frozenset({"launchPermission", "description"}),
    launch_parameters=_LAUNCHED_ONCE,
)
EUCA4 = replace(
    EUCA3,
    name="euca4",
    versions="Eucalyptus 4.0 to 4.3",
    ec2_signature="v4",  # V2 works too, but up to 4.1 a V2 signature is refused the second time
    canned_acl="aws-exec-read",
    head_bucket=True,
    unknown_query_keys=True,
    bucket_quota=100,
    register_parameters=_VIRTUALIZED | _MAPPED | {"Platform"},
    name_pattern=_NAME_WITH_DOTS,
    paravirtual_needs=frozenset({"kernel", "ramdisk"}),
    paravirtual_demands=frozenset({"kernel", "ramdisk"}),
    windows_needs=frozenset(),
    boots_disk_alone=True,
    disk_mapping="sda",
    manifest_limit=5 * MIB,
    pending_states=frozenset({"pending"}),  # while it turns a paravirtual image into a whole disk
    filters=True,
    tag_limit=10,
    public_by_default=False,
    account_checked=True,
    offers_certificate=True,  # from 4.2 on
    launch_parameters=_LAUNCHED_IN_NETWORKS,
    token_listed=True,
    console_by_list=False,
)
EUCA5 = replace(
    EUCA4,
    name="euca5",
    versions="Eucalyptus 4.4 to 5.1",
    s3_signature="s3v4",
    signs_whole_path=False,
    replay_refused=False,
    id_pattern=_ID_LONG,
    register_parameters=EUCA4.register_parameters | {"SriovNetSupport"},
)
AWS = Dialect(
    name="aws",
    versions="Amazon EC2",
    ec2_signature="v4",
    s3_signature="s3v4",
    signs_whole_path=False,
    replay_refused=False,
    window=ClockTolerance(ahead=5 * 60, behind=5 * 60),
    canned_acl="aws-exec-read",
    head_bucket=True,
    key_prefix=True,
    unknown_query_keys=True,
    bucket_pattern=_BUCKET_OF_AWS,
    bucket_quota=100,
    bucket_size=None,
    register_parameters=_VIRTUALIZED | _MAPPED | {"SriovNetSupport"},
    name_pattern=_NAME_OF_AWS,
    id_pattern=_ID_SHORT_OF_AWS,
    found_by_id=True,
    paravirtual_needs=frozenset({"kernel"}),
    paravirtual_demands=frozenset(),
    windows_needs=frozenset(),
    boots_disk_alone=True,
    kernels_by_administrators=False,
    disk_mapping=None,
    manifest_limit=None,
    image_limit=Limit(10 * GIB, fixed=True),
    architectures={**_ARCHITECTURES, "arm64": "arm64"},
    pending_states=frozenset({"pending"}),
    filters=True,
    tag_limit=50,
    shares_with=_BY_NUMBER,
    attributes=frozenset({"launchPermission", "description"}),
    public_by_default=False,
    deprecates=True,
    tells_references=True,
    has_parameters=True,
    launch_parameters=_LAUNCHED_IN_NETWORKS | {"TagSpecification"},
    token_listed=True,
    shutdown_needs_volume=True,
    console_by_list=False,
    launch_dry_run=True,
    account_checked=True,
    opens_bundles=True,
    offers_certificate=False,
    regional=True,
)
OPENSTACK = replace(
    AWS,
    name="openstack",
    versions="OpenStack with the EC2 API",
    key_prefix=False,
    bucket_quota=None,
    name_pattern=_NAME_WITH_DOTS,
    paravirtual_needs=frozenset(),
    image_limit=None,
    architectures=_ARCHITECTURES_OF_NOVA,
    account_checked=False,
    tag_limit=10,
    shares_with=None,  # its permissions know the group of everybody, and no projects
    deprecates=False,
    tells_references=False,
    has_parameters=False,
    launch_parameters=_LAUNCHED_IN_NETWORKS,
    shutdown_needs_volume=False,
    launch_dry_run=False,
    regional=False,
)
# The embedded cloud is sent what every generation takes, and beside that only what no manifest can say:
# a name, a description, and that an image is no paravirtual one.
SANDBOX = replace(
    EUCA3,
    name="sandbox",
    versions="the embedded cloud",
    ec2_signature="v4",
    s3_signature="s3v4",
    signs_whole_path=False,
    replay_refused=False,
    canned_acl="aws-exec-read",
    bucket_pattern=_BUCKET_EVERYWHERE,
    bucket_quota=100,
    register_parameters=frozenset({"Name", "Description", "VirtualizationType"}),
    id_pattern=_ID_UPPER,
    boots_disk_alone=True,
    kernels_by_administrators=False,
    manifest_limit=100 * KIB,
    pending_states=frozenset({"pending"}),
    tag_limit=10,
    account_checked=True,
    public_by_default=False,
    opens_bundles=True,
    launch_parameters=_LAUNCHED_IN_NETWORKS,
    token_listed=True,
    console_by_list=False,
)

DIALECTS: Mapping[str, Dialect] = {
    known.name: known for known in (UEC, EUCA3, EUCA4, EUCA5, OPENSTACK, AWS, SANDBOX)
}


def fitting_name(dialect: Dialect, name: str) -> str:
    """Return the nearest name that the cloud takes, "" if its images have none.

    Refused characters become hyphens. A name that is too long loses its middle, because its end may tell it
    from others.
    """
    if dialect.name_pattern is None:
        return ""
    spelled = "".join(c if dialect.name_pattern.fullmatch(c * NAME_MINIMUM) else "-" for c in name)
    if len(spelled) > NAME_LIMIT:
        spelled = f"{spelled[: NAME_LIMIT // 2]}{spelled[-NAME_LIMIT // 2 :]}"
    return spelled.ljust(NAME_MINIMUM, "-")
