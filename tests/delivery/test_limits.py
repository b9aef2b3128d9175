"""The limits of clouds within one process, where a host has its ledger for itself."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.waiting import PATIENCE_SECONDS, no_stop, until
from uecwatchd.bundle.bundler import Part, PartData
from uecwatchd.bundle.upload_slots import UNLIMITED, UploadSlots, store_parts
from uecwatchd.delivery.limits import CloudLimits, waiting_words
from uecwatchd.errors import Stopped
from uecwatchd.ledger.slots import OwnSlots, SlotKey, SlotLimit, slots_to_keep

KEY, OTHER = SlotKey("near", "uploads"), SlotKey("far", "uploads")


def limits(most: int) -> CloudLimits:
    slots = OwnSlots()
    slots.announce(["near", "far"], {KEY: most}, probes=False)
    return CloudLimits(slots)


def ignore(_: str) -> None:
    """Show nothing."""


def parts(count: int) -> list[PartData]:
    return [PartData(Part(number, f"p.part.{number}", 1, ""), b"x") for number in range(count)]


class AtOnce:
    """Counts what is done at once; each of it ends when it may."""

    def __init__(self, *, held: bool) -> None:
        self.most = self.now = self.all = 0
        self.may_end = threading.Event()
        self._lock = threading.Lock()
        if not held:
            self.may_end.set()

    def do(self, _: object = None) -> None:
        with self._lock:
            self.now += 1
            self.all += 1
            self.most = max(self.most, self.now)
        assert self.may_end.wait(PATIENCE_SECONDS)
        with self._lock:
            self.now -= 1


def upload(limited: CloudLimits, count: int, at_once: AtOnce, slots: UploadSlots) -> None:
    with limited.of_a_set(), limited.used(KEY, most=slots.most, check=no_stop, waits=ignore) as permits:
        store_parts(parts(count), at_once.do, slots=slots, permits=permits)


def test_a_cloud_without_a_limit_has_none() -> None:
    limited = limits(1)
    with ExitStack() as users:
        for _ in range(3):
            permits = users.enter_context(limited.used(OTHER, most=4, check=no_stop, waits=ignore))
            assert permits is UNLIMITED
            assert permits.take()


@pytest.mark.parametrize(("most", "uploads"), [(1, 1), (2, 3), (3, 3), (5, 2)])
def test_uploads_together_send_as_many_parts_as_the_limit_says(most: int, uploads: int) -> None:
    limited, at_once = limits(most), AtOnce(held=True)
    with ThreadPoolExecutor(uploads) as pool:
        done = [pool.submit(upload, limited, 20, at_once, UploadSlots(8)) for _ in range(uploads)]
        until(lambda: at_once.now == most)
        at_once.may_end.set()
        for one in done:
            one.result(PATIENCE_SECONDS)
    assert (at_once.most, at_once.all) == (most, 20 * uploads)


def test_an_upload_without_a_slot_is_served_before_one_that_has_some() -> None:
    limited, order = limits(1), list[str]()
    first_sends, may_end = threading.Event(), threading.Event()

    def send(name: str, _: PartData) -> None:
        order.append(name)
        first_sends.set()
        assert may_end.wait(PATIENCE_SECONDS)

    def run(name: str) -> None:
        with limited.used(KEY, most=4, check=no_stop, waits=waits.append) as permits:
            store_parts(parts(5), lambda part: send(name, part), slots=UploadSlots(4), permits=permits)

    waits: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run, "a")
        assert first_sends.wait(PATIENCE_SECONDS)
        second = pool.submit(run, "b")
        until(lambda: waits)
        may_end.set()
        first.result(PATIENCE_SECONDS)
        second.result(PATIENCE_SECONDS)
    assert waits[0] == "waits for the one upload to cloud near"
    assert order[:2] == ["a", "b"]


def test_who_waits_can_be_stopped_and_leaves_its_place() -> None:
    limited = limits(1)

    def stop() -> None:
        raise Stopped("karmic", "the service was asked to stop", "Later.")

    with (
        limited.one(KEY, check=no_stop, waits=ignore),
        pytest.raises(Stopped),
        limited.one(KEY, check=stop, waits=ignore),
    ):
        pass
    with limited.one(KEY, check=stop, waits=ignore):
        """Nobody waits before it."""


def test_a_request_that_fails_frees_its_slot() -> None:
    limited = limits(1)
    with pytest.raises(KeyError), limited.one(KEY, check=no_stop, waits=ignore):
        raise KeyError
    with limited.one(KEY, check=no_stop, waits=ignore):
        pass


def test_a_limit_that_is_gone_after_a_reload_holds_nobody() -> None:
    slots = OwnSlots()
    slots.announce(["near"], {KEY: 1}, probes=False)
    limited, at_once = CloudLimits(slots), AtOnce(held=True)
    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(upload, limited, 1, at_once, UploadSlots(4)) for _ in range(2)]
        until(lambda: at_once.now == 1)
        slots.announce(["near"], {}, probes=False)
        until(lambda: at_once.now == 2)
        at_once.may_end.set()
        for one in done:
            one.result(PATIENCE_SECONDS)


def test_many_threads_keep_to_a_limit_and_all_come_through() -> None:
    limited, at_once = limits(3), AtOnce(held=False)
    chance = random.Random(1)  # noqa: S311 (only for a mix)
    counts = [chance.randrange(1, 6) for _ in range(60)]
    with ThreadPoolExecutor(12) as pool:
        for one in [pool.submit(upload, limited, count, at_once, UploadSlots(4)) for count in counts]:
            one.result(PATIENCE_SECONDS)
    assert at_once.most <= 3
    assert at_once.all == sum(counts)


def test_what_a_set_waits_for_is_said_in_one_clause() -> None:
    key = SlotKey("b", "uploads")
    assert waiting_words(key, SlotLimit(4), held=0) == (
        "waits for one of the 4 uploads to cloud b that other hosts have"
    )
    assert waiting_words(key, SlotLimit(4), held=4) == "waits for one of the 4 uploads to cloud b"
    assert waiting_words(SlotKey("b", "registrations"), SlotLimit(1), held=0) == (
        "waits for the one registration at cloud b that another host has"
    )


NUMBER = st.integers(1, 64)


@given(NUMBER, st.lists(NUMBER, min_size=1, max_size=20), st.integers(0, 20))
def test_hosts_that_share_keep_no_more_than_there_is(most: int, used: list[int], waiting: int) -> None:
    limit = SlotLimit(most, waiting=waiting, sharing=len(used) + waiting)
    kept = [slots_to_keep(one, limit) for one in used]
    assert all(0 <= keep <= one for keep, one in zip(kept, used, strict=True))
    if waiting:
        assert sum(kept) <= most
        assert most - sum(kept) >= min(waiting, most), "those that wait find some"
