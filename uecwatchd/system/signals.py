"""Signals, each answered in a thread that nothing else runs in, and the wish to stop that they bring.

A handler of Python's runs in the main thread, between any two steps of what that does. Most of what one
would do there waits for a lock, as setting an Event does; and if it is the main thread that holds it at this
moment, then for ever.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from queue import SimpleQueue

from uecwatchd.errors import Stopped

ENDING = (signal.SIGTERM, signal.SIGINT)
# From a wish to stop to the end of the process, come what may: people and systemd wait five seconds without a
# question. What has not been put down by then, in a disk or a library that does not come back, is left as a
# crash would leave it, and taken up from there.
PATIENCE_SECONDS = 3.5
# The same of a verb that only looks, and leaves nothing behind.
LOOKING_SECONDS = 1.5
# How long a request that is under way may go on once a stop was asked for: a part that is nearly sent, or an
# image that is just being registered, need not be asked for twice. systemd and people wait meanwhile.
GRACE_SECONDS = 2.0


class Stop(threading.Event):
    """A wish to stop. Requests that are under way then end within `grace` seconds, and none begins later."""

    def __init__(self, *, grace: float = GRACE_SECONDS) -> None:
        super().__init__()
        self._grace = grace
        self._asked_at = float("inf")

    def set(self) -> None:
        if not self.is_set():
            self._asked_at = time.monotonic()
        super().set()

    def seconds_left(self) -> float:
        """For which a request may still be under way; infinite before a stop was asked for."""
        return max(0.0, self._asked_at + self._grace - time.monotonic())

    def may_go_on(self) -> None:
        """Raises `Stopped` when no request may be under way any more."""
        if not self.seconds_left():
            hint = "It is asked again at the next start."
            raise Stopped("asking the cloud", "a stop was asked for", hint)


# Of those who can be ended at any moment, without more ado.
NEVER = Stop()


def answer(numbers: Iterable[int], act: Callable[[], object]) -> None:
    """Have `act` called for each of these signals that comes, from now on. From the main thread alone."""
    come = SimpleQueue[int]()  # its `put` alone is made for handlers: it needs no lock that anyone could hold
    threading.Thread(target=_answer, args=(come, act), name="signals", daemon=True).start()
    for number in numbers:
        signal.signal(number, lambda number, _frame: come.put(number))


def answer_end(act: Callable[[], object], *, code: int, patience: float = PATIENCE_SECONDS) -> None:
    """Have `act` called when the process is to end; where no end follows soon, end it with `code`."""

    def end() -> None:
        threading.Thread(target=_end_at_last, args=(patience, code), name="last", daemon=True).start()
        act()

    answer(ENDING, end)


def stopped_by_signals(*, code: int) -> Stop:
    """What tells a verb that only looks whether it is to end: sooner than one that makes something."""
    stop = Stop(grace=GRACE_SECONDS / 4)
    answer_end(stop.set, code=code, patience=LOOKING_SECONDS)
    return stop


def _end_at_last(seconds: float, code: int) -> None:
    time.sleep(seconds)
    os._exit(code)


def _answer(come: SimpleQueue[int], act: Callable[[], object]) -> None:
    while come.get():
        act()
