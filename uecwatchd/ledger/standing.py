"""The standing of a set that goes to several clouds: on each of them, and on the whole.

Its record has the state on one cloud in its own fields, and the states on the others in their targets. To
look at it from another cloud, the two change places. So what is written for one cloud works for each.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, Final

from uecwatchd.ledger.records import CONNECT_STAGE, SetRecord, State, TargetStatus

# The states of an unfinished set, the most urgent first: work to do, a person to act, then time to pass.
_URGENCY: tuple[State, ...] = (
    *("working", "queued", "halted", "rejected", "deferred", "withdrawn", "waiting", "done"),
)
# On a cloud that a set does not go to now, these have no meaning.
UNSETTLED: frozenset[State] = frozenset({"queued", "waiting", "deferred", "halted"})
# The state of a set that is done on some of its clouds, as people see it.
PARTLY: Final = "partly"


def seen_from(record: SetRecord, cloud: str) -> SetRecord:
    """Return the record with the state on this cloud in its fields; queued if there was no attempt yet."""
    if record.cloud == cloud:
        return record
    if not record.cloud:
        return replace(record, cloud=cloud)
    status = record.target_on(cloud).status or TargetStatus("queued", record.since)
    left = replace(record.target, status=_status(record))
    entered = replace(record.target_on(cloud), status=None)
    return replace(record.with_target(left).with_target(entered), cloud=cloud, **_values(status))


def with_state_of(record: SetRecord, other: SetRecord) -> SetRecord:
    """Return the record with the state, times and error of another view of the set."""
    return replace(record, **_values(_status(other)))


def by_cloud(record: SetRecord) -> tuple[SetRecord, ...]:
    """Return the record as seen from each cloud that the set goes to, in their order.

    A record from before the first attempt is returned alone, as it is.
    """
    if len(record.targets) < 2:  # most sets go to one cloud, and there may be thousands of them
        return (record,)
    return tuple(seen_from(record, target.cloud) for target in record.current) or (record,)


def with_each(
    record: SetRecord, change: Callable[[SetRecord], SetRecord], clouds: Iterable[str] | None = None
) -> SetRecord:
    """Return the record with a change made as seen from each of these clouds, or from all.

    Afterwards it is seen from the same cloud as before.
    """
    if not record.cloud:
        return change(record)
    changed = record
    for cloud in [one.cloud for one in record.current] if clouds is None else clouds:
        changed = change(seen_from(changed, cloud))
    return seen_from(changed, record.cloud)


def combine(record: SetRecord) -> SetRecord:
    """Return the record as seen from the cloud that matters most: an unfinished required one, if any."""
    if len(record.targets) < 2:
        return record
    required = [one for one in by_cloud(record) if one.target.is_required] or [record]
    undone = [one for one in required if one.state != "done"]
    return min(undone, key=lambda one: _URGENCY.index(one.state)) if undone else required[0]


def leading_cloud(record: SetRecord) -> str:
    """Return the cloud whose ids are those of the set: the first required one of its list."""
    return next((target.cloud for target in record.current if target.is_required), record.cloud)


def hold_scope(record: SetRecord | None, cloud: str) -> str:
    """Return the cloud of a hold, or nothing for a hold of the whole set.

    A set for one cloud is held as a whole.
    """
    others = record and any(target.cloud != cloud for target in record.current)
    return cloud if others else ""


def is_published(record: SetRecord) -> bool:
    """Return True for a set that is done on every required cloud: its ids are promised."""
    return combine(record).state == "done"


def clouds_done(record: SetRecord) -> tuple[str, ...]:
    """Return the clouds that a set is finished on."""
    return tuple(one.cloud for one in by_cloud(record) if one.state == "done")


def count_done(record: SetRecord) -> tuple[int, int]:
    """Return the number of finished clouds of a set, and of all."""
    every = by_cloud(record)
    return sum(one.state == "done" for one in every), len(every)


def with_waits(record: SetRecord, waits: Mapping[str, str], *, now: float) -> SetRecord:
    """Return the record with the clouds that a set does not go to yet as waiting, each with its reason.

    One that it waited for, and that is no longer among them, is queued. An outcome for good stays.
    """

    def change(one: SetRecord) -> SetRecord:
        reason = waits.get(one.cloud, "")
        if not one.awaits_requirements and (not reason or one.state not in UNSETTLED):
            return one
        if one.awaits_requirements and reason == one.reason:
            return one
        if not reason:
            return replace(one, state="queued", since=now, stage="", reason="")
        waiting = replace(one, state="waiting", since=now, stage=CONNECT_STAGE, reason=reason)
        return replace(waiting, next_retry=None, error=None, deferrals=0, first_failure=None)

    clouds = [one.cloud for one in by_cloud(record) if one.awaits_requirements or one.cloud in waits]
    return with_each(record, change, clouds)


def of_these_files(record: SetRecord, stamp: str) -> SetRecord:
    """Return the record for files with this stamp: if it is of others, no cloud has a state yet."""
    if record.stamp == stamp:
        return record
    targets = tuple(replace(one, status=None) for one in record.targets)
    return replace(record, stamp=stamp, state="working", targets=targets, deferrals=0, first_failure=None)


def shown_state(record: SetRecord) -> str:
    """Return the state as people see it: `partly` if it is done on some of the required clouds only."""
    state = combine(record).state
    return PARTLY if state not in ("done", "working") and count_done(record)[0] else state


def _status(record: SetRecord) -> TargetStatus:
    return TargetStatus(**{field.name: getattr(record, field.name) for field in fields(TargetStatus)})


def _values(status: TargetStatus) -> dict[str, Any]:
    return {field.name: getattr(status, field.name) for field in fields(TargetStatus)}
