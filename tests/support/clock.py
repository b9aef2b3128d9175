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
    """The wall clock and the monotonic clock of a daemon. They go, and can be moved forward or made slow."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._slow_since: float | None = None
        self._rate = 1.0

    def now(self) -> float:
        return time.time() + self._offset()

    def monotonic(self) -> float:
        return time.monotonic() + self._offset()

    def pass_by(self, seconds: float) -> None:
        self._ahead += seconds

    def slow_down(self, rate: float) -> None:
        """Let both go at `rate` from now on, less than 1, so that what waits for a time comes much later."""
        self._rate, self._slow_since = rate, time.monotonic()

    def _offset(self) -> float:
        if self._slow_since is None:
            return self._ahead
        return self._ahead - (time.monotonic() - self._slow_since) * (1 - self._rate)
