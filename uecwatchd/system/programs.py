"""Programs of this system, run without a shell, with a time-out and an environment of their own."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uecwatchd.errors import Deferred
from uecwatchd.system.text import shorten

SYSTEM_FOLDERS = "/usr/sbin:/sbin"  # not on every user's PATH, although their programs need no privilege
AGAIN = "It is tried again by itself."


@dataclass(frozen=True, slots=True)
class Program:
    """A program that does part of our work."""

    name: str
    package: str  #: Debian's package, for the hint where it is missing
    time_out_seconds: int
    environment: Mapping[str, str] = field(default_factory=dict)  #: besides PATH, HOME, TMPDIR and LC_ALL


@dataclass(frozen=True, slots=True)
class Said:
    """Output of a program: standard output, and standard error."""

    output: str
    complaint: str


def run_program(program: Program, arguments: Sequence[str], *, folder: Path) -> str:
    """Run a program in `folder`, which is also its home and its place for temporary files.

    Returns its standard output. Raises Deferred if it is missing, fails or takes too long.
    """
    own = {"PATH": _search_path(), "HOME": str(folder), "TMPDIR": str(folder), "LC_ALL": "C"}
    command = [find_program(program), *arguments]
    return start_program(program, command, environment=own, folder=folder).output


def start_program(
    program: Program,
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    text: str = "",
    descriptors: Sequence[int] = (),
) -> Said:
    """Run a command that is, or becomes, a program. `text` is its standard input.

    Returns what it says. Raises Deferred if it fails or takes too long.
    """
    with (
        _started(program, command, {**environment, **program.environment}, folder, descriptors) as process,
        _killed_on_error(process),
    ):
        try:
            said, complaint = process.communicate(text, timeout=program.time_out_seconds)
        except subprocess.TimeoutExpired as error:
            why = f"it was not done after {program.time_out_seconds} s"
            raise Deferred(program.name, why, AGAIN) from error
    if process.returncode:
        raise _failed(program, process.returncode, complaint)
    return Said(said, complaint)


def _started(
    program: Program,
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    descriptors: Sequence[int],
) -> "subprocess.Popen[str]":
    try:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            pass_fds=descriptors,
            start_new_session=True,
        )
    except OSError as error:
        raise Deferred(program.name, f"it cannot be started: {error.strerror or error}", AGAIN) from error


@contextlib.contextmanager
def _killed_on_error(process: "subprocess.Popen[str]") -> Iterator[None]:
    """Kill the program on an error, with those that it started: they hold its output open."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise


def find_program(program: Program) -> str:
    """Return the path of a program. Raises Deferred, with its package, if it is not installed."""
    found = shutil.which(program.name, path=_search_path())
    if found is None:
        hint = f"Try: apt-get install {program.package}"
        raise Deferred(program.name, "this program is not installed", hint)
    return found


def _search_path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_FOLDERS}"


def _failed(program: Program, status: int, complaint: str) -> Deferred:
    lines = complaint.strip().splitlines()
    ended = f"it was killed by signal {-status}" if status < 0 else f"it failed with exit code {status}"
    why = f"{ended}: {shorten(lines[-1])}" if lines else ended
    return Deferred(program.name, why, AGAIN)
