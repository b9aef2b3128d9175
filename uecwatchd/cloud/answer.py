"""A cloud's answers, mended before botocore reads them.

Some servers answer with plain text, a web page, a bare `&` or nothing, of which botocore would keep no more
than that it could not parse it: neither what was said nor the request's id, which is all that a cloud's
administrator can look for in the logs.
"""

import http.client
import re
from html import unescape
from typing import Any
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from botocore.parsers import ResponseParserError

# Where S3 says it. What a body says of it is kept there too.
REQUEST_ID_HEADER = "x-amz-request-id"

# What is read of a body that says no more than one sentence: the longest seen is a Java stack trace of some
# ten KiB.
READ_BYTES = 64 * 1024

NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|&#(?:[0-8]|1[124-9]|2\\d|3[01]);")
BARE_AMPERSAND = re.compile(r"&(?!(?:amp|lt|gt|quot|apos|#\d+|#x[0-9A-Fa-f]+);)")

S3_ERROR = "<Error><Code>{}</Code><Message>{}</Message></Error>"
EC2_ERROR = f"<Response><Errors>{S3_ERROR}</Errors></Response>"


class Unreadable(ResponseParserError):  # type: ignore[misc]  # botocore has no types
    """A success of which nobody knows what it says."""

    def __init__(self, said: str, request_id: str) -> None:
        super().__init__(said)
        self.request_id = request_id


def mend(*, response_dict: dict[str, Any], operation_model: Any, **_: object) -> None:
    """For botocore's event `before-parse`. Raises `Unreadable`."""
    if response_dict["status_code"] >= 300:
        _rewrite(response_dict, service=operation_model.service_model.service_name)
    elif response_dict["body"] and not operation_model.has_streaming_output:
        response_dict["body"] = _parsable(response_dict)


def _rewrite(response: dict[str, Any], *, service: str) -> None:
    """Write an error's body anew as the XML that its protocol promises, from whatever came."""
    status, text = response["status_code"], _text(response)
    code = _element("Code", text) or str(status)
    message = _element("Message", text) or _plain(text) or http.client.responses.get(status, "")
    form = S3_ERROR if service == "s3" else EC2_ERROR
    response["body"] = NOT_XML.sub(" ", form.format(escape(code), escape(message))).encode()
    if request_id := _request_id(response, text):
        response["headers"][REQUEST_ID_HEADER] = request_id


def _parsable(response: dict[str, Any]) -> bytes:
    """The body as it came, or without what keeps XML from being read: a name or a description may hold it."""
    body: bytes = response["body"]
    if _is_xml(body):
        return body
    mended = BARE_AMPERSAND.sub("&amp;", NOT_XML.sub(" ", body.decode(errors="replace"))).encode()
    if _is_xml(mended):
        return mended
    text = _text(response)
    raise Unreadable(text, _request_id(response, text))


def _is_xml(body: bytes) -> bool:
    try:
        ET.fromstring(body)  # noqa: S314 (botocore reads it with the same parser)
    except ET.ParseError:
        return False
    return True


def _text(response: dict[str, Any]) -> str:
    body: bytes = response["body"][:READ_BYTES]
    return body.decode(errors="replace")


def _request_id(response: dict[str, Any], text: str) -> str:
    in_body = _element("RequestID", text) or _element("RequestId", text) or _element("requestId", text)
    return str(response["headers"].get(REQUEST_ID_HEADER) or in_body)


def _element(name: str, text: str) -> str:
    found = re.search(rf"<(?:\w+:)?{name}\b[^>]*>(.*?)</", text, re.DOTALL)
    return unescape(found[1]).strip() if found else ""


def _plain(text: str) -> str:
    return unescape(re.sub(r"<[^>]*>", " ", text)).strip()
