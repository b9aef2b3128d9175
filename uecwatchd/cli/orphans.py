"""The verb `orphans`: what lies in our buckets and accounts and belongs to nothing; removed on demand."""

import argparse
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from uecwatchd.cli.output import put, put_json, say
from uecwatchd.cli.published_images import ImageVerb, confirm, image_verb
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.images import find_image, list_images
from uecwatchd.clouds.objects import remove_object
from uecwatchd.clouds.registration import deregister
from uecwatchd.delivery.orphans import Orphan, find_orphans, read_account
from uecwatchd.delivery.own_images import reason_tags_differ
from uecwatchd.delivery.version_facts import read_use
from uecwatchd.errors import Deferred, Stopped, UecError
from uecwatchd.intake.sidecar import read_defaults
from uecwatchd.ledger.state_folder import lock_state
from uecwatchd.system import lockfile
from uecwatchd.system.text import format_size


def orphans(arguments: argparse.Namespace) -> int:
    with image_verb("orphans", arguments.config) as verb:
        verb.check_cloud(arguments.cloud or "")
        names = [arguments.cloud] if arguments.cloud else sorted(verb.settings.clouds)
        failed = dict[str, UecError]()
        found = [(name, one) for name in names for one in _find_on(name, verb, failed)]
        if not arguments.json:
            for name, one in found:
                put(_line(name, one))
        free = [(name, one) for name, one in found if not one.stays]
        gone = set[tuple[str, str]]()
        if arguments.remove and free:
            confirm(f"Remove {len(free)} of them?", yes=arguments.yes, verb="orphans --remove")
            _remove_all(free, verb, gone, failed)
        if arguments.json:
            put_json([_as_json(name, one, is_gone=(name, one.name) in gone) for name, one in found])
        say(f"{len(found)} found, {len(gone)} removed." if arguments.remove else f"{len(found)} found.")
        for error in failed.values():
            say(str(error))
        return next((error.exit_code for error in failed.values()), os.EX_OK)


def _find_on(name: str, verb: ImageVerb, failed: dict[str, UecError]) -> tuple[Orphan, ...]:
    """Return the orphans on a cloud; none, with its error in `failed`, if it cannot be asked."""
    try:
        return _orphans_on(verb.connect(name), verb)
    except Stopped:
        raise
    except UecError as error:
        failed[name] = error
        return ()


def _orphans_on(cloud: Cloud, verb: ImageVerb) -> tuple[Orphan, ...]:
    ledger, name = verb.ledger, cloud.name
    bundles = ledger.bundles(name)
    buckets = {one.bucket for one in bundles} | ledger.made_buckets(name)
    buckets.add(read_defaults(verb.settings.defaults).bucket)
    account = read_account(cloud, ledger.all_bundles(), frozenset(_in_use(name, verb)), buckets=buckets)
    use = read_use(cloud, (image.id for image in account.images if image.id))
    has_tags = bool(cloud.dialect.tag_limit)
    return find_orphans(account, use, host=socket.gethostname(), has_tags=has_tags, now=time.time())


def _in_use(cloud: str, verb: ImageVerb) -> Iterator[str]:
    """Yield the images that a set has, or that are a version of one, and those known by another cloud.

    Where a set no longer goes to, and has no version, its image was never published.

    The configuration may have renamed a cloud, or have one account under two names. Two clouds that use one
    id by chance only keep an image too many.
    """
    ledger = verb.ledger
    for record in ledger.sets_of_fleet():
        for target in record.targets:
            is_kept = target.is_current or record.id.is_elsewhere
            if is_kept or ledger.versions.of_set(record.id, target.cloud):
                yield from (one.image_id or one.pending for one in target.images)
    bundles = ledger.all_bundles()
    for name in {cloud, *(one.cloud for one in bundles)}:
        yield from (one.image_id for one in ledger.versions.of_cloud(name) if one.is_in_cloud)
    yield from (one.image_id for one in bundles if one.cloud != cloud and one.image_id)


def _remove_all(
    free: Sequence[tuple[str, Orphan]],
    verb: ImageVerb,
    gone: set[tuple[str, str]],
    failed: dict[str, UecError],
) -> None:
    """Remove orphans while no daemon can take one of them; from each cloud up to its first error.

    Each is looked for again first: it may belong to something by now. Raises Deferred if a daemon runs.
    """
    lock = _lock_out_daemons(verb.settings.state.dir)
    try:
        _check_other_hosts(verb)
        for cloud in dict.fromkeys(name for name, _ in free):
            still = _find_on(cloud, verb, failed)
            _remove_from(
                cloud, [one for name, one in free if name == cloud and one in still], verb, gone, failed
            )
    finally:
        lockfile.release(lock)


def _remove_from(
    name: str,
    free: Sequence[Orphan],
    verb: ImageVerb,
    gone: set[tuple[str, str]],
    failed: dict[str, UecError],
) -> None:
    try:
        for one in free:
            if _remove(verb.connect(name), one, verb):
                gone.add((name, one.name))
    except Stopped:
        raise
    except UecError as error:
        say(f"Nothing more is removed from cloud {name}.")
        failed[name] = error


def _lock_out_daemons(state: Path) -> int:
    """Take the lock of the state directory.

    The claims on bundles are no help: they are of one process, and by an identity in the ledger, and an
    orphan is what the ledger does not have. A set that a daemon works on adopts what fits, at any moment.
    """
    try:
        return lock_state(state)
    except lockfile.LockTaken as error:
        hint = "A set that it works on may take any of them at any moment. Stop it, and start it afterwards."
        raise Deferred(error.what, error.why, hint) from error


def _check_other_hosts(verb: ImageVerb) -> None:
    """Raise Deferred if the daemon of another host with the same ledger runs."""
    if running := [one.host for one in verb.ledger.sessions.hosts() if one.is_open]:
        raise Deferred(
            f"orphans: the service runs on {', '.join(running)}",
            "a set that it works on may take any of them at any moment",
            "Stop it there, and start it afterwards.",
        )


def _remove(cloud: Cloud, one: Orphan, verb: ImageVerb) -> bool:
    """Remove an orphan. Returns False if somebody has taken it a moment ago."""
    if one.kind == "image":
        image = find_image(cloud, one.name)
        host, is_new = socket.gethostname(), one.is_made_here
        if image and reason_tags_differ(image, cloud, host=host, is_unpublished=is_new):
            return False
        deregister(cloud, one.name)
    prefixes = {key.partition(".part.")[0].removesuffix(".manifest.xml") for key in one.keys}
    locations = {image.location for image in list_images(cloud)}
    if any(f"{one.bucket}/{prefix}.manifest.xml" in locations for prefix in prefixes):
        return False  # another image has been made of it
    for key in one.keys:
        remove_object(cloud, one.bucket, key)
    for bundle in verb.ledger.bundles(cloud.name):
        if one.name in (bundle.image_id, bundle.location):
            verb.ledger.drop_bundle(bundle)
    return True


def _line(cloud: str, one: Orphan) -> str:
    size = f"{len(one.keys)} objects, {format_size(one.size)}"
    stays = f"; stays: {one.stays}" if one.stays else ""
    return f"{cloud}  {one.kind}  {one.name}  {size}: {one.why}{stays}"


def _as_json(cloud: str, one: Orphan, *, is_gone: bool) -> dict[str, object]:
    return {
        "cloud": cloud,
        "kind": one.kind,
        "name": one.name,
        "bucket": one.bucket,
        "objects": list(one.keys),
        "size": one.size,
        "why": one.why,
        "stays": one.stays or None,
        "removed": is_gone,
    }
