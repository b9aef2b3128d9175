"""The verb `prune`: deprecate and remove older images, as the configuration says, with a reason for each."""

import argparse
import os
import socket
import time
from collections.abc import Iterator, Sequence

from uecwatchd.cli.output import put, put_json, say
from uecwatchd.cli.published_images import ImageVerb, image_verb
from uecwatchd.delivery.retire import RetireDecision, decide
from uecwatchd.delivery.version_facts import read_facts
from uecwatchd.ledger.records import Request
from uecwatchd.outputs.result_files import instant
from uecwatchd.outputs.wording import command
from uecwatchd.service.retire.rules import obstacle_of, rule_of
from uecwatchd.types import SetId


def prune(arguments: argparse.Namespace) -> int:
    with image_verb("prune", arguments.config) as verb:
        named = verb.set_named(arguments.set) if arguments.set else None
        sets = (named,) if named else verb.ledger.versions.sets()
        found = [one for set_id in sets for one in decisions_about(set_id, verb)]
        if arguments.json:
            put_json([_as_json(one) for one in found])
        else:
            for one in found:
                version = one.version
                where = f"{version.set_id}  {version.cloud}  {version.image_id}"
                put(f"{where}  {one.step}: {one.why}")
        due = [one for one in found if one.step != "stay"]
        if arguments.dry_run or not due:
            say(f"{len(due)} of {len(found)} images are due." if found else "No set has an older image.")
            return os.EX_OK
        return _carry_out(due, verb)


def _carry_out(due: Sequence[RetireDecision], verb: ImageVerb) -> int:
    """Take the steps of one set after the other, and stop at the first that is not done."""
    for set_id in dict.fromkeys(one.version.set_id for one in due):
        is_done = verb.carry_out(Request(set_id, "prune"))
        left = [one for one in due if one.version.set_id == set_id and not _is_taken(one, verb)]
        if left or not is_done:
            say(f"Not all was done, and nothing more is removed now. See: {command('log', set_id)}")
            return os.EX_TEMPFAIL
    return os.EX_OK


def _is_taken(one: RetireDecision, verb: ImageVerb) -> bool:
    version = one.version
    now = verb.ledger.versions.of_set(version.set_id, version.cloud)
    states = {known.image_id: known.state for known in now}
    return states.get(version.image_id, "removed") in ("removed", "withdrawn", "deprecated")


def decisions_about(set_id: SetId, verb: ImageVerb) -> Iterator[RetireDecision]:
    """Yield the decisions about the versions of a set on each cloud. Raises the errors of the clouds."""
    known = verb.ledger.versions.of_set(set_id)
    for name in sorted({one.cloud for one in known if one.is_in_cloud}):
        if name not in verb.settings.clouds:
            say(f"{set_id.name}: its images in cloud {name} are left alone, which is not configured.")
            continue
        cloud = verb.connect(name)
        versions = [one for one in known if one.cloud == name]
        yield from decide(
            read_facts(versions, cloud, verb.ledger, host=socket.gethostname()),
            rule_of(set_id, name, verb.ledger, verb.settings.retention_of),
            now=time.time(),
            can_deprecate=cloud.dialect.deprecates,
            obstacle=obstacle_of(set_id, name, verb.ledger),
        )


def _as_json(one: RetireDecision) -> dict[str, object]:
    version = one.version
    return {
        "folder": version.set_id.folder,
        "set": version.set_id.name,
        "cloud": version.cloud,
        "id": version.image_id,
        "state": version.state,
        "published": instant(version.published),
        "step": one.step,
        "why": one.why,
    }
