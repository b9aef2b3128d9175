"""What an error makes of a set: its class, the time of its next attempt, and the sentence that says so."""

from collections.abc import Mapping
from dataclasses import replace

from uecwatchd import report
from uecwatchd.errors import Deferred, Halted, Rejected, UecError
from uecwatchd.ledger import Failure, SetRecord, State
from uecwatchd.monitor import Event, Fields, Kind

# From "a switch was rebooted" to "the night shift is over": 30 s doubling to an hour, for two days.
FIRST_DELAY_SECONDS = 30.0
LONGEST_DELAY_SECONDS = 3600.0
GIVE_UP_SECONDS = 2 * 86400.0
# Spread retries by a fifth, so that sets deferred by one outage do not come back in one moment.
JITTER = 0.2

KIND_OF_FAILURE: Mapping[str, Kind] = {
    "rejected": Kind.REJECTED,
    "deferred": Kind.DEFERRED,
    "halted": Kind.HALTED,
}


def failed(record: SetRecord, error: UecError, *, now: float, spread: float) -> SetRecord:
    """What an error makes of a set: the class is the error's, the time of the next attempt is ours."""
    failure = Failure(error.kind, error.what, error.why, error.hint, error.request_id, error.exit_code)
    if not isinstance(error, Deferred):
        state: State = "halted" if isinstance(error, Halted) else "rejected"
        record = replace(record, state=state, since=now, deferrals=0, first_failure=None)
        return replace(record, next_retry=None, error=failure)
    first = record.first_failure or now
    if now - first > GIVE_UP_SECONDS:
        why = f"{error.why}, for two days and {record.attempt} attempts"
        failure = replace(failure, kind="rejected", why=why, exit_code=Rejected.exit_code)
        return replace(record, state="rejected", since=now, next_retry=None, error=failure)
    delay = min(FIRST_DELAY_SECONDS * 2**record.deferrals, LONGEST_DELAY_SECONDS)
    retry = now + delay * (1 - JITTER / 2 + JITTER * spread)
    record = replace(record, deferrals=record.deferrals + 1, first_failure=first)
    return replace(record, state="deferred", since=now, next_retry=retry, error=failure)


def failure_event(record: SetRecord) -> Event:
    """The sentence for a failed set: what and why in the line itself, the hint beside it."""
    error = record.error or Failure("rejected", record.name, "unknown", "")
    fields: Fields = {
        "error": f"{error.what}: {error.why}",
        "hint": f"{error.hint} {report.when_again(record)}",
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
