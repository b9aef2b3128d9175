"""What becomes of a finished set's files, where the configuration says that they do not stay."""

import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from uecwatchd.errors import Deferred
from uecwatchd.spool.door import Stamp, folder_descriptor, stamp_of

ARCHIVE = "done"
# Whoever may drop files may also fetch them back.
ARCHIVE_MODE = 0o2770
# Files of one name archived on one day, before the last of them is taken for the work of a broken script.
SAME_NAMES = 1000


def archive(folder: Path, files: Iterable[tuple[str, Stamp]], *, when: datetime) -> None:
    """Move files to `done/YYYY/MM/DD/`, under a new name where one of theirs is there already.

    A file that is no longer what its stamp says stays. Raises Deferred when one cannot be moved.
    """
    place = Path(ARCHIVE, f"{when:%Y}", f"{when:%m}", f"{when:%d}")
    with folder_descriptor(folder) as descriptor:
        for path, stamp in files:
            if _is_still(descriptor, path, stamp):
                _move(folder, path, folder / place / path)


def discard(folder: Path, files: Iterable[tuple[str, Stamp]]) -> None:
    """Delete files that are still what their stamps say. Raises Deferred when one cannot be deleted."""
    with folder_descriptor(folder) as descriptor:
        for path, stamp in files:
            if _is_still(descriptor, path, stamp):
                try:
                    os.unlink(path, dir_fd=descriptor)
                except OSError as error:
                    raise _cannot(path, "delete", error) from error


def _is_still(descriptor: int, path: str, stamp: Stamp) -> bool:
    with suppress(FileNotFoundError):
        return stamp_of(os.lstat(path, dir_fd=descriptor)) == stamp
    return False


def _move(folder: Path, path: str, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=ARCHIVE_MODE)
        names = (target, *(target.with_name(f"{target.name}.{number}") for number in range(1, SAME_NAMES)))
        (folder / path).rename(next(name for name in names if not os.path.lexists(name)))
    except (OSError, StopIteration) as error:
        raise _cannot(path, "archive", error) from error


def _cannot(path: str, verb: str, error: Exception) -> Deferred:
    return Deferred(
        f"{path}: cannot {verb} it",
        (isinstance(error, OSError) and error.strerror) or "too many files of this name today",
        "Let the service's user write to the folder, or set spool.after to keep.",
    )
