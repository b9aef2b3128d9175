"""Answers as XML: nested mappings in, one document out."""

from collections.abc import Mapping
from xml.etree import ElementTree

EC2_NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
S3_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"

# None is left out, a tuple is a repeated element.
Value = str | int | bool | None | Mapping[str, "Value"] | tuple["Value", ...]
Payload = Mapping[str, Value]


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


def write_ec2(action: str, payload: Payload, *, request_id: str) -> bytes:
    return write_xml(f"{action}Response", {"requestId": request_id, **payload}, namespace=EC2_NAMESPACE)


def write_ec2_error(code: str, message: str, *, request_id: str) -> bytes:
    error = {"Error": {"Code": code, "Message": message}}
    return write_xml("Response", {"Errors": error, "RequestID": request_id})


def write_s3(root: str, payload: Payload) -> bytes:
    return write_xml(root, payload, namespace=S3_NAMESPACE)


def write_s3_error(code: str, message: str, *, resource: str, request_id: str) -> bytes:
    return write_xml(
        "Error", {"Code": code, "Message": message, "Resource": resource, "RequestId": request_id}
    )
