"""Upload slots: slices are stored while the next ones are made, a limited number of them at once."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial

from uecwatchd.bundle.bundler import Slice


class UploadSlots:
    """How many slices are stored at once, of all bundles together.

    Memory holds one part more than that, the one being made, and they are shared out evenly: each bundle has
    one on its way at least, and one being made. More uploads at once make no connection faster.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._sharers: list[object] = []

    @contextmanager
    def shared(self) -> Iterator[Callable[[], int]]:
        """For one bundle, while it is stored: what tells its share, which changes as others come and go."""
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


def in_flight(
    slices: Iterable[Slice],
    store: Callable[[Slice], None],
    *,
    slots: UploadSlots,
    check: Callable[[], None] = lambda: None,
    done: Callable[[Slice], None] = lambda _piece: None,
) -> None:
    """Store slices, as many at once as there are slots; memory holds those under way and the one being made.

    `check` is called before each is stored, `done` once it is, both in this thread.
    Raises what any of them raised, after the parts under way have ended.
    """
    under_way: dict[Future[None], Slice] = {}

    def wait_for_some() -> None:  # whichever they are: one that is sent anew holds up no other
        for stored in wait(under_way, return_when=FIRST_COMPLETED).done:
            piece = under_way.pop(stored)
            stored.result()
            done(piece)

    threads = ThreadPoolExecutor(slots.most, f"{threading.current_thread().name} part")
    with threads as pool, slots.shared() as share:
        for piece in slices:
            check()
            while len(under_way) >= share():
                wait_for_some()
            under_way[pool.submit(store, piece)] = piece
        while under_way:
            wait_for_some()
