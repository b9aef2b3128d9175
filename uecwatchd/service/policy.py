"""Decisions about scanned sets, by their records: rules without I/O."""

from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from uecwatchd.clouds.dialects import Dialect
from uecwatchd.config.records import Settings
from uecwatchd.errors import UecError, problem
from uecwatchd.intake import sidecar
from uecwatchd.intake.sets.records import FolderSets, ImageSet, Rules
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.sharing import Offer
from uecwatchd.ledger.standing import by_cloud, count_done, is_published, seen_from, shown_state
from uecwatchd.service.queue import DueSet, QueuedSet
from uecwatchd.service.retry import is_retry_due
from uecwatchd.service.work_folder import FINAL_STATES
from uecwatchd.types import FileStamp, SetId

GONE = "its files were removed"
# What a set waits for on a cloud that it is held for.
HELD_THERE = "its release there"


def is_shown(record: SetRecord) -> bool:
    """Tell if a set is in an overview: not if its files were removed before it was done."""
    return record.reason != GONE or record.state == "done"


def make_rules(
    settings: Settings,
    dialects: Mapping[str, Dialect],
    unidentified: Mapping[str, UecError | None] = MappingProxyType({}),
) -> Rules:
    """Make the rules of sets from the configuration and from what is known of the clouds.

    `unidentified` are the clouds that have not been detected, with the reason. Raises Halted for a mistake in
    `[defaults]`.
    """
    return Rules(
        settle=settings.spool.settle,
        defaults=sidecar.read_defaults(settings.defaults),
        needs={name: dialect.paravirtual_needs for name, dialect in dialects.items()},
        windows_needs={name: dialect.windows_needs for name, dialect in dialects.items()},
        disk_alone=frozenset(name for name, dialect in dialects.items() if dialect.boots_disk_alone),
        strange={name: problem(why) if why else "" for name, why in unidentified.items()},
        demands={name: dialect.paravirtual_demands for name, dialect in dialects.items()},
    )


def due_clouds(
    record: SetRecord | None, found: ImageSet, *, now: float, suspended: Container[str]
) -> tuple[str, ...]:
    """Return the clouds that a ready set is to go to now, in order, by its record and those suspended.

    First come the required clouds, and of these the ones without a failure: none waits for a worse one.
    """
    if record is None or record.stamp != found.stamp:
        return in_order([(cloud, None) for cloud in found.clouds], found)
    seen = [(cloud, seen_from(record, cloud)) for cloud in clouds_of(found, record)]
    due = [(cloud, one) for cloud, one in seen if _is_due(one, now=now, is_suspended=cloud in suspended)]
    return in_order(due, found)


def asked_clouds(record: SetRecord | None, found: ImageSet, asked: Collection[str]) -> tuple[str, ...]:
    """Return the clouds that a set is to go to because of requests for these clouds, in order.

    An empty name means all clouds that the set is not done on, or all if there are none such. So does the
    name of a cloud that it does not go to any more.
    """
    if not asked:
        return ()
    same = record if record and record.stamp == found.stamp else None
    seen = [(cloud, seen_from(same, cloud) if same else None) for cloud in clouds_of(found, same)]
    undone = [cloud for cloud, one in seen if one is None or one.state != "done"]
    named = [cloud for cloud, _ in seen if cloud in asked]
    if "" in asked or not named:
        named += undone or [cloud for cloud, _ in seen]
    return in_order([(cloud, one) for cloud, one in seen if cloud in named], found)


def clouds_of(found: ImageSet, record: SetRecord | None) -> tuple[str, ...]:
    """Return the clouds that a set goes to. `record` is of an earlier attempt at the same files.

    A finished set goes nowhere else after a change of `[defaults]`, and an archive may have a sidecar in it.
    """
    is_settled = record is not None and (is_published(record) or (found.packed and not found.members))
    known = tuple(target.cloud for target in record.current) if record and is_settled else ()
    return known or found.clouds


def in_order(seen: Iterable[tuple[str, SetRecord | None]], found: ImageSet) -> tuple[str, ...]:
    """Return these clouds in the order of attempts: required ones first, failed ones last.

    Those are left out that the set does not go to yet.
    """

    def rank(one: tuple[str, SetRecord | None]) -> tuple[bool, bool]:
        cloud, record = one
        return cloud in found.sidecar.best_effort, record is not None and record.error is not None

    return tuple(cloud for cloud, _ in sorted(seen, key=rank) if cloud not in found.waits)


