"""A condition is reported once while it lasts, and again after it was over."""

from contextlib import closing
from pathlib import Path

from tests.support.listener import Recorder
from uecwatchd.errors import Deferred, Halted, Rejected
from uecwatchd.events import Kind
from uecwatchd.ledger.api import LedgerAway
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.service.cloud_reports import CloudReports
from uecwatchd.service.conditions import OUTAGE, Conditions, reported_part

SLOW = ("slow", "/srv/images")


def test_the_same_text_is_reported_once_and_another_one_again(listener: Recorder) -> None:
    conditions = Conditions(listener)
    for text in ("a", "a", "b", "b", "a"):
        conditions.set(SLOW, text)
    assert listener.sentences(Kind.FAULT) == ["a", "b", "a"]


def test_with_once_another_text_is_not_reported_either_until_it_is_over(listener: Recorder) -> None:
    conditions = Conditions(listener)
    for text in ("7 s", "9 s", "", "8 s"):
        conditions.set(SLOW, text, once=True)
    assert listener.sentences(Kind.FAULT) == ["7 s", "8 s"]


def test_what_is_noted_quietly_is_not_reported_later(listener: Recorder) -> None:
    conditions = Conditions(listener)
    conditions.set(SLOW, "a", quiet=True)
    conditions.set(SLOW, "a")
    assert conditions.lasts(SLOW)
    assert listener.events == []


def test_clear_returns_whether_the_condition_lasted(listener: Recorder) -> None:
    conditions = Conditions(listener)
    conditions.set(SLOW, "a")
    assert conditions.clear(SLOW)
    assert not conditions.clear(SLOW)


def test_of_one_topic_all_but_some_are_forgotten(listener: Recorder) -> None:
    conditions = Conditions(listener)
    keys = [("left out", "/srv", "a"), ("left out", "/srv", "b"), ("left out", "/other", "a")]
    for key in keys:
        conditions.set(key, "it is no image")
    conditions.clear_others(("left out", "/srv"), keys[:1])
    assert [conditions.lasts(key) for key in keys] == [True, False, True]


def test_an_outage_of_the_ledger_is_reported_once(listener: Recorder) -> None:
    conditions = Conditions(listener)
    for reason in ("the database system is shutting down", "connection refused", "it is starting up"):
        for folder in ("/srv/a", "/srv/b"):
            conditions.set_error(("folder", folder), LedgerAway("database fleet", reason, "Wait."))
    assert len(listener.events) == 1
    assert not conditions.clear(("folder", "/srv/a"))
    assert conditions.clear(OUTAGE)


def test_an_error_is_reported_once_until_the_thing_is_done(listener: Recorder) -> None:
    conditions = Conditions(listener)
    for error in (Rejected("a", "b", "c"), Rejected("a", "b", "c"), None, Rejected("a", "b", "c")):
        with conditions.guard(SLOW, "a"):
            if error:
                raise error
    assert listener.sentences(Kind.FAULT) == ["a: b. c"] * 2


def test_a_fault_of_our_own_is_reported_with_its_traceback(listener: Recorder) -> None:
    with Conditions(listener).guard(SLOW, "karmic"):
        raise ValueError("planted")
    (event,) = listener.events
    assert event.level == "error"
    assert "ValueError: planted" in str(event.fields["traceback"])


def test_what_is_done_again_and_again_tells_each_fault_once(listener: Recorder) -> None:
    again = Conditions(listener).recurring("the loop")
    for text in ("the same", "the same", "another", "", "another"):
        with again.attempt():
            if text:
                raise ValueError(text)
    assert len(listener.events) == 3


def test_a_deferral_is_no_fault_of_our_own(listener: Recorder) -> None:
    with Conditions(listener).guard(SLOW, "karmic"):
        raise Deferred("a", "b", "c")
    assert not listener.events[0].fields


def test_a_halt_of_a_cloud_is_reported_once_for_each_cause_until_the_cloud_resumes(
    listener: Recorder, tmp_path: Path
) -> None:
    wrong_key, wrong_clock = Halted("cloud c", "the key is wrong", "A."), Halted("cloud c", "its clock", "B.")
    with closing(open_ledger(tmp_path)) as book:
        reports = CloudReports(book, Conditions(listener), listener, wake=lambda: None)
        reports.suspended("c", wrong_key)  # a set has reported it
        for error in (wrong_key, wrong_clock, wrong_key, wrong_clock):
            reports.halted("c", error)
        assert listener.sentences(Kind.HALTED) == [str(wrong_clock)]
        reports.resumed("c", reported=False)
        reports.halted("c", wrong_key)
    assert listener.sentences(Kind.HALTED) == [str(wrong_clock), str(wrong_key)]


def test_of_suspensions_in_a_row_two_are_reported_and_the_beginning_of_a_third() -> None:
    assert [reported_part(number) for number in (0, 1, 2, 3, 4)] == [
        *("all", "all", "all", "beginning", "nothing")
    ]


def test_only_conditions_that_are_kept_are_not_reported_again(listener: Recorder) -> None:
    conditions = Conditions(listener)
    for _ in range(2):
        conditions.set(("late",), "late")
        conditions.set(("slow", "/srv"), "slow")
        conditions.keep_only(lambda key: key[0] == "late")
    assert listener.sentences(Kind.FAULT) == ["late", "slow", "slow"]
