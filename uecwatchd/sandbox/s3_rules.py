"""What the S3 half insists on."""

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class S3Rules:
    """Windows in seconds."""

    path: str
    bare_resource: bool  # V2: whether a canonical resource without the service path is taken as well
    bucket_name: re.Pattern[str]
    bucket_quota: int
    window: int  # how far a request's date may be off, in both directions


S3_RULES: Mapping[str, S3Rules] = {
    # What every generation accepts.
    "sandbox": S3Rules(
        path="/services/Walrus",
        bare_resource=True,  # through 3.2 the service path had to be signed, from 3.3 either will do
        bucket_name=re.compile(r"[a-z0-9-]{3,63}"),
        bucket_quota=100,  # from 3.4; the older 5 would only forbid parallel tests
        window=15 * 60,
    ),
}
