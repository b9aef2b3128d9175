"""PutParameter and GetParameter, as JSON 1.1.

A parameter of the type `aws:ec2:image` is checked after it was answered: with an id that is no available
image, the request gets a 200, and the parameter stays as it was.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from werkzeug.wrappers import Response

from uecwatchd.sandbox.backend import Backend
from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.http.head import RequestHead
from uecwatchd.sandbox.http.signature import check_ssm
from uecwatchd.sandbox.state.parameters import StoredParameter

TARGET_HEADER = "x-amz-target"
SERVICE = "AmazonSSM."
CONTENT_TYPE = "application/x-amz-json-1.1"
NAME = re.compile(r"(/?[A-Za-z0-9_.-]+)+")
LONGEST_NAME = 1011
OF_IMAGE = "aws:ec2:image"
Fields = Mapping[str, Any]


def action_of(head: RequestHead) -> str:
    """Return the name of the operation that a request asks for; empty if it is not for this service."""
    target = head.headers.get(TARGET_HEADER, "")
    return target.removeprefix(SERVICE) if target.startswith(SERVICE) else ""


def authenticate(backend: Backend, head: RequestHead, body: bytes) -> None:
    """Check who signed the request. Raises `Unauthenticated`."""
    payload = hashlib.sha256(body).hexdigest()
    check_ssm(head, payload, secrets=backend.secrets, now=backend.clock(), rules=backend.rules.ec2)


def answer(backend: Backend, action: str, body: bytes) -> Response:
    """Carry out an operation. Raises `ApiError`."""
    try:
        fields = json.loads(body)
    except ValueError:
        raise ApiError("SerializationException", "The body is no JSON") from None
    operations = {"PutParameter": _put, "GetParameter": _get}
    if action not in operations:
        raise ApiError("UnknownOperationException", f"There is no {action} here")
    return written(operations[action](backend, fields))


def refuse(error: ApiError) -> Response:
    """Write an error as this service does."""
    return written({"__type": error.code, "message": error.message}, status=error.status)


def written(fields: Fields, *, status: int = 200) -> Response:
    return Response(json.dumps(fields), status=status, content_type=CONTENT_TYPE)


def _put(backend: Backend, fields: Fields) -> Fields:
    name, value = str(fields.get("Name", "")), str(fields.get("Value", ""))
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME or name.lstrip("/").startswith(("aws", "ssm")):
        raise ApiError("ValidationException", f"Invalid parameter name: {name}")
    if fields.get("Type") != "String" or not value:
        raise ApiError("ValidationException", "A parameter here is a String with a value")
    before = backend.parameters.find(name)
    if before and not fields.get("Overwrite"):
        raise ApiError("ParameterAlreadyExists", "The parameter already exists. Set overwrite to change it.")
    data_type = str(fields.get("DataType", "text"))
    version = before.version + 1 if before else 1
    image = backend.registry.find_image(value)
    if data_type != OF_IMAGE or (image and image.state == "available"):
        backend.parameters.put(StoredParameter(name, value, data_type, version))
    return {"Version": version, "Tier": "Standard"}


def _get(backend: Backend, fields: Fields) -> Fields:
    name = str(fields.get("Name", ""))
    found = backend.parameters.find(name)
    if found is None:
        raise ApiError("ParameterNotFound", f"There is no parameter {name}")
    return {
        "Parameter": {
            "Name": found.name,
            "Type": "String",
            "Value": found.value,
            "Version": found.version,
            "DataType": found.data_type,
        }
    }
