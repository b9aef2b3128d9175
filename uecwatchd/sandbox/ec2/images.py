"""DescribeImages, DeregisterImage, and an image's attributes."""

from collections.abc import Collection, Iterable, Mapping

from uecwatchd.sandbox.backend import Backend
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
from uecwatchd.sandbox.http.responses import Payload, Value
from uecwatchd.sandbox.rules.ec2 import Ec2Rules
from uecwatchd.sandbox.state.registry import LaunchPermission, RegisteredImage, Tag

LAUNCH_PERMISSION = "launchPermission"
EVERYBODY = LaunchPermission("group", "all")


def first_permissions(rules: Ec2Rules) -> tuple[LaunchPermission, ...]:
    """Return the launch permissions of a new image."""
    return (EVERYBODY,) if rules.public else ()


def check_description(rules: Ec2Rules, description: str) -> None:
    if len(description) > rules.description_length:
        raise ApiError(
            "InvalidParameterValue", f"A description has at most {rules.description_length} characters"
        )


def describe(backend: Backend, parameters: Parameters) -> Payload:
    """Answer DescribeImages, then bring pending images one step forward.

    The answer still shows them as they were.
    """
    filters = read_filters(parameters)
    owned = _names_us(backend, read_list(parameters, "Owner"))
    users = read_list(parameters, "ExecutableBy")
    tags = backend.registry.tags()
    images = _look_up(backend, read_list(parameters, "ImageId"))
    images = [image for image in images if owned and _may_run(backend, image, users)]
    found = [image for image in images if matches(_facts(backend, image, tags), filters)]
    deprecations = backend.registry.marks.deprecations()
    items = tuple(_item(backend, image, tags, deprecations) for image in found)
    backend.registry.advance_pending()
    return {"imagesSet": {"item": items}}


def _look_up(backend: Backend, wanted: Collection[str]) -> list[RegisteredImage]:
    """Return the images of these ids, or all images if no id is given."""
    rules, images = backend.rules.ec2, list(backend.registry.images())
    if not wanted:
        return images
    known = [image for image in images if image.id in wanted]
    if rules.lookup_broken:
        return [] if known else images
    if rules.unknown_refused:
        for image_id in wanted:
            find(backend, image_id)
    return known


def _names_us(backend: Backend, owners: Collection[str]) -> bool:
    """Tell if the one account is among `owners`; no owner at all means anybody."""
    return not owners or not {"self", backend.identity.account}.isdisjoint(owners)


def _may_run(backend: Backend, image: RegisteredImage, users: Collection[str]) -> bool:
    asked = "all" in users and not backend.rules.ec2.lookup_broken
    return _names_us(backend, users) or (asked and _is_public(backend, image))


def find(backend: Backend, image_id: str) -> RegisteredImage:
    if not backend.rules.ec2.ids.pattern.fullmatch(image_id):
        raise ApiError("InvalidAMIID.Malformed", f"Invalid id: {image_id}")
    image = backend.registry.find_image(image_id)
    if image is None:
        raise ApiError("InvalidAMIID.NotFound", f"The image id {image_id} does not exist")
    return image


def _is_public(backend: Backend, image: RegisteredImage) -> bool:
    return EVERYBODY in backend.registry.permissions(image.id)


def _facts(backend: Backend, image: RegisteredImage, tags: Iterable[Tag]) -> Mapping[str, str]:
    """Return the values that filters compare with."""
    facts = {
        "image-id": image.id,
        "name": image.name,
        "description": image.description,
        "state": image.state,
        "image-type": image.type,
        "manifest-location": image.location,
        "architecture": image.architecture,
        "kernel-id": image.kernel,
        "ramdisk-id": image.ramdisk,
        "virtualization-type": image.virtualization,
        "owner-id": backend.identity.account,
        "is-public": str(_is_public(backend, image)).lower(),
    }
    return facts | {f"tag:{tag.key}": tag.value for tag in tags if tag.resource == image.id}


def _item(
    backend: Backend, image: RegisteredImage, tags: Iterable[Tag], deprecations: Mapping[str, str]
) -> dict[str, Value]:
    mine = tuple({"key": tag.key, "value": tag.value} for tag in tags if tag.resource == image.id)
    return {
        "imageId": image.id,
        "imageLocation": image.location,
        "imageState": image.state,
        "imageOwnerId": backend.identity.account,
        "isPublic": _is_public(backend, image),
        "architecture": image.architecture,
        "imageType": image.type,
        "kernelId": image.kernel or None,
        "ramdiskId": image.ramdisk or None,
        "name": image.name or None,
        "description": image.description or None,
        "rootDeviceType": "instance-store",
        "virtualizationType": image.virtualization or None,
        "hypervisor": "kvm",
        "creationDate": image.registered.replace("+00:00", "Z"),
        "platform": image.platform or None,
        "deprecationTime": deprecations.get(image.id),
        "stateReason": {"message": image.reason} if image.state == "failed" else None,
        "tagSet": {"item": mine} if mine else None,
    }


