import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from tests.support.waiting import no_stop, until
from uecwatchd.bundle.bundler import Part, PartData
from uecwatchd.bundle.upload_slots import UploadSlots, store_parts
from uecwatchd.errors import Deferred, Stopped

UPLOADS = 3


def parts(count: int, made: list[int]) -> Iterator[PartData]:
    for number in range(count):
        made.append(number)
        yield PartData(Part(number, f"p.part.{number}", 1, ""), b"x")


def reached(parts: list[int], count: int) -> bool:
    return len(parts) >= count


def test_every_slice_is_sent_once() -> None:
    sent: list[int] = []
    store_parts(
        parts(20, []), lambda piece: sent.append(piece.part.index), slots=UploadSlots(UPLOADS), check=no_stop
    )
    assert sorted(sent) == list(range(20))


def test_no_more_than_the_slices_under_way_and_the_next_one_exist_at_any_time() -> None:
    made: list[int] = []
    sent: list[int] = []
    go_on = threading.Semaphore(0)

    def send(piece: PartData) -> None:
        assert go_on.acquire(timeout=10)
        sent.append(piece.part.index)

    worker = threading.Thread(
        target=store_parts,
        args=(parts(10, made), send),
        kwargs={"slots": UploadSlots(UPLOADS), "check": no_stop},
    )
    worker.start()
    for ended in range(10):
        until(partial(reached, made, min(10, ended + UPLOADS + 1)), "the parts", pause=0.001)
        time.sleep(0.02)  # would another one be made, it would be by now
        assert len(made) <= len(sent) + UPLOADS + 1
        go_on.release()
        until(partial(reached, sent, ended + 1), "the part", pause=0.001)
    worker.join(10)
    assert not worker.is_alive()


def test_a_part_that_takes_long_keeps_no_slot_from_the_others() -> None:
    others = threading.Semaphore(0)

    def send(piece: PartData) -> None:
        if piece.part.index:
            others.release()
        else:
            assert all(others.acquire(timeout=2) for _ in range(9)), "the other slots stood idle"

    store_parts(parts(10, []), send, slots=UploadSlots(UPLOADS))


def test_bundles_that_are_stored_at_once_have_an_even_share_of_the_slots_and_one_at_least() -> None:
    slots = UploadSlots(UPLOADS)
    with slots.shared() as first:
        assert first() == UPLOADS
        with slots.shared() as second:
            assert (first(), second()) == (1, 1), "and two parts are being made"
            assert slots.sharers() == 2
        assert first() == UPLOADS
        with ExitStack() as crowd:
            shares = [crowd.enter_context(slots.shared()) for _ in range(2 * UPLOADS)]
            assert {share() for share in shares} == {1}


@pytest.mark.parametrize(
    ("most", "shares"), [(1, [1, 1]), (3, [1, 1]), (4, [2, 1]), (5, [2, 2]), (8, [2, 2, 2]), (9, [3, 2, 2])]
)
def test_parts_in_memory_are_no_more_for_being_shared_out(most: int, shares: list[int]) -> None:
    slots = UploadSlots(most)
    with ExitStack() as all_of_them:
        limits = [all_of_them.enter_context(slots.shared()) for _ in shares]
        assert [share() for share in limits] == shares
        assert sum(shares) + len(shares) <= max(most + 1, 2 * len(shares))


def test_who_has_more_than_its_share_lets_go_before_it_goes_on() -> None:
    slots, under_way, most = UploadSlots(UPLOADS), set[int](), list[int]()
    other, joined = ExitStack(), list[object]()

    def check() -> None:
        if len(most) >= 10 and not joined:
            joined.append(other.enter_context(slots.shared()))

    def send(piece: PartData) -> None:
        under_way.add(piece.part.index)
        time.sleep(0.005)
        most.append(len(under_way))
        under_way.remove(piece.part.index)

    with other:
        store_parts(parts(40, []), send, slots=slots, check=check)
    assert max(most[:10]) == UPLOADS
    assert set(most[10 + 2 * UPLOADS :]) == {1}


def test_a_failed_upload_ends_the_stream_with_its_own_error() -> None:
    made: list[int] = []

    def send(piece: PartData) -> None:
        if piece.part.index == 2:
            raise Deferred("p", "reset", "Again.")

    with pytest.raises(Deferred, match="reset"):
        store_parts(parts(1000, made), send, slots=UploadSlots(UPLOADS), check=no_stop)
    assert len(made) < 20


def test_work_stops_between_two_parts_and_those_under_way_are_finished() -> None:
    sent: list[int] = []
    checks = iter([False, False, True])

    def check() -> None:
        if next(checks):
            raise Stopped("p", "asked", "Later.")

    def send(piece: PartData) -> None:
        time.sleep(0.05)
        sent.append(piece.part.index)

    with pytest.raises(Stopped):
        store_parts(parts(10, []), send, slots=UploadSlots(UPLOADS), check=check)
    assert sorted(sent) == [0, 1], "the two that were under way; which of them ends first is up to them"
