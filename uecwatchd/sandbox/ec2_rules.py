"""What the EC2 half insists on, and what it wants of a bundle that is registered."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Ec2Rules:
    """Sizes in bytes, windows in seconds."""

    path: str
    image_name: re.Pattern[str]
    description_length: int
    location_length: int
    manifest_size: int
    part_size: int
    image_size: int
    ahead: int  # how far in the future a request may be dated
    behind: int  # how old a request may be
    tags: int  # on one resource


EC2_RULES: Mapping[str, Ec2Rules] = {
    # What every generation accepts, apart from Name: Eucalyptus 1.6 refuses it, 4.2 demands it, so it is
    # optional.
    "sandbox": Ec2Rules(
        path="/services/Eucalyptus",
        image_name=re.compile(r"[A-Za-z0-9()/_-]{3,128}"),  # dots only from 4.0, commas only in 3.4
        description_length=255,
        location_length=255,  # one database column in every version
        manifest_size=100 * 1024,  # 1.6 reads no further, and says nothing
        part_size=11 * MIB,  # beyond this a node streams without ever retrying
        image_size=30 << 30,  # 30 GiB, the default limit of 3.4 to 5.1
        ahead=20,
        behind=15 * 60,
        tags=10,  # 4.x
    ),
}
