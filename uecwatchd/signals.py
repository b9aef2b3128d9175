"""Signals, each answered in a thread that nothing else runs in.

A handler of Python's runs in the main thread, between any two steps of what that does. Most of what one
would do there waits for a lock, as setting an Event does; and if it is the main thread that holds it at this
moment, then for ever.
"""

import signal
import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue

ENDING = (signal.SIGTERM, signal.SIGINT)


def answer(numbers: Iterable[int], act: Callable[[], object]) -> None:
    """Have `act` called for each of these signals that comes, from now on. From the main thread alone."""
    come = SimpleQueue[int]()  # its `put` alone is made for handlers: it needs no lock that anyone could hold
    threading.Thread(target=_answer, args=(come, act), name="signals", daemon=True).start()
    for number in numbers:
        signal.signal(number, lambda number, _frame: come.put(number))


def _answer(come: SimpleQueue[int], act: Callable[[], object]) -> None:
    while come.get():
        act()
