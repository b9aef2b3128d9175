"""Marks in folders on network file systems, kept fresh by a thread.

A scan, or the work of `once`, may take longer than a mark lasts without renewal.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from uecwatchd.errors import Halted, UecError
from uecwatchd.intake.spool.host_mark import RENEW_SECONDS, HostMark, place_mark, remove_mark
from uecwatchd.service.conditions import Conditions
from uecwatchd.system.lockfile import LockTaken

# At the end: a renewal under way may wait for a file server that is away.
PATIENCE_SECONDS = 1.0


class FolderMarks:
    """The marks of this process, by folder."""

    def __init__(self, conditions: Conditions) -> None:
        self._repeated = conditions.recurring("renewing the marks in shared folders")
        self._writing = threading.Lock()  # or a mark that is just removed would be renewed
        self._lock = threading.Lock()  # guards all below
        self._marks: dict[Path, HostMark] = {}
        self._lasting: frozenset[Path] = frozenset()
        self._lost: dict[Path, UecError] = {}
        self._over = threading.Event()
        self._over.set()

    def place(
        self, folder: Path, mark: HostMark, *, is_known: bool = False, is_lasting: bool = False
    ) -> None:
        """Mark a folder from now on, as `place_mark` does. An `is_lasting` mark is not removed in the end."""
        place_mark(folder, mark, is_known=is_known)
        with self._lock:
            self._marks[folder] = mark
            self._lasting = self._lasting | {folder} if is_lasting else self._lasting - {folder}
            self._lost.pop(folder, None)
            if self._over.is_set():
                self._over = threading.Event()
                renew, over = self._renew, self._over
                threading.Thread(target=renew, args=(over,), name="marks", daemon=True).start()

    def is_lost(self, folder: Path) -> bool:
        """Tell if the last renewal has found that the folder is somebody else's, or is not there."""
        with self._lock:
            return folder in self._lost

    def check(self, folder: Path) -> None:
        """Raise the error of the last renewal, if that has found the folder lost."""
        with self._lock:
            lost = self._lost.get(folder)
        if lost:
            raise lost

    def release(self, folder: Path) -> None:
        """Remove the mark of a folder, if it has one. Raises NotPermitted or Deferred."""
        with self._lock:
            mark = self._marks.pop(folder, None)
            self._lost.pop(folder, None)
            if not self._marks:
                self._over.set()
        if mark and folder not in self._lasting:
            with self._turn():
                remove_mark(folder, mark)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for a renewal under way, but not for a file server that is away."""
        has_turn = self._writing.acquire(timeout=PATIENCE_SECONDS)
        try:
            yield
        finally:
            if has_turn:
                self._writing.release()

    def _renew(self, over: threading.Event) -> None:
        while not over.wait(max(self._repeated.pause, RENEW_SECONDS)):
            with self._repeated.attempt():
                with self._lock:
                    folders = tuple(self._marks)
                for folder in folders:
                    with suppress(UecError):  # of the disk: the mark lasts for a while
                        self.renew(folder)

    def renew(self, folder: Path) -> None:
        """Renew the mark of a folder, and note if it is somebody else's by now. Raises errors of the disk."""
        with self._writing:
            with self._lock:
                mark = self._marks.get(folder)
            if mark is None:
                return
            try:
                place_mark(folder, mark, is_known=folder in self._lasting)
            except UecError as error:
                if not isinstance(error, (LockTaken, Halted)) and folder not in self._lasting:
                    raise
                with self._lock:
                    self._lost[folder] = error
            else:
                with self._lock:
                    self._lost.pop(folder, None)
