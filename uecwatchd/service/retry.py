"""What an error makes of a set: its class, the time of its next attempt, and the sentence that says so."""

from collections.abc import Mapping
from dataclasses import replace

from uecwatchd.errors import Deferred, Halted, Rejected, UecError
from uecwatchd.events import Event, Fields, Kind
from uecwatchd.ledger.records import Failure, SetRecord, State
from uecwatchd.outputs import result_files

# From "a switch was rebooted" to "the night shift is over": 30 s doubling to an hour, for two days.
FIRST_DELAY_SECONDS = 30.0
LONGEST_DELAY_SECONDS = 3600.0
GIVE_UP_SECONDS = 2 * 86400.0
# What is further away than any delay was written by another clock: the time has been set back since.
BEYOND_ANY_DELAY_SECONDS = 1.2 * LONGEST_DELAY_SECONDS
# Most images are ready within a minute; one that takes half an hour is not noticed a minute late.
FIRST_LOOK_SECONDS = 5.0
LONGEST_LOOK_SECONDS = 60.0
# Spread retries by a fifth, so that sets deferred by one outage do not come back in one moment.
JITTER = 0.2

KIND_OF_FAILURE: Mapping[str, Kind] = {
    "rejected": Kind.REJECTED,
    "deferred": Kind.DEFERRED,
    "halted": Kind.HALTED,
}


def failed(
    record: SetRecord,
    error: UecError,
    *,
    now: float,
    spread: float,
    away: bool = False,
    further: bool = False,
) -> SetRecord:
    """What an error makes of a set: the class is the error's, the time of the next attempt is ours.

    A set whose cloud is `away` has no such time: it is due as soon as that answers again. One that has come
    `further` than ever before begins its pauses and its two days again.
    """
    if further:
        record = replace(record, deferrals=0, first_failure=None)
    failure = Failure(error.kind, error.what, error.why, error.hint, error.request_id, error.exit_code)
    if not isinstance(error, Deferred):
        state: State = "halted" if isinstance(error, Halted) else "rejected"
        record = replace(record, state=state, since=now, deferrals=0, first_failure=None)
        return replace(record, next_retry=None, error=failure)
    first = min(record.first_failure or now, now)
    if _for_too_long(first, now):
        why = f"{error.why}, for two days and {record.attempt} attempts"
        failure = replace(failure, kind="rejected", why=why, exit_code=Rejected.exit_code)
        return replace(record, state="rejected", since=now, next_retry=None, error=failure)
    delay = min(FIRST_DELAY_SECONDS * 2**record.deferrals, LONGEST_DELAY_SECONDS)
    retry = now + delay * (1 - JITTER / 2 + JITTER * spread)
    record = replace(record, deferrals=record.deferrals + 1, first_failure=first)
    return replace(record, state="deferred", since=now, next_retry=None if away else retry, error=failure)


def retry_due(record: SetRecord, *, now: float, closed: bool) -> bool:
    """Whether a deferred set is to be tried again. `closed` is whether its cloud's gate is."""
    if record.next_retry is None:  # it waits for its cloud, but not for ever
        return not closed or _for_too_long(record.first_failure or now, now)
    return not now < record.next_retry < now + BEYOND_ANY_DELAY_SECONDS


def next_look(since: float, *, now: float) -> float:
    """When an image that is pending since then is looked at again: soon at first, and then less often."""
    return now + min(LONGEST_LOOK_SECONDS, max(FIRST_LOOK_SECONDS, (now - since) / 10))


def _for_too_long(first: float, now: float) -> bool:
    return now - first > GIVE_UP_SECONDS


def resumed(record: SetRecord, *, started: float) -> SetRecord:
    """A set's record as the set is taken up again by a service that started then.

    Of the time before, in which no service may have run, only a pause counts towards the two days: the one
    that was planned, or the longest there is for a set that waited for its cloud. `first_failure` moves on by
    the rest.
    """
    if record.first_failure is None:
        return record
    pause = LONGEST_DELAY_SECONDS if record.next_retry is None else record.next_retry - record.since
    idle = max(0.0, started - record.since - max(0.0, pause))
    return replace(record, first_failure=record.first_failure + idle)


def shifted(record: SetRecord, by: float) -> SetRecord:
    """The record of a set that is deferred or waits, once the clock was set or the machine has slept: what
    was waited, and what is still to be, stays what it was. `by` is in seconds, positive where the clock
    jumped ahead."""
    retry, first = record.next_retry, record.first_failure
    return replace(
        record,
        since=record.since + by if record.awaits_cloud else record.since,
        next_retry=None if retry is None else retry + by,
        first_failure=None if first is None else first + by,
    )


def failure_event(record: SetRecord) -> Event:
    """The sentence for a failed set: what and why in the line itself, the hint beside it."""
    error = record.error or Failure("rejected", record.name, "unknown", "")
    fields: Fields = {
        "error": f"{error.what}: {error.why}",
        "hint": f"{error.hint} {result_files.when_again(record)}",
        "attempt": record.attempt,
        "cloud": record.cloud,
        "stage": record.stage,
        "request_id": error.request_id,
    }
    return Event(
        KIND_OF_FAILURE[record.state],
        f"{record.name} is {record.state}: {error.what}: {error.why}",
        record.name,
        level="warning" if record.state == "deferred" else "error",
        fields={name: value for name, value in fields.items() if value},
    )
