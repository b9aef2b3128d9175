"""What the cloud insists on, as data: one frozen row for each generation it can play.

This table is the cloud's own and is not the client's table of dialects: two tables written apart can
disagree, one cannot.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Rules:
    """Sizes in bytes, windows in seconds."""

    ec2_path: str
    s3_path: str
    bare_resource: bool  # S3 V2: whether a canonical resource without the service path is taken as well
    bucket_name: re.Pattern[str]
    bucket_quota: int
    image_name: re.Pattern[str]
    description_length: int
    location_length: int
    manifest_size: int
    part_size: int
    image_size: int
    ahead: int  # how far in the future an EC2 request may be dated
    behind: int  # how old an EC2 request may be
    window: int  # the same for S3, in both directions
    tags: int  # on one resource


RULES: Mapping[str, Rules] = {
    # What every generation accepts, apart from Name: Eucalyptus 1.6 refuses it, 4.2 demands it, so it is
    # optional.
    "sandbox": Rules(
        ec2_path="/services/Eucalyptus",
        s3_path="/services/Walrus",
        bare_resource=True,  # through 3.2 the service path had to be signed, from 3.3 either will do
        bucket_name=re.compile(r"[a-z0-9-]{3,63}"),
        bucket_quota=100,  # from 3.4; the older 5 would only forbid parallel tests
        image_name=re.compile(r"[A-Za-z0-9()/_-]{3,128}"),  # dots only from 4.0, commas only in 3.4
        description_length=255,
        location_length=255,  # one database column in every version
        manifest_size=100 * 1024,  # 1.6 reads no further, and says nothing
        part_size=11 * MIB,  # beyond this a node streams without ever retrying
        image_size=30 << 30,  # 30 GiB, the default limit of 3.4 to 5.1
        ahead=20,
        behind=15 * 60,
        window=15 * 60,
        tags=10,  # 4.x
    ),
}
