"""One running QEMU: its process, its console, its control connection, and its certain end.

A machine is ended by its process, never asked to end: what an installer does at a shutdown is not wanted. It
ends with the worker in any case, and a note with process id and start time lets the next worker end what is
left nevertheless.
"""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from uecwatchd.errors import Deferred, Rejected
from uecwatchd.images.console import without_sequences
from uecwatchd.install.child import start_child
from uecwatchd.install.monitor import Monitor
from uecwatchd.install.request import CONSOLE, CONSOLE_SOCKET, SCREENSHOT, VNC_SOCKET
from uecwatchd.install.screen import png_from_ppm

NOTE, ERRORS, PICTURE = "machine.json", "qemu.log", "screen.ppm"
# An installation with all messages of a kernel has less than one; more is written on purpose.
CONSOLE_LIMIT_BYTES = 32 << 20
# Of the console, for its judgement: a boot has 64 KiB, and a pattern may be at its beginning.
JUDGED_CHARS = 512 * 1024
PICTURE_LIMIT_BYTES = 64 << 20
ERROR_CHARS = 2000
# The first word of the firmware at each start. QEMU's own events tell of a restart up to three times, because
# this firmware restarts the machine once more.
FIRMWARE = "SeaBIOS (version"
STARTED_AT_FIELD = 21  # of /proc/PID/stat, counted from 0: proc(5)


class Machine:
    """A machine in the folder of its build. End it with `close`, in any case.

    `command` makes the command line from the descriptor of its control connection.
    """

    def __init__(
        self, folder: Path, command: Callable[[int], Sequence[str]], *, descriptors: Iterable[int]
    ) -> None:
        """Start it. Raises Deferred."""
        self._folder = folder
        self._begin = _size(folder / CONSOLE)  # what an earlier stage has written
        self._read = self._begin
        self._text = ""
        self._plain: str | None = None  # that text, made when it is asked for
        self._is_let_go = False
        self.starts = 0  #: how often its firmware has begun: one more than it was restarted
        self.is_over = False  #: it has ended, and all that it had written is read
        ours, theirs = socket.socketpair()
        with theirs, (folder / ERRORS).open("wb") as errors:
            try:
                self._process = start_child(
                    command(theirs.fileno()),
                    folder,
                    errors=errors.fileno(),
                    descriptors=(theirs.fileno(), *descriptors),
                )
            except OSError as error:
                ours.close()
                why = f"it cannot be started: {error.strerror or error}"
                raise Deferred("qemu-system-x86_64", why, "It is tried again by itself.") from error
        _write_note(folder, self._process.pid)
        self.monitor = Monitor(ours)

    @property
    def text(self) -> str:
        """The end of its output on the serial port, without control sequences."""
        if self._plain is None:
            self._plain = without_sequences(self._text)
        return self._plain

    def read_console(self) -> bool:
        """Read a piece of what is new on the console, and tell if there is any.

        Raises Rejected if there is too much.
        """
        has_ended = self.has_ended()  # before it is read: what comes in between is for the next time
        data = self._next_piece()
        before, new = self._text[1 - len(FIRMWARE) :], data.decode("utf-8", "replace")
        self.starts += (before + new).count(FIRMWARE)
        if data:
            self._text, self._plain = (self._text + new)[-JUDGED_CHARS:], None
        if self._read - self._begin > CONSOLE_LIMIT_BYTES:
            hint = "Let the installer say less, for example without debug messages."
            raise Rejected("its console", "more than 32 MiB were written there", hint)
        self.is_over = has_ended and not data
        return bool(data)

    def _next_piece(self) -> bytes:
        with suppress(FileNotFoundError), (self._folder / CONSOLE).open("rb") as file:
            file.seek(self._read)
            data = file.read(1 << 20)
            self._read += len(data)
            return data
        return b""

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def wait(self, seconds: float) -> None:
        """Wait for its end, but not longer."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def let_go(self) -> None:
        """Let QEMU end once its machine has switched itself off, with a picture of the last screen.

        It is asked to, because it has a part of the disk's tables in its memory.
        """
        if not self._is_let_go and self.monitor.count("SHUTDOWN"):
            self._is_let_go = True
            self.take_picture()
            self.monitor.command("quit")

    def complaint(self) -> str:
        """Return the complaint with which QEMU has failed; empty if it has not."""
        if self.monitor.count("ended from outside") and not self._is_let_go:
            return "it was ended from outside"
        if self._process.returncode in (None, 0):
            return ""
        said = (self._folder / ERRORS).read_text(errors="replace")[-ERROR_CHARS:].strip()
        lines = [line for line in said.splitlines() if "warning:" not in line]
        code = self._process.returncode
        ended = f"exit code {code}" if code > 0 else f"it was killed by signal {-code}"
        return lines[-1].removeprefix("qemu-system-x86_64: ") if lines else ended

    def take_picture(self) -> bool:
        """Write a picture of the screen beside the console, and tell if there is one."""
        path = self._folder / PICTURE
        if self.has_ended() or not self.monitor.command("screendump", filename=PICTURE):
            return False
        try:
            if path.stat().st_size > PICTURE_LIMIT_BYTES:
                return False
            (self._folder / SCREENSHOT).write_bytes(png_from_ppm(path.read_bytes()))
        except (OSError, ValueError):
            return False
        finally:
            path.unlink(missing_ok=True)
        return True

    def close(self) -> None:
        """End it, and wait until it has ended."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self.monitor.close()
        remove_traces(self._folder)


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


# --- what a dead worker has left --------------------------------------------------------------------------


def end_left_machines(builds: Path) -> int:
    """Kill the machines of a worker that is dead, and return how many there were."""
    ended = 0
    for note in builds.glob(f"*/{NOTE}"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(note.read_bytes())
            process, started = int(found["pid"]), int(found["started"])
            # A descriptor of the process: its number may be another one's between the look and the signal.
            descriptor = os.pidfd_open(process)
            try:
                if _started_at(process) == started:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    ended += 1
            finally:
                os.close(descriptor)
        remove_traces(note.parent)
    return ended


def remove_traces(folder: Path) -> None:
    """Remove what belongs to a running machine only."""
    for name in (NOTE, CONSOLE_SOCKET, VNC_SOCKET, PICTURE):
        (folder / name).unlink(missing_ok=True)


def _write_note(folder: Path, process: int) -> None:
    with suppress(OSError):  # of the file: without it, only a dead worker's machine is not found
        (folder / NOTE).write_text(json.dumps({"pid": process, "started": _started_at(process)}))


def _started_at(process: int) -> int:
    """Return when a process was started, in ticks since the boot of the system."""
    fields = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[STARTED_AT_FIELD - 2])
