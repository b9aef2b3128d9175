"""How fast work goes, how long it will still take, and how people are told so."""

from dataclasses import dataclass

from uecwatchd.events import Progress

# A shorter span than this tells nothing about speed: the first part comes out of a cache.
PACE_SECONDS = 1.0
MINUTE, HOUR = 60, 3600


@dataclass(slots=True)
class Pacer:
    """Measures the bytes per second since a stage of one set was first heard of, by any one clock."""

    _first: Progress | None = None
    _since: float = 0.0

    def speed(self, progress: Progress, now: float) -> float:
        """0 while it is not known."""
        first = self._first
        if first is None or (first.stage, first.file) != (progress.stage, progress.file):
            first = None
        if first is None or progress.done < first.done:
            first, self._first, self._since = progress, progress, now
        return rate(progress.done - first.done, now - self._since)


def rate(done: int, seconds: float) -> float:
    """Bytes per second; 0 where too little time has gone by, or a clock was set back meanwhile."""
    return done / seconds if seconds >= PACE_SECONDS else 0.0


def seconds_left(*, done: int, total: int, speed: float) -> float | None:
    return max(0, total - done) / speed if speed and total else None


def told(*, part: int, done: int, total: int, speed: float) -> tuple[str, ...]:
    """Say "part 37", "31 %", "84.0 MB/s", as much of it as is known."""
    known = []
    if part:
        known.append(f"part {part}")
    if total:
        known.append(f"{100 * done // total} %")
    if speed:
        known.append(f"{speed / 1e6:.1f} MB/s")
    return tuple(known)


def span(seconds: float) -> str:
    """Say "40 s", "12 min", "3 h 20 min": as exactly as anybody wants to know."""
    whole = max(0, round(seconds))
    if whole < 2 * MINUTE:
        return f"{whole} s"
    if whole < 2 * HOUR:
        return f"{whole // MINUTE} min"
    return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"
