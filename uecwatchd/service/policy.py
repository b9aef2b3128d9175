"""Decisions about scanned sets, by their records: rules without I/O."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from types import MappingProxyType

from uecwatchd.clouds.dialects import Dialect
from uecwatchd.config.records import Settings
from uecwatchd.errors import UecError, problem
from uecwatchd.intake import sidecar
from uecwatchd.intake.sets.records import FolderSets, ImageSet, Rules
from uecwatchd.ledger.records import SetRecord
from uecwatchd.service.queue import DueSet
from uecwatchd.service.retry import is_retry_due
from uecwatchd.types import FileStamp, SetId

GONE = "its files were removed"


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


def is_due(
    record: SetRecord | None, found: ImageSet, *, now: float, suspended: Mapping[str, UecError]
) -> bool:
    """Tell if a ready set is to be worked on now, by its record and the clouds that are suspended."""
    if record is None or record.stamp != found.stamp:
        return True
    cloud_suspended = found.target_cloud in suspended
    if record.awaits_cloud and cloud_suspended:
        return False
    if record.state == "waiting":
        return record.next_retry is not None and is_retry_due(record, now=now, suspended=False)
    if record.state == "deferred":
        return is_retry_due(record, now=now, suspended=cloud_suspended)
    if record.state == "halted":
        return not cloud_suspended
    return record.state in ("queued", "working")


def is_due_again(record: SetRecord, now: float) -> bool:
    """Tell if a set whose files could not be read is to be looked at again."""
    return record.state == "deferred" and record.next_retry is not None and now >= record.next_retry


def earliest_retry(records: Iterable[SetRecord], *, suspended: Container[str], looks: bool) -> float | None:
    """Return the time of the next retry of some sets, None if there is none.

    A set that waits for a suspended cloud is left out: it is due when the cloud resumes. With `looks`, only
    the sets count that wait for their cloud.
    """
    chosen = (r for r in records if not (looks and not r.awaits_cloud))
    timed = (r for r in chosen if not (r.awaits_cloud and r.target.cloud in suspended))
    return min((r.next_retry for r in timed if r.next_retry is not None), default=None)


def summarize(
    records: Iterable[SetRecord], held: Container[SetId], running: Container[SetId], *, folders: int
) -> str:
    """Count the sets by state, in one line."""
    counts = Counter[str]()
    for record in records:
        state: str = "held" if record.id in held else record.state
        counts["working" if record.id in running else state] += 1
    states = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
    return f"Watching {folders} folder{'s' if folders > 1 else ''}; {states or 'no sets'}"


def to_due_set(found: ImageSet, record: SetRecord | None) -> DueSet:
    """Add what the queue has to know. `record` is of an earlier attempt at the same files."""
    awaits = record is not None and record.awaits_cloud
    sent = record is not None and awaits and bool(record.target.images[-1].pending)  # it is only looked at
    size = 0 if sent else sum(size for _, size in found.described)
    return DueSet(found, again=awaits or (record is not None and record.state == "deferred"), size=size)


def is_done(found: ImageSet, record: SetRecord | None) -> bool:
    return record is not None and record.state == "done" and record.stamp == found.stamp


def set_names(assembly: FolderSets) -> set[str]:
    ready, waiting, refused = assembly.ready, assembly.waiting, assembly.refused
    return {r.name for r in ready} | {w.name for w in waiting} | {r.name for r in refused}


def files_of_done_sets(records: Iterable[SetRecord]) -> dict[str, tuple[tuple[str, FileStamp], ...]]:
    """Return the files of finished sets, path and stamp, by the names of the sets."""
    done = (record for record in records if record.state == "done")
    return {record.name: tuple((m.path, m.stamp) for m in record.members) for record in done}