def deregister(backend: Backend, parameters: Parameters) -> Payload:
    image_id = required(parameters, "ImageId")
    if backend.rules.ec2.false_for_unknown and backend.registry.find_image(image_id) is None:
        return {"return": False}
    image = find(backend, image_id)
    if backend.rules.ec2.lingers and image.state != "deregistered":
        backend.registry.set_image_state(image.id, "deregistered")
    else:
        backend.registry.remove_image(image.id)
    return {"return": True}


def modify_attribute(backend: Backend, parameters: Parameters) -> Payload:
    """Change an image's description or launch permissions, asked in either form.

    The old form (Attribute, OperationType, UserGroup.N, UserId.N, Value) is known to every server; the later
    one is LaunchPermission.Add.N.Group and Description.Value.
    """
    image = find(backend, required(parameters, "ImageId"))
    description = _new_description(parameters)
    add, remove = _new_permissions(parameters)
    for one in add + remove:
        _must_be_known(backend.rules.ec2, one)
    if backend.rules.ec2.groups_separate and len({one.kind for one in add + remove}) > 1:
        raise ApiError("InvalidParameterCombination", "Groups and users cannot be changed by one call")
    if description is None and not add and not remove:
        raise ApiError("InvalidParameterCombination", "No attribute to modify was given")
    if description is not None:
        check_description(backend.rules.ec2, description)
        backend.registry.describe(image.id, description)
    backend.registry.change_permissions(image.id, add=add, remove=remove)
    return {"return": True}


def _new_description(parameters: Parameters) -> str | None:
    if parameters.get("Attribute") == "description":
        return parameters.get("Value", "")
    return parameters.get("Description.Value")


def _new_permissions(parameters: Parameters) -> tuple[list[LaunchPermission], list[LaunchPermission]]:
    add = _permissions(read_groups(parameters, "LaunchPermission.Add"))
    remove = _permissions(read_groups(parameters, "LaunchPermission.Remove"))
    groups, users = read_list(parameters, "UserGroup"), read_list(parameters, "UserId")
    named = _permissions([{"Group": group} for group in groups] + [{"UserId": user} for user in users])
    if not named:
        return add, remove
    operation = parameters.get("OperationType")
    if parameters.get("Attribute") != LAUNCH_PERMISSION or operation not in ("add", "remove"):
        raise ApiError("InvalidParameterCombination", "UserGroup and UserId need Attribute and OperationType")
    return (add + named, remove) if operation == "add" else (add, remove + named)


def _permissions(groups: Iterable[Parameters]) -> list[LaunchPermission]:
    return [
        LaunchPermission("group", g["Group"]) if "Group" in g else LaunchPermission("user", g["UserId"])
        for g in groups
    ]


def _must_be_known(rules: Ec2Rules, one: LaunchPermission) -> None:
    if one.kind == "group":
        if one.value != "all":
            raise ApiError("InvalidAMIAttributeItemValue", f"Invalid group: {one.value}")
    elif rules.shared_with is None:
        raise ApiError("InvalidParameterCombination", "Operation type and group must be given, and no user")
    elif not rules.shared_with.fullmatch(one.value):
        raise ApiError("InvalidAMIAttributeItemValue", f"Invalid account: {one.value}")


def describe_attribute(backend: Backend, parameters: Parameters) -> Payload:
    image = find(backend, required(parameters, "ImageId"))
    attribute = required(parameters, "Attribute")
    permissions = backend.registry.permissions(image.id)
    items = tuple({"group" if one.kind == "group" else "userId": one.value} for one in permissions)
    values: Mapping[str, Value] = {
        LAUNCH_PERMISSION: {"item": items},
        "description": {"value": image.description},
        "kernel": {"value": image.kernel},
        "ramdisk": {"value": image.ramdisk},
    }
    if attribute not in values:
        raise ApiError("InvalidParameterValue", f"Invalid attribute: {attribute}")
    return {"imageId": image.id, attribute: values[attribute]}


def reset_attribute(backend: Backend, parameters: Parameters) -> Payload:
    image = find(backend, required(parameters, "ImageId"))
    if required(parameters, "Attribute") != LAUNCH_PERMISSION:
        raise ApiError("InvalidParameterValue", "Only launchPermission can be reset")
    before, after = backend.registry.permissions(image.id), first_permissions(backend.rules.ec2)
    backend.registry.change_permissions(image.id, add=after, remove=before)
    return {"return": True}


ACTIONS: Mapping[str, Action] = {
    "DescribeImages": describe,
    "DeregisterImage": deregister,
    "ModifyImageAttribute": modify_attribute,
    "DescribeImageAttribute": describe_attribute,
    "ResetImageAttribute": reset_attribute,
}
