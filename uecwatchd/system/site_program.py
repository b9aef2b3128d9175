"""Programs of the administrator: hooks and senders of messages.

Each gets its facts as JSON on its standard input and as variables UEC_*, and is heard line by line. It is the
leader of a process group, which is killed when its time is over, or when it has ended and left others behind.

Resembles the hooks of git and the scripts of a mail server's pipe transport.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from uecwatchd.errors import Halted
from uecwatchd.system.text import json_text, printable

# All that a program sees of our own environment, which may have secrets.
KEPT_VARIABLES = ("PATH", "LANG", "HOME")
PREFIX = "UEC_"
# The kernel takes 128 KiB for one variable; a sentence for people is short.
VARIABLE_CHARACTERS = 4000
# A program that prints without an end must not fill the log.
LINE_CHARACTERS = 500
MOST_LINES = 200
READ_BYTES = 65536  # as much as a pipe holds
CHECK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class SiteProgram:
    """A program of the administrator. `setting` is its name in the configuration; `timeout` is in seconds."""

    setting: str
    command: Sequence[str]
    timeout: float
    variables: tuple[str, ...] = ()  #: of our environment, besides those that each program gets
    is_secret: bool = False  #: its facts are not in its environment, which others may see


@dataclass(frozen=True, slots=True)
class ProgramEnd:
    """End of a program. `problem` is empty if its exit code was 0."""

    problem: str
    last_line: str  #: of its output, printable; empty if there was none

    @property
    def reason(self) -> str:
        """Its last line, and its exit code."""
        return f"{self.last_line} ({self.problem})" if self.last_line else self.problem


def run_site_program(
    program: SiteProgram,
    facts: Mapping[str, object],
    *,
    tell: Callable[[str], None],
    check: Callable[[], None],
) -> ProgramEnd:
    """Run a program, and call `tell` with each line of its output.

    `check` is called about twice a second, and may raise to end the program. Raises Halted if it cannot be
    started.
    """
    lines = Lines(tell)
    with _started(program, facts) as process:
        in_time = _hear(process, lines, end=time.monotonic() + program.timeout, check=check)
    lines.end()
    late = f"it was not done after {program.timeout:g} s"
    return ProgramEnd(_problem(process.returncode) if in_time else late, lines.last)


def variables_of(facts: Mapping[str, object]) -> dict[str, str]:
    """Return the variables of facts: those that are one text or number, printable, in one line."""
    return {
        f"{PREFIX}{name.upper()}": printable(str(value))[:VARIABLE_CHARACTERS]
        for name, value in facts.items()
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    }


def reason_not_runnable(program: str) -> str:
    """Return why this user cannot run a program, as far as its file says; empty if nothing is known."""
    if not os.path.exists(program):  # noqa: PTH110 (that of a Path raises where a folder is closed)
        return "it does not exist, or this user cannot reach it"
    if not os.path.isfile(program):  # noqa: PTH113
        return "it is not a file"
    return "" if os.access(program, os.X_OK) else "this user may not execute it"


class Lines:
    """Output of a program, divided into lines that can be shown: printable, not too long, not too many."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._rest = b""
        self._count = 0
        self.last = ""

    def feed(self, data: bytes) -> None:
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._line(line)
        self._rest = self._rest[: 4 * LINE_CHARACTERS]  # of a line without an end

    def end(self) -> None:
        self._line(self._rest)
        self._rest = b""

    def _line(self, line: bytes) -> None:
        text = printable(line.decode("utf-8", "backslashreplace").strip())
        if not text:
            return
        self.last = text if len(text) <= LINE_CHARACTERS else f"{text[:LINE_CHARACTERS]}…"
        self._count += 1
        if self._count <= MOST_LINES:
            self._tell(self.last)
        elif self._count == MOST_LINES + 1:
            self._tell("(the rest of its output is left out)")


@contextlib.contextmanager
def _started(program: SiteProgram, facts: Mapping[str, object]) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a program, and kill what is left of its process group in the end."""
    names = (*KEPT_VARIABLES, *program.variables)
    kept = {name: os.environ[name] for name in names if name in os.environ}
    try:
        process = subprocess.Popen(
            program.command,
            cwd="/",
            env={"PATH": os.defpath, **kept, **({} if program.is_secret else variables_of(facts))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise _not_started(program, error) from error
    # Written beside it: a program need not read its input, and a pipe holds 64 KiB.
    feeder = threading.Thread(target=_feed, args=(process, facts), name="feed", daemon=True)
    feeder.start()
    try:
        yield process
    finally:
        # Before it is waited for: until then its id cannot be that of another group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        feeder.join(CHECK_SECONDS)  # something that left the group may still hold the pipe
        if process.stdout:
            process.stdout.close()


def _feed(process: "subprocess.Popen[bytes]", facts: Mapping[str, object]) -> None:
    assert process.stdin  # noqa: S101 (it is a pipe)
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(f"{json_text(facts)}\n".encode("utf-8", "backslashreplace"))


def _hear(process: "subprocess.Popen[bytes]", lines: Lines, *, end: float, check: Callable[[], None]) -> bool:
    """Read the output until the program has ended. Return False if its time was over first."""
    assert process.stdout  # noqa: S101 (it is a pipe)
    output, ended = process.stdout.fileno(), os.pidfd_open(process.pid)
    os.set_blocking(output, False)
    try:
        with selectors.DefaultSelector() as waiting:
            waiting.register(output, selectors.EVENT_READ)
            waiting.register(ended, selectors.EVENT_READ)
            while (left := end - time.monotonic()) > 0:
                check()
                ready = {key.fd for key, _ in waiting.select(min(left, CHECK_SECONDS))}
                data = _read(output) if ready else None
                lines.feed(data or b"")
                if ended in ready:  # a program of its own that goes on is not waited for
                    return True
                if data == b"":
                    waiting.unregister(output)
    finally:
        os.close(ended)
    return False


def _read(output: int) -> bytes | None:
    """Return what is there; None if nothing is, empty at the end."""
    try:
        return os.read(output, READ_BYTES)
    except BlockingIOError:
        return None


def _problem(status: int) -> str:
    if status < 0:
        return f"it was ended by signal {-status}"
    return f"it ended with code {status}" if status else ""


def _not_started(program: SiteProgram, error: OSError) -> Halted:
    path = program.command[0]
    why = reason_not_runnable(path) or f"the system says: {error.strerror or error}"
    return Halted(
        f"{program.setting}: {printable(path)} cannot be started",
        why,
        "Correct its path, its permissions or its first line (#!…), or the restrictions of the unit; then run"
        " `uecwatchd check`.",
    )
