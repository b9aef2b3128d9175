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
        sharer = object()
        with self._lock:
            self._sharers.append(sharer)
        try:
            yield partial(self._share, sharer)
        finally:
            with self._lock:
                self._sharers.remove(sharer)

    def _share(self, sharer: object) -> int:
        with self._lock:
            place, sharers = self._sharers.index(sharer), len(self._sharers)
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
    uploading: dict[Future[None], PartData] = {}

    def wait_for_some() -> None:  # any of them: one that is sent again delays no other
        for stored in wait(uploading, return_when=FIRST_COMPLETED).done:
            part = uploading.pop(stored)
            stored.result()
            done(part)

    threads = ThreadPoolExecutor(slots.most, f"{threading.current_thread().name} part")
    with threads as pool, slots.shared() as share:
        for part in parts:
            check()
            while len(uploading) >= share():
                wait_for_some()
            uploading[pool.submit(store, part)] = part
        while uploading:
            wait_for_some()
