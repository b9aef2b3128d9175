"""Stale uploads: bundles that a set began and will never finish, because its files have changed.

Nothing else knows of these objects; they would stay in the bucket for ever.
"""

from dataclasses import replace

from uecwatchd.clouds.images import image_at, list_images
from uecwatchd.clouds.objects import list_objects, remove_object
from uecwatchd.delivery.request import UploadRequest, UploadTools
from uecwatchd.errors import Stopped, UecError
from uecwatchd.events import Event, Fields, Kind, Level
from uecwatchd.ledger.records import BundleRecord


def remove_stale_uploads(request: UploadRequest, tools: UploadTools, *, but: str) -> None:
    """Remove the set's unfinished bundles of this role from the bucket, except the one of identity `but`.

    What cannot be removed is reported, and stays in the ledger. The upload goes on.
    """
    ledger, cloud = tools.ledger, tools.cloud.name
    for left in ledger.unfinished(cloud, made_for=request.made_for, role=request.member.role):
        if left.identity == but:
            continue
        with ledger.claim(f"{left.cloud}/{left.identity}", check=tools.check_stop):
            try:
                _remove(request, left, tools)
            except Stopped:
                raise
            except UecError as error:
                what = f"cannot remove what was uploaded of an earlier content: {error}"
                _tell(request, tools, what, "warning")


def _remove(request: UploadRequest, left: BundleRecord, tools: UploadTools) -> None:
    cloud, ledger = tools.cloud, tools.ledger
    now = ledger.bundle(left.cloud, left.identity)
    if now is None or now.state == "registered":
        return
    if any(record.id != request.made_for for record in ledger.sets_with_content(now.digest)):
        return  # another set has the same content, and goes on with what this one began
    if there := image_at(cloud, list_images(cloud), now.location):
        # It was registered, and the answer lost: an image like any other of this set's past.
        done = replace(now, state="registered", image_id=there.id, registered=tools.clocks.now())
        ledger.put_bundle(replace(done, secret_key=None, secret_iv=None))
        return
    keys = [one.key for one in list_objects(cloud, now.bucket, f"{now.prefix}.")]
    for key in keys:
        tools.check_stop()
        remove_object(cloud, now.bucket, key)
    ledger.drop_bundle(now)
    if keys:
        _tell(request, tools, f"removed {len(keys)} objects of {now.location}: its content is another by now")


def _tell(request: UploadRequest, tools: UploadTools, what: str, level: Level = "info") -> None:
    fields: Fields = {"cloud": tools.cloud.name}
    sentence = f"{request.made_for.name}: {what}"
    tools.listener.tell(Event(Kind.WORKING, sentence, request.made_for, level, fields))
