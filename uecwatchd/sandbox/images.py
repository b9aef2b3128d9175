"""RegisterImage, DescribeImages, DeregisterImage, and an image's attributes."""

import re
from collections.abc import Collection, Iterable, Mapping

from uecwatchd.sandbox import content, inspection
from uecwatchd.sandbox.manifest import Claims
from uecwatchd.sandbox.parameters import (
    Action,
    Parameters,
    action,
    listed,
    numbered,
    passes,
    read_filters,
    required,
)
from uecwatchd.sandbox.realm import Realm
from uecwatchd.sandbox.refusal import Refused
from uecwatchd.sandbox.registry import Image, Permission, Tag
from uecwatchd.sandbox.reply import Payload, Value

IMAGE_ID = re.compile(r"e[mkr]i-[0-9A-F]{8}")
ACCOUNT = re.compile(r"[0-9]{12}")
LAUNCH_PERMISSION = "launchPermission"


def register(realm: Realm, parameters: Parameters) -> Payload:
    """One location may be registered twice and gets two ids, as on real servers: the client has to look
    first."""
    location = required(parameters, "ImageLocation").removeprefix("/")
    name, description = _read_words(realm, parameters)
    virtualization = _read_virtualization(parameters)
    bundle = inspection.read_bundle(realm.store, realm.identity, realm.rules.ec2, location)
    _check_agreement(parameters, bundle.claims)
    _check_member(realm, bundle.claims.kernel, type_="kernel")
    _check_member(realm, bundle.claims.ramdisk, type_="ramdisk")
    found = inspection.inspect(bundle)
    if virtualization == "hvm" and not content.is_disk(found.head):
        raise Refused("InvalidManifest", "An hvm image must be a whole disk with a boot sector")
    draft = Image(
        id="",
        location=location,
        manifest_sha256=bundle.manifest_sha256,
        type=bundle.claims.type,
        architecture=bundle.claims.architecture,
        kernel=bundle.claims.kernel or "",
        ramdisk=bundle.claims.ramdisk or "",
        virtualization=virtualization if bundle.claims.type == "machine" else "",
        name=name,
        description=description,
        size=bundle.claims.size,
        state="available",
        reason="",
        registered=realm.clock().isoformat(timespec="milliseconds"),
    )
    return {"imageId": realm.registry.add_image(draft).id}


def _read_words(realm: Realm, parameters: Parameters) -> tuple[str, str]:
    name, description = parameters.get("Name", ""), parameters.get("Description", "")
    if "Name" in parameters and not realm.rules.ec2.image_name.fullmatch(name):
        raise Refused("InvalidAMIName.Malformed", "AMI names have 3 to 128 letters, digits, ( ) / - _")
    _check_description(realm, description)
    realm.registry.check_name(name)
    return name, description


def _check_description(realm: Realm, description: str) -> None:
    if len(description) > realm.rules.ec2.description_length:
        raise Refused(
            "InvalidParameterValue",
            f"A description has at most {realm.rules.ec2.description_length} characters",
        )


def _read_virtualization(parameters: Parameters) -> str:
    word = parameters.get("VirtualizationType", "paravirtual")
    if word not in ("paravirtual", "hvm"):
        raise Refused("InvalidParameterValue", f"VirtualizationType cannot be {word}")
    return word


def _check_agreement(parameters: Parameters, claims: Claims) -> None:
    """What the request says as well must not contradict the manifest: servers differ in which of them
    wins."""
    claimed = {"Architecture": claims.architecture, "KernelId": claims.kernel, "RamdiskId": claims.ramdisk}
    for name, value in claimed.items():
        if name in parameters and parameters[name] != value:
            raise Refused("InvalidParameterValue", f"{name} is {parameters[name]}, the manifest says {value}")


def _check_member(realm: Realm, image_id: str | None, *, type_: str) -> None:
    """A kernel or ramdisk named in a machine's manifest."""
    if image_id is None:
        return
    found = realm.registry.find_image(image_id)
    if found is None or found.type != type_:
        raise Refused("InvalidAMIID.NotFound", f"Referenced {type_} id is invalid: {image_id}")


