"""What a round decides by: rules without I/O."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from types import MappingProxyType

from uecwatchd.clouds.dialects import Dialect
from uecwatchd.config.records import Settings
from uecwatchd.errors import UecError
from uecwatchd.intake import sidecar
from uecwatchd.intake.sets.records import Assembly, ImageSet, Rules
from uecwatchd.ledger.records import SetRecord
from uecwatchd.service.queue import DueSet
from uecwatchd.service.retry import retry_due
from uecwatchd.types import FileStamp, SetId

GONE = "its files were removed"


def rules_of(
    settings: Settings,
    dialects: Mapping[str, Dialect],
    strange: Mapping[str, UecError | None] = MappingProxyType({}),
) -> Rules:
    """What the rules of sets need of the configuration, and of the clouds as far as they are known; `strange`
    are those that are not, with the reason. Raises Halted for a mistake in `[defaults]`."""
    return Rules(
        settle=settings.spool.settle,
        defaults=sidecar.read_defaults(settings.defaults),
        needs={name: dialect.paravirtual_needs for name, dialect in dialects.items()},
        windows_needs={name: dialect.windows_needs for name, dialect in dialects.items()},
        disk_alone=frozenset(name for name, dialect in dialects.items() if dialect.boots_disk_alone),
        strange={name: f"{why.what}: {why.why}" if why else "" for name, why in strange.items()},
        demands={name: dialect.paravirtual_demands for name, dialect in dialects.items()},
    )


def due(record: SetRecord | None, found: ImageSet, *, now: float, closed: Mapping[str, UecError]) -> bool:
    """Tell if a ready set is to be worked on now, by its record and the clouds that are suspended."""
    if record is None or record.stamp != found.stamp:
        return True
    if record.awaits_cloud and found.sidecar.clouds[0] in closed:
        return False
    if record.state == "waiting":
        return retry_due(record, now=now, closed=False)
    if record.state == "deferred":
        return retry_due(record, now=now, closed=found.sidecar.clouds[0] in closed)
    if record.state == "halted":
        return found.sidecar.clouds[0] not in closed
    return record.state in ("queued", "working")


def passed(record: SetRecord, now: float) -> bool:
    """Whether the time has come to look again at what could not even be read."""
    return record.state == "deferred" and record.next_retry is not None and now >= record.next_retry


def next_of(records: Iterable[SetRecord], *, closed: Container[str], looks: bool) -> float | None:
    """When the next of some sets is due by itself. One that waits for a cloud whose gate is closed is not,
    whatever its time was: that is due when the gate opens. With `looks`, of those that wait for one alone."""
    chosen = (r for r in records if not (looks and not r.awaits_cloud))
    open_ones = (r for r in chosen if not (r.awaits_cloud and r.cloud in closed))
    return min((r.next_retry for r in open_ones if r.next_retry is not None), default=None)


def summary_of(
    records: Iterable[SetRecord], held: Container[SetId], working: Container[SetId], *, folders: int
) -> str:
    """How many sets there are in which state, in one line."""
    counts = Counter("working" if r.id in working else "held" if r.id in held else r.state for r in records)
    told = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
    return f"Watching {folders} folder{'s' if folders > 1 else ''}; {told or 'no sets'}"


def sized(found: ImageSet, record: SetRecord | None) -> DueSet:
    """A set that is due, with the bytes that it has still to send at most, for which it passes others.

    `record` is what came of the same files before.
    """
    awaits = record is not None and record.awaits_cloud
    sent = record is not None and awaits and bool(record.members[-1].pending)  # it is only looked at
    size = 0 if sent else sum(member.size for member in found.members)
    return DueSet(found, again=awaits or (record is not None and record.state == "deferred"), size=size)


def is_done(found: ImageSet, record: SetRecord | None) -> bool:
    return record is not None and record.state == "done" and record.stamp == found.stamp


def names_in(assembly: Assembly) -> set[str]:
    ready, waiting, refused = assembly.ready, assembly.waiting, assembly.refused
    return {r.name for r in ready} | {w.name for w in waiting} | {r.name for r in refused}


def taken_by(records: Iterable[SetRecord]) -> dict[str, tuple[tuple[str, FileStamp], ...]]:
    """Which files finished sets were made of, by the set's name."""
    done = (record for record in records if record.state == "done")
    return {record.name: tuple((m.path, m.stamp) for m in record.members) for record in done}
