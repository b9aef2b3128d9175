"""Users of an image: sets, bundles, images, instances and templates that need it to stay.

Two sources: the ledger knows what this host has made of it, the cloud what the account does with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.images import AVAILABLE, Image, list_images
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import BundleRecord, SetRecord
from uecwatchd.ledger.standing import seen_from
from uecwatchd.types import SetId


def sets_using(bundle: BundleRecord, ledger: Ledger, *, but: SetId) -> tuple[SetId, ...]:
    """Return the other sets that use this image, or work on the same content and may use it soon."""
    # The contents first: a set that gets the image in between has been seen without it.
    records = (
        *ledger.sets_with_content(bundle.digest),
        *ledger.sets_with_image(bundle.cloud, bundle.image_id),
    )
    used = {record.id for record in records if record.id != but and _uses(record, bundle)}
    used |= {set_id for set_id in _sets_by_another_name(bundle, ledger) if set_id != but}
    versions = ledger.versions.of_image(bundle.cloud, bundle.image_id)
    used |= {version.set_id for version in versions if version.set_id != but and version.is_in_cloud}
    return tuple(sorted(used))


def _sets_by_another_name(bundle: BundleRecord, ledger: Ledger) -> Iterator[SetId]:
    """Yield the sets with this image on a cloud of another name: one account may be configured twice."""
    for other in ledger.bundles_with_image(bundle.image_id) if bundle.image_id else ():
        if other.cloud != bundle.cloud:
            yield from (one.id for one in ledger.sets_with_image(other.cloud, other.image_id))


def _uses(record: SetRecord, bundle: BundleRecord) -> bool:
    target = next((target for target in record.targets if target.cloud == bundle.cloud), None)
    member = next((member for member in record.members if member.role == bundle.role), None)
    if target is None or member is None:
        return False
    image_id = target.image(bundle.role).image_id
    if image_id:
        return image_id == bundle.image_id
    return seen_from(record, bundle.cloud).state != "withdrawn" and member.digest == bundle.digest


def bundles_booting(bundle: BundleRecord, ledger: Ledger) -> tuple[BundleRecord, ...]:
    """Return the bundles of this host whose manifests name this kernel or ramdisk, begun or registered."""
    if bundle.role == "machine" or not bundle.image_id:
        return ()
    others = ledger.bundles(bundle.cloud)
    return tuple(one for one in others if bundle.image_id in one.boot.split())


def images_booting(bundle: BundleRecord, cloud: Cloud) -> tuple[Image, ...]:
    """Return the images of the account that start with this kernel or ramdisk, now or soon."""
    if bundle.role == "machine":
        return ()
    states = {AVAILABLE, *cloud.dialect.pending_states}
    listed = (image for image in list_images(cloud) if image.state in states)
    return tuple(image for image in listed if bundle.image_id in (image.kernel, image.ramdisk))


@dataclass(frozen=True, slots=True)
class ImageUsers:
    """Reasons for an image to stay, as words for people."""

    words: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.words)

    def __str__(self) -> str:
        first, *others = self.words or ("nothing",)
        return f"{first} and {len(others)} more" if others else first


def users_of(bundle: BundleRecord, cloud: Cloud, ledger: Ledger, *, but: SetId) -> ImageUsers:
    """Return the users of an image beside one set, except instances and templates."""
    return ImageUsers(tuple(_users(bundle, cloud, ledger, but)))


def _users(bundle: BundleRecord, cloud: Cloud, ledger: Ledger, but: SetId) -> Iterator[str]:
    yield from (f"set {set_id.name}" for set_id in sets_using(bundle, ledger, but=but))
    listed = {image.id for image in images_booting(bundle, cloud)}
    yield from (f"image {image_id}" for image_id in sorted(listed))
    others = (one for one in bundles_booting(bundle, ledger) if one.image_id not in listed)
    yield from (f"bundle {one.location}" for one in others)
