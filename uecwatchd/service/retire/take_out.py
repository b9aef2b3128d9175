"""One image that is taken out of a cloud, with its bundle, unless something needs it."""

from collections.abc import Callable

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.images import find_image
from uecwatchd.delivery.image_users import users_of
from uecwatchd.delivery.own_images import reason_not_ours
from uecwatchd.delivery.removal import remove_image
from uecwatchd.delivery.version_facts import UNKNOWN
from uecwatchd.events import Kind
from uecwatchd.ledger.records import BundleRecord
from uecwatchd.service.retire.context import Retirement
from uecwatchd.types import ID_WORDS, Role

# Of a set: what names the others leaves first.
ORDER: tuple[Role, ...] = ("machine", "ramdisk", "kernel")


def take_out(
    job: Retirement, cloud: Cloud, image_id: str, *, used: Callable[[str], tuple[str, ...]] | None = None
) -> str:
    """Remove an image and its bundle; return why it stays if it is not ours, or something uses it.

    Everything is looked at again while no set of this host can take the image. `used` tells of uses by the
    account. An image that neither ledger nor cloud know is gone already. Raises the errors of the cloud.
    """
    ledger = job.tools.ledger
    known = ledger.bundle_of(cloud.name, image_id)
    if known is None:
        return UNKNOWN if find_image(cloud, image_id) else ""
    with ledger.claim(known.claim, check=job.check_stop):
        bundle = ledger.bundle_of(cloud.name, image_id)
        if bundle is None:
            return ""
        if why := _reason_to_stay(job, cloud, bundle, used):
            return why
        job.check_stop()
        remove_image(cloud, bundle, ledger, check=job.check_stop)
    gone = f"deregistered {bundle.role} {image_id} on cloud {cloud.name}"
    what = f"{gone}, and deleted its bundle {bundle.location}"
    fields = {ID_WORDS[bundle.role]: image_id, "cloud": cloud.name, "bucket": bundle.bucket}
    job.tell(Kind.WITHDRAWN, what, fields=fields)
    return ""


def _reason_to_stay(
    job: Retirement, cloud: Cloud, bundle: BundleRecord, used: Callable[[str], tuple[str, ...]] | None
) -> str:
    users = (*(used(bundle.image_id) if used else ()),)
    users = users or users_of(bundle, cloud, job.tools.ledger, but=job.id).words
    if users:
        return f"{users[0]} uses it"
    return reason_not_ours(bundle, find_image(cloud, bundle.image_id), cloud, host=job.tools.host)


def boot_bundles(job: Retirement, name: str) -> list[BundleRecord]:
    """Return the bundles of the kernels and ramdisks that the set has made, or has now, ramdisks first."""
    images = job.record.target_on(name).images if job.record else ()
    own = {one.image_id for one in images if one.image_id}
    found = [
        one
        for one in job.tools.ledger.bundles(name)
        if one.role != "machine" and one.state == "registered"
        if one.made_for == job.id or one.image_id in own
    ]
    return sorted(found, key=lambda one: ORDER.index(one.role))
