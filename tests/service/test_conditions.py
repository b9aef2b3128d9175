"""A condition is told once while it lasts, and again after it was over."""

from tests.support.listener import Recorder
from uecwatchd.errors import Deferred, Rejected
from uecwatchd.events import Kind
from uecwatchd.service.conditions import Conditions

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
