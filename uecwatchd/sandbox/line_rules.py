"""What each generation does with HTTP itself, before either half is asked."""

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class LineRules:
    """`ec2_server` and `s3_server` are what the halves say of themselves in the header Server; empty:
    nothing."""

    ec2_server: str
    s3_server: str
    requests: int  # on one connection
    announced: bool  # whether the last answer on a connection says that it is the last


_EUCALYPTUS = LineRules(ec2_server="", s3_server="", requests=100, announced=True)

LINE_RULES: Mapping[str, LineRules] = {
    "sandbox": replace(_EUCALYPTUS, ec2_server="uecwatchd-sandbox", s3_server="uecwatchd-sandbox"),
    "uec": replace(_EUCALYPTUS, announced=False),
    "euca3": _EUCALYPTUS,
    "euca4": _EUCALYPTUS,
    "euca5": _EUCALYPTUS,
    "openstack": _EUCALYPTUS,  # its servers have other numbers, none of them smaller
    "aws": replace(_EUCALYPTUS, ec2_server="AmazonEC2", s3_server="AmazonS3"),
}
