"""What we put beside the files: whole or not at all, and never in place of what is not ours."""

import contextlib
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from uecwatchd.errors import Deferred, Rejected
from uecwatchd.spool.door import KIND_WORDS, folder_descriptor, kind_of

OUTPUT_SUFFIXES = (".uec.log", ".uec.json", ".uec.error", ".emi", ".eki", ".eri")
# NAME_MAX is 255 bytes; the longest thing we add is ".NAME.uec.error.uec." and 8 random letters.
OUTPUT_STEM_BYTES = 200
# What `place` calls a file until it is whole.
UNFINISHED = re.compile(r"\..+\.uec\.[0-9a-f]{8}")
# Readable by the group that drops files, not by the world.
OUTPUT_MODE = 0o640


def is_output(name: str) -> bool:
    return name.endswith(OUTPUT_SUFFIXES)


def output_stem(set_name: str) -> str:
    """The first part of the names of a set's outputs: its name, shortened where no file could be named so."""
    encoded = os.fsencode(set_name)
    if len(encoded) <= OUTPUT_STEM_BYTES:
        return set_name
    tail = hashlib.sha256(encoded).hexdigest()[:8]
    return encoded[: OUTPUT_STEM_BYTES - 9].decode("utf-8", "ignore") + "-" + tail


def place(folder: Path, name: str, data: bytes) -> None:
    """Put a file beside the images, whole or not at all. Replaces only what is ours.

    Raises Rejected when the name is taken by somebody else's file, Deferred when the disk is full.
    """
    with folder_descriptor(folder) as descriptor, _output_trouble(folder, name):
        _check_ours(descriptor, name)
        temporary = f".{name}.uec.{secrets.token_hex(4)}"
        try:
            _write_new(descriptor, temporary, data)
            os.rename(temporary, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=descriptor)
            raise
        os.fsync(descriptor)


def check_free(folder: Path, name: str) -> None:
    """Raises as `place` would if the name is taken by somebody else's file."""
    with folder_descriptor(folder) as descriptor:
        _check_ours(descriptor, name)


def sweep(folder: Path) -> None:
    """Remove what a process that was killed had begun to write. Only for who holds the folder's lock."""
    with folder_descriptor(folder) as descriptor:
        for name in sorted(os.listdir(descriptor)):  # noqa: PTH208 (a path would be resolved anew)
            if not UNFINISHED.fullmatch(name):
                continue
            with contextlib.suppress(OSError):
                status = os.lstat(name, dir_fd=descriptor)
                if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                    os.unlink(name, dir_fd=descriptor)


def append(folder: Path, name: str, text: str) -> None:
    """Add lines to a log beside the images. Raises as `place` does."""
    with folder_descriptor(folder) as descriptor, _output_trouble(folder, name):
        _check_ours(descriptor, name)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        opened = os.open(name, flags, OUTPUT_MODE, dir_fd=descriptor)
        with os.fdopen(opened, "ab") as file:  # buffered: a raw write may stop half way on a full disk
            file.write(text.encode("utf-8", "backslashreplace"))


def remove(folder: Path, name: str) -> None:
    """Take one of our outputs away, if it is there and ours."""
    with folder_descriptor(folder) as descriptor, _output_trouble(folder, name):
        _check_ours(descriptor, name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=descriptor)


def _write_new(descriptor: int, name: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    opened = os.open(name, flags, OUTPUT_MODE, dir_fd=descriptor)
    with os.fdopen(opened, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(opened)


def _check_ours(descriptor: int, name: str) -> None:
    try:
        status = os.lstat(name, dir_fd=descriptor)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        raise Rejected(
            f"{name}: cannot write it",
            f"the name is taken by {KIND_WORDS[kind_of(status.st_mode)]} that is not the service's",
            f"Move {name} away, then retry the set.",
        )


@contextlib.contextmanager
def _output_trouble(folder: Path, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Deferred(
            f"{folder / name}: cannot write it",
            error.strerror or str(error),
            "Free some space, or let the service's user write to the folder.",
        ) from error
