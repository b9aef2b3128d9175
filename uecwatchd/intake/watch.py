"""Events from the kernel about the spool folders, and checks that they still arrive.

An event only sets a flag that starts a scan; the scan decides what to do. The service also scans without
events, now and then. On file systems where the kernel does not see writes of other hosts, no events are
requested.
"""

import errno
import os
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from posixpath import basename

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from uecwatchd.errors import NotPermitted, UecError
from uecwatchd.intake.spool.output_files import is_output
from uecwatchd.intake.spool.safe_open import folder_descriptor
from uecwatchd.system.mounts import file_system_of, is_shared

# Changes of content, name or mode. Opening and closing without writing is also caused by our own reading.
WAKING = frozenset({"created", "modified", "moved", "deleted", "closed", "attrib"})

# Seconds between scans without events: often enough for a person who waits, and a small load for a file
# server.
EVENTLESS_SCAN_SECONDS = 15.0

# Delay beyond the scan period that is still normal: a scan of a slow disk, a busy processor.
LATE_SCAN_SECONDS = 30.0
# Between two requests for events after a limit, a mode or a missing folder prevented them. Each takes a walk
# through the folder, and people raise limits by hand.
RETRY_SECONDS = 60.0

# The setting to raise, by the kernel's error when the limit is reached.
LIMITS = {errno.ENOSPC: "fs.inotify.max_user_watches", errno.EMFILE: "fs.inotify.max_user_instances"}


class _Wake(FileSystemEventHandler):
    """Handler that only sets a flag: an exception here would silently end watchdog's dispatcher."""

    def __init__(self, wake: threading.Event) -> None:
        self._flag = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        # A folder is "modified" by changes that have an event of their own.
        if event.event_type not in WAKING or (event.is_directory and event.event_type == "modified"):
            return
        if not all(_is_ours(path) for path in (event.src_path, event.dest_path) if path):
            self._flag.set()


def _is_ours(path: str | bytes) -> bool:
    """Return True for a file that the service has written or is writing: it needs no scan."""
    name = basename(os.fsdecode(path))
    return is_output(name) or (name.startswith(".") and ".uec." in name)


@dataclass(frozen=True, slots=True)
class WatchMode:
    """The way to watch a folder: with events or not, and the seconds between scans in any case.

    `why` is the reason for the lack of events, or empty. `passing` is True if the reason may end while the
    folder stays the same.
    """

    folder: Path
    events: bool
    scan_every: float
    why: str = ""
    passing: bool = False

    def __str__(self) -> str:
        if self.events:
            return f"{self.folder} (inotify, full scan every {self.scan_every:g} s)"
        return f"{self.folder} ({self.why}: scan every {self.scan_every:g} s)"


class Watch:
    """Watches folders from `start` to `stop`. Not thread-safe: it belongs to the service's loop.

    In `polled` folders other hosts write as well, which no event tells.
    """

    def __init__(
        self,
        folders: Iterable[Path],
        wake: threading.Event,
        *,
        scan_every: float,
        polled: Collection[Path] = (),
    ) -> None:
        self._folders = tuple(folders)
        self._handler = _Wake(wake)
        self._scan_every = scan_every
        self._polled = polled
        self._observer: BaseObserver | None = None
        self._seen: dict[Path, tuple[int, int] | None] = {}
        self.modes: tuple[WatchMode, ...] = ()

    def start(self) -> None:
        """Start to watch all folders that can be watched; the rest is scanned. Never raises: see `modes`."""
        self._seen = {folder: identity(folder) for folder in self._folders}
        # It is started before folders are added, so that an error about a limit belongs to one folder.
        try:
            observer = Observer()
            observer.start()
        except (OSError, RuntimeError) as error:  # RuntimeError: no more threads
            self._observer = None
            self.modes = tuple(self._scanned(folder, error) for folder in self._folders)
            return
        self._observer = observer
        self.modes = tuple(self._start_mode(folder, observer) for folder in self._folders)

    def stop(self) -> None:
        if self._observer and self._observer.is_alive():
            self._observer.stop()
            self._observer.join()
        self._observer = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def lost(self) -> str:
        """Return why events are no longer reliable; empty while they are.

        After a watched folder is deleted, renamed or mounted over, the observer still looks alive.
        """
        changed = [folder for folder, before in self._seen.items() if identity(folder) != before]
        if changed:
            return f"{changed[0]} was replaced, removed or mounted over"
        if not (watched := [mode for mode in self.modes if mode.events]):
            return ""
        if self._observer is None or not self._observer.is_alive():
            return "the observer's thread has ended"
        if len([e for e in self._observer.emitters if e.is_alive()]) < len(watched):
            return "an emitter's thread has ended"
        return ""

    def improve(self) -> bool:
        """Ask for events again if the reason against them was temporary.

        Returns True if anything has changed.
        """
        before, observer = self.modes, self._observer
        if observer is None:
            self.restart()
        else:
            self.modes = tuple(self._start_mode(w.folder, observer) if w.passing else w for w in before)
        return self.modes != before

    def _start_mode(self, folder: Path, observer: BaseObserver) -> WatchMode:
        if why := _unreachable_because(folder):
            return WatchMode(folder, events=False, scan_every=self._shortest_pause(), why=why, passing=True)
        if is_shared(kind := file_system_of(folder)) or folder in self._polled:
            kind = f"{kind}, shared" if folder in self._polled else kind
            return WatchMode(folder, events=False, scan_every=self._shortest_pause(), why=kind)
        try:
            # One level down, because a set may be a folder; inotify alone is not recursive.
            observer.schedule(self._handler, str(folder), recursive=True)
        except (OSError, RuntimeError) as error:
            return self._scanned(folder, error)
        return WatchMode(folder, events=True, scan_every=self._scan_every)

    def _scanned(self, folder: Path, error: OSError | RuntimeError) -> WatchMode:
        why = f"no inotify, {error}"
        if isinstance(error, OSError) and error.errno in LIMITS:
            why = f"no inotify, {error.strerror}; raise {LIMITS[error.errno]}"
        return WatchMode(folder, events=False, scan_every=self._shortest_pause(), why=why, passing=True)

    def _shortest_pause(self) -> float:
        return min(self._scan_every, EVENTLESS_SCAN_SECONDS)


def seconds_overdue(
    scanned_at: Mapping[Path, float], modes: Iterable[WatchMode], *, now: float
) -> dict[Path, float]:
    """Return for each folder the seconds since its next full scan was due: negative before that.

    `scanned_at` is when the last scan of each ended, on the clock of `now`.
    """
    return {mode.folder: now - scanned_at.get(mode.folder, float("-inf")) - mode.scan_every for mode in modes}


def reason_late(scanned_at: Mapping[Path, float], modes: Iterable[WatchMode], *, now: float) -> str:
    """Return why the daemon does not scan a folder in time; empty if it does.

    `scanned_at` is when the last scan of each ended, on the clock of `now`.
    """
    late = seconds_overdue(scanned_at, modes, now=now)
    worst = max(late, key=lambda folder: late[folder], default=None)
    if worst is None or late[worst] <= LATE_SCAN_SECONDS:
        return ""
    return f"{worst} was not scanned for {late[worst]:.0f} s longer than the time between its scans"


def identity(folder: Path) -> tuple[int, int] | None:
    """Return device and inode of a folder, which change if it is replaced; None if there is none."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def _unreachable_because(folder: Path) -> str:
    try:
        with folder_descriptor(folder):
            return ""
    except NotPermitted:
        return "not readable"
    except UecError:
        return "not there"
