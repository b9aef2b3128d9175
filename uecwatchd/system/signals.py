"""Signals, each handled in a separate thread, and the stop event that they set.

Python runs a signal handler in the main thread, between any two steps. Most handlers need a lock, as
Event.set does. If the main thread holds that lock at this moment, the handler waits for ever.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from queue import SimpleQueue

from uecwatchd.errors import Stopped

ENDING = (signal.SIGTERM, signal.SIGINT)
# From the request to stop to the end of the process in any case: people and systemd accept five seconds. Work
# that has not stopped by then, because a disk or a library hangs, is left as after a crash, and resumed
# later.
PATIENCE_SECONDS = 3.5
# The same for a verb that only reads.
LOOKING_SECONDS = 1.5
# How long a running request may continue after a request to stop: a part that is nearly sent, or an image
# that is just being registered, is not repeated then. systemd and people wait for this.
GRACE_SECONDS = 2.0


class Stop(threading.Event):
    """A request to stop. Running requests to a cloud end within `grace` seconds, and no new ones start."""

    def __init__(self, *, grace: float = GRACE_SECONDS) -> None:
        super().__init__()
        self._grace = grace
        self._asked_at = float("inf")

    def set(self) -> None:
        if not self.is_set():
            self._asked_at = time.monotonic()
        super().set()

    def seconds_left(self) -> float:
        """Return how long a running request may still take; infinite if no stop was requested."""
        return max(0.0, self._asked_at + self._grace - time.monotonic())

    def may_go_on(self) -> None:
        """Raise `Stopped` if no request may run any more."""
        if not self.seconds_left():
            hint = "It is asked again at the next start."
            raise Stopped("asking the cloud", "a stop was asked for", hint)


# For work that can be ended at any moment.
NEVER = Stop()


def handle_signals(numbers: Iterable[int], act: Callable[[], object]) -> None:
    """Call `act` for each of these signals from now on. Only the main thread may call this."""
    received = SimpleQueue[int]()  # its `put` is safe in a signal handler: it needs no lock
    threading.Thread(target=_handle, args=(received, act), name="signals", daemon=True).start()
    for number in numbers:
        signal.signal(number, lambda number, _frame: received.put(number))


def handle_stop_signals(
    act: Callable[[], object],
    *,
    code: int,
    patience: float = PATIENCE_SECONDS,
    last: Callable[[], object] = lambda: None,
) -> None:
    """Call `act` when the process is asked to end. If it does not end within `patience` seconds, call `last`
    and exit with `code`."""

    def end() -> None:
        threading.Thread(target=_exit_later, args=(patience, last, code), name="last", daemon=True).start()
        act()

    handle_signals(ENDING, end)


def stop_on_signals(*, code: int) -> Stop:
    """Return the stop event of a reading verb. It has less time than a verb that writes."""
    stop = Stop(grace=GRACE_SECONDS / 4)
    handle_stop_signals(stop.set, code=code, patience=LOOKING_SECONDS)
    return stop


def end_by_interrupt() -> None:
    """End the process as Ctrl-C does by default, so that a shell's script ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


def _exit_later(seconds: float, last: Callable[[], object], code: int) -> None:
    time.sleep(seconds)
    try:
        last()
    finally:
        os._exit(code)


def _handle(received: SimpleQueue[int], act: Callable[[], object]) -> None:
    while received.get():
        act()
