"""What becomes of a registration that the cloud is not done with: waited for, made again once, or given up.

Nobody waits here for longer than moments. A set whose image is pending is put back with the image's id, and
looked at by the service's clock; it comes here again when there is something to do.
"""

from dataclasses import replace

from uecwatchd.clouds import registration
from uecwatchd.clouds.errors.connection import quoted
from uecwatchd.clouds.images import AVAILABLE, Image
from uecwatchd.delivery.request import Order
from uecwatchd.errors import BundleRefused, Deferred, Pending
from uecwatchd.events import Event, Kind
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import BundleRecord

# OpenStack fetches, joins and converts the whole bundle meanwhile: some minutes for tens of GiB.
WAIT_SECONDS = 1800.0
# What was registered is on the list at once, or as soon as several front ends agree on it.
UNLISTED_SECONDS = 120.0


def settled(order: Order, bundle: BundleRecord, image_id: str, ledger: Ledger) -> Image:
    """The image, once it is available. Raises `Pending`.

    Raises `BundleRefused` for one that has failed. Its bundle is forgotten then: what the cloud could not use
    once it will not use when it is registered again.
    """
    try:
        ready = registration.wait_until_available(
            order.cloud, image_id, pauses=order.patience.looks, sleep=order.sleep
        )
    except BundleRefused:
        ledger.drop_bundle(bundle)
        raise
    if ready is None:
        if bundle.state == "registering":
            ledger.put_bundle(replace(bundle, image_id=image_id))
        raise Pending(order.member.role, image_id)
    return ready


def is_overdue(order: Order, bundle: BundleRecord, there: Image) -> bool:
    """Whether an image has been pending for too long, or was to be taken back already before a crash."""
    begun = bundle.state == "uploaded" and bundle.image_id == there.id
    return begun or (there.state != AVAILABLE and order.waited.get(there.id, 0.0) >= WAIT_SECONDS)


def taken_back(order: Order, bundle: BundleRecord, there: Image, ledger: Ledger) -> BundleRecord:
    """Deregister an image of ours that is overdue; the bundle, to be registered again.

    Raises `Deferred` where that was done before, or where it is not ours to deregister.
    """
    ours = bundle.state in ("registering", "uploaded") and bundle.image_id == there.id
    if not ours or (bundle.renewed and bundle.state == "registering"):
        raise _given_up(order, there.id, f"it is still {quoted(there.state)} after {WAIT_SECONDS:.0f} s")
    bundle = ledger.put_bundle(replace(bundle, state="uploaded", renewed=True))
    _tell(order, f"deregistering {there.id}, {quoted(there.state)} for too long, to register it again")
    registration.deregister(order.cloud, there.id)
    return ledger.put_bundle(replace(bundle, image_id=""))


def missed(order: Order, bundle: BundleRecord, ledger: Ledger) -> BundleRecord:
    """The bundle of a pending image that is not on the list, to be registered again.

    Raises `Pending` while it may still come, `Deferred` where another one has gone before.
    """
    image_id = bundle.image_id
    if order.waited.get(image_id, 0.0) < UNLISTED_SECONDS:
        raise Pending(order.member.role, image_id)
    ledger.put_bundle(replace(bundle, image_id="", renewed=True))
    if bundle.renewed:
        raise _given_up(order, image_id, "it is not on the list of images")
    _tell(order, f"{image_id} is not on the list of images; registering it again")
    return replace(bundle, image_id="", renewed=True)


def _given_up(order: Order, image_id: str, why: str) -> Deferred:
    return Deferred(
        f"cloud {order.cloud.name}, waiting for {image_id}",
        why,
        "Ask its administrator what keeps it; it is not registered twice at a time.",
    )


def _tell(order: Order, what: str) -> None:
    fields = {"cloud": order.cloud.name}
    order.monitor.tell(
        Event(Kind.WORKING, f"{order.set_name}: {what}", order.set_name, "warning", fields=fields)
    )
