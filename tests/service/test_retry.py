from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uecwatchd.errors import CloudAway, Deferred, Halted, NotPermitted, Rejected, UecError
from uecwatchd.ledger.records import SetRecord, TargetRecord
from uecwatchd.outputs.wording import failure_event
from uecwatchd.service.retry import (
    GIVE_UP_SECONDS,
    adjust_for_downtime,
    is_retry_due,
    record_failure,
    with_fresh_retries,
)
from uecwatchd.types import SetId

RECORD = SetRecord(
    SetId("/s", "karmic"),
    "stamp",
    "working",
    0.0,
    stage="publish",
    attempt=1,
    cloud="default",
    targets=(TargetRecord("default"),),
)
PASSING = Deferred("the cloud", "it is away", "Wait.")


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (Rejected("a", "b", "c"), "rejected"),
        (Deferred("a", "b", "c"), "deferred"),
        (CloudAway("a", "b", "c"), "deferred"),
        (Halted("a", "b", "c"), "halted"),
        (NotPermitted("a", "b", "c"), "halted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, UecError) else value,
)
def test_the_state_follows_from_the_class_of_the_error(error: UecError, state: str) -> None:
    record = record_failure(RECORD, error, now=10.0, spread=0.5)
    assert (record.state, record.since) == (state, 10.0)
    assert record.error
    assert record.error.what == "a"
    assert (record.next_retry is not None) == (state == "deferred")


@pytest.mark.parametrize(("before", "delay"), [(0, 30), (1, 60), (2, 120), (6, 1920), (7, 3600), (500, 3600)])
def test_retries_are_30_seconds_apart_doubling_to_an_hour(before: int, delay: int) -> None:
    record = record_failure(replace(RECORD, attempt=99, deferrals=before), PASSING, now=1000.0, spread=0.5)
    assert record.next_retry == 1000.0 + delay


@given(spread=st.floats(0, 1))
def test_retries_are_spread_by_a_tenth_either_way(spread: float) -> None:
    retry = record_failure(RECORD, PASSING, now=1000.0, spread=spread).next_retry
    assert retry is not None
    assert 1027.0 <= retry <= 1033.0


def test_an_error_of_another_class_restarts_the_count() -> None:
    first = record_failure(RECORD, PASSING, now=1000.0, spread=0.5)
    halted = record_failure(first, Halted("a", "b", "c"), now=2000.0, spread=0.5)
    again = record_failure(halted, PASSING, now=1000.0 + 3 * GIVE_UP_SECONDS, spread=0.5)
    assert again.state == "deferred"
    assert (again.deferrals, again.next_retry) == (1, again.since + 30)


def test_a_set_that_fails_for_two_days_is_rejected() -> None:
    first = record_failure(RECORD, PASSING, now=1000.0, spread=0.5)
    later = record_failure(first, PASSING, now=1000.0 + GIVE_UP_SECONDS, spread=0.5)
    assert later.state == "deferred"
    last = record_failure(later, PASSING, now=1001.0 + GIVE_UP_SECONDS, spread=0.5)
    assert (last.state, last.next_retry) == ("rejected", None)
    assert last.error
    assert last.error.kind == "rejected"
    assert "for two days" in last.error.why


@pytest.mark.parametrize(
    ("next_retry", "first", "suspended", "expected"),
    [
        (1010.0, 900.0, False, False),
        (1000.0, 900.0, False, True),
        (1000.0, 900.0, True, True),
        (1000.0 + 30 * 86400.0, 900.0, False, True),
        (None, 900.0, False, True),
        (None, 900.0, True, False),
        (None, 999.0 - GIVE_UP_SECONDS, True, True),
        (None, 1000.0 + 30 * 86400.0, True, False),
    ],
    ids=[
        *("too early", "in time", "in time, to say that it waits for its cloud"),
        *("written by a clock that was ahead", "its cloud is back", "its cloud is away", "for too long"),
        "first failed by a clock that was ahead",
    ],
)
def test_when_a_deferred_set_is_due(
    next_retry: float | None,
    first: float,
    suspended: bool,  # noqa: FBT001
    expected: bool,  # noqa: FBT001
) -> None:
    record = replace(RECORD, state="deferred", next_retry=next_retry, first_failure=first)
    assert is_retry_due(record, now=1000.0, suspended=suspended) is expected


