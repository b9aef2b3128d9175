"""Images as a cloud lists them, and the search for one of ours.

What holds everywhere, and makes a second registration harmless, is the image's location: the cloud gives it
back as it was sent. It is looked for in the whole list of our own images, on our side, since the first
generation answers a question by id wrongly and one with filters not at all.

An id is believed if it has the form of this kind of cloud, and what has another is no image of ours to
use: ids go into files that scripts read, and into requests.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from itertools import islice
from typing import Any

from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserFactory

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.errors.response_repair import LISTING, PAGES, RepairingParsers
from uecwatchd.clouds.errors.translate import code_of, translated
from uecwatchd.errors import Halted
from uecwatchd.types import Role

AVAILABLE = "available"

# A list grows with every image, so that asking for it once per set would make a thousand sets a million
# lines. Who else registers from our account does not do so every few seconds.
RECENT_SECONDS = 10.0

# What an account of a busy build host gathers in ten years, and some hundred megabytes of memory.
MOST_IMAGES = 100_000

# The longest word that is looked at, BUCKET/KEY, has 1,088.
WORD_CHARACTERS = 2048

# What any server takes for a bucket's name: a location with another one leads nowhere.
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")

# Of whatever generation: what may be shown, and compared.
ANY_ID = re.compile(r"[ae][mkr]i-([0-9A-Fa-f]{8}|[0-9A-Fa-f]{17})")

# Of `emi-12345678`, whatever the first letter.
KINDS: Mapping[Role, str] = {"machine": "mi", "kernel": "ki", "ramdisk": "ri"}


@dataclass(frozen=True, slots=True)
class Device:
    """A block device of an image: a volume, or a local disk with a `virtual_name`.

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
    """A registered image, kernel or ramdisk, as the cloud lists it. Ids keep their case; `id` is empty where
    what the cloud said is none.

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
    deprecated: str = ""  #: when it is, or was, deprecated


def list_images(cloud: Cloud, *, owned: bool = True) -> tuple[Image, ...]:
    """List all images of our account, or all that we may see, in the cloud's order."""
    return cloud.own_images.answer(partial(_own, cloud)) if owned else _asked(cloud)


def recent_images(cloud: Cloud) -> tuple[Image, ...]:
    """List our images as they were some seconds ago, with those that this process has registered since.

    A missing image is really missing. A listed one may be gone by now: call `list_images` to be sure.
    """
    listed: tuple[Image, ...] = cloud.own_images.answer(partial(_own, cloud), age=RECENT_SECONDS)
    return listed


def find_image(cloud: Cloud, image_id: str, *, owned: bool = True) -> Image | None:
    """Find the image of exactly this id, ours or (if not `owned`) any. The case of its letters counts."""
    found_by_id = cloud.dialect.found_by_id
    listed = _asked_for(cloud, image_id) if found_by_id else list_images(cloud, owned=owned)
    return next((image for image in listed if image.id == image_id), None)


def remember_image(cloud: Cloud, image: Image) -> None:
    """Remember what was registered since the list was asked for."""
    cloud.own_images.amend(lambda listed: (*(old for old in listed if old.id != image.id), image))


def _own(cloud: Cloud) -> tuple[Image, ...]:
    return _asked(cloud, Owners=["self"])


def _asked(cloud: Cloud, **question: list[str]) -> tuple[Image, ...]:
    with translated(cloud, "listing its images"):
        return parse_images(cloud, cloud.ec2.describe_images(**question))


def _asked_for(cloud: Cloud, image_id: str) -> tuple[Image, ...]:
    with translated(cloud, f"looking for {image_id}"):
        try:
            return parse_images(cloud, cloud.ec2.describe_images(ImageIds=[image_id]))
        except ClientError as error:
            if code_of(error).startswith("InvalidAMIID"):
                return ()
            raise


def parse_images(cloud: Cloud, answer: Mapping[str, Any]) -> tuple[Image, ...]:
    """Parse a list of images, page by page. Raises Halted for one that is too long."""
    found = tuple(_image(listed) for listed in islice(_listed(cloud, answer), MOST_IMAGES + 1))
    if len(found) <= MOST_IMAGES:
        return found
    raise Halted(
        f"cloud {cloud.name}, listing its images",
        f"it lists more than {MOST_IMAGES}",
        "Deregister what is old, or use an account of its own for this service.",
    )


def _listed(cloud: Cloud, answer: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield from answer.get("Images") or ()
    shape = cloud.ec2.meta.service_model.operation_model(LISTING).output_shape
    parser = RepairingParsers(ResponseParserFactory()).create_parser("ec2")
    for page in answer.get(PAGES) or ():
        yield from parser.parse({"body": page, "headers": {}, "status_code": HTTPStatus.OK}, shape)["Images"]


def is_id(cloud: Cloud, text: str, role: Role | None = None) -> bool:
    """Tell whether this kind of cloud gives such ids, to images of this role if one is named."""
    fits = cloud.dialect.id_pattern.fullmatch(text) is not None
    return fits and (role is None or text[1:3] == KINDS[role])


def image_at(cloud: Cloud, listed: Iterable[Image], location: str) -> Image | None:
    """Find the image registered from this manifest, if there is one that is or will be of use."""
    return _useful(cloud, (image for image in listed if image.location == _plain(location)))


def image_of_manifest(cloud: Cloud, listed: Iterable[Image], key: str) -> Image | None:
    """Find the image registered from a manifest of this name in any bucket."""
    return _useful(cloud, (image for image in listed if _key(image.location) == key))


def _key(location: str) -> str:
    bucket, _, key = location.partition("/")
    return key if BUCKET.fullmatch(bucket) else ""


def image_named(listed: Iterable[Image], name: str) -> Image | None:
    """Find the image that occupies a name, if names are unique there. A failed one occupies its name too."""
    return next((image for image in listed if name and image.name == name), None)


def failed_at(cloud: Cloud, listed: Iterable[Image], location: str) -> tuple[Image, ...]:
    """List images registered from this manifest that have failed or are about to leave the list."""
    useful = _useful_states(cloud)
    of_it = (one for one in listed if is_id(cloud, one.id) and one.location == _plain(location))
    return tuple(one for one in of_it if one.state not in useful)


def _useful(cloud: Cloud, candidates: Iterable[Image]) -> Image | None:
    found = [image for image in candidates if image.state in _useful_states(cloud)]
    found.sort(key=lambda image: (not is_id(cloud, image.id), image.state != AVAILABLE))
    if not found or is_id(cloud, found[0].id):
        return found[0] if found else None
    raise Halted(
        f"cloud {cloud.name}, looking for {found[0].location}",
        "it lists an image of it under an id that is none",
        f"See that the dialect ({cloud.dialect.name}) is right; if it is, ask the cloud's administrator.",
    )


def _useful_states(cloud: Cloud) -> frozenset[str]:
    return cloud.dialect.pending_states | {AVAILABLE}


def _plain(location: str) -> str:
    return location.removeprefix("/")


def _image(listed: dict[str, Any]) -> Image:
    def word(key: str) -> str:
        return _spelled(listed.get(key))

    return Image(
        id=word("ImageId") if ANY_ID.fullmatch(word("ImageId")) else "",
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
        reason=_spelled((listed.get("StateReason") or {}).get("Message")),
        tags=tuple(
            (_spelled(tag.get("Key")), _spelled(tag.get("Value"))) for tag in listed.get("Tags") or ()
        ),
        owner_alias=word("ImageOwnerAlias"),
        deprecated=word("DeprecationTime"),
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
    # Most of them are those of the image before.
    return "" if value is None else sys.intern(str(value)[:WORD_CHARACTERS])
