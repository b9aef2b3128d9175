"""Another member of a folder, who is nobody and locks what can be locked."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.host import NOBODY

# Locks what it can, as nobody, says so, and sleeps on it.
TAKE = """
import fcntl, os, sys, time
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for path in sys.argv[1:]:
    try:
        fcntl.flock(os.open(path, os.O_RDONLY | os.O_NONBLOCK), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        print(error.strerror, flush=True)
    else:
        print("locked", flush=True)
time.sleep(600)
"""


@contextmanager
def locking(*paths: Path) -> Iterator[list[str]]:
    """Let a member lock `paths` as far as possible; give the result for each path."""
    command = [sys.executable, "-S", "-c", TAKE, *map(str, paths)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as member:
        assert member.stdout
        try:
            yield [member.stdout.readline().strip() for _ in paths]
        finally:
            member.kill()


def theirs(at: Path) -> None:
    """Put a file of the member there."""
    at.write_text("mine")
    at.chmod(0o644)
    os.chown(at, NOBODY, NOBODY)
