"""Spool folders that are filled from buckets, each by a thread of its own.

An image may take hours to come, and a cloud may hang: neither keeps the loop from anything. What is fetched
gets its name when it is complete, and then the folder's watch tells the loop of it.
"""

import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path

from uecwatchd.clouds.access import CloudAccess
from uecwatchd.config.records import SpoolSettings
from uecwatchd.errors import Stopped, UecError
from uecwatchd.mirror.look import Mirror, MirroredFolder, MirrorLook
from uecwatchd.service.service_context import Shared
from uecwatchd.system.signals import GRACE_SECONDS

# A list of a thousand objects is one small request.
LOOK_SECONDS = 10.0
# While objects are fetched, of which only a few are at a time.
BUSY_PAUSE_SECONDS = 1.0
MOST_NAMED = 3


class BucketFolders:
    """The folders with a bucket, and their threads. Belongs to the service's loop."""

    def __init__(self, settings: SpoolSettings, shared: Shared, clouds: CloudAccess) -> None:
        self._conditions = shared.conditions
        self._stopping = shared.signals.stopping
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self.troubles: dict[Path, UecError] = {}  #: errors of the last looks of `look_now`
        self._take(settings, clouds)

    def _take(self, settings: SpoolSettings, clouds: CloudAccess) -> None:
        self._clouds = clouds
        self._pause = min(LOOK_SECONDS, settings.scan_every)
        self._folders = tuple(_mirrored(settings))

    def configure(self, settings: SpoolSettings, clouds: CloudAccess) -> None:
        """Take another configuration; what is being fetched begins again."""
        was_started = bool(self._threads)
        self.close()
        self._take(settings, clouds)
        if was_started:
            self.start()

    def start(self) -> None:
        """Begin to look, until `close`."""
        self._ended = threading.Event()
        for folder, cloud in self._folders:
            work = partial(self._follow, folder, cloud, self._ended)
            # It ends with the process, so that a stop does not wait for a disk that hangs.
            thread = threading.Thread(target=work, daemon=True, name=f"bucket {folder.place}")
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """End the threads, and wait some seconds for that."""
        self._ended.set()
        for thread in self._threads:
            thread.join(GRACE_SECONDS)
        self._threads = []

    def look_now(self) -> None:
        """Fetch and send what there is, before this returns."""
        self.troubles = {}
        for folder, cloud in self._folders:
            with closing(Mirror(folder, check=self._check_of(folder, self._ended))) as mirror:
                try:
                    self._report(folder, mirror, mirror.fetch_all(self._clouds.enter(cloud)))
                except Stopped:
                    return
                except UecError as error:
                    self.troubles[folder.folder] = error
                    self._conditions.set_error(("bucket", str(folder.folder)), error)
                for failure in mirror.failures.values():
                    self.troubles[folder.folder] = failure

    def _follow(self, folder: MirroredFolder, cloud: str, ended: threading.Event) -> None:
        with closing(Mirror(folder, check=self._check_of(folder, ended))) as mirror:
            while not ended.is_set() and not self._stopping.is_set():
                pause = self._pause
                with self._conditions.guard(("bucket", str(folder.folder)), str(folder.place)):
                    try:
                        look = mirror.look(self._clouds.enter(cloud))
                    except Stopped:
                        return
                    self._report(folder, mirror, look)
                    pause = BUSY_PAUSE_SECONDS if look.fetching else self._pause
                ended.wait(pause)

    def _check_of(self, folder: MirroredFolder, ended: threading.Event) -> Callable[[], None]:
        def check() -> None:
            if ended.is_set() or self._stopping.is_set():
                raise Stopped(f"fetching from {folder.place}", "a stop was asked for", "It begins again.")

        return check

    def _report(self, folder: MirroredFolder, mirror: Mirror, look: MirrorLook) -> None:
        about = str(folder.folder)
        self._conditions.set(("in the way", about), _in_the_way(folder, look))
        self._conditions.set(("elsewhere", about), _elsewhere(folder, look))
        failures = {("object", about, name): error for name, error in mirror.failures.items()}
        for key, error in failures.items():
            self._conditions.set_error(key, error)
        self._conditions.clear_others(("object", about), failures)


def _mirrored(settings: SpoolSettings) -> Iterable[tuple[MirroredFolder, str]]:
    """Return the folders with a bucket, each with the cloud whose keys open it."""
    leave = settings.after != "keep"
    for folder, policy in settings.policy.items():
        if policy.source:
            yield MirroredFolder(folder, policy.source, settings.ignore, leave), policy.source_cloud


def _in_the_way(folder: MirroredFolder, look: MirrorLook) -> str:
    if not look.foreign:
        return ""
    names = ", ".join(look.foreign[:MOST_NAMED])
    more = f" and {len(look.foreign) - MOST_NAMED} more" if len(look.foreign) > MOST_NAMED else ""
    return (
        f"{folder.folder}: not fetched from {folder.place}: {names}{more}: there is a file of that name from"
        " elsewhere. Move it away, and the object is fetched"
    )


def _elsewhere(folder: MirroredFolder, look: MirrorLook) -> str:
    if not look.others:
        return ""
    what = "an object" if look.others == 1 else f"{look.others} objects"
    return (
        f"{folder.place}: {what} there cannot be fetched: the name has a slash, a dot at the beginning, or"
        " more than 200 bytes. Put all files of a set beside each other, under plain names"
    )
