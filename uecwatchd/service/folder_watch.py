"""Watch over the spool folders: kernel events, and full scans in time where events may be lacking."""

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from uecwatchd.config.records import SpoolSettings
from uecwatchd.config.sharing import shared_folders
from uecwatchd.events import Event, Kind, Level, Listener
from uecwatchd.intake.watch import RETRY_SECONDS, Watch, reason_late, seconds_overdue
from uecwatchd.service.conditions import Conditions


class FolderWatch:
    """Wakes the service's loop after changes, and knows which folders are due for a scan. Belongs to it."""

    def __init__(
        self,
        settings: SpoolSettings,
        *,
        wake: threading.Event,
        listener: Listener,
        conditions: Conditions,
        monotonic: Callable[[], float],
    ) -> None:
        self._wake = wake
        self._listener = listener
        self._conditions = conditions
        self._monotonic = monotonic
        self._scanned_at: dict[Path, float] = {}
        self._improved_at = float("-inf")
        self.start(settings)

    def start(self, settings: SpoolSettings) -> None:
        """Watch the folders of this configuration."""
        self.settings = settings
        polled = shared_folders(settings)
        self._watch = Watch(settings.folders, self._wake, scan_every=settings.scan_every, polled=polled)
        self._watch.start()

    def stop(self) -> None:
        self._watch.stop()

    def report(self) -> None:
        """Report how each folder is watched, if that has changed."""
        for mode in self._watch.modes:
            level: Level = "warning" if mode.passing else "info"
            key = ("watching", str(mode.folder))
            self._conditions.set(key, f"Watching {mode}", kind=Kind.READY, level=level)

    def restore(self) -> bool:
        """Restart lost watches, and watch folders that can be watched now.

        Returns True if all folders must be scanned, because changes in between caused no events.
        """
        now = self._monotonic()
        if lost := self._watch.lost():
            text = f"Lost the watch: {lost}; watching again"
            self._listener.tell(Event(Kind.WATCH_LOST, text, level="warning"))
            self._watch.restart()
            self.report()
            return True
        if now - self._improved_at < RETRY_SECONDS:
            return False
        self._improved_at = now
        improved = self._watch.improve()
        self.report()
        return improved

    def note_scan(self, folders: Iterable[Path], *, ended: float) -> None:
        self._scanned_at.update(dict.fromkeys(folders, ended))

    def overdue(self) -> tuple[Path, ...]:
        """Return the folders whose next full scan is due."""
        late = seconds_overdue(self._scanned_at, self._watch.modes, now=self._monotonic())
        return tuple(folder for folder, seconds in late.items() if seconds >= 0)

    def due_in(self) -> float:
        """Return the seconds until the next full scan is due; negative if it is late."""
        late = seconds_overdue(self._scanned_at, self._watch.modes, now=self._monotonic())
        return -max(late.values())

    def reason_late(self) -> str:
        """Return why the service does not scan a folder in time; empty if it does."""
        return reason_late(self._scanned_at, self._watch.modes, now=self._monotonic())
