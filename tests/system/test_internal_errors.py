"""Whatever exception it is, it becomes a sentence, and is tried again after a pause."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uecwatchd.errors import Deferred, Rejected
from uecwatchd.system.internal_errors import (
    LONGEST_PAUSE_SECONDS,
    InternalError,
    RepeatedWork,
    as_internal_error,
    internal_error,
)

KINDS = [ValueError, KeyError, OSError, RecursionError, MemoryError, StopIteration, AssertionError]


@pytest.mark.parametrize("kind", KINDS)
def test_any_exception_becomes_an_error_of_ours(kind: type[Exception]) -> None:
    expected = f"karmic: a fault of uecwatchd itself: {kind.__name__}"
    with pytest.raises(InternalError, match=expected) as caught, as_internal_error("karmic"):
        raise kind("planted")
    assert isinstance(caught.value, Deferred)
    assert "planted" in caught.value.trace


def test_an_error_of_ours_stays_what_it_is() -> None:
    error = Rejected("a", "b", "c")
    with pytest.raises(Rejected) as caught, as_internal_error("karmic"):
        raise error
    assert caught.value is error


@given(st.text(max_size=2000))
def test_an_internal_error_is_one_short_printable_line(words: str) -> None:
    fault = internal_error("karmic", ValueError(words))
    assert str(fault).isprintable()
    assert len(fault.why) < 1000


def test_an_internal_error_names_the_place_in_the_program() -> None:
    with pytest.raises(InternalError) as caught, as_internal_error("karmic"):
        internal_error("karmic", None)  # type: ignore[arg-type]  # that is the mistake
    assert "system/internal_errors.py:" in caught.value.why
    assert "internal_errors.py:" in caught.value.way


def test_repeated_failures_have_longer_and_longer_pauses() -> None:
    faults: list[InternalError] = []
    thing = RepeatedWork("the loop", failed=faults.append)
    pauses = []
    for _ in range(10):
        with thing.attempt():
            raise ValueError("the same")
        pauses.append(thing.pause)
    assert len(faults) == 10
    assert pauses == sorted(pauses)
    assert pauses[0] > 0
    assert pauses[-1] == LONGEST_PAUSE_SECONDS


def test_success_ends_the_pauses() -> None:
    worked: list[bool] = []
    thing = RepeatedWork("the loop", failed=lambda _: None, worked=lambda: worked.append(True))
    with thing.attempt():
        raise ValueError("the same")
    with thing.attempt():
        pass
    assert thing.pause == 0
    assert worked == [True]


def test_an_error_of_ours_reaches_the_caller_that_waits_for_it() -> None:
    with pytest.raises(Rejected), RepeatedWork("the loop", failed=lambda _: None).attempt():
        raise Rejected("a", "b", "c")