def describe(realm: Realm, parameters: Parameters) -> Payload:
    wanted = listed(parameters, "ImageId")
    for image_id in wanted:
        find(realm, image_id)
    filters = read_filters(parameters)
    owned = _names_us(realm, listed(parameters, "Owner"))
    users = listed(parameters, "ExecutableBy")
    tags = realm.registry.tags()
    images = [image for image in realm.registry.images() if not wanted or image.id in wanted]
    images = [image for image in images if owned and _may_run(realm, image, users)]
    found = [image for image in images if passes(_facts(realm, image, tags), filters)]
    return {"imagesSet": {"item": tuple(_item(realm, image, tags) for image in found)}}


def _names_us(realm: Realm, owners: Collection[str]) -> bool:
    """There is one account: an image is its own, or not asked for."""
    return not owners or not {"self", realm.identity.account}.isdisjoint(owners)


def _may_run(realm: Realm, image: Image, users: Collection[str]) -> bool:
    return _names_us(realm, users) or ("all" in users and _is_public(realm, image))


def find(realm: Realm, image_id: str) -> Image:
    if not IMAGE_ID.fullmatch(image_id):
        raise Refused("InvalidAMIID.Malformed", f"Invalid id: {image_id}")
    image = realm.registry.find_image(image_id)
    if image is None:
        raise Refused("InvalidAMIID.NotFound", f"The image id {image_id} does not exist")
    return image


def _is_public(realm: Realm, image: Image) -> bool:
    return Permission("group", "all") in realm.registry.permissions(image.id)


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
        "stateReason": {"message": image.reason} if image.reason else None,
        "tagSet": {"item": mine} if mine else None,
    }


def deregister(realm: Realm, parameters: Parameters) -> Payload:
    realm.registry.remove_image(find(realm, required(parameters, "ImageId")).id)
    return {"return": True}


def modify_attribute(realm: Realm, parameters: Parameters) -> Payload:
    """Both forms: the old one (Attribute, OperationType, UserGroup.N, UserId.N, Value) that every server
    knows, and the later one (LaunchPermission.Add.N.Group, Description.Value)."""
    image = find(realm, required(parameters, "ImageId"))
    description = _new_description(parameters)
    add, remove = _new_permissions(parameters)
    if description is None and not add and not remove:
        raise Refused("InvalidParameterCombination", "No attribute to modify was given")
    if description is not None:
        _check_description(realm, description)
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
    found = [
        Permission("group", g["Group"]) if "Group" in g else Permission("user", g["UserId"]) for g in groups
    ]
    for one in found:
        if one.kind == "group" and one.value != "all":
            raise Refused("InvalidAMIAttributeItemValue", f"Invalid group: {one.value}")
        if one.kind == "user" and not ACCOUNT.fullmatch(one.value):
            raise Refused("InvalidAMIAttributeItemValue", f"Invalid account: {one.value}")
    return found


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
    realm.registry.change_permissions(image.id, add=(), remove=realm.registry.permissions(image.id))
    return {"return": True}


ACTIONS: Mapping[str, Action] = {
    "RegisterImage": action(
        register,
        *(
            "ImageLocation",
            "Name",
            "Description",
            "Architecture",
            "KernelId",
            "RamdiskId",
            "VirtualizationType",
        ),
    ),
    "DescribeImages": action(describe, "ImageId.N", "Owner.N", "ExecutableBy.N", filters=True),
    "DeregisterImage": action(deregister, "ImageId"),
    "ModifyImageAttribute": action(
        modify_attribute,
        *("ImageId", "Attribute", "OperationType", "UserGroup.N", "UserId.N", "Value", "Description.Value"),
        *(f"LaunchPermission.{verb}.N.{what}" for verb in ("Add", "Remove") for what in ("Group", "UserId")),
    ),
    "DescribeImageAttribute": action(describe_attribute, "ImageId", "Attribute"),
    "ResetImageAttribute": action(reset_attribute, "ImageId", "Attribute"),
}
