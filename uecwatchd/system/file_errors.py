"""Errors for files and folders that cannot be read or written, as sentences."""

import errno
import grp
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from uecwatchd.errors import Deferred, NotPermitted, Rejected, UecError
from uecwatchd.system.text import shell_word

FULL = (errno.ENOSPC, errno.EDQUOT)
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)


class NoInput(Rejected):
    """The input is missing, or is not a file."""

    exit_code = 66


class NoOutput(Rejected):
    """The output cannot be written at this place."""

    exit_code = 73


def open_regular(path: Path, *, follow: bool) -> FileIO:
    """Open a regular file for reading, through a link only if `follow` is set.

    The type is checked before the file is opened, because opening a device may have effects, and a named pipe
    blocks. Raises NoInput, OSError.
    """
    seen = os.open(path, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    try:
        mode = os.fstat(seen).st_mode
        if stat.S_ISLNK(mode):
            raise NoInput(path.name, "it is a symbolic link", f"Copy what it leads to: {path.readlink()}.")
        if not stat.S_ISREG(mode):
            raise not_a_file(path)
        return FileIO(os.open(f"/proc/self/fd/{seen}", os.O_RDONLY | os.O_CLOEXEC), "rb")
    finally:
        os.close(seen)


def not_a_file(path: Path) -> NoInput:
    """Return the error for a `path` without a regular file."""
    if path.is_dir():
        return NoInput(path.name or str(path), "it is a folder", "Name the file itself.")
    if path.exists():
        return NoInput(
            path.name, "it is not a regular file", "Copy what it holds into a file, and name that."
        )
    return NoInput(path.name, f"there is no such file in {path.parent}", "Look whether it was moved.")


def cannot_read(path: Path, *, what: str) -> NotPermitted:
    """Return the error for an unreadable `path`, called `what`, with the command that makes it readable."""
    try:
        facts = path.stat()
    except OSError:
        hint = "Move it to a folder that is open, or have systemd hand it over: as root, uecwatchd check."
        return NotPermitted(
            what, f"cannot read it: {find_closed_folder(path) or 'a folder above it'} is closed to us", hint
        )
    why = f"cannot read it (mode {facts.st_mode & 0o7777:04o}, owner {_owner(path, facts.st_uid)})"
    word = shell_word(str(path))
    return NotPermitted(what, why, f"Let our group read it: chgrp {_our_group()} {word} && chmod g+r {word}")


def cannot_write(folder: Path, fault: OSError) -> UecError:
    """Return the error for a folder in which nothing could be created."""
    if isinstance(fault, FileExistsError):
        return NoOutput(str(folder), "it is not a folder", "Name a folder, or a new name for one.")
    why = f"cannot write there: {fault.strerror}"
    if fault.errno in FULL:
        return Deferred(str(folder), why, "Make room, and try again.")
    if fault.errno in CLOSED:
        return NotPermitted(str(folder), why, "Name a folder that we may write to.")
    return NoOutput(str(folder), why, "Name another folder.")


def _our_group() -> str:
    try:
        return grp.getgrgid(os.getegid()).gr_name
    except KeyError:
        return str(os.getegid())


def _owner(path: Path, uid: int) -> str:
    try:
        return path.owner()
    except KeyError:
        return str(uid)


def find_closed_folder(folder: Path) -> Path | None:
    """Return the first folder on the way to `folder` that our user may not pass, None if there is none."""
    above = reversed(folder.absolute().parents)
    return next((each for each in above if not os.access(each, os.X_OK, effective_ids=True)), None)


@contextmanager
def open_for_reading(path: Path, *, follow: bool = True) -> Iterator[FileIO]:
    """Open a file for reading, and raise every failure to read it inside the `with` as a UecError.

    A link is followed if a person named it, and not if a bundle did.
    """
    try:
        with open_regular(path, follow=follow) as file:
            yield file
    except (FileNotFoundError, NotADirectoryError):
        raise not_a_file(path) from None
    except PermissionError:
        raise cannot_read(path, what=path.name) from None
    except OSError as fault:
        raise Deferred(path.name, f"cannot read it: {fault.strerror}", "Check its disk.") from fault
