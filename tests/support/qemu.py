"""QEMU's own programs: the oracle of what is in a disk image."""

import subprocess
from collections.abc import Iterable
from pathlib import Path


def convert(
    source: Path, target: Path, *, format: str, into: str = "raw", options: Iterable[str] = ()
) -> bool:
    """Return whether QEMU could convert an image of the given format."""
    given = [word for option in options for word in ("-o", option)]
    command = ["qemu-img", "convert", "-q", "-f", format, "-O", into, *given, source, target]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def convert_compressed(source: Path, target: Path, *, options: Iterable[str] = ()) -> None:
    given = [word for option in options for word in ("-o", option)]
    command = ["qemu-img", "convert", "-q", "-c", "-f", "raw", "-O", "qcow2", *given, source, target]
    subprocess.run(command, capture_output=True, check=True)


def create(path: Path, size: int, *, format: str, options: Iterable[str] = ()) -> None:
    given = [word for option in options for word in ("-o", option)]
    command = ["qemu-img", "create", "-q", "-f", format, *given, path, str(size)]
    subprocess.run(command, check=True)


def write(work: Iterable[tuple[Path, str, Iterable[str]]]) -> None:
    """Run commands of qemu-io, such as "write -P 7 0 4k", on each (path, format), all in one process."""
    words: list[str] = []
    for path, format, commands in work:
        opened = [f"open -o driver={format} {path}", *commands, "close"]
        words += [word for command in opened for word in ("-c", command)]
    done = subprocess.run(["qemu-io", *words], capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 0, [
        line for line in said if not line.startswith(("wrote", "discard ")) and "ops/sec" not in line
    ]
