"""The circuit breaker by itself: no cloud, and a clock that is made up."""

from dataclasses import replace

import pytest

from tests.support.clock import Clock
from uecwatchd.clouds.availability import (
    FIRST_DELAY_SECONDS,
    FIRST_OUTAGE_DELAY_SECONDS,
    LONGEST_OUTAGE_DELAY_SECONDS,
    SEVERAL_SETS,
    CloudAvailability,
    Suspension,
)
from uecwatchd.errors import CloudAway, Halted
from uecwatchd.types import SetId

HALT = Halted("cloud c", "the clock is wrong", "Set it.")
OTHER_HALT = Halted("cloud c", "the key is wrong", "Correct it.")
OUTAGE = CloudAway("cloud c", "no answer", "Wait.")


def breaker(clock: Clock) -> CloudAvailability:
    return CloudAvailability(clock=clock, random=lambda: 0.5)


def test_an_outage_is_probed_at_one_rate_for_three_minutes_and_then_less_and_less() -> None:
    suspension, now, waits = Suspension(OUTAGE, 0.0, 5.0, 5.0), 0.0, []
    while now < 3600:
        now = suspension.probe_at
        delay = suspension.next_delay(now)
        waits.append(delay)
        suspension = replace(suspension, probe_at=now + delay, delay=delay)
    assert waits[:35] == [FIRST_OUTAGE_DELAY_SECONDS] * 35
    assert waits[35:40] == [10.0, 20.0, 40.0, 80.0, 160.0]
    assert set(waits[40:]) == {LONGEST_OUTAGE_DELAY_SECONDS}
    assert len(waits) < 60, "in an hour"


def test_suspensions_are_counted_until_a_set_is_registered() -> None:
    availability = breaker(Clock())
    for _ in range(4):
        availability.suspend("c", OUTAGE)
        availability.resume("c")
    assert availability.suspensions("c") == 4
    availability.note_success("c")
    assert availability.suspensions("c") == 0


def test_a_suspended_cloud_raises_its_reason_until_it_resumes() -> None:
    availability = breaker(Clock())
    assert availability.suspend("c", HALT)
    assert not availability.suspend("c", OUTAGE), "the first reason counts"
    with pytest.raises(Halted, match="the clock is wrong"):
        availability.check("c")
    availability.check("another")
    availability.resume("c")
    availability.check("c")


def test_only_a_new_halt_replaces_the_reason() -> None:
    availability = breaker(Clock())
    availability.suspend("c", HALT)
    availability.extend("c", OUTAGE)
    assert availability.suspended() == {"c": HALT}
    availability.extend("c", OTHER_HALT)
    assert availability.suspended() == {"c": OTHER_HALT}


def test_sets_that_fail_in_a_row_are_counted_until_one_is_registered() -> None:
    availability = breaker(Clock())
    sets = [SetId(f"/srv/{number}", "karmic") for number in range(SEVERAL_SETS)]
    assert not any(availability.note_failure("c", sets[0]) for _ in range(5)), "it is the same set"
    assert [availability.note_failure("c", other) for other in sets[1:]] == [False, True]
    availability.note_success("c")
    assert not availability.note_failure("c", sets[-1])


def test_a_probe_that_is_asked_for_is_due_at_once() -> None:
    clock = Clock()
    availability = breaker(clock)
    availability.suspend("c", HALT)
    assert availability.next_probe() == clock.now + FIRST_DELAY_SECONDS
    assert availability.due() == ()
    availability.probe_soon("c")
    availability.probe_soon("another")
    assert availability.due() == ("c",)
    assert availability.probe_times() == {"c": clock.now}