def _is_due(record: SetRecord, *, now: float, is_suspended: bool) -> bool:
    """Tell if a ready set is to be worked on now for the cloud that its record is seen from."""
    if record.awaits_build or (record.awaits_cloud and is_suspended):
        return False
    if record.state == "waiting":
        return record.next_retry is not None and is_retry_due(record, now=now, suspended=False)
    if record.state == "deferred":
        return is_retry_due(record, now=now, suspended=is_suspended)
    if record.state == "halted":
        return not is_suspended
    return record.state in ("queued", "working", "withdrawn")


def is_due_again(record: SetRecord, now: float) -> bool:
    """Tell if a set whose files could not be read is to be looked at again."""
    return record.state == "deferred" and record.next_retry is not None and now >= record.next_retry


def earliest_retry(records: Iterable[SetRecord], *, suspended: Container[str], looks: bool) -> float | None:
    """Return the time of the next retry of some sets, None if there is none.

    A set that waits for a suspended cloud is left out: it is due when the cloud resumes. With `looks`, only
    the sets count that wait for their cloud or for their system.
    """
    seen = (one for record in records for one in by_cloud(record))
    chosen = (r for r in seen if not looks or r.awaits_cloud or r.awaits_build)
    timed = (r for r in chosen if not (r.awaits_cloud and r.target.cloud in suspended))
    return min((r.next_retry for r in timed if r.next_retry is not None), default=None)


def summarize(
    records: Iterable[SetRecord], held: Container[SetId], running: Container[SetId], *, folders: int
) -> str:
    """Count the sets by state, in one line."""
    counts = Counter[str]()
    for record in records:
        state: str = "held" if record.id in held else shown_state(record)
        counts["working" if record.id in running else state] += 1
    states = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
    return f"Watching {folders} folder{'s' if folders > 1 else ''}; {states or 'no sets'}"


def to_due_set(found: ImageSet, record: SetRecord | None) -> DueSet:
    """Add what the queue has to know. `record` is of an earlier attempt at the same files."""
    seen = by_cloud(record) if record else ()
    undone = [one for one in seen if one.state != "done" and not one.awaits_requirements]
    awaits = any(one.awaits_cloud for one in undone)
    # It is only looked at.
    sent = bool(undone) and all(
        one.awaits_cloud and any(i.pending for i in one.target.images[-1:]) for one in undone
    )
    size = 0 if sent else sum(size for _, size in found.described)
    return DueSet(found, again=awaits or any(one.state == "deferred" for one in undone), size=size)


def to_offer(queued: QueuedSet, *, is_kept: bool) -> Offer:
    """Return what other hosts have to know of a set in the queue.

    An installation and a test boot belong to the host that began them, so their sets are kept.
    """
    found = queued.found
    return Offer(found.id, found.stamp, queued.candidate.size, is_kept=is_kept or bool(found.recipe))


def is_over(found: ImageSet, record: SetRecord | None) -> bool:
    """Return True for a set that is done, and on its other clouds will not be done with these files."""
    if record is None or record.stamp != found.stamp or not is_published(record):
        return False
    return all(one.state in FINAL_STATES for one in by_cloud(record))


def with_held_clouds(assembly: FolderSets, held: Mapping[SetId, Mapping[str, float]]) -> FolderSets:
    """Return the sets of a folder, each waiting for its release on the clouds that it is held for."""
    ready = tuple(
        replace(one, waits={**one.waits, **dict.fromkeys(held[one.id], HELD_THERE)})
        if one.id in held
        else one
        for one in assembly.ready
    )
    return replace(assembly, ready=ready)


def set_names(assembly: FolderSets) -> set[str]:
    ready, waiting, refused = assembly.ready, assembly.waiting, assembly.refused
    return {r.name for r in ready} | {w.name for w in waiting} | {r.name for r in refused}


def files_of_done_sets(records: Iterable[SetRecord]) -> dict[str, tuple[tuple[str, FileStamp], ...]]:
    """Return the files of sets that are finished on some cloud, path and stamp, by the names of the sets."""
    done = (record for record in records if count_done(record)[0])
    return {record.name: tuple((m.path, m.stamp) for m in record.members) for record in done}