def test_a_weekend_without_a_service_does_not_count() -> None:
    record, now = RECORD, 1000.0
    for _ in range(4):  # each begun and ended with a passing trouble
        record = record_failure(adjust_for_downtime(record, started=now), PASSING, now=now, spread=0.5)
        assert record.state == "deferred"
        now += GIVE_UP_SECONDS


@given(
    pauses=st.lists(
        st.tuples(st.sampled_from(["on", "off"]), st.booleans(), st.floats(1.0, 1e6)), max_size=30
    )
)
def test_time_with_a_service_counts_and_one_pause_of_the_time_without(
    pauses: list[tuple[str, bool, float]],
) -> None:
    record, now, started, tried = RECORD, 1e6, 1e6, 0.0
    for service, away, waited in pauses:
        record = record_failure(
            adjust_for_downtime(record, started=started), PASSING, now=now, spread=0.5, away=away
        )
        if abs(tried - GIVE_UP_SECONDS) > 1.0:  # floats of the epoch are not exact
            assert (record.state == "rejected") == (tried > GIVE_UP_SECONDS)
        if record.state == "rejected":
            break
        pause = 3600.0 if record.next_retry is None else record.next_retry - now
        tried += waited if service == "on" else min(waited, pause)
        now += waited
        started = started if service == "on" else now


def test_a_repeated_error_is_rejected_after_two_days() -> None:
    for every in (None, 60.0):  # a daemon, and a run of `once` each minute
        record, now = RECORD, 1000.0
        for _ in range(10_000):
            started = 1000.0 if every is None else now
            record = record_failure(
                adjust_for_downtime(record, started=started), PASSING, now=now, spread=0.5
            )
            if record.next_retry is None:
                break
            now = record.next_retry + (every or 0.0)
        assert record.state == "rejected"
        assert GIVE_UP_SECONDS < now - 1000.0 < GIVE_UP_SECONDS + 3 * 3600.0


@pytest.mark.parametrize("jump", [-5e6, -3600.0, 5e6], ids=["months back", "an hour back", "months ahead"])
def test_a_clock_change_without_a_service_rejects_nothing(jump: float) -> None:
    first = record_failure(RECORD, PASSING, now=1e7, spread=0.5)
    now = 1e7 + jump
    again = record_failure(adjust_for_downtime(first, started=now), PASSING, now=now, spread=0.5)
    assert again.state == "deferred"


def test_a_set_whose_cloud_is_away_has_no_time_of_its_own() -> None:
    record = record_failure(RECORD, CloudAway("a", "b", "c"), now=1000.0, spread=0.5, away=True)
    assert (record.state, record.next_retry, record.first_failure) == ("deferred", None, 1000.0)


def test_the_sentence_says_what_and_why_and_the_fields_say_what_to_do() -> None:
    error = Rejected("karmic.img: cannot read it", "mode 0600", "Try: chmod g+r karmic.img", request_id="r-1")
    event = failure_event(record_failure(RECORD, error, now=1.0, spread=0.5))
    assert event.sentence == "karmic is rejected: karmic.img: cannot read it: mode 0600"
    assert "chmod" in str(event.fields["hint"])
    assert event.fields["request_id"] == "r-1"


def test_an_attempt_that_was_asked_for_has_its_two_days_again() -> None:
    late = replace(RECORD, deferrals=9, first_failure=5.0)
    assert with_fresh_retries(late) == replace(RECORD, deferrals=0, first_failure=None)
