"""Files that the service makes for itself: complete under their name, or not there at all.

Each is written under a temporary name, flushed to the disk, and renamed. So a file that is there was
finished, whatever has ended the process that made it.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from uecwatchd.errors import Deferred, UecError
from uecwatchd.system import failpoints
from uecwatchd.system.disk_space import check_space_for
from uecwatchd.system.file_errors import FULL
from uecwatchd.types import FileStamp

FOLDER_MODE, FILE_MODE = 0o700, 0o600  # images may hold secrets


def find_file(folder: Path, path: str) -> FileStamp | None:
    """Return the stamp of a finished file below `folder`, or None. Raises Deferred."""
    with _translate_errors(folder), suppress(FileNotFoundError):
        return FileStamp.of((folder / path).lstat())
    return None


def make_file(
    folder: Path, path: str, write: Callable[[BinaryIO], None], *, needs_bytes: int, what: str
) -> FileStamp:
    """Write a file below `folder`, unless it is there, and return its stamp.

    `write` gets an empty file; what it raises leaves nothing behind. `needs_bytes` is how much of the disk
    the file may take, `what` the role of the folder in a sentence. Raises Deferred if the disk has less.
    """
    if found := find_file(folder, path):
        return found
    place = folder / path
    with _translate_errors(folder):
        make_folder(place.parent)
        check_space_for(folder, needs_bytes, what)
        temporary = place.parent / _temporary_name(path)
        try:
            with failpoints.effect(f"write a file of {what}"), open(temporary, "wb", opener=_private) as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            with failpoints.effect(f"place a file of {what}"):
                temporary.rename(place)
                sync_folder(place.parent)
        finally:
            temporary.unlink(missing_ok=True)
        return FileStamp.of(place.lstat())


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, and write their names to the disk. Raises OSError."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Write a folder's names to the disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_folder(folder: Path, *, what: str) -> None:
    """Remove a folder with all that is in it, if it is there. Raises Deferred."""
    if not os.path.isdir(folder):  # noqa: PTH112 (Path.is_dir raises PermissionError)
        return
    with failpoints.effect(f"remove {what}"), _translate_errors(folder):
        shutil.rmtree(folder)


def list_folder(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted; nothing if it is not there. Raises Deferred."""
    with _translate_errors(folder):
        try:
            return sorted(folder.iterdir())
        except FileNotFoundError:
            return []


def _temporary_name(path: str) -> str:
    """Return the temporary name of a file, which is the same after a crash: then it is used again."""
    return f".{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}.part"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)


@contextmanager
def _translate_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_use(folder, error) from error


def cannot_use(folder: Path, error: OSError) -> UecError:
    """Return the error of a folder that the service cannot use as it has to."""
    hint = "Look at the disk that it is on; it continues by itself."
    if error.errno == errno.EFBIG:
        hint = "A file would be larger than its file system allows: use another one."
    elif error.errno in FULL:
        hint = "Free some space there; it continues by itself."
    return Deferred(f"{folder}: cannot write there", error.strerror or str(error), hint)
