"""The verb `withdraw`: take the published image of a set back from its clouds."""

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from uecwatchd.cli.output import put, put_json, say
from uecwatchd.cli.published_images import ImageVerb, confirm, held_words, image_verb
from uecwatchd.errors import Rejected
from uecwatchd.ledger.records import BundleRecord, Request, SetRecord
from uecwatchd.ledger.standing import hold_scope
from uecwatchd.outputs.result_files import place_json
from uecwatchd.types import Role, SetId


@dataclass(frozen=True, slots=True)
class ImageToWithdraw:
    """An image that is to be taken back, and its bundle, if the ledger knows that."""

    cloud: str
    role: Role
    image_id: str
    bundle: BundleRecord | None

    def __str__(self) -> str:
        bundle = f", and its bundle {self.bundle.location}" if self.bundle else ""
        only = "" if self.role == "machine" else ", if nothing else uses it"
        return f"{self.role} {self.image_id} from cloud {self.cloud}{bundle}{only}"


def withdraw(arguments: argparse.Namespace) -> int:
    cloud = arguments.cloud or ""
    with image_verb("withdraw", arguments.config) as own, own.about(arguments.set) as (verb, set_id):
        verb.check_cloud(cloud)
        found = list(images_of(set_id, cloud, verb))
        if not found:
            where = f"on cloud {cloud}" if cloud else "on any cloud"
            raise Rejected(
                f"{set_id.name}: there is nothing to take back",
                f"it has no published image {where}",
                f"See: {verb.command('history', set_id)}",
            )
        for image in found:
            say(f"To be taken back: {image}.")
        if arguments.dry_run:
            return _report(set_id, found, verb, arguments, done=False)
        scope = hold_scope(verb.ledger.set(set_id), cloud)
        confirm(f"Take it back? Then {held_words(set_id, scope)}.", yes=arguments.yes, verb="withdraw")
        verb.ledger.put_hold(set_id, since=time.time(), cloud=scope)
        done = verb.carry_out(Request(set_id, "withdraw", cloud=cloud))
        return _report(set_id, found, verb, arguments, done=done, scope=scope)


def images_of(set_id: SetId, cloud: str, verb: ImageVerb) -> Iterator[ImageToWithdraw]:
    """Yield the published images of a set, on one cloud or on all, the machine of each cloud first."""
    ledger = verb.ledger
    record = ledger.set(set_id)
    current = [one for one in ledger.versions.of_set(set_id) if one.state == "current"]
    clouds = {one.cloud for one in current} | {one.cloud for one in (record.targets if record else ())}
    for name in sorted(clouds):
        if cloud not in ("", name):
            continue
        ids: dict[str, Role] = {one.image_id: one.role for one in current if one.cloud == name}
        for image_id, role in (*ids.items(), *_beside(record, name)):
            yield ImageToWithdraw(name, role, image_id, ledger.bundle_of(name, image_id))


def _beside(record: SetRecord | None, cloud: str) -> Iterator[tuple[str, Role]]:
    images = record.target_on(cloud).images if record else ()
    yield from ((one.image_id, one.role) for one in images if one.image_id and one.role != "machine")


def _report(
    set_id: SetId,
    found: list[ImageToWithdraw],
    verb: ImageVerb,
    arguments: argparse.Namespace,
    *,
    done: bool,
    scope: str = "",
) -> int:
    """Print which images have left, and return the exit code."""
    asked = () if arguments.dry_run else found
    left = {one.image_id: verb.ledger.bundle_of(one.cloud, one.image_id) is None for one in asked}
    if arguments.json:
        images = [
            {"cloud": one.cloud, "role": one.role, "id": one.image_id, "gone": left.get(one.image_id, False)}
            for one in found
        ]
        place = place_json(set_id, verb.ledger.sessions.host)
        put_json({**place, "set": set_id.name, "done": done, "images": images})
    elif done:
        for one in found:
            put(f"{one.image_id} {'gone' if left[one.image_id] else 'stays'}")
    if arguments.dry_run:
        return os.EX_OK
    if not done:
        say(f"It is not done yet, and goes on by itself. See: {verb.command('log', set_id)}")
        return os.EX_TEMPFAIL
    say(f"{held_words(set_id, scope)}. To publish it again: {verb.command('release', set_id, scope)}")
    machines = [one for one in found if one.role == "machine"]
    return os.EX_OK if all(left[one.image_id] for one in machines) else os.EX_DATAERR
