"""Results that several threads want are made once, and only the last few are kept."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from uecwatchd.images.formats.recent_results import RecentResults

THREADS = 8


def test_a_result_for_many_threads_is_computed_once() -> None:
    made, together = list[int](), threading.Barrier(THREADS)

    def make(key: int) -> str:
        made.append(key)
        return str(key)

    recent = RecentResults(make, limit=4)

    def ask(_: int) -> str:
        together.wait()
        return recent(7)

    with ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(ask, range(THREADS))) == ["7"] * THREADS
    assert made == [7]


def test_other_results_are_computed_concurrently() -> None:
    begun, finish = threading.Event(), threading.Event()

    def make(key: int) -> int:
        if key == 0:
            begun.set()
            assert finish.wait(60)
        return key

    recent = RecentResults(make, limit=4)
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(recent, 0)
        assert begun.wait(60)
        assert recent(1) == 1
        finish.set()
        assert slow.result() == 0


def test_the_least_recently_used_result_is_dropped() -> None:
    made = list[int]()
    recent = RecentResults(lambda key: made.append(key) or key, limit=2)
    for key in (1, 2, 1, 3, 1, 2):
        recent(key)
    assert made == [1, 2, 3, 2]


def test_an_error_is_not_kept() -> None:
    tries = list[int]()

    def make(key: int) -> int:
        tries.append(key)
        if len(tries) == 1:
            raise OSError("the disk is busy")
        return key

    recent = RecentResults(make, limit=2)
    with pytest.raises(OSError, match="busy"):
        recent(5)
    assert recent(5) == 5
