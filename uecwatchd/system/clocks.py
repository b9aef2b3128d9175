"""Time and chance, passed to all that depends on them, so that tests can replace them."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clocks:
    """The clocks of one service, and its random numbers."""

    now: Callable[[], float] = time.time  #: wall clock in seconds since the epoch, for stored times
    monotonic: Callable[[], float] = time.monotonic  #: for ages of files, and for pauses
    random: Callable[[], float] = lambda: 0.5  #: 0 to 1, so that retries do not come at the same moment
    #: waits for an event, at most so many seconds; returns True if the event has come
    wait: Callable[[threading.Event, float], bool] = threading.Event.wait
