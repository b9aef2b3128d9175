"""Jumps of the wall clock: the time was set, or the machine slept."""

from collections.abc import Callable

# Wall clock against monotonic clock: more than any slew between two scans, less than a retry delay.
JUMP_SECONDS = 10.0


class ClockJumps:
    """Compares the wall clock `now` with the `monotonic` one."""

    def __init__(self, *, now: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._now = now
        self._monotonic = monotonic
        self._difference: float | None = None

    def seconds(self) -> float:
        """Return by how much the wall clock has jumped forward since the last call; 0 for no jump."""
        before, now = self._difference, self._now() - self._monotonic()
        self._difference = now
        jump = 0.0 if before is None else now - before
        return jump if abs(jump) >= JUMP_SECONDS else 0.0
