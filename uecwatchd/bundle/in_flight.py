"""Slices are stored while the next ones are being made."""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from uecwatchd.bundle.stream import Slice


def in_flight(
    slices: Iterable[Slice],
    store: Callable[[Slice], None],
    *,
    at_once: int,
    check: Callable[[], None] = lambda: None,
    done: Callable[[Slice], None] = lambda _piece: None,
) -> None:
    """Store slices with at most `at_once` of them under way; memory holds those and the one being made.

    `check` is called before each is stored, `done` once it is, both in this thread.
    Raises what any of them raised, after the parts under way have ended.
    """
    under_way: deque[tuple[Future[None], Slice]] = deque()

    def wait_for_oldest() -> None:
        stored, piece = under_way.popleft()
        stored.result()
        done(piece)

    with ThreadPoolExecutor(at_once, f"{threading.current_thread().name} part") as pool:
        for piece in slices:
            check()
            if len(under_way) == at_once:
                wait_for_oldest()
            under_way.append((pool.submit(store, piece), piece))
        while under_way:
            wait_for_oldest()
