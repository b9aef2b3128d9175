"""Looks at both sides of a mirrored folder, and all that follows from each.

Objects are fetched in threads, so that a large one keeps neither the small ones nor the results waiting.
"""

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.errors.source_table import SOURCE_ROWS
from uecwatchd.clouds.objects import list_objects, remove_object
from uecwatchd.errors import Rejected, Stopped, UecError
from uecwatchd.intake.spool.ignored import ignored_by
from uecwatchd.intake.spool.output_files import is_foreign, is_output
from uecwatchd.intake.spool.safe_open import folder_descriptor
from uecwatchd.mirror.notes import MirrorNotes
from uecwatchd.mirror.plan import FileIdentity, MirrorPlan, MirrorSides, is_as_noted, names_of, plan_mirror
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
        self.failures: dict[str, UecError] = {}  #: of what could not be fetched or sent, by name

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
                notes.put(name, replace(notes.known[name], is_placed=True, replaces=None))
            self._remove(cloud, notes, plan)
            refused = self._send(cloud, notes, plan)
        self._collect()
        wanted = {*plan.fetch, *fetched_now.intersection(objects)}
        self.failures = refused | {name: error for name, error in self.failures.items() if name in wanted}
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

    def _remove(self, cloud: Cloud, notes: MirrorNotes, plan: MirrorPlan) -> None:
        """Remove what has left the other side. The note goes last: until then, it is repeated.

        Each object is looked at again before that. The list may be minutes old, and an object replaced since;
        and one that an incomplete list does not name must cost neither its file nor its published image.
        """
        place = self._mirrored.place
        for name in plan.remove_files:
            self._check()
            if _object_now(cloud, place, name) is None:
                with failpoints.effect("remove a fetched file"), suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=notes.descriptor)
                notes.put(name, None)
        for name in plan.remove_objects:
            self._check()
            there = _object_now(cloud, place, name)
            if there and is_as_noted(there, notes.known[name]):
                remove_object(cloud, place.bucket, there.key)
                notes.put(name, None)
        for name in plan.forget:
            notes.put(name, None)

    def _send(self, cloud: Cloud, notes: MirrorNotes, plan: MirrorPlan) -> dict[str, UecError]:
        """Send results. Return the errors of those that the cloud refuses, for example because of a name."""
        refused: dict[str, UecError] = {}
        for name in plan.send:
            self._check()
            try:
                send_result(cloud, self._mirrored.place, name, notes)
            except Rejected as error:
                refused[name] = error
        return refused

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
                if isinstance(error, UecError) and not isinstance(error, Stopped):
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
                found[entry.name] = identity_of(status)
    return found


def _object_now(cloud: Cloud, place: BucketPlace, name: str) -> StoredObject | None:
    """Return an object as it is now, or None if there is none."""
    key = place.prefix + name
    listed = list_objects(cloud, place.bucket, key, first=SOURCE_ROWS)
    return next((one for one in listed if one.key == key), None)
