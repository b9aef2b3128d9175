import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.waiting import PATIENCE_SECONDS, no_stop
from uecwatchd.bundle.bundler import Part, PartData
from uecwatchd.bundle.upload_slots import UploadSlots, store_parts
from uecwatchd.errors import Deferred, Stopped

UPLOADS = 3


def parts(count: int, made: list[int]) -> Iterator[PartData]:
    for number in range(count):
        made.append(number)
        yield PartData(Part(number, f"p.part.{number}", 1, ""), b"x")


def test_every_slice_is_sent_once() -> None:
    sent: list[int] = []
    store_parts(
        parts(20, []), lambda piece: sent.append(piece.part.index), slots=UploadSlots(UPLOADS), check=no_stop
    )
    assert sorted(sent) == list(range(20))


def test_memory_holds_only_the_parts_under_way_and_the_next_one() -> None:
    stored: list[PartData] = []
    in_memory: list[int] = []
    full = threading.Event()

    def counted() -> Iterator[PartData]:
        for piece in parts(10, []):
            in_memory.append(piece.part.index + 1 - len(stored))
            if len(in_memory) > UPLOADS:
                full.set()
            yield piece

    def send(_: PartData) -> None:
        assert full.wait(PATIENCE_SECONDS), "all slots are used while the next part is made"

    store_parts(counted(), send, slots=UploadSlots(UPLOADS), check=no_stop, done=stored.append)
    assert max(in_memory) == UPLOADS + 1
    assert len(stored) == 10


def test_a_slow_part_does_not_block_the_other_slots() -> None:
    others = threading.Semaphore(0)

    def send(piece: PartData) -> None:
        if piece.part.index:
            others.release()
        else:
            assert all(others.acquire(timeout=2) for _ in range(9)), "the other slots stood idle"

    store_parts(parts(10, []), send, slots=UploadSlots(UPLOADS))


def test_concurrent_bundles_share_the_slots_evenly_with_one_each_at_least() -> None:
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
def test_shared_slots_keep_no_more_parts_in_memory(most: int, shares: list[int]) -> None:
    slots = UploadSlots(most)
    with ExitStack() as all_of_them:
        limits = [all_of_them.enter_context(slots.shared()) for _ in shares]
        assert [share() for share in limits] == shares
        assert sum(shares) + len(shares) <= max(most + 1, 2 * len(shares))


def test_a_bundle_above_its_share_finishes_parts_before_it_starts_others() -> None:
    slots, stored, under_way = UploadSlots(UPLOADS), list[PartData](), list[int]()
    full, other, joins_at = threading.Event(), ExitStack(), 10

    def counted() -> Iterator[PartData]:
        for piece in parts(40, []):
            under_way.append(piece.part.index - len(stored))
            if piece.part.index == UPLOADS:
                full.set()
            if piece.part.index == joins_at:
                other.enter_context(slots.shared())
            yield piece

    def send(_: PartData) -> None:
        assert full.wait(PATIENCE_SECONDS), "all slots are used while the bundle is alone"

    with other:
        store_parts(counted(), send, slots=slots, check=no_stop, done=stored.append)
    assert max(under_way) == UPLOADS
    assert set(under_way[joins_at + 1 :]) == {1}


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
    asked = threading.Event()

    def check() -> None:
        if next(checks):
            asked.set()
            raise Stopped("p", "asked", "Later.")

    def send(piece: PartData) -> None:
        assert asked.wait(PATIENCE_SECONDS)
        sent.append(piece.part.index)

    with pytest.raises(Stopped):
        store_parts(parts(10, []), send, slots=UploadSlots(UPLOADS), check=check)
    assert sorted(sent) == [0, 1], "the two that were under way; which of them ends first is up to them"
