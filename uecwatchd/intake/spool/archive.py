"""Archiving and deletion of the files of a finished set, if the configuration asks for it.

People who may drop files could replace a folder by a link, so every step uses descriptors.
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from uecwatchd.errors import Deferred
from uecwatchd.intake.spool.folder_lease import check
from uecwatchd.intake.spool.safe_open import folder_descriptor
from uecwatchd.system import failpoints
from uecwatchd.types import FileStamp

ARCHIVE = "done"
# People who may drop files may also take them back; only the service may create folders. If the parent folder
# is setgid, the kernel gives its group and the bit to the new one. Setting it explicitly is forbidden under
# RestrictSUIDSGID=.
ARCHIVE_MODE = 0o750
# Maximum number of files with one name that are archived on one day: more come from a broken script.
SAME_NAMES = 1000
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def archive(folder: Path, files: Iterable[tuple[str, FileStamp]], *, when: datetime) -> None:
    """Move files to `done/YYYY/MM/DD/`, under a new name if the old one is taken there.

    A file that no longer matches its stamp stays. Raises Deferred if one cannot be moved.
    """
    place = (ARCHIVE, f"{when:%Y}", f"{when:%m}", f"{when:%d}")
    with folder_descriptor(folder) as spool:
        for path, stamp in files:
            *above, name = path.split("/")
            with (
                _trouble(path, "archive"),
                _below(spool, above) as source,
                _made(spool, (*place, *above)) as to,
            ):
                if _is_still(source, name, stamp):
                    with failpoints.effect("archive a file"):
                        check(folder)
                        os.rename(name, _free_name(to, name), src_dir_fd=source, dst_dir_fd=to)
                        os.fsync(
                            to
                        )  # before the old folder: the file may be in both, but must not be in none
                        os.fsync(source)
            _clear_away(spool, above)


def discard(folder: Path, files: Iterable[tuple[str, FileStamp]]) -> None:
    """Delete files that still match their stamps. Raises Deferred if one cannot be deleted."""
    with folder_descriptor(folder) as spool:
        for path, stamp in files:
            *above, name = path.split("/")
            with _trouble(path, "delete"), _below(spool, above) as source:
                if _is_still(source, name, stamp):
                    with failpoints.effect("delete a file"):
                        check(folder)
                        os.unlink(name, dir_fd=source)
                        os.fsync(source)
            _clear_away(spool, above)


@contextlib.contextmanager
def _below(descriptor: int, names: Iterable[str]) -> Iterator[int]:
    """Yield a descriptor some folders further down, without following links."""
    with contextlib.ExitStack() as stack:
        for name in names:
            descriptor = os.open(name, FOLDER_FLAGS, dir_fd=descriptor)
            stack.callback(os.close, descriptor)
        yield descriptor


@contextlib.contextmanager
def _made(descriptor: int, names: Iterable[str]) -> Iterator[int]:
    """Yield the same, and create missing folders. Existing ones must belong to the service."""
    with contextlib.ExitStack() as stack:
        for name in names:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, ARCHIVE_MODE, dir_fd=descriptor)
            descriptor = os.open(name, FOLDER_FLAGS, dir_fd=descriptor)
            stack.callback(os.close, descriptor)
            if os.fstat(descriptor).st_uid != os.geteuid():
                raise PermissionError(f"the folder {name} is not the service's")
        yield descriptor


def _is_still(descriptor: int, name: str, stamp: FileStamp) -> bool:
    with contextlib.suppress(FileNotFoundError):
        status = os.lstat(name, dir_fd=descriptor)
        return stat.S_ISREG(status.st_mode) and stamp.is_of(status)
    return False


def _free_name(descriptor: int, name: str) -> str:
    there = set(os.listdir(descriptor))
    names = (name, *(f"{name}.{number}" for number in range(1, SAME_NAMES)))
    found = next((free for free in names if free not in there), None)
    if found is None:
        raise FileExistsError(f"{SAME_NAMES} files of this name were archived today")
    return found


def _clear_away(descriptor: int, above: list[str]) -> None:
    """Remove a set's own folders after the last of its files, the inner one first, if they are empty."""
    for depth in reversed(range(len(above))):
        with contextlib.suppress(OSError), _below(descriptor, above[:depth]) as outer:
            os.rmdir(above[depth], dir_fd=outer)


@contextlib.contextmanager
def _trouble(path: str, verb: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        return  # it is gone already, with its folder
    except OSError as error:
        raise Deferred(
            f"{path}: cannot {verb} it",
            error.strerror or str(error),
            'Let the service write there (uecwatchd check), or set after = "keep" under [spool].',
        ) from error
