"""The worker of installations as a child process of the service, where no unit of its own runs it.

It is started when a build is in the queue, and ends by itself when there are no more. It may be ended at any
time, also by the death of the service: the next one begins the interrupted stage again.
"""

import subprocess
import sys
import threading
from collections.abc import Callable

from uecwatchd.config.installation import InstallSettings
from uecwatchd.errors import Deferred
from uecwatchd.install.child import with_parent
from uecwatchd.install.request import queued_builds

# It has machines to end, and their disks to remove.
STOP_SECONDS = 20.0
# One that fails, or finds another worker in its folder, is not started again at each scan.
RESTART_SECONDS = 10.0
AGAIN_SECONDS = 2.0


class BuildChild:
    """The child process, if there is one. Belongs to the service's loop.

    `ended` is called, in a thread of its own, each time that the process has ended.
    """

    def __init__(self, *, ended: Callable[[], None], monotonic: Callable[[], float]) -> None:
        self._ended = ended
        self._monotonic = monotonic
        self._process: subprocess.Popen[bytes] | None = None
        self._not_before = float("-inf")

    def start_if_needed(self, settings: InstallSettings) -> None:
        """Start the process if there is something to do. Raises Deferred for one that has failed."""
        if settings.worker != "child" or self._is_running():
            return
        code = self._process.returncode if self._process else 0
        self._process = None
        if code:
            self._not_before = self._monotonic() + RESTART_SECONDS
            raise Deferred(
                "the worker of installations",
                f"it has ended with {code}",
                "See what it has said above; it is started again by itself.",
            )
        if self._monotonic() >= self._not_before and queued_builds(settings.builds):
            self._start(settings)

    def close(self) -> None:
        """End the process, and wait until its machines are gone."""
        if self._process and self._is_running():
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _start(self, settings: InstallSettings) -> None:
        command = [sys.executable, "-m", "uecwatchd", "build-worker", str(settings.builds)]
        command += ["--at-once", str(settings.at_once)]
        self._not_before = self._monotonic() + AGAIN_SECONDS
        try:
            self._process = subprocess.Popen(
                with_parent(command, "TERM"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
        except OSError as error:
            self._not_before = self._monotonic() + RESTART_SECONDS
            why, hint = error.strerror or str(error), "Look what limits the processes of the service."
            raise Deferred("the worker of installations: cannot start it", why, hint) from error
        threading.Thread(target=self._await_end, args=(self._process,), daemon=True).start()

    def _await_end(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        self._ended()
