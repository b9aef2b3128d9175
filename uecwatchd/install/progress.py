"""The status of one build while it goes on: written at each change, for its last line once a second."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from uecwatchd.errors import Deferred, Rejected, UecError
from uecwatchd.images.console import last_lines
from uecwatchd.install.request import BuildFailure, BuildStatus, Stage, write_status

# A person reads it; an installer may write a thousand lines in a second.
WRITE_SECONDS = 1.0


class BuildProgress:
    """Writer of one build's status. Each method raises OSError."""

    def __init__(self, builds: Path, key: str, *, now: Callable[[], float] = time.time) -> None:
        self._builds = builds
        self._now = now
        self._written_at = 0.0
        self._written: BuildStatus | None = None
        self.status = BuildStatus(key, "running", now())

    def resume(self, before: BuildStatus) -> None:
        """Go on from the status of an interrupted build."""
        self.status = replace(self.status, began=before.began, stage=before.stage)

    def enter(self, stage: Stage, *, accelerator: str = "") -> None:
        """Begin a stage. The last line of the one before, such as that of a shutdown, is not its own."""
        now = self._now()
        begun = replace(self.status, stage=stage, stage_began=now, accelerator=accelerator, last_line="")
        self._write(begun)

    def take(self, text: str) -> None:
        """Take the last line of a console, to be shown soon."""
        self.status = replace(self.status, last_line=next(iter(last_lines(text, 1)), ""))

    def show(self) -> None:
        """Write what was taken, also long after it: an installer waits at its last line."""
        if self.status != self._written and abs(self._now() - self._written_at) >= WRITE_SECONDS:
            self._write(self.status)

    def finish(self, *, disk: Literal["disk.qcow2"]) -> BuildStatus:
        """End with a disk, and return the status."""
        return self._write(replace(self.status, state="done", disk=disk, ended=self._now()))

    def fail(
        self, error: UecError, *, console: tuple[str, ...], screenshot: Literal["", "screenshot.png"]
    ) -> BuildStatus:
        """End with an error, and return the status."""
        kind: Literal["rejected", "deferred"] = "rejected" if isinstance(error, Rejected) else "deferred"
        failure = BuildFailure(kind, error.what, error.why, error.hint)
        ended = replace(self.status, state="failed", failure=failure, ended=self._now())
        return self._write(replace(ended, console=console, screenshot=screenshot))

    def _write(self, status: BuildStatus) -> BuildStatus:
        self.status = status
        write_status(self._builds, status)
        self._written, self._written_at = status, self._now()
        return status


def no_folder(folder: Path, error: OSError) -> Deferred:
    """Return the error of a build whose folder cannot be used."""
    hint = "Look at the disk that it is on, and at its free space; it is tried again by itself."
    return Deferred(f"{folder}: cannot install there", error.strerror or str(error), hint)
