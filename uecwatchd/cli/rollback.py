"""The verb `rollback`: the image before the one in use is used again, and the set is held."""

import argparse
import os
import time
from dataclasses import dataclass

from uecwatchd.cli.output import put, put_json, say
from uecwatchd.cli.published_images import ImageVerb, confirm, image_verb
from uecwatchd.clouds.images import AVAILABLE, find_image
from uecwatchd.delivery.version_facts import current_owner, is_of_another
from uecwatchd.errors import Rejected
from uecwatchd.ledger.records import Request
from uecwatchd.ledger.standing import by_cloud
from uecwatchd.ledger.versions import VersionRecord
from uecwatchd.outputs.wording import command, moment, on_cloud
from uecwatchd.types import SetId

# States of a set whose image can be exchanged: in any other an attempt is not over.
SETTLED_STATES = ("done", "withdrawn")


@dataclass(frozen=True, slots=True)
class RollbackStep:
    """One cloud: the image in use, if there is one, and the one to be used again."""

    cloud: str
    now: VersionRecord | None
    then: VersionRecord

    def __str__(self) -> str:
        instead = f" instead of {self.now.image_id}" if self.now else ""
        published = f"published {moment(self.then.published)} UTC"
        return f"{self.then.image_id} ({published}) on cloud {self.cloud}{instead}"


def rollback(arguments: argparse.Namespace) -> int:
    with image_verb("rollback", arguments.config) as verb:
        set_id = verb.set_named(arguments.set)
        verb.check_cloud(arguments.cloud or "")
        _check_settled(set_id, arguments.cloud or "", verb)
        steps = find_steps(set_id, arguments.cloud or "", verb)
        for step in steps:
            say(f"To be used again: {step}.")
        done = True
        if not arguments.dry_run:
            confirm(f"Go back, and hold {set_id.name}?", yes=arguments.yes, verb="rollback")
            verb.ledger.put_hold(set_id, since=time.time())
            ends = [_carry_out(set_id, step, verb) for step in steps]  # each, also after a failure
            done = all(ends)
        if arguments.json:
            put_json(_as_json(set_id, steps, done=done and not arguments.dry_run))
        elif done and not arguments.dry_run:
            for step in steps:
                put(step.then.image_id)
        if arguments.dry_run:
            return os.EX_OK
        if not done:
            say(f"It is not done. See: {command('log', set_id)}")
            return os.EX_TEMPFAIL
        say(f"{set_id.name} is held. To let it continue: {command('release', set_id)}")
        return os.EX_OK


def _check_settled(set_id: SetId, cloud: str, verb: ImageVerb) -> None:
    """Raise Rejected while the set has still to be done on one of these clouds."""
    record = verb.ledger.set(set_id)
    if record is None:
        why = "its files were removed, and its record with them"
        raise Rejected(f"{set_id.name}: cannot go back", why, f"See: {command('history', set_id)}")
    seen = [one for one in by_cloud(record) if not one.cloud or cloud in ("", one.cloud)]
    if open_one := next((one for one in seen if one.state not in SETTLED_STATES), None):
        why = f"it is {open_one.state}{on_cloud(open_one)}"
        raise Rejected(f"{set_id.name}: cannot go back", why, f"See: {command('status', set_id)}")


def find_steps(set_id: SetId, cloud: str, verb: ImageVerb) -> list[RollbackStep]:
    """Return the step on each cloud. Raises Rejected if one of them has no older image."""
    versions = verb.ledger.versions.of_set(set_id)
    record = verb.ledger.set(set_id)
    current = {target.cloud for target in record.current} if record else set()
    there = {one.cloud for one in versions if one.is_in_cloud}
    names = sorted(there & (({cloud} if cloud else current) or there))
    steps = [_step(set_id, name, [one for one in versions if one.cloud == name], verb) for name in names]
    if not steps:
        why = "nothing was published" + (f" on cloud {cloud}" if cloud else "")
        raise Rejected(f"{set_id.name}: cannot go back", why, f"See: {command('history', set_id)}")
    return steps


def _step(set_id: SetId, cloud: str, versions: list[VersionRecord], verb: ImageVerb) -> RollbackStep:
    """Choose the newest image before the one in use that the cloud has, and that has passed its checks."""
    now = next((one for one in versions if one.state == "current"), None)
    older = [one for one in versions if one.is_in_cloud and one.passed and one != now]
    before = [one for one in older if now is None or one.published <= now.published]
    owner = current_owner(versions, verb.ledger)
    for one in before:
        bundle = verb.ledger.bundle_of(cloud, one.image_id)
        if bundle and is_of_another(bundle, owner):
            continue
        image = find_image(verb.connect(cloud), one.image_id)
        if image and image.state == AVAILABLE:
            return RollbackStep(cloud, now, one)
    raise Rejected(
        f"{set_id.name}: cannot go back on cloud {cloud}",
        "there is no older image of it that could be used",
        f"See: {command('history', set_id)}",
    )


def _carry_out(set_id: SetId, step: RollbackStep, verb: ImageVerb) -> bool:
    verb.carry_out(Request(set_id, "rollback", cloud=step.cloud, image_id=step.then.image_id))
    versions = verb.ledger.versions.of_set(set_id, step.cloud)
    return any(one.image_id == step.then.image_id and one.state == "current" for one in versions)


def _as_json(set_id: SetId, steps: list[RollbackStep], *, done: bool) -> dict[str, object]:
    found = [
        {"cloud": one.cloud, "from": one.now.image_id if one.now else None, "to": one.then.image_id}
        for one in steps
    ]
    return {"folder": set_id.folder, "set": set_id.name, "done": done, "clouds": found}
