"""The verb `rollback`: the image before the one in use is used again, and the set is held."""

import argparse
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from uecwatchd.cli.output import put, put_json, say
from uecwatchd.cli.published_images import ImageVerb, confirm, held_words, image_verb
from uecwatchd.clouds.images import AVAILABLE, find_image
from uecwatchd.delivery.version_facts import current_owner, is_of_another
from uecwatchd.errors import Rejected, Stopped, UecError, problem
from uecwatchd.ledger.records import Request, SetRecord
from uecwatchd.ledger.standing import by_cloud, hold_scope
from uecwatchd.ledger.versions import VersionRecord
from uecwatchd.outputs.result_files import place_json
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


@dataclass(frozen=True, slots=True)
class RollbackPlan:
    """The steps of a rollback, and the reason for each cloud without one. Some of these are best effort."""

    set_id: SetId  #: as people name it here
    steps: tuple[RollbackStep, ...]
    obstacles: Mapping[str, UecError]
    best_effort: Collection[str] = ()

    @property
    def exit_code(self) -> int:
        """Exit code of a rollback with these steps done. What is best effort does not count."""
        codes = [one.exit_code for name, one in self.obstacles.items() if name not in self.best_effort]
        return codes[0] if codes else os.EX_OK


def rollback(arguments: argparse.Namespace) -> int:
    cloud = arguments.cloud or ""
    with image_verb("rollback", arguments.config) as own, own.about(arguments.set) as (verb, set_id):
        verb.check_cloud(cloud)
        plan = find_steps(set_id, cloud, verb)
        for step in plan.steps:
            say(f"To be used again: {step}.")
        for error in plan.obstacles.values():
            say(str(error))
        if arguments.dry_run:
            if arguments.json:
                put_json(_as_json(plan, verb, done=False))
            return plan.exit_code
        scope = hold_scope(verb.ledger.set(set_id), cloud)
        confirm(f"Go back? Then {held_words(set_id, scope)}.", yes=arguments.yes, verb="rollback")
        verb.ledger.put_hold(set_id, since=time.time(), cloud=scope)
        ends = [_carry_out(set_id, step, verb) for step in plan.steps]  # each, also after a failure
        return _report(plan, scope, verb, done=all(ends), as_json=arguments.json)


def _report(plan: RollbackPlan, scope: str, verb: ImageVerb, *, done: bool, as_json: bool) -> int:
    if as_json:
        put_json(_as_json(plan, verb, done=done and plan.exit_code == os.EX_OK))
    elif done:
        for step in plan.steps:
            put(step.then.image_id)
    if not done:
        say(f"It is not done. See: {command('log', plan.set_id)}")
        return os.EX_TEMPFAIL
    held = held_words(plan.set_id, scope)
    say(f"{held}. To let it continue: {command('release', plan.set_id, scope)}")
    return plan.exit_code


def find_steps(set_id: SetId, cloud: str, verb: ImageVerb) -> RollbackPlan:
    """Return the step on each cloud, or the reason. Raises the reason if there is no step at all."""
    versions, record = verb.ledger.versions.of_set(set_id), verb.ledger.set(set_id)
    if record is None:
        why = "its files were removed, and its record with them"
        raise Rejected(f"{set_id.name}: cannot go back", why, f"See: {verb.command('history', set_id)}")
    current = {target.cloud for target in record.current}
    there = {one.cloud for one in versions if one.is_in_cloud}
    steps, obstacles = list[RollbackStep](), dict[str, UecError]()
    for name in sorted(({cloud} if cloud else current) or there):
        try:
            _check_settled(record, name, verb)
            steps.append(_step(set_id, name, [one for one in versions if one.cloud == name], verb))
        except Stopped:
            raise
        except UecError as error:
            obstacles[name] = error
    if not steps:
        first, *others = obstacles.values() or (_nothing_published(set_id, "any cloud", verb),)
        for other in others:
            say(str(other))
        raise first
    best_effort = {target.cloud for target in record.current if not target.is_required}
    return RollbackPlan(set_id.of_host(verb.host), tuple(steps), obstacles, best_effort)


def _check_settled(record: SetRecord, cloud: str, verb: ImageVerb) -> None:
    """Raise Rejected while the set has still to be done on a cloud."""
    seen = [one for one in by_cloud(record) if one.cloud in ("", cloud)]
    if open_one := next((one for one in seen if one.state not in SETTLED_STATES), None):
        why = f"it is {open_one.state}{on_cloud(open_one)}"
        raise Rejected(f"{record.name}: cannot go back", why, f"See: {verb.command('status', record.id)}")


def _step(set_id: SetId, cloud: str, versions: list[VersionRecord], verb: ImageVerb) -> RollbackStep:
    """Choose the newest image before the one in use that the cloud has, and that has passed its checks."""
    if not any(one.is_in_cloud for one in versions):
        raise _nothing_published(set_id, f"cloud {cloud}", verb)
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
        f"See: {verb.command('history', set_id)}",
    )


def _nothing_published(set_id: SetId, where: str, verb: ImageVerb) -> Rejected:
    why, hint = f"nothing was published on {where}", f"See: {verb.command('history', set_id)}"
    return Rejected(f"{set_id.name}: cannot go back", why, hint)


def _carry_out(set_id: SetId, step: RollbackStep, verb: ImageVerb) -> bool:
    verb.carry_out(Request(set_id, "rollback", cloud=step.cloud, image_id=step.then.image_id))
    versions = verb.ledger.versions.of_set(set_id, step.cloud)
    return any(one.image_id == step.then.image_id and one.state == "current" for one in versions)


def _as_json(plan: RollbackPlan, verb: ImageVerb, *, done: bool) -> dict[str, object]:
    found = [
        {"cloud": one.cloud, "from": one.now.image_id if one.now else None, "to": one.then.image_id}
        for one in plan.steps
    ]
    stays = [{"cloud": name, "why": problem(error)} for name, error in plan.obstacles.items()]
    place = place_json(plan.set_id, verb.ledger.sessions.host)
    return {**place, "set": plan.set_id.name, "done": done, "clouds": found, "stays": stays}
