"""Looks at both sides of a mirrored folder, and all that follows from each.

Objects are fetched in threads, so that a large one keeps neither the small ones nor the results waiting.
"""

import os
import stat
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.errors.source_table import SOURCE_ROWS
from uecwatchd.clouds.objects import list_objects, remove_object
from uecwatchd.errors import Deferred, UecError
from uecwatchd.intake.spool.ignored import ignored_by
from uecwatchd.intake.spool.output_files import is_foreign, is_output
from uecwatchd.intake.spool.safe_open import folder_descriptor
from uecwatchd.mirror.notes import MirrorNotes
from uecwatchd.mirror.plan import FileIdentity, MirrorPlan, MirrorSides, names_of, plan_mirror
from uecwatchd.mirror.transfer import fetch_file, identity_of, send_result
from uecwatchd.system import failpoints
from uecwatchd.types import BucketPlace, StoredObject

# Objects that are fetched at once: a large one leaves room for smaller ones.
FETCHES = 3
# Until an object is fetched again after a failure; it may be a large one.
RETRY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class MirroredFolder:
    """A spool folder and its bucket. With `removed_files_leave`, objects leave with their files."""

    folder: Path
    place: BucketPlace
    ignore: tuple[str, ...] = ()
    removed_files_leave: bool = False


@dataclass(frozen=True, slots=True)
class MirrorLook:
    """Findings of a look, for people."""

    foreign: tuple[str, ...] = ()  #: names of objects that files from elsewhere have
    others: int = 0  #: objects in deeper folders, or without a name for a file
    fetching: tuple[str, ...] = ()


class Mirror:
    """One mirrored folder. Use it in one thread, and end it with `close`.

    `check` is called often, in any thread, and raises to stop.
    """

    def __init__(
        self,
        mirrored: MirroredFolder,
        *,
        check: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mirrored = mirrored
        self._check = check
        self._clock = clock
        self._pool = ThreadPoolExecutor(FETCHES, thread_name_prefix="fetch")
        self._running: dict[str, Future[None]] = {}
        self._retry_at: dict[str, float] = {}
        self.failures: dict[str, UecError] = {}  #: of objects that could not be fetched, by name

    def close(self) -> None:
        """End the threads. What they fetch must have been stopped by `check`."""
        self._pool.shutdown(cancel_futures=True)

    def look(self, cloud: Cloud) -> MirrorLook:
        """Make both sides agree, except for what is being fetched after that.

        Raises NotPermitted or Deferred for the folder, and the errors of `clouds`.
        """
        place = self._mirrored.place
        # Before either side is read: what ends after that is left to the next look.
        fetched_now = frozenset(self._running)
        listed = list_objects(cloud, place.bucket, place.prefix, first=SOURCE_ROWS)
        objects, others = names_of(listed, place.prefix)
        with folder_descriptor(self._mirrored.folder) as descriptor:
            notes = MirrorNotes(descriptor, place, rewrite=not fetched_now)
            plan = self._plan(objects, _files(descriptor), notes, fetched_now)
            for name in plan.confirm:
                notes.put(name, replace(notes.known[name], is_placed=True))
            _remove(cloud, place, notes, plan)
            for name in plan.send:
                self._check()
                send_result(cloud, place, name, notes)
        self._collect()
        self.failures = {name: error for name, error in self.failures.items() if name in plan.fetch}
        self._fetch(cloud, {name: objects[name] for name in plan.fetch})
        return MirrorLook(plan.foreign, others, tuple(self._running))

    def fetch_all(self, cloud: Cloud) -> MirrorLook:
        """Look until there is nothing to be fetched, or only what has failed."""
        while True:
            look = self.look(cloud)
            if not self._running:
                return look
            wait(self._running.values())
            self._collect()
            if self.failures:
                return look

    def _plan(
        self,
        objects: Mapping[str, StoredObject],
        files: Mapping[str, FileIdentity],
        notes: MirrorNotes,
        fetched_now: frozenset[str],
    ) -> MirrorPlan:
        ignore = self._mirrored.ignore
        sides = MirrorSides(objects, files, notes.known, lambda name: ignored_by(name, ignore) is not None)
        leave = self._mirrored.removed_files_leave
        return plan_mirror(sides, removed_files_leave=leave, passing_over=fetched_now)

    def _fetch(self, cloud: Cloud, wanted: Mapping[str, StoredObject]) -> None:
        """Begin to fetch, as many as may be fetched at once; one that has failed after a pause only."""
        for name, one in wanted.items():
            is_due = name not in self.failures or self._clock() >= self._retry_at[name]
            if is_due and len(self._running) < FETCHES:
                self._running[name] = self._pool.submit(self._fetch_one, cloud, one)

    def _fetch_one(self, cloud: Cloud, one: StoredObject) -> None:
        mirrored = self._mirrored
        with folder_descriptor(mirrored.folder) as descriptor:
            notes = MirrorNotes(descriptor, mirrored.place, rewrite=False)
            fetch_file(cloud, mirrored.place, one, mirrored.folder, notes, check=self._check)

    def _collect(self) -> None:
        """Note what has become of the objects that were being fetched. Raises what is no error of one."""
        for name, future in list(self._running.items()):
            if future.done():
                del self._running[name]
                self.failures.pop(name, None)
                error = future.exception()
                if isinstance(error, Deferred):
                    self.failures[name] = error
                    self._retry_at[name] = self._clock() + RETRY_SECONDS
                elif error:
                    raise error


def _files(descriptor: int) -> dict[str, FileIdentity]:
    """Return the files of a folder. Those with the name of a result count only if they are ours."""
    found = {}
    with os.scandir(descriptor) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if is_output(entry.name) and is_foreign(status, owner=os.geteuid()):
                    continue
                # What is no regular file is in the way, and equal to nothing that was noted.
                is_file = stat.S_ISREG(status.st_mode)
                found[entry.name] = identity_of(status) if is_file else FileIdentity(status.st_ino, -1, 0)
    return found


def _remove(cloud: Cloud, place: BucketPlace, notes: MirrorNotes, plan: MirrorPlan) -> None:
    """Remove what has left the other side. The note goes last: until then, it is repeated."""
    for name in plan.remove_files:
        with failpoints.effect("remove a fetched file"), suppress(FileNotFoundError):
            os.unlink(name, dir_fd=notes.descriptor)
    for name in plan.remove_objects:
        remove_object(cloud, place.bucket, place.prefix + name)
    for name in (*plan.remove_files, *plan.remove_objects, *plan.forget):
        notes.put(name, None)
