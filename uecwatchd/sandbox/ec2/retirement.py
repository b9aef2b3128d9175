"""EnableImageDeprecation, DisableImageDeprecation, DescribeImageReferences: Amazon's alone."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from uecwatchd.sandbox.backend import Backend
from uecwatchd.sandbox.ec2 import images
from uecwatchd.sandbox.ec2.parameters import Action, Parameters, read_list, required
from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.http.responses import Payload

LONGEST = timedelta(days=3652)  # ten years


def enable_deprecation(backend: Backend, parameters: Parameters) -> Payload:
    image = images.find(backend, required(parameters, "ImageId"))
    text = required(parameters, "DeprecateAt")
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ApiError("InvalidParameterValue", f"Invalid time: {text}") from None
    if not backend.clock() < at < backend.clock() + LONGEST:
        raise ApiError("InvalidParameterValue", "The time must be in the future, and within ten years")
    backend.registry.marks.deprecate(image.id, at.strftime("%Y-%m-%dT%H:%M:00.000Z"))
    return {"return": True}


def disable_deprecation(backend: Backend, parameters: Parameters) -> Payload:
    backend.registry.marks.restore(images.find(backend, required(parameters, "ImageId")).id)
    return {"return": True}


def describe_references(backend: Backend, parameters: Parameters) -> Payload:
    required(parameters, "ImageId.1")
    if parameters.get("IncludeAllResourceTypes") != "true":
        raise ApiError("MissingParameter", "Name resource types, or ask for all")
    found = backend.registry.marks.references(read_list(parameters, "ImageId"))
    items = tuple({"imageId": one.image, "resourceType": one.type, "arn": one.arn} for one in found)
    return {"imageReferenceSet": {"item": items}}


ACTIONS: Mapping[str, Action] = {
    "EnableImageDeprecation": enable_deprecation,
    "DisableImageDeprecation": disable_deprecation,
    "DescribeImageReferences": describe_references,
}
