"""What a set began to upload and will never finish, because its files are others by now.

No one else knows of these objects: they would lie in the bucket for ever.
"""

from dataclasses import replace

from uecwatchd.clouds.images import image_at, list_images
from uecwatchd.clouds.objects import list_objects, remove_object
from uecwatchd.delivery.request import Order
from uecwatchd.errors import Stopped, UecError
from uecwatchd.events import Event, Fields, Kind, Level
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import BundleRecord


def clear_leftovers(order: Order, ledger: Ledger, *, but: str) -> None:
    """Take the set's unfinished bundles of this role out of the bucket, all but the one of identity `but`.

    What cannot be removed is told, stays in the ledger, and stops nobody.
    """
    for left in ledger.unfinished(order.cloud.name, made_for=order.made_for, role=order.member.role):
        if left.identity == but:
            continue
        with ledger.claim(f"{left.cloud}/{left.identity}", check=order.check):
            try:
                _clear(order, left, ledger)
            except Stopped:
                raise
            except UecError as error:
                _tell(order, f"cannot remove what was uploaded of an earlier content: {error}", "warning")


def _clear(order: Order, left: BundleRecord, ledger: Ledger) -> None:
    now = ledger.bundle(left.cloud, left.identity)
    if now is None or now.state == "registered" or _is_wanted(order, now, ledger):
        return
    if there := image_at(order.cloud, list_images(order.cloud), now.location):
        # Its registration was carried out, and the answer lost: an image like any other of this set's past.
        done = replace(now, state="registered", image_id=there.id, registered=order.now())
        ledger.put_bundle(replace(done, secret_key=None, secret_iv=None))
        return
    keys = [one.key for one in list_objects(order.cloud, now.bucket, f"{now.prefix}.")]
    for key in keys:
        order.check()
        remove_object(order.cloud, now.bucket, key)
    ledger.drop_bundle(now)
    if keys:
        _tell(order, f"removed {len(keys)} objects of {now.location}: its content is another by now")


def _is_wanted(order: Order, left: BundleRecord, ledger: Ledger) -> bool:
    """Whether another set has the same content, and goes on with what this one began."""
    others = (record for record in ledger.sets() if str(record.id) != order.made_for)
    return any(member.digest == left.digest for record in others for member in record.members)


def _tell(order: Order, what: str, level: Level = "info") -> None:
    fields: Fields = {"cloud": order.cloud.name}
    order.monitor.tell(Event(Kind.WORKING, f"{order.set_name}: {what}", order.set_name, level, fields))
