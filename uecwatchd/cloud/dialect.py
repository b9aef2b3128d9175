"""What each generation of cloud accepts: one frozen record per generation, and nothing else knows.

No other code asks which dialect it speaks to; it reads a field.
A fact that is the same everywhere is not here: all are addressed by path, and a machine's manifest
always carries its kernel's and ramdisk's ids, since every server reads them there.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from uecwatchd.image import Role

# What RegisterImage takes beside ImageLocation, from the generation on that first bound each name.
# Older servers refuse the whole request for one parameter that they do not know.
_DESCRIBED = frozenset({"Name", "Description", "Architecture", "KernelId", "RamdiskId"})
_VIRTUALIZED = _DESCRIBED | {"VirtualizationType"}

# Accepted by every server that takes a name at all: dots came with Eucalyptus 4.0.
_NAME_EVERYWHERE = re.compile(r"[A-Za-z0-9()/_-]{3,128}")
_NAME_WITH_DOTS = re.compile(r"[A-Za-z0-9()./_-]{3,128}")
_NAME_OF_AWS = re.compile(r"[A-Za-z0-9()\[\] ./'@_-]{3,128}")

# Everywhere.
NAME_MINIMUM, NAME_LIMIT = 3, 128

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one generation of cloud wants to be spoken to."""

    name: str
    ec2_signature: Literal["v2", "v4"]
    s3_signature: Literal["s3", "s3v4"]  # botocore's words for S3's V2 and V4
    canned_acl: str | None  # lets the cloud itself read manifest and parts; None: it reads them anyway
    register_parameters: frozenset[str]  # what RegisterImage may be sent beside ImageLocation
    name_pattern: re.Pattern[str] | None  # of a whole image name; None: an image has no name
    paravirtual_needs: frozenset[Role]  # what a paravirtual machine image must have beside it
    boots_disk_alone: bool  # a whole disk without kernel and ramdisk boots (HVM)
    pending_states: frozenset[str]  # an image in one of these may still become available
    manifest_limit: int | None  # bytes; a longer manifest is misread or refused
    lists_url_encoded: bool  # knows the encoding-type key; others refuse a query key they do not know
    regional: bool  # has a known address per region, and wants a new bucket's region named


UEC = Dialect(
    name="uec",
    ec2_signature="v2",
    s3_signature="s3",
    canned_acl=None,
    register_parameters=frozenset(),
    name_pattern=None,
    paravirtual_needs=frozenset({"kernel"}),
    boots_disk_alone=False,
    pending_states=frozenset(),
    manifest_limit=100 * KIB,
    lists_url_encoded=False,
    regional=False,
)
EUCA3 = Dialect(
    name="euca3",
    ec2_signature="v2",
    s3_signature="s3",
    canned_acl=None,
    register_parameters=_DESCRIBED,
    name_pattern=_NAME_EVERYWHERE,
    paravirtual_needs=frozenset({"kernel"}),
    boots_disk_alone=False,
    pending_states=frozenset(),
    manifest_limit=10 * MIB,
    lists_url_encoded=False,
    regional=False,
)
EUCA4 = Dialect(
    name="euca4",
    ec2_signature="v4",  # V2 works too, but up to 4.1 a V2 signature is refused the second time
    s3_signature="s3",
    canned_acl="aws-exec-read",
    register_parameters=_VIRTUALIZED,
    name_pattern=_NAME_WITH_DOTS,
    paravirtual_needs=frozenset({"kernel", "ramdisk"}),
    boots_disk_alone=True,
    pending_states=frozenset({"pending"}),  # while it turns a paravirtual image into a whole disk
    manifest_limit=5 * MIB,
    lists_url_encoded=True,
    regional=False,
)
EUCA5 = Dialect(
    name="euca5",
    ec2_signature="v4",
    s3_signature="s3v4",
    canned_acl="aws-exec-read",
    register_parameters=_VIRTUALIZED,
    name_pattern=_NAME_WITH_DOTS,
    paravirtual_needs=frozenset({"kernel", "ramdisk"}),
    boots_disk_alone=True,
    pending_states=frozenset({"pending"}),
    manifest_limit=5 * MIB,
    lists_url_encoded=True,
    regional=False,
)
OPENSTACK = Dialect(
    name="openstack",
    ec2_signature="v4",
    s3_signature="s3v4",
    canned_acl="aws-exec-read",  # many S3 servers behind it refuse that: the upload then goes on without
    register_parameters=_VIRTUALIZED,
    name_pattern=_NAME_WITH_DOTS,
    paravirtual_needs=frozenset(),
    boots_disk_alone=True,
    pending_states=frozenset({"pending"}),
    manifest_limit=None,
    lists_url_encoded=True,
    regional=False,
)
AWS = Dialect(
    name="aws",
    ec2_signature="v4",
    s3_signature="s3v4",
    canned_acl="aws-exec-read",
    register_parameters=_VIRTUALIZED,
    name_pattern=_NAME_OF_AWS,
    paravirtual_needs=frozenset({"kernel"}),
    boots_disk_alone=True,
    pending_states=frozenset({"pending"}),
    manifest_limit=None,
    lists_url_encoded=True,
    regional=True,
)
# The embedded cloud is sent what every generation takes, and beside that only what no manifest can say:
# a name, a description, and that an image is no paravirtual one.
SANDBOX = Dialect(
    name="sandbox",
    ec2_signature="v4",
    s3_signature="s3v4",
    canned_acl="aws-exec-read",
    register_parameters=frozenset({"Name", "Description", "VirtualizationType"}),
    name_pattern=_NAME_EVERYWHERE,
    paravirtual_needs=frozenset({"kernel"}),
    boots_disk_alone=True,
    pending_states=frozenset({"pending"}),
    manifest_limit=100 * KIB,
    lists_url_encoded=False,
    regional=False,
)

DIALECTS: Mapping[str, Dialect] = {
    known.name: known for known in (UEC, EUCA3, EUCA4, EUCA5, OPENSTACK, AWS, SANDBOX)
}


def fitting_name(dialect: Dialect, name: str) -> str:
    """The nearest name that the cloud takes, empty where images have none.

    Characters it refuses become hyphens; a name that is too long loses its middle, for what
    tells it from others may stand at its end.
    """
    if dialect.name_pattern is None:
        return ""
    spelled = "".join(c if dialect.name_pattern.fullmatch(c * NAME_MINIMUM) else "-" for c in name)
    if len(spelled) > NAME_LIMIT:
        spelled = f"{spelled[: NAME_LIMIT // 2]}{spelled[-NAME_LIMIT // 2 :]}"
    return spelled.ljust(NAME_MINIMUM, "-")
