"""Transfer rate and remaining time, and how they are shown."""

from dataclasses import dataclass

from uecwatchd.events import Progress

# A shorter time says nothing about speed: the first part comes from a cache.
PACE_SECONDS = 1.0
MINUTE, HOUR = 60, 3600


@dataclass(slots=True)
class Pacer:
    """Bytes per second since the first report of a set's stage, by any one clock."""

    _first: Progress | None = None
    _since: float = 0.0

    def speed(self, progress: Progress, now: float) -> float:
        """Return bytes per second; 0 while it is not known."""
        first = self._first
        if first is None or (first.stage, first.file) != (progress.stage, progress.file):
            first = None
        if first is None or progress.done < first.done:
            first, self._first, self._since = progress, progress, now
        return rate(progress.done - first.done, now - self._since)


def rate(done: int, seconds: float) -> float:
    """Return bytes per second; 0 if the time is too short, or a clock was set back."""
    return done / seconds if seconds >= PACE_SECONDS else 0.0


def seconds_left(*, done: int, total: int, speed: float) -> float | None:
    return max(0, total - done) / speed if speed and total else None


def told(*, part: int, done: int, total: int, speed: float) -> tuple[str, ...]:
    """Return "part 37", "31 %", "84.0 MB/s", as far as they are known."""
    known = []
    if part:
        known.append(f"part {part}")
    if total:
        known.append(f"{100 * done // total} %")
    if speed:
        known.append(f"{speed / 1e6:.1f} MB/s")
    return tuple(known)


def span(seconds: float) -> str:
    """Return "40 s", "12 min", "3 h 20 min", with useful precision."""
    whole = max(0, round(seconds))
    if whole < 2 * MINUTE:
        return f"{whole} s"
    if whole < 2 * HOUR:
        return f"{whole // MINUTE} min"
    return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"
