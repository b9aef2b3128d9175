"""Processes with little memory, as under a unit's MemoryMax= or on a small machine.

The limit is a memory cgroup of either version, if one can be made here. Otherwise it is a limit on the
process' data, which is nearly the same for a program that maps no files.
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
class MemoryLimit:
    """A limit in bytes, as a cgroup in `folder` with kills counted in `events`, or as a plain one."""

    limit: int
    folder: Path | None = None
    events: str = ""

    def popen(
        self, command: Sequence[str], *, environ: Mapping[str, str], talk: Path
    ) -> "subprocess.Popen[bytes]":
        """Start a program under the limit, with its standard error in the file `talk`."""
        into = f"echo $$ > {self.folder}/cgroup.procs" if self.folder else f"ulimit -d {self.limit >> 10}"
        with talk.open("wb") as out:
            script = f'{into} && exec "$@"'
            return subprocess.Popen(["sh", "-c", script, "sh", *command], env=dict(environ), stderr=out)

    def kills(self) -> int:
        """Return how many processes the kernel has killed there because memory was used up."""
        if self.folder is None:
            return 0
        words = (self.folder / self.events).read_text().split()
        return int(words[words.index("oom_kill") + 1])


@contextlib.contextmanager
def limited_memory(limit: int) -> Iterator[MemoryLimit]:
    """Make a limit of so many bytes. Prints the reason if it is a plain limit."""
    for root, limiting, events in HIERARCHIES:
        folder = root / f"uecwatchd-test-{os.getpid()}"
        with contextlib.suppress(OSError):
            folder.mkdir()
            try:
                (folder / limiting).write_text(str(limit))
                made = MemoryLimit(limit, folder, events)
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
    yield MemoryLimit(limit)
