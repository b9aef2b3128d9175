"""A process with little memory, as a unit's MemoryMax= or a small machine would leave it.

In a memory cgroup of its own where this machine lets us make one, of either version; else with a limit on its
data, which is nearly the same for a program that maps no files.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# The memory hierarchy of version 1, and the only one of version 2: the files that limit it, and that count.
HIERARCHIES = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.oom_control"),
    (Path("/sys/fs/cgroup"), "memory.max", "memory.events"),
)


@dataclass(frozen=True)
class Cage:
    """`folder` is the cgroup, `events` its file that counts kills; None where a plain limit must do."""

    limit: int
    folder: Path | None = None
    events: str = ""

    def popen(
        self, command: Sequence[str], *, environ: Mapping[str, str], talk: Path
    ) -> "subprocess.Popen[bytes]":
        """Start a program in it, with its standard error in a file."""
        into = f"echo $$ > {self.folder}/cgroup.procs" if self.folder else f"ulimit -d {self.limit >> 10}"
        with talk.open("wb") as out:
            script = f'{into} && exec "$@"'
            return subprocess.Popen(["sh", "-c", script, "sh", *command], env=dict(environ), stderr=out)

    def kills(self) -> int:
        """How many processes in it the kernel has killed for want of memory."""
        if self.folder is None:
            return 0
        words = (self.folder / self.events).read_text().split()
        return int(words[words.index("oom_kill") + 1])


@contextlib.contextmanager
def cage(limit: int) -> Iterator[Cage]:
    """A cage of so many bytes. Says why where it is a plain limit."""
    for root, limiting, events in HIERARCHIES:
        folder = root / f"uecwatchd-test-{os.getpid()}"
        with contextlib.suppress(OSError):
            folder.mkdir()
            try:
                (folder / limiting).write_text(str(limit))
                made = Cage(limit, folder, events)
                made.kills()
            except (OSError, ValueError):  # a plain folder, or a hierarchy without the memory controller
                folder.rmdir()
                continue
            try:
                yield made
            finally:
                folder.rmdir()
            return
    why = "no memory cgroup can be made here (not root, or /sys/fs/cgroup is read-only)"
    print(f"{why}: RLIMIT_DATA instead")  # noqa: T201 (pytest shows it with a failure, or with -rP)
    yield Cage(limit)
