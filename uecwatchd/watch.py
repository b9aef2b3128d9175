"""Events from the kernel about the spool folders, and whether they can still be trusted.

An event is no more than a reason to look: it sets a flag, and what is then done is decided from what lies
there. The service looks by itself as well, now and then.
Where the kernel cannot see what other hosts write, no events are asked for at all.
"""

import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from uecwatchd.errors import NotPermitted, UecError
from uecwatchd.spool import folder_descriptor, is_output

# What a change of content or name looks like; opening and closing without writing happens at our own reading.
WAKING = frozenset({"created", "modified", "moved", "deleted", "closed"})

# File systems on which other hosts, or a process behind them, write without the kernel's knowing.
DEAF_FILE_SYSTEMS = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "fuse",
    "ceph",
    "glusterfs",
    "afs",
    "ocfs2",
    "gfs2",
    "virtiofs",
)
# Seconds between scans there: often enough for a person who waits, seldom enough for a file server.
DEAF_SCAN_SECONDS = 15.0

MOUNTINFO = Path("/proc/self/mountinfo")


class _Wake(FileSystemEventHandler):
    """Sets a flag and nothing else: an exception here would silently end watchdog's dispatcher."""

    def __init__(self, wake: threading.Event) -> None:
        self._flag = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        # A folder is "modified" by what is told of by an event of its own.
        if event.event_type not in WAKING or (event.is_directory and event.event_type == "modified"):
            return
        if not all(_is_ours(path) for path in (event.src_path, event.dest_path) if path):
            self._flag.set()


def _is_ours(path: str | bytes) -> bool:
    """Whether it is a file that we put beside the images, or are just writing: no reason to look again."""
    name = os.fsdecode(path).rsplit("/", 1)[-1]
    return is_output(name) or (name.startswith(".") and ".uec." in name)


@dataclass(frozen=True, slots=True)
class Way:
    """How a folder is watched: by events or not, and how often it is scanned (seconds) whatever comes.

    `why` is empty, or says what stands in the way of events.
    """

    folder: Path
    events: bool
    scan_every: float
    why: str = ""

    def __str__(self) -> str:
        if self.events:
            return f"{self.folder} (inotify, full scan every {self.scan_every:g} s)"
        return f"{self.folder} ({self.why}: scan every {self.scan_every:g} s)"


class Watch:
    """Watches folders from `start` to `stop`. Not thread-safe: it belongs to the service's loop."""

    def __init__(self, folders: Iterable[Path], wake: threading.Event, *, scan_every: float) -> None:
        self._folders = tuple(folders)
        self._wake = wake
        self._scan_every = scan_every
        self._observer: BaseObserver | None = None
        self._seen: dict[Path, tuple[int, int] | None] = {}
        self.ways: tuple[Way, ...] = ()

    def start(self) -> None:
        """Begin to watch what can be watched; the rest is scanned. Never raises: see `ways`."""
        self._seen = {folder: identity(folder) for folder in self._folders}
        self._observer = Observer()
        self.ways = tuple(self._way(folder, self._observer) for folder in self._folders)
        self._observer.start()

    def stop(self) -> None:
        if self._observer and self._observer.is_alive():
            self._observer.stop()
            self._observer.join()
        self._observer = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def lost(self) -> str:
        """Why events can no longer be trusted; empty while they can.

        A watched folder that is deleted, renamed away or mounted over leaves an observer that looks alive.
        """
        changed = [folder for folder, before in self._seen.items() if identity(folder) != before]
        if changed:
            return f"{changed[0]} was replaced, removed or mounted over"
        if self._observer is None or not self._observer.is_alive():
            return "the observer's thread has ended"
        if len([e for e in self._observer.emitters if e.is_alive()]) < sum(way.events for way in self.ways):
            return "an emitter's thread has ended"
        return ""

    def _way(self, folder: Path, observer: BaseObserver) -> Way:
        if why := _deaf_because(folder):
            return Way(folder, events=False, scan_every=min(self._scan_every, DEAF_SCAN_SECONDS), why=why)
        try:
            # One level down, because a set may come as a folder; inotify does not look below by itself.
            observer.schedule(_Wake(self._wake), str(folder), recursive=True)
        except OSError as error:  # the inotify limits: fs.inotify.max_user_watches, max_user_instances
            why = f"no inotify, {error.strerror or error}; raise fs.inotify.max_user_watches"
            return Way(folder, events=False, scan_every=min(self._scan_every, DEAF_SCAN_SECONDS), why=why)
        return Way(folder, events=True, scan_every=self._scan_every)


def identity(folder: Path) -> tuple[int, int] | None:
    """What tells one folder from another in its place: device and inode; None when there is none."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def _deaf_because(folder: Path) -> str:
    try:
        with folder_descriptor(folder):
            pass
    except NotPermitted:
        return "not readable"
    except UecError:
        return "not there"
    kind = file_system_type(folder, MOUNTINFO.read_text(errors="surrogateescape"))
    return kind if kind.startswith(DEAF_FILE_SYSTEMS) else ""


def file_system_type(folder: Path, mountinfo: str) -> str:
    """The type of the file system that a folder lies on, from the text of `/proc/self/mountinfo`.

    Its fifth field is the mount point with spaces as octal escapes; the type follows the lone hyphen.
    """
    best, kind = "", ""
    path = str(folder.resolve())
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4].replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # the later of two mounts on one point lies on top
            best, kind = point, after.split(" ")[0]
    return kind
