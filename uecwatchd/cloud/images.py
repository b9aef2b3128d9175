"""Images as a cloud lists them, and how one of ours is found again.

What holds everywhere, and makes a second registration harmless, is the image's location: the cloud gives it
back as it was sent. It is looked for in the whole list of our own images, on our side, since the first
generation answers a question by id wrongly and one with filters not at all.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from uecwatchd.cloud.client import Cloud
from uecwatchd.cloud.refusal import code_of, translated

AVAILABLE = "available"

# A list grows with every image, so that asking for it once per set would make a thousand sets a million
# lines. Who else registers from our account does not do so every few seconds.
LATELY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Device:
    """A block device that an image brings along: a volume, or a local disk, which has a `virtual_name`.

    Numbers and truth are words, as the cloud wrote them; what it leaves out is empty.
    """

    name: str
    virtual_name: str = ""
    snapshot: str = ""
    size: str = ""  # GiB
    delete_on_termination: str = ""
    type: str = ""
    iops: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """A registered image, kernel or ramdisk, as the cloud lists it. Ids keep their case.

    `location` is `bucket/manifest` without a leading slash; what the cloud leaves out is empty.
    `reason` is its own word for a state that is not `available`.
    """

    id: str
    location: str
    state: str
    type: str
    arch: str
    kernel: str
    ramdisk: str
    name: str
    description: str
    owner: str
    public: bool
    platform: str
    root_device: str
    virtualization: str
    hypervisor: str
    reason: str
    tags: tuple[tuple[str, str], ...] = ()
    owner_alias: str = ""
    devices: tuple[Device, ...] = ()


def images(cloud: Cloud, *, owned: bool = True) -> tuple[Image, ...]:
    """All images of our account, or all that we may see, in the cloud's order."""
    return cloud.own_images.answer(partial(_own, cloud)) if owned else _asked(cloud)


def images_lately(cloud: Cloud) -> tuple[Image, ...]:
    """Our images as they were some seconds ago, and what this process has registered since.

    What is missing may be taken for missing. What is there may have left meanwhile: ask for `images`.
    """
    listed: tuple[Image, ...] = cloud.own_images.answer(partial(_own, cloud), age=LATELY_SECONDS)
    return listed


def one(cloud: Cloud, image_id: str, *, owned: bool = True) -> Image | None:
    """The image of just this id, ours or (where not `owned`) not. The case of its letters counts."""
    found_by_id = cloud.dialect.found_by_id
    listed = _asked_for(cloud, image_id) if found_by_id else images(cloud, owned=owned)
    return next((image for image in listed if image.id == image_id), None)


def registered(cloud: Cloud, image: Image) -> None:
    """Remember what was registered since the list was asked for."""
    cloud.own_images.amend(lambda listed: (*(old for old in listed if old.id != image.id), image))


def _own(cloud: Cloud) -> tuple[Image, ...]:
    return _asked(cloud, Owners=["self"])


def _asked(cloud: Cloud, **question: list[str]) -> tuple[Image, ...]:
    with translated(cloud, "listing its images"):
        answer = cloud.ec2.describe_images(**question)
    return tuple(_image(listed) for listed in answer.get("Images", []))


def _asked_for(cloud: Cloud, image_id: str) -> tuple[Image, ...]:
    with translated(cloud, f"looking for {image_id}"):
        try:
            answer = cloud.ec2.describe_images(ImageIds=[image_id])
        except ClientError as error:
            if code_of(error).startswith("InvalidAMIID"):
                return ()
            raise
    return tuple(_image(listed) for listed in answer.get("Images", []))


def at_location(cloud: Cloud, listed: Iterable[Image], location: str) -> Image | None:
    """The image registered from this manifest, if there is one that is or will be of use."""
    return _useful(cloud, (image for image in listed if image.location == _plain(location)))


def of_manifest(cloud: Cloud, listed: Iterable[Image], key: str) -> Image | None:
    """The same for a manifest of this name in whatever bucket."""
    return _useful(cloud, (image for image in listed if image.location.partition("/")[2] == key))


def of_name(listed: Iterable[Image], name: str) -> Image | None:
    """The image that keeps others from this name, where a name may be had once. One that failed does, too."""
    return next((image for image in listed if name and image.name == name), None)


def of_no_use(cloud: Cloud, listed: Iterable[Image], location: str) -> tuple[Image, ...]:
    """What was registered from this manifest and has failed, or is about to leave the list."""
    useful = _useful_states(cloud)
    return tuple(one for one in listed if one.location == _plain(location) and one.state not in useful)


def _useful(cloud: Cloud, candidates: Iterable[Image]) -> Image | None:
    found = [image for image in candidates if image.state in _useful_states(cloud)]
    return next((image for image in found if image.state == AVAILABLE), found[0] if found else None)


def _useful_states(cloud: Cloud) -> frozenset[str]:
    return cloud.dialect.pending_states | {AVAILABLE}


def _plain(location: str) -> str:
    return location.removeprefix("/")


def _image(listed: dict[str, Any]) -> Image:
    def word(key: str) -> str:
        return str(listed.get(key) or "")

    return Image(
        id=word("ImageId"),
        location=_plain(word("ImageLocation")),
        state=word("State"),
        type=word("ImageType"),
        arch=word("Architecture"),
        kernel=word("KernelId"),
        ramdisk=word("RamdiskId"),
        name=word("Name"),
        description=word("Description"),
        owner=word("OwnerId"),
        public=bool(listed.get("Public")),
        platform=word("Platform"),
        root_device=word("RootDeviceType"),
        virtualization=word("VirtualizationType"),
        hypervisor=word("Hypervisor"),
        reason=str((listed.get("StateReason") or {}).get("Message") or ""),
        tags=tuple((str(tag["Key"]), str(tag.get("Value") or "")) for tag in listed.get("Tags") or ()),
        owner_alias=word("ImageOwnerAlias"),
        devices=tuple(_device(mapped) for mapped in listed.get("BlockDeviceMappings") or ()),
    )


def _device(mapped: dict[str, Any]) -> Device:
    volume = mapped.get("Ebs") or {}
    return Device(
        name=_spelled(mapped.get("DeviceName")),
        virtual_name=_spelled(mapped.get("VirtualName")),
        snapshot=_spelled(volume.get("SnapshotId")),
        size=_spelled(volume.get("VolumeSize")),
        delete_on_termination=_spelled(volume.get("DeleteOnTermination")),
        type=_spelled(volume.get("VolumeType")),
        iops=_spelled(volume.get("Iops")),
    )


def _spelled(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
