"""Child processes that end with the worker.

setpriv(1) lets the kernel kill each of them with the thread that has started it. Without that program, which
all distributions have, they end with the worker's unit only.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from uecwatchd.errors import Deferred
from uecwatchd.system.programs import AGAIN, Program, find_program
from uecwatchd.system.text import shorten

LOOK_SECONDS = 0.2
ERRORS = "child.log"
SAID_CHARS = 2000


def start_child(
    command: Sequence[str], folder: Path, *, errors: int, descriptors: Sequence[int] = ()
) -> "subprocess.Popen[bytes]":
    """Start a program in `folder`, which is also its place for temporary files. Raises OSError.

    `errors` is the descriptor for what it complains about.
    """
    return subprocess.Popen(
        with_parent(command, "KILL"),
        cwd=folder,
        # A snapshot may become as large as a disk: not in a /tmp in memory.
        env={"PATH": os.environ.get("PATH", os.defpath), "TMPDIR": str(folder), "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        pass_fds=descriptors,
        start_new_session=True,
        umask=0o007,  # its sockets are for the group of the folder
    )


def with_parent(command: Sequence[str], name: Literal["KILL", "TERM"]) -> Sequence[str]:
    """Return a command that gets a signal when its parent ends, whatever the end is."""
    setpriv = shutil.which("setpriv")
    return [*([setpriv, "--pdeathsig", name, "--"] if setpriv else ()), *command]


def run_child(program: Program, arguments: Sequence[str], folder: Path, *, check: Callable[[], None]) -> None:
    """Run a program until it ends; `check` raises to stop it. Raises Deferred if it fails."""
    command = [find_program(program), *arguments]
    try:
        with (folder / ERRORS).open("wb") as errors:
            process = start_child(command, folder, errors=errors.fileno())
    except OSError as error:
        raise Deferred(program.name, f"it cannot be started: {error.strerror or error}", AGAIN) from error
    try:
        while process.poll() is None:
            check()
            with suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_SECONDS)
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        said = (folder / ERRORS).read_text(errors="replace")[-SAID_CHARS:].strip().splitlines()
        why = f"it failed with exit code {process.returncode}{f': {shorten(said[-1])}' if said else ''}"
        raise Deferred(program.name, why, AGAIN)
