import threading
import time
from collections.abc import Iterator

import pytest

from uecwatchd.bundle.in_flight import in_flight
from uecwatchd.bundle.stream import Part, Slice
from uecwatchd.errors import Deferred, Stopped

UPLOADS = 3


def slices(count: int, made: list[int]) -> Iterator[Slice]:
    for number in range(count):
        made.append(number)
        yield Slice(Part(number, f"p.part.{number}", 1, ""), b"x")


def nothing() -> None:
    pass


def test_every_slice_is_sent_once() -> None:
    sent: list[int] = []
    in_flight(slices(20, []), lambda piece: sent.append(piece.part.index), at_once=UPLOADS, check=nothing)
    assert sorted(sent) == list(range(20))


def test_no_more_than_the_slices_under_way_and_the_next_one_exist_at_any_time() -> None:
    made: list[int] = []
    sent: list[int] = []
    go_on = threading.Semaphore(0)

    def send(piece: Slice) -> None:
        assert go_on.acquire(timeout=10)
        sent.append(piece.part.index)

    worker = threading.Thread(
        target=in_flight, args=(slices(10, made), send), kwargs={"at_once": UPLOADS, "check": nothing}
    )
    worker.start()
    for ended in range(10):
        _until(lambda ended=ended: len(made) >= min(10, ended + UPLOADS + 1))
        time.sleep(0.02)  # would another one be made, it would be by now
        assert len(made) <= len(sent) + UPLOADS + 1
        go_on.release()
        _until(lambda ended=ended: len(sent) == ended + 1)
    worker.join(10)
    assert not worker.is_alive()


def _until(true: object) -> None:
    assert callable(true)
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_failed_upload_ends_the_stream_with_its_own_error() -> None:
    made: list[int] = []

    def send(piece: Slice) -> None:
        if piece.part.index == 2:
            raise Deferred("p", "reset", "Again.")

    with pytest.raises(Deferred, match="reset"):
        in_flight(slices(1000, made), send, at_once=UPLOADS, check=nothing)
    assert len(made) < 20


def test_work_is_put_down_between_two_parts_and_those_under_way_are_finished() -> None:
    sent: list[int] = []
    checks = iter([False, False, True])

    def check() -> None:
        if next(checks):
            raise Stopped("p", "asked", "Later.")

    def send(piece: Slice) -> None:
        time.sleep(0.05)
        sent.append(piece.part.index)

    with pytest.raises(Stopped):
        in_flight(slices(10, []), send, at_once=UPLOADS, check=check)
    assert sorted(sent) == [0, 1], "the two that were under way; which of them ends first is up to them"
