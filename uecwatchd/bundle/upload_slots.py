"""Upload slots: parts are uploaded while the next ones are made, a limited number at once."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from typing import Protocol

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


class Permits(Protocol):
    """Permits to send a part, where a cloud takes only so many at once."""

    def take(self) -> bool:
        """Take one, if there is one now."""

    def give_back(self) -> None:
        """Give one back, in the thread that has sent the part."""

    def wait(self) -> None:
        """Wait a moment for one. May raise to end the wait."""


class Unlimited:
    """Permits where there is no limit."""

    def take(self) -> bool:
        return True

    def give_back(self) -> None:
        """Do nothing."""

    def wait(self) -> None:
        """Do nothing: no caller waits."""


UNLIMITED = Unlimited()


def store_parts(
    parts: Iterable[PartData],
    store: Callable[[PartData], None],
    *,
    slots: UploadSlots,
    permits: Permits = UNLIMITED,
    check: Callable[[], None] = lambda: None,
    done: Callable[[PartData], None] = lambda _part: None,
) -> None:
    """Store parts, as many at once as there are slots and permits.

    Memory holds these and the one that is being made. `check` is called before each upload and `done` after
    it, both in this thread. Raises what any of them raised, after the running uploads have ended.
    """
    uploading: dict[Future[None], PartData] = {}

    def wait_for_some() -> None:  # any of them: one that is sent again delays no other
        for stored in wait(uploading, return_when=FIRST_COMPLETED).done:
            part = uploading.pop(stored)
            stored.result()
            done(part)

    def store_one(part: PartData) -> None:
        try:
            store(part)
        finally:
            permits.give_back()

    threads = ThreadPoolExecutor(slots.most, f"{threading.current_thread().name} part")
    with threads as pool, slots.shared() as share:
        for part in parts:
            check()
            while len(uploading) >= share() or not permits.take():
                (wait_for_some if uploading else permits.wait)()
            uploading[pool.submit(store_one, part)] = part
        while uploading:
            wait_for_some()
