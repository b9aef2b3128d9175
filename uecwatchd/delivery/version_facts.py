"""The facts that decide about the versions of a set: read from ledger and cloud at one moment."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.image_uses import instances_by_image, references_by_image
from uecwatchd.clouds.images import AVAILABLE, Image, list_images
from uecwatchd.delivery.image_users import users_of
from uecwatchd.delivery.own_images import LEAVING_STATE, reason_not_ours
from uecwatchd.delivery.retire import VersionFacts
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import BundleRecord
from uecwatchd.ledger.versions import VersionRecord

UNKNOWN = "the ledger does not know its bundle"
OF_ANOTHER = "it belongs to another owner, who had this name before"


@dataclass(frozen=True, slots=True)
class AccountUse:
    """The use of images by the account itself, by image: instances, templates and other references."""

    instances: Mapping[str, tuple[str, ...]]
    references: Mapping[str, tuple[str, ...]]

    def of(self, image_id: str) -> tuple[str, ...]:
        instances = (f"instance {one}" for one in self.instances.get(image_id, ()))
        return (*instances, *self.references.get(image_id, ()))


def read_use(cloud: Cloud, image_ids: Iterable[str]) -> AccountUse:
    """Ask the cloud what uses these images. Raises its errors: then nothing is known about any image."""
    return AccountUse(instances_by_image(cloud), references_by_image(cloud, image_ids))


def read_facts(
    versions: Iterable[VersionRecord], cloud: Cloud, ledger: Ledger, *, host: str
) -> tuple[VersionFacts, ...]:
    """Read what is known about the versions of one set on one cloud. Raises the errors of the cloud."""
    there = [version for version in versions if version.is_in_cloud]
    owner = current_owner(there, ledger)
    listed = {image.id: image for image in list_images(cloud)}
    use = read_use(cloud, (one.image_id for one in there if one.image_id in listed))
    return tuple(
        _facts(one, listed.get(one.image_id), cloud, ledger, host=host, use=use, owner=owner) for one in there
    )


def current_owner(versions: Iterable[VersionRecord], ledger: Ledger) -> int | None:
    """Return the owner of the image in use; None if it is not known, or if users trust each other."""
    current = next((one for one in versions if one.state == "current"), None)
    bundle = ledger.bundle_of(current.cloud, current.image_id) if current else None
    return bundle.owner if bundle else None


def is_of_another(bundle: BundleRecord, owner: int | None) -> bool:
    """Tell if an image was made for another owner.

    A name can have a new owner once its files are gone.
    """
    return owner is not None and bundle.owner not in (None, owner)


def _facts(
    version: VersionRecord,
    image: Image | None,
    cloud: Cloud,
    ledger: Ledger,
    *,
    host: str,
    use: AccountUse,
    owner: int | None,
) -> VersionFacts:
    bundle = ledger.bundle_of(version.cloud, version.image_id)
    users = use.of(version.image_id)
    if bundle:
        users = (*users, *users_of(bundle, cloud, ledger, but=version.set_id).words)
    not_ours = reason_not_ours(bundle, image, cloud, host=host) if bundle else UNKNOWN
    if bundle and is_of_another(bundle, owner):
        not_ours = OF_ANOTHER
    return VersionFacts(
        version,
        is_listed=image is not None and image.state != LEAVING_STATE,
        is_available=image is not None and image.state == AVAILABLE,
        is_known=bundle is not None,
        not_ours=not_ours,
        users=users,
    )
