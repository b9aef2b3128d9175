"""The verb `images`: the images in a cloud, in the columns of euca-describe-images.

One line for an image, then one for each of its block devices, then one for each of its tags. Fields are
separated by tabs, and a missing value is an empty field, so that scripts can count (euca2ools 3.4):

    IMAGE id location owner state public|private architecture type kernel ramdisk platform root-device-type
        virtualization hypervisor
    BLOCKDEVICEMAPPING EBS device snapshot size delete-on-termination type iops
    BLOCKDEVICEMAPPING EPHEMERAL device virtual-name
    TAG image id key value

The location is BUCKET/MANIFEST, even if the image has a name; the owner is an alias if there is one.
One field is not in euca2ools: the line of an image that this host made has a fifteenth field, `here`.

The list has the images of our account, or all that we may see. Images that others let us start are not a
separate list, as in euca2ools: the first generation returns an empty list for them.
"""

import argparse
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from uecwatchd.cli.options import MADE_HERE
from uecwatchd.cli.output import put_json, put_row, say
from uecwatchd.clouds.connect import connect
from uecwatchd.clouds.images import Device, Image
from uecwatchd.clouds.images import list_images as images_of
from uecwatchd.config.load import load
from uecwatchd.config.records import Settings
from uecwatchd.errors import Halted
from uecwatchd.images import digests
from uecwatchd.intake.sidecar import read_defaults
from uecwatchd.ledger.open import read_ledger
from uecwatchd.ledger.records import BundleRecord, SetRecord
from uecwatchd.ledger.standing import seen_from
from uecwatchd.system.signals import NEVER, Stop, stop_on_signals
from uecwatchd.types import ContentDigest

Row = tuple[str, ...]


# --- the verb ---------------------------------------------------------------------------------------------


def images(arguments: argparse.Namespace) -> int:
    settings = load(arguments.config, environ=os.environ)
    name = arguments.cloud or read_defaults(settings.defaults).clouds[0]
    found = gathered(settings, name, owned=not arguments.all, stop=stop_on_signals(code=os.EX_TEMPFAIL))
    shown = [one for one in found if one.origin or not arguments.made_here]
    if arguments.json:
        put_json([as_json(one) for one in shown])
        return os.EX_OK
    for one in shown:
        for row in rows(one):
            put_row(row)
    if not shown:
        say(f"Cloud {name} lists no such image.")
    return os.EX_OK


def gathered(settings: Settings, name: str, *, owned: bool, stop: Stop = NEVER) -> tuple["ListedImage", ...]:
    """Return the images of a configured cloud, all or our account's own. Raises the cloud's errors."""
    if name not in settings.clouds:
        why = f"the configuration has {', '.join(sorted(settings.clouds)) or 'none'}"
        raise Halted(f"there is no cloud named {name}", why, "Name one of them.")
    ledger = read_ledger(settings)
    bundles = ledger.bundles(name) if ledger else ()
    sets = ledger.sets_on(name) if ledger else ()
    before = ledger.clouds() if ledger else {}
    if ledger:
        ledger.close()
    cloud = connect(settings.clouds[name], uploads=1, before=before, stop=stop)
    listed = images_of(cloud, owned=owned)
    if strange := sum(not image.id for image in listed):
        say(f"Cloud {name} lists {strange} more with invalid ids; ask its administrator.")
    return with_origins(listed, bundles=bundles, sets=[seen_from(record, name) for record in sets])


# --- what is shown ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Origin:
    """An image's source on this host: the SHA-256 of the content, and the sets that have it now."""

    digest: ContentDigest
    sets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image in a cloud. `origin` is None if another host made it."""

    image: Image
    origin: Origin | None


def with_origins(
    listed: Iterable[Image], *, bundles: Iterable[BundleRecord], sets: Iterable[SetRecord]
) -> tuple[ListedImage, ...]:
    """Return the listed images sorted by id, each once.

    `bundles` are those of the same cloud, and `sets` are as seen from it.
    """
    contents = {bundle.image_id: bundle.digest for bundle in bundles if bundle.registered is not None}
    held = [(image.image_id, record.name) for record in sets for image in record.target.images]
    by_id = {image.id: image for image in listed if image.id}
    return tuple(ListedImage(by_id[each], _origin(each, contents, held)) for each in sorted(by_id))


def _origin(
    image_id: str, contents: Mapping[str, ContentDigest], held: Iterable[tuple[str, str]]
) -> Origin | None:
    if image_id not in contents:
        return None
    return Origin(contents[image_id], tuple(sorted({name for one, name in held if one == image_id})))


def rows(listed: ListedImage) -> Iterator[Row]:
    """Yield the fields of each line."""
    image = listed.image
    yield _line(image) + ((MADE_HERE,) if listed.origin else ())
    for device in image.devices:
        yield _mapping(device)
    for key, value in image.tags:
        yield "TAG", "image", image.id, key, value


def _line(image: Image) -> Row:
    return (
        "IMAGE",
        image.id,
        image.location,
        image.owner_alias or image.owner,
        image.state,
        "public" if image.public else "private",
        image.arch,
        image.type,
        image.kernel,
        image.ramdisk,
        image.platform,
        image.root_device,
        image.virtualization,
        image.hypervisor,
    )


def _mapping(device: Device) -> Row:
    if device.virtual_name:
        return "BLOCKDEVICEMAPPING", "EPHEMERAL", device.name, device.virtual_name
    volume = (device.snapshot, device.size, device.delete_on_termination, device.type, device.iops)
    return "BLOCKDEVICEMAPPING", "EBS", device.name, *volume


def as_json(one: ListedImage) -> dict[str, object]:
    """Return an image for programs; `made_here` is null if another host made it."""
    image, origin = one.image, one.origin
    return {
        "id": image.id,
        "location": image.location,
        "name": image.name,
        "description": image.description,
        "owner": image.owner,
        "state": image.state,
        "reason": image.reason,
        "public": image.public,
        "architecture": image.arch,
        "type": image.type,
        "kernel": image.kernel,
        "ramdisk": image.ramdisk,
        "platform": image.platform,
        "root_device_type": image.root_device,
        "virtualization": image.virtualization,
        "hypervisor": image.hypervisor,
        "tags": dict(image.tags),
        "made_here": {**digests.json_fields(origin.digest), "sets": list(origin.sets)} if origin else None,
    }
