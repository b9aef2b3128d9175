"""The verb `prune`: deprecate and remove older images, as the configuration says, with a reason for each."""

import argparse
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from uecwatchd.cli.output import put, put_json, say
from uecwatchd.cli.published_images import ImageVerb, image_verb
from uecwatchd.delivery.retire import RetireDecision, Step, decide
from uecwatchd.delivery.version_facts import read_facts
from uecwatchd.errors import Rejected, Stopped, UecError
from uecwatchd.ledger.records import Request
from uecwatchd.ledger.versions import VersionRecord, VersionState
from uecwatchd.outputs.result_files import instant, place_json
from uecwatchd.outputs.wording import command
from uecwatchd.service.retire.rules import obstacle_of, rule_of
from uecwatchd.types import SetId


def prune(arguments: argparse.Namespace) -> int:
    with image_verb("prune", arguments.config) as verb:
        verb.check_cloud(arguments.cloud or "")
        if not arguments.set:
            return _prune(verb.ledger.versions.sets(), verb, arguments)
        with verb.about(arguments.set) as (there, set_id):
            act = _prune_elsewhere if there.host else _prune
            return act((set_id,), there, arguments)


def _prune(sets: Sequence[SetId], verb: ImageVerb, arguments: argparse.Namespace) -> int:
    survey = PruneSurvey(verb, arguments.cloud or "")
    found = [one for set_id in sets for one in survey.decisions_about(set_id)]
    _show(found, verb, as_json=arguments.json)
    due = [one for one in found if one.step != "stay" and not survey.is_closed(one.version.cloud)]
    if arguments.dry_run or not due:
        say(f"{len(due)} of {len(found)} images are due." if found else "No set has an older image.")
    else:
        _carry_out(due, survey)
    return next(iter(survey.failed.values()), os.EX_OK)


def _prune_elsewhere(sets: Sequence[SetId], verb: ImageVerb, arguments: argparse.Namespace) -> int:
    """Let another host prune its sets: its configuration decides, and only what has its tags is removed."""
    if arguments.dry_run:
        why = f"the configuration of host {verb.host} decides what leaves"
        raise Rejected("cannot tell what would be done", why, f"On {verb.host}: {command('prune', sets[0])}")
    found, codes = list[RetireDecision](), list[int]()
    for set_id in sets:
        known = verb.ledger.versions.of_set(set_id)
        for cloud in sorted({one.cloud for one in known if one.is_in_cloud and one.state != "current"}):
            if arguments.cloud in (None, cloud):
                is_done = verb.carry_out(Request(set_id, "prune", cloud=cloud))
                codes += [os.EX_OK if is_done else os.EX_TEMPFAIL]
                found += _taken_since([one for one in known if one.cloud == cloud], verb)
    _show(found, verb, as_json=arguments.json)
    return max(codes, default=os.EX_OK)


def _taken_since(before: Sequence[VersionRecord], verb: ImageVerb) -> Iterator[RetireDecision]:
    """Yield what has become of images in a cloud."""
    steps: Mapping[VersionState, Step] = {"deprecated": "deprecate", "removed": "remove"}
    for one in before:
        if one.is_in_cloud and one.state != "current":
            now = verb.ledger.versions.of_set(one.set_id, one.cloud)
            state = next((known.state for known in now if known.image_id == one.image_id), one.state)
            step = "stay" if state == one.state else steps.get(state, "stay")
            yield RetireDecision(one, step, f"host {verb.host} has decided so")


def _show(found: Sequence[RetireDecision], verb: ImageVerb, *, as_json: bool) -> None:
    if as_json:
        put_json([_as_json(one, verb) for one in found])
    for one in () if as_json else found:
        set_id = one.version.set_id.of_host(verb.host)
        put(f"{set_id}  {one.version.cloud}  {one.version.image_id}  {one.step}: {one.why}")


@dataclass(frozen=True, slots=True)
class PruneSurvey:
    """A look at the older images on one cloud, or on all; on each up to its first error.

    `failed` are the clouds with an error, each with its exit code: nothing more is removed there, nor from
    another name of the same account.
    """

    verb: ImageVerb
    only: str = ""
    failed: dict[str, int] = field(default_factory=dict)

    def decisions_about(self, set_id: SetId) -> Iterator[RetireDecision]:
        """Yield the decisions about the versions of a set on each cloud."""
        known = self.verb.ledger.versions.of_set(set_id)
        for name in sorted({one.cloud for one in known if one.is_in_cloud and self.only in ("", one.cloud)}):
            if name not in self.verb.settings.clouds:
                say(f"{set_id.name}: its images in cloud {name} are left alone, which is not configured.")
                continue
            if name in self.failed:
                continue
            try:
                yield from self._on_cloud(set_id, name, [one for one in known if one.cloud == name])
            except Stopped:
                raise
            except UecError as error:
                say(str(error))
                self.failed[name] = error.exit_code

    def _on_cloud(
        self, set_id: SetId, name: str, versions: Sequence[VersionRecord]
    ) -> tuple[RetireDecision, ...]:
        verb, cloud = self.verb, self.verb.connect(name)
        return decide(
            read_facts(versions, cloud, verb.ledger, host=socket.gethostname()),
            rule_of(set_id, name, verb.ledger, verb.settings.retention_of),
            now=time.time(),
            can_deprecate=cloud.dialect.deprecates,
            obstacle=obstacle_of(set_id, name, verb.ledger),
        )

    def is_closed(self, name: str) -> bool:
        """Tell if nothing more is removed from a cloud, because of an error with its account."""
        there = self.verb.clouds
        known = (one for one in self.failed if one in there and name in there)
        return name in self.failed or any(there[one].account.is_same_as(there[name].account) for one in known)


def _carry_out(due: Sequence[RetireDecision], survey: PruneSurvey) -> None:
    """Take the steps of one set after the other, on each cloud up to the first that is not done."""
    verb = survey.verb
    for set_id, cloud in dict.fromkeys((one.version.set_id, one.version.cloud) for one in due):
        if survey.is_closed(cloud):
            continue
        steps = [one for one in due if (one.version.set_id, one.version.cloud) == (set_id, cloud)]
        is_done = verb.carry_out(Request(set_id, "prune", cloud=cloud))
        if not is_done or not all(_is_taken(one, verb) for one in steps):
            why = f"Not all was done, and nothing more is removed now from cloud {cloud}."
            say(f"{why} See: {command('log', set_id)}")
            survey.failed[cloud] = os.EX_TEMPFAIL


def _is_taken(one: RetireDecision, verb: ImageVerb) -> bool:
    version = one.version
    now = verb.ledger.versions.of_set(version.set_id, version.cloud)
    states = {known.image_id: known.state for known in now}
    return states.get(version.image_id, "removed") in ("removed", "withdrawn", "deprecated")


def _as_json(one: RetireDecision, verb: ImageVerb) -> dict[str, object]:
    version = one.version
    return {
        **place_json(version.set_id, verb.ledger.sessions.host),
        "set": version.set_id.name,
        "cloud": version.cloud,
        "id": version.image_id,
        "state": version.state,
        "published": instant(version.published),
        "step": one.step,
        "why": one.why,
    }
