"""Clocks that tests set."""

import time


class Clock:
    """A clock that goes only while somebody sleeps by it, or sets it."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self.slept = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.now += seconds


class Clocks:
    """The wall clock and the monotonic clock of a daemon. They go, and can be moved forward together."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> float:
        return time.time() + self._ahead

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead

    def pass_by(self, seconds: float) -> None:
        self._ahead += seconds
