"""HTTP rules of each generation, before either half is asked.

The answers for unknown paths were read in the servers' sources (`NioServerHandler.exceptionCaught` and
`sendError`). Up to 2.0 such a path is an exception like any other, answered with 500 and a line of text; 2.0
adds the exception's message. From 3.0 on the answer is a 404 in XML.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class UnknownPath:
    """The answer at a path that neither half serves."""

    status: int
    body: str
    content_type: str = "text/plain; charset=UTF-8"


# Of this cloud itself, and of those in whose place any web server may stand.
_HELPFUL = UnknownPath(404, "Nothing is here. Look at / for what is.\n", "text/plain; charset=utf-8")
# 1.6; 2.0 has the exception's message in a second line, `null` if there is none.
_FAILURE = UnknownPath(500, "Failure: 500 Internal Server Error\r\n")
_FAULT = UnknownPath(
    404,
    '<?xml version="1.0"?><Response><Errors><Error><Code>404 Not Found</Code><Message>unknown</Message>'
    "</Error></Errors><RequestID>unknown</RequestID></Response>",
)


@dataclass(frozen=True, slots=True)
class HttpRules:
    """HTTP of a generation.

    `ec2_server` and `s3_server` are the halves' values of the header Server, or empty. `unknown_path` is the
    answer at a path that neither half serves.
    """

    ec2_server: str
    s3_server: str
    requests: int  # on one connection
    announced: bool  # whether the last answer on a connection says that it is the last
    unknown_path: UnknownPath


_EUCALYPTUS = HttpRules(ec2_server="", s3_server="", requests=100, announced=True, unknown_path=_FAULT)
_OTHERS = replace(_EUCALYPTUS, unknown_path=_HELPFUL)

HTTP_RULES: Mapping[str, HttpRules] = {
    "sandbox": replace(_OTHERS, ec2_server="uecwatchd-sandbox", s3_server="uecwatchd-sandbox"),
    "uec": replace(_EUCALYPTUS, announced=False, unknown_path=_FAILURE),
    "euca3": _EUCALYPTUS,
    "euca4": _EUCALYPTUS,
    "euca5": _EUCALYPTUS,
    "openstack": _OTHERS,  # its servers have other numbers, none of them smaller
    "aws": replace(_OTHERS, ec2_server="AmazonEC2", s3_server="AmazonS3"),
}
