"""Upload slots: parts are uploaded while the next ones are made, a limited number at once."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial

from uecwatchd.bundle.bundler import PartData


class UploadSlots:
    """A limit for the parts that are uploaded at once, of all bundles together.

    Memory holds one part more, the one that is being made. Bundles share the slots evenly: each uploads at
    least one part, and makes one. More uploads at once would not make a connection faster.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._sharers: list[object] = []

    @contextmanager
    def shared(self) -> Iterator[Callable[[], int]]:
        """Share the slots with one more bundle.

        Yields a function that returns the share of this bundle, which changes when others come and go.
        """
        me = object()
        with self._lock:
            self._sharers.append(me)
        try:
            yield partial(self._share, me)
        finally:
            with self._lock:
                self._sharers.remove(me)

    def _share(self, me: object) -> int:
        with self._lock:
            place, sharers = self._sharers.index(me), len(self._sharers)
        return max(1, (self.most + sharers - place) // sharers - 1)

    def sharers(self) -> int:
        return max(1, len(self._sharers))


def store_parts(
    parts: Iterable[PartData],
    store: Callable[[PartData], None],
    *,
    slots: UploadSlots,
    check: Callable[[], None] = lambda: None,
    done: Callable[[PartData], None] = lambda _part: None,
) -> None:
    """Store parts, as many at once as there are slots.

    Memory holds these and the one that is being made. `check` is called before each upload and `done` after
    it, both in this thread. Raises what any of them raised, after the running uploads have ended.
    """
    under_way: dict[Future[None], PartData] = {}

    def wait_for_some() -> None:  # any of them: one that is sent again delays no other
        for stored in wait(under_way, return_when=FIRST_COMPLETED).done:
            part = under_way.pop(stored)
            stored.result()
            done(part)

    threads = ThreadPoolExecutor(slots.most, f"{threading.current_thread().name} part")
    with threads as pool, slots.shared() as share:
        for part in parts:
            check()
            while len(under_way) >= share():
                wait_for_some()
            under_way[pool.submit(store, part)] = part
        while under_way:
            wait_for_some()
