"""Threads of test boots: when one starts, and what is left of it."""

import threading

import pytest

from uecwatchd.delivery.boot_judgement import BootVerdict
from uecwatchd.delivery.test_boot import BootResult
from uecwatchd.errors import Deferred, Stopped
from uecwatchd.service.boot_threads import BootKey, BootThreads
from uecwatchd.system.internal_errors import InternalError
from uecwatchd.types import SetId

KARMIC, LUCID = SetId("/s", "karmic"), SetId("/s", "lucid")
KEY = BootKey(KARMIC, "near", "emi-1")
PASSED = BootResult(BootVerdict("passed", "it is up"), "i-1", (), 1.0)


def ended(threads: BootThreads, error: Exception | None = None) -> BootThreads:
    """Run a boot to its end."""

    def boot() -> BootResult:
        if error:
            raise error
        return PASSED

    threads.prepare(KEY, boot)
    threads.start(but=())
    threads.wait()
    threads.close()
    return threads


def test_a_boot_starts_when_its_set_is_not_at_work_any_more() -> None:
    threads, started = BootThreads(), threading.Event()
    threads.prepare(KEY, lambda: started.set() or PASSED)
    threads.start(but={KARMIC})
    assert (threads.sets, started.is_set()) == ({KARMIC}, False)
    threads.start_for(LUCID)
    assert not started.is_set()
    threads.start_for(KARMIC)
    threads.close()
    assert started.is_set()


def test_an_end_is_seen_once_and_not_while_the_set_is_at_work() -> None:
    threads = ended(BootThreads())
    assert (threads.take_ended(but={KARMIC}), threads.sets) == ((), {KARMIC})
    ((end,), again) = (threads.take_ended(but=()), threads.take_ended(but=()))
    assert (end.key, end.was_stopped, again, threads.sets) == (KEY, False, (), frozenset())


def test_an_outcome_is_taken_once() -> None:
    threads = ended(BootThreads())
    assert (threads.take_outcome(KEY), threads.take_outcome(KEY)) == (PASSED, None)


def test_a_new_boot_of_a_set_on_a_cloud_takes_the_place_of_an_outcome_that_nobody_wanted() -> None:
    threads = ended(BootThreads())
    threads.prepare(BootKey(KARMIC, "near", "emi-2"), lambda: PASSED)
    assert threads.take_outcome(KEY) is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [(Deferred("a", "b", "c"), Deferred), (RuntimeError("a mistake"), InternalError)],
    ids=["foreseen", "a mistake of our own"],
)
def test_the_error_of_a_boot_is_raised_to_the_next_attempt(
    error: Exception, expected: type[Exception]
) -> None:
    threads = ended(BootThreads(), error)
    assert [one.was_stopped for one in threads.take_ended(but=())] == [False]
    with pytest.raises(expected):
        threads.take_outcome(KEY)
    assert threads.take_outcome(KEY) is None


def test_a_stopped_boot_has_no_outcome() -> None:
    threads = ended(BootThreads(), Stopped("a", "b", "c"))
    assert [one.was_stopped for one in threads.take_ended(but=())] == [True]
    assert threads.take_outcome(KEY) is None
