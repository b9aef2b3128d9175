"""Images as a cloud knows them: registered, found again, and waited for.

What holds everywhere, and makes a second registration harmless, is the image's location: the cloud gives it
back as it was sent. It is looked for in the whole list of our own images, on our side, since the first
generation answers a question by id wrongly and one with filters not at all.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from uecwatchd import boundary
from uecwatchd.cloud.client import Cloud
from uecwatchd.cloud.dialect import fitting_name
from uecwatchd.cloud.refusal import code_of, translated
from uecwatchd.errors import CloudAway, Deferred, Rejected

AVAILABLE = "available"
WINDOWS = "windows"

# Eucalyptus marks an image at the first request and takes it off its list at the second.
DEREGISTER_CALLS = 2

# OpenStack fetches, joins and converts the whole bundle meanwhile: some minutes for tens of GiB.
WAIT_SECONDS = 1800.0

# Often enough for a person who waits, and never two equal requests in one second, which Eucalyptus 3 takes
# for a replay.
POLL_EVERY_SECONDS = 3.0


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
    whose = {"Owners": ["self"]} if owned else {}
    with translated(cloud, "listing its images"):
        answer = cloud.ec2.describe_images(**whose)
    return tuple(_image(listed) for listed in answer.get("Images", []))


def has(cloud: Cloud, image_id: str) -> bool:
    """Whether there is an image of just this id, ours or not. The case of its letters counts."""
    if not cloud.dialect.found_by_id:
        return any(image.id == image_id for image in images(cloud, owned=False))
    with translated(cloud, f"looking for {image_id}"):
        try:
            answer = cloud.ec2.describe_images(ImageIds=[image_id])
        except ClientError as error:
            if code_of(error).startswith("InvalidAMIID"):
                return False
            raise
    return any(listed.get("ImageId") == image_id for listed in answer.get("Images", []))


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


def register(
    cloud: Cloud,
    *,
    location: str,
    name: str,
    description: str | None,
    arch: str,
    kernel: str | None,
    ramdisk: str | None,
    virtualization: str | None,
    platform: str,
) -> str:
    """Register a manifest; the new image's id. Only what the dialect takes is sent.

    After a `CloudAway` nobody knows whether it was carried out: look with `at_location` before asking again.
    """
    wanted = {
        "Name": fitting_name(cloud.dialect, name),
        "Description": description,
        "Architecture": arch,
        "KernelId": kernel,
        "RamdiskId": ramdisk,
        "VirtualizationType": virtualization,
        "Platform": platform if platform == WINDOWS else None,  # no other is ever named
    }
    taken = {key: wanted[key] for key in wanted if key in cloud.dialect.register_parameters and wanted[key]}
    doing = f"registering {location}"
    with translated(cloud, doing), boundary.effect("RegisterImage"):
        answer = cloud.ec2.register_image(ImageLocation=location, **taken)
    if image_id := answer.get("ImageId"):
        return str(image_id)
    why = "it answered without an id"
    raise CloudAway(
        f"cloud {cloud.name}, {doing}",
        why,
        "It is not registered twice: the cloud's list is looked through first.",
    )


def wait(
    cloud: Cloud,
    image_id: str,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    timeout: float = WAIT_SECONDS,
) -> Image:
    """Watch an image until it is available; one that is not listed yet is waited for as well.

    Raises `Rejected` if it fails, `Deferred` when `timeout` seconds have not been enough, and whatever
    `sleep` raises: that is how the wait is put down.
    """
    deadline = clock() + timeout
    while True:
        image = _by_id(images(cloud), image_id)
        if image and image.state == AVAILABLE:
            return image
        if image and image.state not in cloud.dialect.pending_states:
            raise _failed(cloud, image)
        if clock() >= deadline:
            raise _too_slow(cloud, image_id, image, timeout)
        sleep(POLL_EVERY_SECONDS)


def deregister(cloud: Cloud, image_id: str) -> None:
    """Take an image off the cloud's list, if it is there. Raises `Deferred` if it stays."""
    if _by_id(images(cloud), image_id) is None:
        return
    for _ in range(DEREGISTER_CALLS):
        with translated(cloud, f"deregistering {image_id}"), boundary.effect("DeregisterImage"):
            try:
                cloud.ec2.deregister_image(ImageId=image_id)
            except ClientError as error:
                if not code_of(error).startswith("InvalidAMIID"):
                    raise
        if _by_id(images(cloud), image_id) is None:
            return
    raise Deferred(
        f"cloud {cloud.name}, deregistering {image_id}",
        f"it is still listed after {DEREGISTER_CALLS} requests",
        "An instance of it may have to end first.",
    )


def probe(cloud: Cloud) -> None:
    """Ask both halves for what only a known user gets. Raises what is wrong."""
    with translated(cloud, "listing its buckets"):
        cloud.s3.list_buckets()
    images(cloud)


def _plain(location: str) -> str:
    return location.removeprefix("/")


def _by_id(listed: Iterable[Image], image_id: str) -> Image | None:
    return next((image for image in listed if image.id == image_id), None)


def _failed(cloud: Cloud, image: Image) -> Rejected:
    said = f" ({image.reason})" if image.reason else ""
    return Rejected(
        f"cloud {cloud.name}, registering {image.location}",
        f"{image.id} is {image.state}{said}",
        "See that the image boots on this cloud; its administrator's logs say more about the id.",
    )


def _too_slow(cloud: Cloud, image_id: str, image: Image | None, timeout: float) -> Deferred:
    state = f"still {image.state}" if image else "not listed"
    return Deferred(
        f"cloud {cloud.name}, waiting for {image_id}",
        f"it is {state} after {timeout:.0f} s",
        "It is not registered twice.",
    )


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
