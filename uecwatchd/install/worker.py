"""The worker of installations: it takes requests from the folder of builds, until there are none.

It is a process of its own, with other rights than the service: it starts QEMU, and has no keys of a cloud and
no configuration. One works in a folder at a time. It ends when nothing is left to do; whoever writes a
request sees to it that one runs, in a child process or through a path unit of systemd.
"""

import shutil
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from uecwatchd.config.documents import Malformed
from uecwatchd.errors import Deferred, Stopped, problem
from uecwatchd.install.accelerator import AcceleratorTrial
from uecwatchd.install.build import BuildTools, carry_out
from uecwatchd.install.command import PACKAGE, PROGRAM_NAME
from uecwatchd.install.machine import end_left_machines
from uecwatchd.install.request import (
    BuildFailure,
    BuildStatus,
    clear_queue,
    end_build,
    is_withdrawn,
    queued_builds,
    read_request,
    remove_left_folders,
    write_status,
)
from uecwatchd.system import lockfile
from uecwatchd.system.lockfile import LockFile, LockTaken

LOCK = LockFile(".worker.lock", "another worker is at work here", "It takes all requests by itself.")
LOOK_SECONDS = 0.2
# Between two looks at the lock of another worker.
LOCK_SECONDS = 1.0
# After a failure of the disk, which has to be corrected by somebody.
PAUSE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class WorkerTools:
    """The process of a worker: a wait that a signal ends, and a place for sentences."""

    is_stopping: Callable[[], bool]
    wait: Callable[[float], object]
    tell: Callable[[str], None]
    now: Callable[[], float]


def run_worker(builds: Path, tools: WorkerTools, *, at_once: int, program: str = PROGRAM_NAME) -> bool:
    """Carry out all requests in the folder of builds, so many at once. Returns False if another worker does.

    While another one is at work, this one waits to take its place. Raises Deferred if the folder cannot be
    used.
    """
    lock = _lock(builds, tools)
    if lock is None:
        return False
    try:
        remove_left_folders(builds)
        if ended := end_left_machines(builds):
            tools.tell(f"machines of an earlier worker, ended now: {ended}")
        with ThreadPoolExecutor(at_once, thread_name_prefix="build") as pool:
            _Worker(builds, tools, pool, at_once, program).run()
        clear_queue(builds)
    finally:
        lockfile.release(lock)
    return True


def _lock(builds: Path, tools: WorkerTools) -> int | None:
    """Return the lock of the folder; None after a stop, or when another worker has left nothing to do."""
    told = ""
    while True:
        try:
            return lockfile.acquire(builds, LOCK, patience_seconds=0)
        except LockTaken as taken:
            if problem(taken) != told:
                told = problem(taken)
                tools.tell(told)
        except OSError as error:
            why, hint = error.strerror or str(error), "Make the folder, or name another one."
            raise Deferred(f"{builds}: installations need this folder", why, hint) from error
        if tools.is_stopping() or not queued_builds(builds):
            return None
        tools.wait(LOCK_SECONDS)


class _Worker:
    """The queue of one worker, and the builds that it is at."""

    def __init__(
        self, builds: Path, tools: WorkerTools, pool: ThreadPoolExecutor, at_once: int, program: str
    ) -> None:
        self._builds = builds
        self._tools = tools
        self._pool = pool
        self._at_once = at_once
        self._program = program
        self._trial = AcceleratorTrial(program, tell=tools.tell)
        self._running: dict[str, Future[None]] = {}

    def run(self) -> None:
        """Work until the queue is empty, or a stop is asked for; then builds stop at once."""
        while not self._tools.is_stopping():
            self._running = {key: one for key, one in self._running.items() if not one.done()}
            waiting = [key for key in queued_builds(self._builds) if key not in self._running]
            for key in waiting:
                # A withdrawn build takes no place: there is only a folder to be removed.
                if is_withdrawn(self._builds, key) or not (self._builds / key).exists():
                    end_build(self._builds, key)
                elif len(self._running) < self._at_once:
                    self._running[key] = self._pool.submit(self._build, key)
            if not waiting and not self._running:
                return
            self._tools.wait(LOOK_SECONDS)

    def _build(self, key: str) -> None:
        name = self._set_name(key)
        try:
            status = self._carry_out(key)
        except Stopped:
            if is_withdrawn(self._builds, key):
                end_build(self._builds, key)
                self._tools.tell(f"{name}: the installation was withdrawn")
            return
        except FileNotFoundError:  # its folder was removed by hand
            return
        except OSError as error:  # not even its status can be written, so it stays in the queue
            self._tools.tell(f"{self._builds / key}: cannot write there: {error.strerror or error}")
            self._tools.wait(PAUSE_SECONDS)
            return
        except Exception as error:  # noqa: BLE001 (one build must not end the others)
            self._tools.tell(traceback.format_exc())
            why, hint = f"{type(error).__name__}: {error}", "This is an error of uecwatchd: see the journal."
            status = self._refuse(key, self._tools.now(), "the installation has failed", why, hint)
        end_build(self._builds, key)
        self._tools.tell(f"{name}: {_describe(status)}")

    def _set_name(self, key: str) -> str:
        """Return the name of the set that has asked for a build, for the journal."""
        with suppress(OSError, Malformed):
            return read_request(self._builds, key).set_name
        return key

    def _carry_out(self, key: str) -> BuildStatus:
        program = shutil.which(self._program)
        began = self._tools.now()
        if program is None:
            hint = f"Try: apt-get install {PACKAGE}"
            return self._refuse(key, began, self._program, "this program is not installed", hint)
        try:
            request = read_request(self._builds, key)
        except Malformed as error:
            hint = "See that the service and the worker are of one version."
            return self._refuse(key, began, "its request cannot be used", str(error), hint)
        build = BuildTools(
            self._builds, program, self._trial, self._tools.is_stopping, self._tools.tell, now=self._tools.now
        )
        return carry_out(request, build)

    def _refuse(self, key: str, began: float, what: str, why: str, hint: str) -> BuildStatus:
        failure = BuildFailure("deferred", what, why, hint)
        status = BuildStatus(key, "failed", began, failure=failure, ended=self._tools.now())
        write_status(self._builds, status)
        return status


def _describe(status: BuildStatus) -> str:
    if status.failure is not None:
        return f"{problem(status.failure)}. {status.failure.hint}"
    return f"installed in {status.ended - status.began:.0f} s"
