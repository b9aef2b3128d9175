"""Stale uploads: bundles that a set began and will never publish, because its files have changed.

Nothing else knows of these objects, and of the images on trial or pending that were made of them; they would
stay in the cloud for ever.
"""

from dataclasses import replace

from uecwatchd.clouds.images import Image, image_at, list_images
from uecwatchd.clouds.objects import list_objects, remove_object
from uecwatchd.delivery.image_users import users_of
from uecwatchd.delivery.own_images import reason_tags_differ
from uecwatchd.delivery.removal import remove_image
from uecwatchd.delivery.request import UploadRequest, UploadTools
from uecwatchd.errors import Stopped, UecError
from uecwatchd.events import Event, Fields, Kind, Level
from uecwatchd.ledger.records import BundleRecord


def remove_stale_uploads(request: UploadRequest, tools: UploadTools, *, but: str) -> None:
    """Remove the set's unpublished bundles of this role from the cloud, except the one of identity `but`.

    What cannot be removed is reported, and stays in the ledger. The upload goes on.
    """
    for left in tools.begun_for(request).unpublished(request.made_for, request.member.role):
        if left.identity == but:
            continue
        with tools.ledger.claim(left.claim, check=tools.check_stop):
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
    if now is None or (now.state == "registered" and not now.on_trial):
        return
    if any(record.id != request.made_for for record in ledger.sets_with_content(now.digest)):
        return  # another set has the same content, and goes on with what this one began
    if there := image_at(cloud, list_images(cloud), now.location):
        _withdraw(request, replace(now, image_id=there.id), there, tools)
        return
    keys = [one.key for one in list_objects(cloud, now.bucket, f"{now.prefix}.")]
    for key in keys:
        tools.check_stop()
        ledger.sessions.sure()
        remove_object(cloud, now.bucket, key)
    ledger.drop_bundle(now)
    if keys:
        _tell(request, tools, f"removed {len(keys)} objects of {now.location}: its content is another by now")


def _withdraw(request: UploadRequest, bundle: BundleRecord, image: Image, tools: UploadTools) -> None:
    """Remove an unpublished image with its bundle.

    One that is used stays, as a registered one.
    """
    cloud, ledger = tools.cloud, tools.ledger
    is_used = any(one.is_in_cloud for one in ledger.versions.of_image(cloud.name, image.id))
    is_used = is_used or bool(users_of(bundle, cloud, ledger, but=request.made_for))
    if is_used or reason_tags_differ(image, cloud, host=tools.host, is_unpublished=True):
        if bundle.state != "registered":
            done = replace(bundle, state="registered", registered=tools.clocks.now())
            ledger.put_bundle(replace(done, secret_key=None, secret_iv=None))
        return
    remove_image(cloud, bundle, ledger, check=tools.check_stop)
    what = f"deregistered {image.id}, which was not published: its content is another by now"
    _tell(request, tools, what)


def _tell(request: UploadRequest, tools: UploadTools, what: str, level: Level = "info") -> None:
    fields: Fields = {"cloud": tools.cloud.name}
    sentence = f"{request.made_for.name}: {what}"
    tools.listener.tell(Event(Kind.WORKING, sentence, request.made_for, level, fields))
