"""Progress: how far each set has come and how fast, kept in one place for all outputs.

Stages report progress thousands of times a second. Each output subscribes with a number of seconds: it gets
a snapshot when that time is over and there is progress. The outputs do not poll: each would need a thread
with a timer, which also runs while there is no work. The thread that made the progress shows the snapshot.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from uecwatchd.events import Event, Kind, Progress
from uecwatchd.types import SetId

# A shorter time says nothing about speed: the first part comes from a cache.
LEAST_SECONDS = 1.0
# After these events there is no work on the set until another event says so.
ENDS = frozenset({Kind.DONE, Kind.DEFERRED, Kind.REJECTED, Kind.HALTED, Kind.WAITING, Kind.ASKED, Kind.FAULT})


@dataclass(frozen=True, slots=True)
class TrackedProgress:
    """The latest progress of a set."""

    latest: Progress
    began: float  #: seconds of the epoch when this stage began with this file
    speed: float  #: bytes per second since then; 0 while it is not known


Snapshot = tuple[TrackedProgress, ...]  # one for each set, in the order in which they began
Show = Callable[[Snapshot], None]


@dataclass(slots=True)
class _Stage:
    """One stage of a set with one file. `since` is by the tracker's clock, `began` by the wall clock."""

    first: Progress
    latest: Progress
    since: float
    began: float
    speed: float = 0.0

    def snapshot(self) -> TrackedProgress:
        return TrackedProgress(self.latest, self.began, self.speed)


@dataclass(slots=True, eq=False)
class _Subscriber:
    show: Show
    every_seconds: float
    ends: bool
    shown_at: float
    only: SetId | None = None  #: the set to show; None for all

    def is_due(self, changed: SetId, now: float) -> bool:
        return self.only in (None, changed) and now - self.shown_at >= self.every_seconds


class ProgressTracker:
    """Listener that keeps the progress of all sets. Safe to use from several threads.

    `clock` counts seconds, `now` is the wall clock.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._now = now
        self._subscribers: list[_Subscriber] = []
        self._lock = threading.Lock()  # guards the subscribers, their times, and _sets
        # By stage and file, the latest last. Two folders may have sets of one name.
        self._sets: dict[SetId, dict[tuple[str, str], _Stage]] = {}

    def subscribe(
        self, show: Show, *, every_seconds: float, at_once: bool = True, ends: bool = False
    ) -> None:
        """Call `show` with a snapshot when there is progress, at most once in so many seconds.

        `at_once`: also with the first progress. `ends`: also at each end of work on a set.
        """
        shown_at = float("-inf") if at_once else self._clock()
        with self._lock:
            self._subscribers.append(_Subscriber(show, every_seconds, ends, shown_at))

    @contextmanager
    def following(self, set_id: SetId, show: Show, *, every_seconds: float) -> Iterator[None]:
        """Call `show` with the progress of one set every so many seconds, for as long as this lasts."""
        follower = _Subscriber(show, every_seconds, ends=False, shown_at=self._clock(), only=set_id)
        with self._lock:
            self._subscribers.append(follower)
        try:
            yield
        finally:
            with self._lock:
                self._subscribers.remove(follower)

    def tell(self, event: Event) -> None:
        if event.kind in ENDS:
            self.end(event.set)

    def end(self, set_id: SetId | None) -> None:
        """Forget the progress of a set, and show the others."""
        with self._lock:
            if set_id:
                self._sets.pop(set_id, None)
            told = [one for one in self._subscribers if one.ends]
        for one in told:
            one.show(self.snapshot())

    def clear(self) -> None:
        """Forget all progress, and show that: the work is over, however it ended."""
        with self._lock:
            self._sets.clear()
        self.end(None)

    def progress(self, progress: Progress) -> None:
        now = self._clock()
        with self._lock:
            self._update(progress, now)
            due = [one for one in self._subscribers if one.is_due(progress.set, now)]
            for one in due:
                one.shown_at = now
        for one in due:
            one.show(self.snapshot(only=one.only))

    def snapshot(self, *, only: SetId | None = None) -> Snapshot:
        """Return the progress of all sets, or of one."""
        with self._lock:
            shown = (stages for key, stages in self._sets.items() if only in (None, key))
            return tuple(tuple(stages.values())[-1].snapshot() for stages in shown)

    def _update(self, progress: Progress, now: float) -> None:
        stages, key = self._sets.setdefault(progress.set, {}), (progress.stage, progress.file)
        stage = stages.pop(key, None)
        if stage is None or progress.done < stage.latest.done:
            stage = _Stage(progress, progress, now, self._now())
        stage.latest = progress
        stage.speed = rate(progress.done - stage.first.done, now - stage.since)
        stages[key] = stage


def rate(done: int, seconds: float) -> float:
    """Return bytes per second; 0 if the time is too short, or a clock was set back."""
    return done / seconds if seconds >= LEAST_SECONDS else 0.0


def seconds_left(*, done: int, total: int, speed: float) -> float | None:
    return max(0, total - done) / speed if speed and total else None
