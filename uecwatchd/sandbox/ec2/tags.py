"""CreateTags, DescribeTags, DeleteTags."""

from collections.abc import Iterable, Mapping

from uecwatchd.sandbox.backend import Backend
from uecwatchd.sandbox.ec2 import images
from uecwatchd.sandbox.ec2.parameters import (
    Action,
    Parameters,
    matches,
    read_filters,
    read_groups,
    read_list,
    required,
)
from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.http.responses import Payload
from uecwatchd.sandbox.state.registry import Tag

KEY_LENGTH, VALUE_LENGTH = 127, 255  # characters, as EC2 had it at first
INSTANCE_PREFIX = "i-"
RESERVED = ("aws:", "euca:")
# The filter for each element of DescribeTags.
FILTERS = {"resourceId": "resource-id", "resourceType": "resource-type", "key": "key", "value": "value"}


def create(backend: Backend, parameters: Parameters) -> Payload:
    for tag in (tags := _read_tags(backend, parameters)):
        if not tag.key or len(tag.key) > KEY_LENGTH or len(tag.value) > VALUE_LENGTH:
            raise ApiError(
                "InvalidParameterValue", f"Tag keys have 1 to {KEY_LENGTH} characters, values {VALUE_LENGTH}"
            )
        if tag.key.startswith(RESERVED):
            raise ApiError("InvalidParameterValue", f"Tag keys starting with {tag.key[:5]} are reserved")
    if backend.faults.strikes("lost-tags"):
        return {"return": False}
    backend.registry.add_tags(tags, limit=backend.rules.ec2.tags)
    return {"return": True}


def delete(backend: Backend, parameters: Parameters) -> Payload:
    backend.registry.remove_tags(_read_tags(backend, parameters))
    return {"return": True}


def _read_tags(backend: Backend, parameters: Parameters) -> tuple[Tag, ...]:
    """Read each tag for each resource. Only images and instances have tags here."""
    required(parameters, "ResourceId.1")
    required(parameters, "Tag.1.Key")
    resources = [_find_resource(backend, resource) for resource in read_list(parameters, "ResourceId")]
    return tuple(
        Tag(resource, key, value) for resource in resources for key, value in _read_words(parameters)
    )


def _read_words(parameters: Parameters) -> list[tuple[str, str]]:
    return [(group.get("Key", ""), group.get("Value", "")) for group in read_groups(parameters, "Tag")]


def _find_resource(backend: Backend, resource: str) -> str:
    if not resource.startswith(INSTANCE_PREFIX):
        return images.find(backend, resource).id
    if all(instance.id != resource for instance in backend.registry.instances()):
        raise ApiError("InvalidInstanceID.NotFound", f"The instance id {resource} does not exist")
    return resource


def read_launch_tags(parameters: Parameters) -> list[tuple[str, str]]:
    """Read the tags of a launch. Raises `ApiError` for those of another kind of resource."""
    words = []
    for group in read_groups(parameters, "TagSpecification"):
        if group.get("ResourceType") != "instance":
            raise ApiError("InvalidParameterValue", "Only instances can be tagged as they are launched")
        words += _read_words(group)
    return words


def add_launch_tags(backend: Backend, words: Iterable[tuple[str, str]], instances: Iterable[str]) -> None:
    """Give launched instances their tags."""
    tags = [Tag(instance, key, value) for instance in instances for key, value in words]
    backend.registry.add_tags(tags, limit=backend.rules.ec2.tags)


def describe(backend: Backend, parameters: Parameters) -> Payload:
    filters = read_filters(parameters)
    items = (
        {
            "resourceId": tag.resource,
            "resourceType": "instance" if tag.resource.startswith(INSTANCE_PREFIX) else "image",
            "key": tag.key,
            "value": tag.value,
        }
        for tag in backend.registry.tags()
    )
    found = tuple(
        item for item in items if matches({FILTERS[name]: value for name, value in item.items()}, filters)
    )
    return {"tagSet": {"item": found}}


ACTIONS: Mapping[str, Action] = {
    "CreateTags": create,
    "DeleteTags": delete,
    "DescribeTags": describe,
}
