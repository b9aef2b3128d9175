"""Answers as XML documents, from nested mappings."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.http.signature import Unauthenticated
from uecwatchd.sandbox.rules.ec2_errors import KINDS, ErrorForm, ErrorRules

EC2_NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
EMPYREAN_NAMESPACE = "http://msgs.eucalyptus.com/eucalyptus"
S3_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"

# None is left out, a tuple is a repeated element.
Value = str | int | bool | None | Mapping[str, "Value"] | tuple["Value", ...]
Payload = Mapping[str, Value]

# What S3's servers say where we have a code that is known to nobody else.
S3_CODES: Mapping[str, str] = {"SignatureReplayed": "AccessDenied"}

XML = "text/xml; charset=utf-8"
PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """An error answer ready to be sent. `code` is that of its XML, even if the body is plain."""

    status: int
    code: str
    body: bytes
    content_type: str


def write_xml(root: str, payload: Payload, *, namespace: str = "") -> bytes:
    element = ElementTree.Element(root, {"xmlns": namespace} if namespace else {})
    for name, value in payload.items():
        _add(element, name, value)
    text: bytes = ElementTree.tostring(element, encoding="utf-8", xml_declaration=True)
    return text


def _add(parent: ElementTree.Element, name: str, value: Value) -> None:
    if value is None:
        return
    if isinstance(value, tuple):
        for one in value:
            _add(parent, name, one)
        return
    child = ElementTree.SubElement(parent, name)
    if isinstance(value, Mapping):
        for inner, content in value.items():
            _add(child, inner, content)
    else:
        child.text = str(value).lower() if isinstance(value, bool) else str(value)


def write_ec2(action: str, payload: Payload, *, request_id: str, namespace: str = EC2_NAMESPACE) -> bytes:
    return write_xml(f"{action}Response", {"requestId": request_id, **payload}, namespace=namespace)


def write_ec2_error(code: str, message: str, *, request_id: str) -> bytes:
    error = {"Error": {"Code": code, "Message": message}}
    return write_xml("Response", {"Errors": error, "RequestID": request_id})


def write_ec2_refusal(refused: ApiError, errors: ErrorRules, *, request_id: str) -> ErrorResponse:
    """Write an error in the form of a generation with such rules."""
    kind = "forbidden" if isinstance(refused, Unauthenticated) else KINDS.get(refused.code)
    form = (errors.forms.get(kind) if kind else None) or ErrorForm(refused.status)
    code = form.code or refused.code
    sentence = errors.words.get(refused.code, form.words).format(message=refused.message)
    if form.plain:
        text = f"Failure: {form.status} {HTTPStatus(form.status).phrase}\n{sentence}\n\n"
        return ErrorResponse(form.status, code, text.encode(), PLAIN)
    body = write_ec2_error(code, sentence, request_id=request_id)
    if not errors.escaped:
        body = body.replace(escape(sentence).encode(), sentence.encode())
    return ErrorResponse(form.status, code, body, XML)


def write_s3(root: str, payload: Payload) -> bytes:
    return write_xml(root, payload, namespace=S3_NAMESPACE)


def write_s3_error(refused: ApiError, *, resource: str, request_id: str) -> bytes:
    code = S3_CODES.get(refused.code, refused.code)
    where = {"Resource": resource, "RequestId": request_id}
    return write_xml("Error", {"Code": code, "Message": refused.message, **where})
