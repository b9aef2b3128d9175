"""Repair of a cloud's answers before botocore reads them.

Some servers answer with plain text, a web page, a bare `&` or nothing. botocore would only say that it could
not parse it, and lose both the message and the request's id, which is all that a cloud's administrator can
look for in the logs. And some might send a document that takes botocore a gigabyte to read.
"""

import http.client
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from html import unescape
from typing import Any
from xml.sax.saxutils import escape

from botocore.parsers import ResponseParserError

from uecwatchd.clouds.errors.xml_limits import BrokenXml, UnsafeXml, check_xml, pages
from uecwatchd.clouds.exchange_limits import AnswerTooLong

# Where S3 says it. What a body says of it is kept there too.
REQUEST_ID_HEADER = "x-amz-request-id"

# What is read of a body that says no more than one sentence: the longest seen is a Java stack trace of some
# ten KiB.
READ_BYTES = 64 * 1024

# What is read at once of any success but the one that may be long: a thousand keys of a kilobyte are less.
LONGEST_BYTES = 4 * 1024 * 1024
# The one that may be: the list of images, read a page at a time. Its element, and where its pages are found.
LISTING, LIST_ELEMENT, PAGES = "DescribeImages", "imagesSet", "Pages"

# Longer than those of any cloud, and no more than a line of a log has room for.
REQUEST_ID_CHARACTERS = 128

# What boto3 calls the uploads that it signs piece by piece, and some stores then keep with the object.
PLAIN = frozenset(("", "identity", "none", "aws-chunked"))

NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|&#(?:[0-8]|1[124-9]|2\\d|3[01]);")
BARE_AMPERSAND = re.compile(r"&(?!(?:amp|lt|gt|quot|apos|#\d+|#x[0-9A-Fa-f]+);)")
# Linear whatever the text, as each ends at the next `<`; and more digits than any character's number has.
TAG = re.compile(r"<[^<>]*>")
NO_CHARACTER = re.compile(r"&#(?=\d{8})")

S3_ERROR = "<Error><Code>{}</Code><Message>{}</Message></Error>"
EC2_ERROR = f"<Response><Errors>{S3_ERROR}</Errors></Response>"


class UnreadableAnswer(ResponseParserError):  # type: ignore[misc]  # botocore has no types
    """A success whose body cannot be read."""

    def __init__(self, text: str, request_id: str) -> None:
        super().__init__(text)
        self.request_id = request_id


class HugeAnswer(UnreadableAnswer):
    """A whole document whose parsing could take more memory than there is."""


class CompressedAnswer(UnreadableAnswer):
    """An answer in a form that nobody asked for. It is not unpacked: it might grow without limit."""


def repair_response(
    *,
    response_dict: dict[str, Any],
    operation_model: Any,
    customized_response_dict: dict[str, Any],
    **_: object,
) -> None:
    """Repair a response before botocore parses it (event `before-parse`).

    Raises UnreadableAnswer, HugeAnswer, CompressedAnswer, AnswerTooLong.
    """
    check_uncompressed(response_dict)
    if response_dict["status_code"] >= 300:
        _rewrite(response_dict, service=operation_model.service_model.service_name)
    elif response_dict["body"] and not operation_model.has_streaming_output:
        if operation_model.name == LISTING:
            first, *others = _repaired(response_dict, partial(pages, parent=LIST_ELEMENT))
            response_dict["body"], customized_response_dict[PAGES] = first, others
            return
        if len(response_dict["body"]) > LONGEST_BYTES:
            raise AnswerTooLong(limit=LONGEST_BYTES)
        (response_dict["body"],) = _repaired(response_dict, _checked)


def check_uncompressed(response: Mapping[str, Any]) -> None:
    """Raise CompressedAnswer if the body is compressed."""
    coding = str(response["headers"].get("Content-Encoding") or "").strip().lower()[:REQUEST_ID_CHARACTERS]
    if response["body"] and coding not in PLAIN:
        raise CompressedAnswer(f"Content-Encoding: {coding}", request_id_of(response, ""))


def _rewrite(response: dict[str, Any], *, service: str) -> None:
    """Rewrite an error's body as the XML that its protocol promises, from any kind of body."""
    status, text = response["status_code"], text_of(response)
    code, message = code_and_message(status, text)
    form = S3_ERROR if service == "s3" else EC2_ERROR
    response["body"] = NOT_XML.sub(" ", form.format(escape(code), escape(message))).encode()
    if request_id := request_id_of(response, text):
        response["headers"][REQUEST_ID_HEADER] = request_id


def code_and_message(status: int, text: str) -> tuple[str, str]:
    """Return the code and message of a refusal; the status and its meaning in HTTP replace missing ones."""
    code = element("Code", text) or str(status)
    message = element("Message", text) or _unescaped(TAG.sub(" ", text)).strip()
    return code, message or http.client.responses.get(status, "")


class RepairingParsers:
    """botocore's parser factory, with parsers that raise `UnreadableAnswer` for anything they fail on.

    A number that is none: they let through whatever Python raises there.
    """

    def __init__(self, factory: Any) -> None:
        self._factory = factory

    def create_parser(self, protocol: str) -> "_RepairingParser":
        return _RepairingParser(self._factory.create_parser(protocol))


class _RepairingParser:
    def __init__(self, parser: Any) -> None:
        self._parser = parser

    def parse(self, response: dict[str, Any], shape: Any) -> Any:
        try:
            return self._parser.parse(response, shape)
        except ResponseParserError:
            raise
        except Exception as error:  # of whatever class, as it is the answer that is wrong
            text = f"{type(error).__name__}: {str(error)[:READ_BYTES]}"
            raise UnreadableAnswer(text, request_id_of(response, "")) from error


def _repaired(response: dict[str, Any], read: Callable[[bytes], tuple[bytes, ...]]) -> tuple[bytes, ...]:
    """Return the body, without characters that XML forbids: a name or a description may hold them."""
    body: bytes = response["body"]
    try:
        return read(body)
    except BrokenXml as broken:
        why = str(broken)
    except UnsafeXml as error:
        raise HugeAnswer(str(error), request_id_of(response, "")) from error
    if len(body) <= LONGEST_BYTES:
        repaired = BARE_AMPERSAND.sub("&amp;", NOT_XML.sub(" ", body.decode(errors="replace")))
        with suppress(UnsafeXml):
            return read(repaired.encode())
    text = text_of(response)
    raise UnreadableAnswer(text or why, request_id_of(response, text))


def _checked(body: bytes) -> tuple[bytes]:
    check_xml(body)
    return (body,)


def text_of(response: Mapping[str, Any]) -> str:
    body: bytes = response["body"][:READ_BYTES]
    return body.decode(errors="replace")


def request_id_of(response: Mapping[str, Any], text: str) -> str:
    in_body = element("RequestID", text) or element("RequestId", text) or element("requestId", text)
    return str(response["headers"].get(REQUEST_ID_HEADER) or in_body)[:REQUEST_ID_CHARACTERS]


def element(name: str, text: str) -> str:
    """Return the text of the first element whose name matches the pattern. Takes time linear in the text."""
    found = re.search(rf"<(?:\w+:)?{name}\b[^<>]*>", text)
    end = text.find("</", found.end()) if found else -1
    return _unescaped(text[found.end() : end]).strip() if found and end >= 0 else ""


def _unescaped(text: str) -> str:
    """Replace character references. A number without a character stays: Python reads no number so long."""
    return unescape(NO_CHARACTER.sub("&amp;#", text))
