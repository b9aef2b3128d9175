"""State of a set after an error, and the time of its next retry."""

from dataclasses import replace

from uecwatchd.errors import Deferred, Halted, Rejected, UecError
from uecwatchd.ledger.records import Failure, SetRecord, State
from uecwatchd.ledger.standing import with_each

# From "a switch was restarted" to "the night shift is over": 30 s doubling to an hour, for two days.
FIRST_DELAY_SECONDS = 30.0
LONGEST_DELAY_SECONDS = 3600.0
GIVE_UP_SECONDS = 2 * 86400.0
# A retry further away than any delay was written by another clock: the time has been set back since.
BEYOND_ANY_DELAY_SECONDS = 1.2 * LONGEST_DELAY_SECONDS
# Most images are ready within a minute; for one that takes half an hour, a minute late is soon enough.
FIRST_LOOK_SECONDS = 5.0
LONGEST_LOOK_SECONDS = 60.0
# Retries are spread by a fifth, so that sets deferred by one outage do not come back in the same moment.
JITTER = 0.2


def record_failure(
    record: SetRecord,
    error: UecError,
    *,
    now: float,
    spread: float,
    away: bool = False,
    further: bool = False,
) -> SetRecord:
    """Return the record of a set after an error: state by the error's class, time of the retry.

    A set whose cloud is `away` has no such time: it is due as soon as the cloud answers again.
    A set that came `further` than ever before starts again with the shortest delay and its full two days.
    `spread`, 0 to 1, is for the jitter.
    """
    if further:
        record = with_fresh_retries(record)
    words = (error.kind, error.what, error.why, error.hint, error.request_id)
    failure = Failure(*words, exit_code=error.exit_code, console=error.console)
    if not isinstance(error, Deferred):
        state: State = "halted" if isinstance(error, Halted) else "rejected"
        record = replace(with_fresh_retries(record), state=state, since=now)
        return replace(record, next_retry=None, error=failure)
    first = min(record.first_failure or now, now)
    if _lasts_too_long(first, now):
        why = f"{error.why}, for two days and {record.attempt} attempts"
        failure = replace(failure, kind="rejected", why=why, exit_code=Rejected.exit_code)
        return replace(record, state="rejected", since=now, next_retry=None, error=failure)
    delay = min(FIRST_DELAY_SECONDS * 2**record.deferrals, LONGEST_DELAY_SECONDS)
    retry = now + delay * (1 - JITTER / 2 + JITTER * spread)
    record = replace(record, deferrals=record.deferrals + 1, first_failure=first)
    return replace(record, state="deferred", since=now, next_retry=None if away else retry, error=failure)


def with_fresh_retries(record: SetRecord) -> SetRecord:
    """Start again with the shortest delay and the full two days."""
    return replace(record, deferrals=0, first_failure=None)


def is_retry_due(record: SetRecord, *, now: float, suspended: bool) -> bool:
    """Tell if a deferred set is to be tried again. `suspended` says if its cloud is."""
    if record.next_retry is None:  # it waits for its cloud, but not for ever
        return not suspended or _lasts_too_long(record.first_failure or now, now)
    return not now < record.next_retry < now + BEYOND_ANY_DELAY_SECONDS


def next_check_at(since: float, *, now: float) -> float:
    """Return when to look again at an image that is pending since then: soon at first, later less often."""
    return now + min(LONGEST_LOOK_SECONDS, max(FIRST_LOOK_SECONDS, (now - since) / 10))


def _lasts_too_long(first: float, now: float) -> bool:
    return now - first > GIVE_UP_SECONDS


def adjust_for_downtime(record: SetRecord, *, started: float) -> SetRecord:
    """Leave out the time without a service from the two days of a set that is deferred.

    `started` is when this service was started. Of the time before, only one delay counts: the one that was
    planned, or the longest for a set that waited for its cloud. `first_failure` moves forward by the rest.
    """
    if record.first_failure is None:
        return record
    pause = LONGEST_DELAY_SECONDS if record.next_retry is None else record.next_retry - record.since
    idle = max(0.0, started - record.since - max(0.0, pause))
    return replace(record, first_failure=record.first_failure + idle)


def adjust_for_clock_jump(record: SetRecord, jump_seconds: float) -> SetRecord:
    """Shift the times of a set that is deferred or waits after the wall clock was changed.

    `jump_seconds` is positive if the clock jumped forward. The elapsed and the remaining wait do not change.
    """
    return with_each(record, lambda one: _shifted(one, jump_seconds))


def _shifted(record: SetRecord, jump_seconds: float) -> SetRecord:
    retry, first = record.next_retry, record.first_failure
    return replace(
        record,
        since=record.since + jump_seconds if record.awaits_cloud else record.since,
        next_retry=None if retry is None else retry + jump_seconds,
        first_failure=None if first is None else first + jump_seconds,
    )
