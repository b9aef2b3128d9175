"""What becomes of a finished set's files, where the configuration says that they do not stay.

Who may drop files may also put a link in the place of a folder, so every step goes through descriptors.
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from uecwatchd.errors import Deferred
from uecwatchd.intake.spool.safe_open import Stamp, folder_descriptor, stamp_of
from uecwatchd.system import failpoints

ARCHIVE = "done"
# Whoever may drop files may also fetch them back; nobody but the service may put folders in between. Where
# the folder above is setgid, the kernel gives the new one its group and the bit by itself. To ask for it is
# refused to a service under RestrictSUIDSGID=.
ARCHIVE_MODE = 0o750
# Files of one name archived on one day, before the last of them is taken for the work of a broken script.
SAME_NAMES = 1000
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def archive(folder: Path, files: Iterable[tuple[str, Stamp]], *, when: datetime) -> None:
    """Move files to `done/YYYY/MM/DD/`, under a new name where one of theirs is there already.

    A file that is no longer what its stamp says stays. Raises Deferred when one cannot be moved.
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
                        os.rename(name, _free_name(to, name), src_dir_fd=source, dst_dir_fd=to)
                        os.fsync(to)  # before the folder that it left: it may be in both, but never in none
                        os.fsync(source)
            _clear_away(spool, above)


def discard(folder: Path, files: Iterable[tuple[str, Stamp]]) -> None:
    """Delete files that are still what their stamps say. Raises Deferred when one cannot be deleted."""
    with folder_descriptor(folder) as spool:
        for path, stamp in files:
            *above, name = path.split("/")
            with _trouble(path, "delete"), _below(spool, above) as source:
                if _is_still(source, name, stamp):
                    with failpoints.effect("delete a file"):
                        os.unlink(name, dir_fd=source)
                        os.fsync(source)
            _clear_away(spool, above)


@contextlib.contextmanager
def _below(descriptor: int, names: Iterable[str]) -> Iterator[int]:
    """A descriptor some folders further down, with no link on the way."""
    with contextlib.ExitStack() as stack:
        for name in names:
            descriptor = os.open(name, FOLDER_FLAGS, dir_fd=descriptor)
            stack.callback(os.close, descriptor)
        yield descriptor


@contextlib.contextmanager
def _made(descriptor: int, names: Iterable[str]) -> Iterator[int]:
    """The same, making what is missing; what is there must be the service's own."""
    with contextlib.ExitStack() as stack:
        for name in names:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, ARCHIVE_MODE, dir_fd=descriptor)
            descriptor = os.open(name, FOLDER_FLAGS, dir_fd=descriptor)
            stack.callback(os.close, descriptor)
            if os.fstat(descriptor).st_uid != os.geteuid():
                raise PermissionError(f"the folder {name} is not the service's")
        yield descriptor


def _is_still(descriptor: int, name: str, stamp: Stamp) -> bool:
    with contextlib.suppress(FileNotFoundError):
        status = os.lstat(name, dir_fd=descriptor)
        return stat.S_ISREG(status.st_mode) and stamp_of(status) == stamp
    return False


def _free_name(descriptor: int, name: str) -> str:
    there = set(os.listdir(descriptor))
    names = (name, *(f"{name}.{number}" for number in range(1, SAME_NAMES)))
    found = next((free for free in names if free not in there), None)
    if found is None:
        raise FileExistsError(f"{SAME_NAMES} files of this name were archived today")
    return found


def _clear_away(descriptor: int, above: list[str]) -> None:
    """A set's own folder goes with the last of its files; one that still holds something stays."""
    if above:
        with contextlib.suppress(OSError):
            os.rmdir(above[0], dir_fd=descriptor)


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
