"""DescribeImages, DeregisterImage, and an image's attributes."""

from collections.abc import Collection, Iterable, Mapping

from uecwatchd.sandbox.backend import Realm
from uecwatchd.sandbox.ec2.parameters import (
    Action,
    Parameters,
    listed,
    numbered,
    passes,
    read_filters,
    required,
)
from uecwatchd.sandbox.errors import Refused
from uecwatchd.sandbox.http.responses import Payload, Value
from uecwatchd.sandbox.rules.ec2 import Ec2Rules
from uecwatchd.sandbox.state.registry import Image, Permission, Tag

LAUNCH_PERMISSION = "launchPermission"
EVERYBODY = Permission("group", "all")


def first_permissions(rules: Ec2Rules) -> tuple[Permission, ...]:
    """Who may launch an image before anybody said so."""
    return (EVERYBODY,) if rules.public else ()


def check_description(rules: Ec2Rules, description: str) -> None:
    if len(description) > rules.description_length:
        raise Refused(
            "InvalidParameterValue", f"A description has at most {rules.description_length} characters"
        )


def describe(realm: Realm, parameters: Parameters) -> Payload:
    """Looking is what brings pending images forward: the answer still shows them as they were."""
    filters = read_filters(parameters)
    owned = _names_us(realm, listed(parameters, "Owner"))
    users = listed(parameters, "ExecutableBy")
    tags = realm.registry.tags()
    images = _look_up(realm, listed(parameters, "ImageId"))
    images = [image for image in images if owned and _may_run(realm, image, users)]
    found = [image for image in images if passes(_facts(realm, image, tags), filters)]
    items = tuple(_item(realm, image, tags) for image in found)
    realm.registry.elapse()
    return {"imagesSet": {"item": items}}


def _look_up(realm: Realm, wanted: Collection[str]) -> list[Image]:
    """The images of these ids, or all if there are none."""
    rules, images = realm.rules.ec2, list(realm.registry.images())
    if not wanted:
        return images
    known = [image for image in images if image.id in wanted]
    if rules.lookup_broken:
        return [] if known else images
    if rules.unknown_refused:
        for image_id in wanted:
            find(realm, image_id)
    return known


def _names_us(realm: Realm, owners: Collection[str]) -> bool:
    """There is one account: an image is its own, or not asked for."""
    return not owners or not {"self", realm.identity.account}.isdisjoint(owners)


def _may_run(realm: Realm, image: Image, users: Collection[str]) -> bool:
    asked = "all" in users and not realm.rules.ec2.lookup_broken
    return _names_us(realm, users) or (asked and _is_public(realm, image))


def find(realm: Realm, image_id: str) -> Image:
    if not realm.rules.ec2.ids.pattern.fullmatch(image_id):
        raise Refused("InvalidAMIID.Malformed", f"Invalid id: {image_id}")
    image = realm.registry.find_image(image_id)
    if image is None:
        raise Refused("InvalidAMIID.NotFound", f"The image id {image_id} does not exist")
    return image


def _is_public(realm: Realm, image: Image) -> bool:
    return EVERYBODY in realm.registry.permissions(image.id)


def _facts(realm: Realm, image: Image, tags: Iterable[Tag]) -> Mapping[str, str]:
    """What filters can ask about."""
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
        "owner-id": realm.identity.account,
        "is-public": str(_is_public(realm, image)).lower(),
    }
    return facts | {f"tag:{tag.key}": tag.value for tag in tags if tag.resource == image.id}


def _item(realm: Realm, image: Image, tags: Iterable[Tag]) -> dict[str, Value]:
    mine = tuple({"key": tag.key, "value": tag.value} for tag in tags if tag.resource == image.id)
    return {
        "imageId": image.id,
        "imageLocation": image.location,
        "imageState": image.state,
        "imageOwnerId": realm.identity.account,
        "isPublic": _is_public(realm, image),
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
        "stateReason": {"message": image.reason} if image.state == "failed" else None,
        "tagSet": {"item": mine} if mine else None,
    }


def deregister(realm: Realm, parameters: Parameters) -> Payload:
    image_id = required(parameters, "ImageId")
    if realm.rules.ec2.false_for_unknown and realm.registry.find_image(image_id) is None:
        return {"return": False}
    image = find(realm, image_id)
    if realm.rules.ec2.lingers and image.state != "deregistered":
        realm.registry.set_image_state(image.id, "deregistered")
    else:
        realm.registry.remove_image(image.id)
    return {"return": True}


