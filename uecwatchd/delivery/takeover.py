"""Takeover of uploads from a dead host: begun again under other names, registered after a wait.

The dead host may still be at work: frozen for a minute, or cut off from the database alone. What it had begun
cannot be stopped, so that nothing here may depend on it.

- Parts that it still sends must not get between ours. So an unfinished upload is begun again, in another
  generation: with another key, and names in the bucket that end with `-g1`, `-g2`, and so on. If it wakes up
  and finds out, it removes the parts that it has sent since.
- An upload that was finished is taken as it lies: the dead host has nothing more to send.
- Its request to register an image may still come through. So the list of the cloud is looked at, and nothing
  is registered before the request must have ended.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from uecwatchd.clouds.objects import list_objects, remove_object
from uecwatchd.clouds.registration import deregister
from uecwatchd.delivery.identity import generation_suffix, plan_bundle
from uecwatchd.delivery.request import UploadRequest, UploadTools
from uecwatchd.errors import Deferred, Overtaken
from uecwatchd.events import Event, Kind
from uecwatchd.ledger.records import BundleRecord
from uecwatchd.ledger.sessions import Claim


def is_overtaken(bundle: BundleRecord) -> bool:
    """Tell if an unfinished upload is to be begun again, because a dead host may still be sending it."""
    suffix = generation_suffix(bundle.generation)
    return bundle.state == "planned" and not bundle.prefix.endswith(suffix)


def begin_again(request: UploadRequest, begun: BundleRecord, tools: UploadTools) -> BundleRecord:
    """Remove the parts of a dead host, and return the record of an upload under other names."""
    fresh = plan_bundle(request, tools, begun.identity, generation=begun.generation, is_new=True)
    fresh = tools.ledger.put_bundle(fresh)
    _remove_objects(begun, tools)
    what = f"{request.made_for.name}: begins the upload of {begun.location} again, as {fresh.location}"
    why = "the host that began it was taken for dead"
    fields = {"cloud": tools.cloud.name, "file": request.member.path}
    tools.listener.tell(Event(Kind.WORKING, f"{what}: {why}", request.made_for, fields=fields))
    return fresh


@contextmanager
def removed_if_overtaken(bundle: BundleRecord, tools: UploadTools) -> Iterator[None]:
    """Remove our parts of an upload if another host has begun it again.

    Nobody else uses their names any more.
    """
    try:
        yield
    except Overtaken:
        now = tools.ledger.bundle(bundle.cloud, bundle.identity)
        if now and now.prefix != bundle.prefix:
            _remove_objects(bundle, tools)
        raise


def _remove_objects(bundle: BundleRecord, tools: UploadTools) -> None:
    for one in list_objects(tools.cloud, bundle.bucket, f"{bundle.prefix}."):
        remove_object(tools.cloud, bundle.bucket, one.key)


def check_settled(claim: Claim, known: BundleRecord | None, tools: UploadTools) -> None:
    """Raise Deferred while a dead host's request for an image may still come through."""
    if known is None or known.state != "registering" or known.image_id or not claim.settles_in:
        return
    raise Deferred(
        f"cloud {tools.cloud.name}, registering {known.location}",
        "a host that was taken for dead has asked for it, and its request may still come through for"
        f" {claim.settles_in:.0f} s",
        "It is looked at again by itself, and registered if no image has appeared.",
    )


def take_back(bundle: BundleRecord, image_id: str, tools: UploadTools) -> None:
    """Deregister an image of ours after another host took the work over, unless it uses this one.

    That host looks at the list before it registers: it finds ours, or has registered its own already.
    """
    now = tools.ledger.bundle(bundle.cloud, bundle.identity)
    if now and now.image_id and now.image_id != image_id:
        deregister(tools.cloud, image_id)
