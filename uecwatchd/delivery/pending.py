"""Pending images, which the cloud is still making: await them, register them again once, then give up.

The upload waits for some moments only. A set whose image is still pending then is put back with the image's
id. The service's clock looks at the image, and the next attempt begins when there is something to do.
"""

from collections.abc import Iterable
from dataclasses import replace

from uecwatchd.clouds import registration
from uecwatchd.clouds.errors.connection import quoted
from uecwatchd.clouds.images import AVAILABLE, Image
from uecwatchd.delivery.request import UploadRequest, UploadTools
from uecwatchd.errors import BundleRefused, Deferred, Halted, Pending, Rejected
from uecwatchd.events import Event, Kind
from uecwatchd.ledger.records import BundleRecord

# OpenStack fetches, joins and converts the whole bundle in that time: some minutes for tens of GiB.
WAIT_SECONDS = 1800.0
# What was registered is on the list at once, or as soon as several front ends agree on it.
UNLISTED_SECONDS = 120.0


def is_available(bundle: BundleRecord, image_id: str, tools: UploadTools, *, pauses: Iterable[float]) -> bool:
    """Look at an image now, and after each of the pauses (seconds), until it is available.

    Raises BundleRefused for one that has failed, and forgets its bundle: what the cloud could not use once it
    cannot use when it is registered again.
    """
    try:
        ready = registration.wait_until_available(tools.cloud, image_id, pauses=pauses, sleep=tools.sleep)
    except BundleRefused:
        tools.ledger.drop_bundle(bundle)
        raise
    return ready is not None


def has_failed(image_id: str, tools: UploadTools) -> bool:
    """Look once if the cloud has given an image up. False also if it does not answer."""
    try:
        registration.wait_until_available(tools.cloud, image_id, pauses=(), sleep=tools.sleep)
    except BundleRefused:
        return True
    except (Deferred, Halted, Rejected):
        return False
    return False


def is_overdue(request: UploadRequest, bundle: BundleRecord, there: Image) -> bool:
    """Tell if an image has been pending for too long, or a crash interrupted its deregistration."""
    interrupted = bundle.state == "uploaded" and bundle.image_id == there.id
    waited = request.waited.get(there.id, 0.0)
    return interrupted or (there.state != AVAILABLE and waited >= WAIT_SECONDS)


def deregister_overdue(
    request: UploadRequest, bundle: BundleRecord, there: Image, tools: UploadTools
) -> BundleRecord:
    """Deregister an image of ours that is overdue, and return its bundle, to be registered again.

    Raises Deferred if that was done before, or if the image is not ours.
    """
    ours = bundle.state in ("registering", "uploaded") and bundle.image_id == there.id
    if not ours or (bundle.renewed and bundle.state == "registering"):
        raise _given_up(tools, there.id, f"it is still {quoted(there.state)} after {WAIT_SECONDS:.0f} s")
    bundle = tools.ledger.put_bundle(replace(bundle, state="uploaded", renewed=True))
    what = f"deregistering {there.id}, {quoted(there.state)} for too long, to register it again"
    _warn(request, tools, what)
    tools.ledger.sessions.sure()
    registration.deregister(tools.cloud, there.id)
    return tools.ledger.put_bundle(replace(bundle, image_id=""))


def renew_unlisted(request: UploadRequest, bundle: BundleRecord, tools: UploadTools) -> BundleRecord:
    """Return the bundle of a pending image that the cloud does not list, to be registered again.

    Raises Pending while the image may still appear, Deferred if another one disappeared before.
    """
    image_id = bundle.image_id
    if request.waited.get(image_id, 0.0) < UNLISTED_SECONDS:
        raise Pending({request.member.role: image_id})
    tools.ledger.put_bundle(replace(bundle, image_id="", renewed=True))
    if bundle.renewed:
        raise _given_up(tools, image_id, "it is not on the list of images")
    _warn(request, tools, f"{image_id} is not on the list of images; registering it again")
    return replace(bundle, image_id="", renewed=True)


def _given_up(tools: UploadTools, image_id: str, why: str) -> Deferred:
    return Deferred(
        f"cloud {tools.cloud.name}, waiting for {image_id}",
        why,
        "Ask its administrator what keeps it; it is not registered twice at a time.",
    )


def _warn(request: UploadRequest, tools: UploadTools, what: str) -> None:
    sentence, fields = f"{request.made_for.name}: {what}", {"cloud": tools.cloud.name}
    tools.listener.tell(Event(Kind.WORKING, sentence, request.made_for, "warning", fields=fields))