def modify_attribute(realm: Realm, parameters: Parameters) -> Payload:
    """Both forms: the old one (Attribute, OperationType, UserGroup.N, UserId.N, Value) that every server
    knows, and the later one (LaunchPermission.Add.N.Group, Description.Value)."""
    image = find(realm, required(parameters, "ImageId"))
    description = _new_description(parameters)
    add, remove = _new_permissions(parameters)
    for one in add + remove:
        _must_be_known(realm.rules.ec2, one)
    if realm.rules.ec2.groups_apart and len({one.kind for one in add + remove}) > 1:
        raise Refused("InvalidParameterCombination", "Groups and users cannot be changed by one call")
    if description is None and not add and not remove:
        raise Refused("InvalidParameterCombination", "No attribute to modify was given")
    if description is not None:
        check_description(realm.rules.ec2, description)
        realm.registry.describe(image.id, description)
    realm.registry.change_permissions(image.id, add=add, remove=remove)
    return {"return": True}


def _new_description(parameters: Parameters) -> str | None:
    if parameters.get("Attribute") == "description":
        return parameters.get("Value", "")
    return parameters.get("Description.Value")


def _new_permissions(parameters: Parameters) -> tuple[list[Permission], list[Permission]]:
    add = _permissions(numbered(parameters, "LaunchPermission.Add"))
    remove = _permissions(numbered(parameters, "LaunchPermission.Remove"))
    groups, users = listed(parameters, "UserGroup"), listed(parameters, "UserId")
    named = _permissions([{"Group": group} for group in groups] + [{"UserId": user} for user in users])
    if not named:
        return add, remove
    operation = parameters.get("OperationType")
    if parameters.get("Attribute") != LAUNCH_PERMISSION or operation not in ("add", "remove"):
        raise Refused("InvalidParameterCombination", "UserGroup and UserId need Attribute and OperationType")
    return (add + named, remove) if operation == "add" else (add, remove + named)


def _permissions(groups: Iterable[Parameters]) -> list[Permission]:
    return [
        Permission("group", g["Group"]) if "Group" in g else Permission("user", g["UserId"]) for g in groups
    ]


def _must_be_known(rules: Ec2Rules, one: Permission) -> None:
    if one.kind == "group":
        if one.value != "all":
            raise Refused("InvalidAMIAttributeItemValue", f"Invalid group: {one.value}")
    elif rules.shared_with is None:
        raise Refused("InvalidParameterCombination", "Operation type and group must be given, and no user")
    elif not rules.shared_with.fullmatch(one.value):
        raise Refused("InvalidAMIAttributeItemValue", f"Invalid account: {one.value}")


def describe_attribute(realm: Realm, parameters: Parameters) -> Payload:
    image = find(realm, required(parameters, "ImageId"))
    attribute = required(parameters, "Attribute")
    permissions = realm.registry.permissions(image.id)
    items = tuple({"group" if one.kind == "group" else "userId": one.value} for one in permissions)
    values: Mapping[str, Value] = {
        LAUNCH_PERMISSION: {"item": items},
        "description": {"value": image.description},
        "kernel": {"value": image.kernel},
        "ramdisk": {"value": image.ramdisk},
    }
    if attribute not in values:
        raise Refused("InvalidParameterValue", f"Invalid attribute: {attribute}")
    return {"imageId": image.id, attribute: values[attribute]}


def reset_attribute(realm: Realm, parameters: Parameters) -> Payload:
    image = find(realm, required(parameters, "ImageId"))
    if required(parameters, "Attribute") != LAUNCH_PERMISSION:
        raise Refused("InvalidParameterValue", "Only launchPermission can be reset")
    before, after = realm.registry.permissions(image.id), first_permissions(realm.rules.ec2)
    realm.registry.change_permissions(image.id, add=after, remove=before)
    return {"return": True}


ACTIONS: Mapping[str, Action] = {
    "DescribeImages": describe,
    "DeregisterImage": deregister,
    "ModifyImageAttribute": modify_attribute,
    "DescribeImageAttribute": describe_attribute,
    "ResetImageAttribute": reset_attribute,
}
