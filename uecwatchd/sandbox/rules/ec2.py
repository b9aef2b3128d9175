"""Rules of the EC2 half, for requests and for bundles that are registered.

A row is the strictest version of its generation: a request that passes here passes on all of them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from uecwatchd.sandbox.rules import ec2_actions, ec2_errors
from uecwatchd.sandbox.rules.ec2_actions import Actions
from uecwatchd.sandbox.rules.ec2_errors import ErrorRules

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

Moment = Literal["register", "run"]


@dataclass(frozen=True, slots=True)
class ImageIds:
    """The form of image ids. Ids that differ in case are different ids."""

    machine: str
    kernel: str
    ramdisk: str
    digits: int
    upper: bool = False

    @property
    def pattern(self) -> re.Pattern[str]:
        digits = "[0-9A-F]" if self.upper else "[0-9a-f]"
        return re.compile(f"(?:{self.machine}|{self.kernel}|{self.ramdisk})-{digits}{{{self.digits}}}")

    def spell(self, type_: str, digits: str) -> str:
        prefix = {"machine": self.machine, "kernel": self.kernel, "ramdisk": self.ramdisk}[type_]
        return f"{prefix}-{digits.upper() if self.upper else digits}"


@dataclass(frozen=True, slots=True)
class ImageLifecycle:
    """The life of a new image: `pending` for so many DescribeImages calls, then `state`."""

    looks: int = 0
    state: Literal["available", "failed"] = "available"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ec2Rules:
    """Sizes in bytes, windows in seconds."""

    # the service
    paths: tuple[str, ...]  # the first is the one handed out
    names: frozenset[str]  # first labels of hosts with the root as a path; empty: any host
    certificates_path: str  # where the cloud's certificate is given out; empty: nowhere
    actions: Actions
    errors: ErrorRules
    # who signed a request, and when
    signatures: frozenset[str]  # versions understood: "v2", "v4"
    replay_refused: bool  # whether one version 2 signature counts once
    ahead: int  # how far in the future a request may be dated
    behind: int  # how old a request may be
    # words
    name_required: bool
    image_name: re.Pattern[str]
    description_length: int
    tags: int  # on one resource
    # ids
    ids: ImageIds
    # DescribeImages: whether a known id finds nothing, an unknown one everything, ExecutableBy=all nothing
    lookup_broken: bool
    unknown_refused: bool  # whether DescribeImages refuses an id it does not know
    # the manifest and the parts
    location_length: int
    manifest_prefix: bool  # whether a manifest's key may have slashes
    parts_beside: bool  # true if parts are then under that prefix too, and not at the root
    manifest_size: int | None
    part_size: int
    image_size: int | None
    reader_acls: frozenset[str]  # each object needs one of these canned ACLs; empty: not checked
    signature_checked: frozenset[Moment]
    user_checked: bool  # whether <user> must be the account's number
    architectures: frozenset[str]  # in manifests and requests
    mapping_refused: bool  # whether a block device mapping in the manifest breaks the server
    # kernels
    contradiction_refused: bool  # whether the request may not differ from the manifest; else it prevails
    paravirtual_needs_both: bool  # whether a paravirtual machine must have a kernel and a ramdisk
    hvm_alone: bool  # whether kernel and ramdisk of an hvm machine are dropped
    windows_is_hvm: bool
    administrators_only: bool  # whether nobody else registers kernels and ramdisks
    # life of an image
    lifecycle: ImageLifecycle
    imports_later: bool  # whether what is wrong with key and parts shows in the image, and not at once
    public: bool  # whether everybody may launch it from the start
    shared_with: re.Pattern[str] | None  # single accounts that can be let start an image
    groups_separate: bool  # whether one call cannot change groups and users
    lingers: bool  # whether a deregistered image stays on the list until it is deregistered again
    false_for_unknown: bool  # whether deregistering what is not there is answered with false
    # instances
    instance_types: frozenset[str]
    unknown_type: str  # the sentence about a `{name}` that is none of them
    no_room: str  # the sentence about an account or a cloud that has no room
    token_listed: bool  # whether DescribeInstances shows the client's token
    console_of_running: bool  # whether only an instance that runs has a console

    @property
    def path(self) -> str:
        return self.paths[0]


_ACCOUNT = re.compile(r"[0-9]{12}")
# Those of 1.6; what 3.4 has beside them; and some of today's Amazon, of hundreds.
_FIRST_TYPES = frozenset({"m1.small", "c1.medium", "m1.large", "m1.xlarge", "c1.xlarge"})
_LATER_TYPES = _FIRST_TYPES | {
    *("t1.micro", "m1.medium", "m2.xlarge", "m2.2xlarge", "m2.4xlarge", "m3.xlarge", "m3.2xlarge"),
    *("cc1.4xlarge", "cc2.8xlarge", "cg1.4xlarge", "cr1.8xlarge", "hi1.4xlarge", "hs1.8xlarge"),
}
_TYPES_OF_AMAZON = _LATER_TYPES | {"t2.micro", "t3.micro", "t3.small", "m5.large", "c5.large"}

# This row is no server, and not what all of them accept: that would be next to nothing, as 1.6 refuses even
# the Name that 4.2 demands. It takes what a client may say to it and most generations take: names,
# descriptions, filters, tags. The rows below refuse those, each where its servers do. Of a manifest and its
# parts it wants nearly all that any of them wants.
SANDBOX = Ec2Rules(
    paths=("/services/Eucalyptus",),
    names=frozenset(),
    certificates_path="",
    actions=ec2_actions.SANDBOX,
    errors=ec2_errors.AMAZON,
    signatures=frozenset({"v2", "v4"}),
    replay_refused=False,
    ahead=20,
    behind=15 * 60,
    name_required=False,
    image_name=re.compile(r"[A-Za-z0-9()/_-]{3,128}"),  # dots only from 4.0, commas only in 3.4
    description_length=255,
    tags=10,  # 4.x
    ids=ImageIds("emi", "eki", "eri", digits=8, upper=True),
    lookup_broken=False,
    unknown_refused=True,
    location_length=255,  # one database column in every version
    manifest_prefix=False,
    parts_beside=False,
    manifest_size=100 * KIB,  # 1.6 reads no further, and says nothing
    part_size=11 * MIB,  # beyond this a node streams without ever retrying
    image_size=30 * GIB,  # the default limit of 3.4 to 5.1
    reader_acls=frozenset(),
    signature_checked=frozenset({"register", "run"}),
    user_checked=True,
    architectures=frozenset({"i386", "x86_64"}),
    mapping_refused=False,
    contradiction_refused=True,  # servers differ in which of the two prevails
    paravirtual_needs_both=False,
    hvm_alone=False,
    windows_is_hvm=False,
    administrators_only=False,
    lifecycle=ImageLifecycle(),
    imports_later=False,
    public=False,
    shared_with=_ACCOUNT,
    groups_separate=False,
    lingers=False,
    false_for_unknown=False,
    instance_types=_FIRST_TYPES,
    unknown_type="Instance type does not exist: {name}",
    no_room="Not enough resources (0 in default < 1): vm instances.",
    token_listed=True,
    console_of_running=False,
)

# 1.6. RegisterImage takes a location and nothing else.
UEC = replace(
    SANDBOX,
    actions=ec2_actions.UEC,
    errors=ec2_errors.UEC,
    signatures=frozenset({"v2"}),
    lookup_broken=True,
    unknown_refused=False,
    image_size=None,
    user_checked=False,  # users had names then, and the number in the manifest was read by nobody
    administrators_only=True,
    public=True,
    shared_with=re.compile(r"[\w.@+=,:-]*[A-Za-z_.@+=,:-][\w.@+=,:-]*", re.ASCII),  # a user, by name
    groups_separate=True,
    false_for_unknown=True,
    token_listed=False,
    console_of_running=True,
)

# 3.1, and 3.2 where that is stricter.
EUCA3 = replace(
    UEC,
    actions=ec2_actions.EUCA3,
    errors=ec2_errors.EUCA3,
    replay_refused=True,
    shared_with=_ACCOUNT,
    lookup_broken=False,
    manifest_prefix=True,
    manifest_size=10_000_000,
    image_size=30 * GIB,  # 3.4
    signature_checked=frozenset({"run"}),  # when the image is cached for its first instance
    contradiction_refused=False,
    public=True,  # 3.1; from 3.2 private. Who wants an image private has to look.
    lingers=True,
    false_for_unknown=False,
    instance_types=_LATER_TYPES,
)

# 4.0 to 4.3, each rule as strict as any of them had it.
EUCA4 = replace(
    EUCA3,
    paths=("/services/Eucalyptus", "/services/compute", "/"),
    names=frozenset({"ec2", "compute"}),  # in the cloud's own domain
    certificates_path="/services/Empyrean",  # 4.2
    actions=ec2_actions.EUCA4,
    errors=ec2_errors.EUCA4,
    signatures=frozenset({"v2", "v4"}),
    name_required=True,  # 4.2
    image_name=re.compile(r"[A-Za-z0-9()./_-]{3,128}"),  # 4.0 was the first to take dots
    ids=ImageIds("emi", "eki", "eri", digits=8),
    manifest_size=5 * MIB,
    reader_acls=frozenset({"aws-exec-read", "public-read", "public-read-write"}),
    signature_checked=frozenset({"register"}),  # 4.0.2 to 4.1
    user_checked=True,
    paravirtual_needs_both=True,
    hvm_alone=True,
    windows_is_hvm=True,
    public=False,
    lingers=False,
    token_listed=True,
    console_of_running=False,
)

# 4.4 to 5.1, with the ids of 5.1 in their long form.
EUCA5 = replace(
    EUCA4,
    actions=ec2_actions.EUCA5,
    errors=ec2_errors.EUCA5,
    replay_refused=False,
    ids=ImageIds("ami", "aki", "ari", digits=17),
    unknown_refused=True,
    signature_checked=frozenset(),
)

# Amazon's interface over another cloud. Both services live at the root of a host of their own; here they
# share one port, and a POST to the root is none of S3's operations. Nova's own interface, before it became a
# service of its own, was at the other two.
OPENSTACK = replace(
    SANDBOX,
    paths=("/", "/services/Cloud", "/services/Admin"),
    actions=ec2_actions.OPENSTACK,
    signatures=frozenset({"v4"}),
    # A date may be off by so much in both directions. 20 seconds and a quarter of an hour is Eucalyptus'.
    ahead=5 * 60,
    behind=5 * 60,
    name_required=True,
    image_name=EUCA4.image_name,
    ids=ImageIds("ami", "aki", "ari", digits=8),
    manifest_prefix=True,
    manifest_size=None,
    image_size=None,
    signature_checked=frozenset(),
    user_checked=False,
    # Nova knows them by libvirt's names, and refuses to start an image with any other.
    architectures=frozenset(
        {
            *("alpha", "armv6l", "armv7l", "aarch64", "i386", "i486", "i586", "i686", "ia64", "m68k", "mips"),
            *(
                "mipsel",
                "mips64",
                "mips64el",
                "parisc",
                "parisc64",
                "ppc",
                "ppc64",
                "ppc64le",
                "s390",
                "s390x",
            ),
            *("sparc", "sparc64", "x86_64", "amd64"),
        }
    ),
    mapping_refused=True,
    contradiction_refused=False,
    lifecycle=ImageLifecycle(looks=1),
    shared_with=None,
    imports_later=True,  # it answers once it has read the manifest, and fetches and opens the parts later
    groups_separate=True,
    instance_types=frozenset({"m1.tiny", "m1.small", "m1.medium", "m1.large", "m1.xlarge"}),
    unknown_type="Flavor {name} could not be found.",
    no_room="Quota exceeded for instances: Requested 1, but already used 10 of 10 instances",
)

AWS = replace(
    OPENSTACK,
    paths=("/",),
    actions=ec2_actions.AWS,
    image_name=re.compile(r"[A-Za-z0-9()\[\] ./'@_-]{3,128}"),
    tags=50,
    ids=ImageIds("ami", "aki", "ari", digits=17),
    parts_beside=True,
    image_size=10 * GIB,
    signature_checked=frozenset({"register", "run"}),
    user_checked=True,
    architectures=frozenset({"i386", "x86_64", "arm64"}),
    mapping_refused=False,
    imports_later=False,
    shared_with=_ACCOUNT,
    instance_types=_TYPES_OF_AMAZON,
    unknown_type="Invalid value '{name}' for InstanceType.",
    no_room="You have requested more instances (1) than your current instance limit of 0 allows.",
)

EC2_RULES: Mapping[str, Ec2Rules] = {
    "sandbox": SANDBOX,
    "uec": UEC,
    "euca3": EUCA3,
    "euca4": EUCA4,
    "euca5": EUCA5,
    "openstack": OPENSTACK,
    "aws": AWS,
}
