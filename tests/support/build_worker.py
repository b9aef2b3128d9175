"""The other side of build requests, at the pace of a test: it answers for the worker by the same files."""

import os
import shutil
from pathlib import Path

from tests.support.waiting import until
from uecwatchd.install.request import (
    CONSOLE,
    DISK,
    SCREENSHOT,
    BuildFailure,
    BuildRequest,
    BuildStatus,
    end_build,
    is_withdrawn,
    queued_builds,
    read_request,
    write_status,
)

BEGAN = 1_000_000.0
FAILURE = BuildFailure("rejected", "the installation has failed", "no login came", "Look at the console.")


class HandWorker:
    """Carries out builds as it is told to. `disk` is the disk of each finished one."""

    def __init__(self, builds: Path, disk: Path) -> None:
        self._builds = builds
        self._disk = disk

    def next_request(self) -> BuildRequest:
        """Wait for a request that is not withdrawn, and take it out of the queue."""
        until(self._wanted, "a build request")
        key = self._wanted()[0]
        (self._builds / "queue" / key).unlink()
        return read_request(self._builds, key)

    def _wanted(self) -> list[str]:
        """Return the queue without the builds that are withdrawn, or removed already."""
        there = (key for key in queued_builds(self._builds) if (self._builds / key).exists())
        return [key for key in there if not is_withdrawn(self._builds, key)]

    def run(self, key: str, *lines: str) -> None:
        """Say that an installation runs, and has written these lines."""
        with (self._builds / key / CONSOLE).open("a") as console:
            console.writelines(f"{line}\n" for line in lines)
        last = lines[-1] if lines else ""
        write_status(self._builds, BuildStatus(key, "running", BEGAN, "install", BEGAN, last, "tcg"))

    def finish(self, key: str) -> None:
        place = self._builds / key / DISK
        shutil.copyfile(self._disk, place)
        done = BuildStatus(
            key, "done", BEGAN, "second boot", BEGAN, accelerator="tcg", disk=DISK, ended=BEGAN + 9
        )
        write_status(self._builds, done)

    def fail(self, key: str, failure: BuildFailure = FAILURE, *console: str) -> None:
        (self._builds / key / SCREENSHOT).write_bytes(b"\x89PNG\r\n\x1a\n")
        failed = BuildStatus(
            key, "failed", BEGAN, "install", screenshot=SCREENSHOT, failure=failure, console=console
        )
        write_status(self._builds, failed)

    def await_withdrawal(self, key: str) -> None:
        """Wait until a build is withdrawn, and remove it."""
        until(lambda: is_withdrawn(self._builds, key), "the withdrawal of a build")
        end_build(self._builds, key)
        assert not os.path.lexists(self._builds / key)
