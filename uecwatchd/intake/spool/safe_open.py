"""Safe opening of untrusted files: below a folder's descriptor, without links, regular files only."""

import contextlib
import errno
import functools
import os
import pwd
import stat
from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from posixpath import basename
from typing import Literal

from uecwatchd.errors import Deferred, NotPermitted, Rejected, UecError
from uecwatchd.images.block_source import BlockSource, FileSource
from uecwatchd.images.digests import Digest, read_digest
from uecwatchd.images.disk_parts import open_part
from uecwatchd.images.formats.open import DiskAccess, open_disk
from uecwatchd.images.packed.source import PackedSource
from uecwatchd.images.reading import whole
from uecwatchd.system.file_errors import find_closed_folder
from uecwatchd.system.text import file_word
from uecwatchd.types import ContentDigest, FileStamp, Reading

EntryKind = Literal["file", "folder", "symlink", "fifo", "socket", "device"]

NOT_THERE = "it is not there: deleted, or not mounted"
KIND_WORDS: Mapping[EntryKind, str] = {
    "folder": "a folder",
    "symlink": "a symbolic link",
    "fifo": "a named pipe",
    "socket": "a socket",
    "device": "a device",
    "file": "a file",
}


def kind_of(mode: int) -> EntryKind:
    tests: tuple[tuple[EntryKind, bool], ...] = (
        ("file", stat.S_ISREG(mode)),
        ("folder", stat.S_ISDIR(mode)),
        ("symlink", stat.S_ISLNK(mode)),
        ("fifo", stat.S_ISFIFO(mode)),
        ("socket", stat.S_ISSOCK(mode)),
    )
    return next((kind for kind, true in tests if true), "device")


def opened_by(folder: Path) -> str:
    """Return the command, for root, that gives the service access to a spool folder, or a part of it."""
    if above := find_closed_folder(folder):
        return f"chmod o+x {file_word(str(above))}"
    word = file_word(str(folder))
    return f"chgrp uecdrop {word} && chmod 3770 {word}"


def _is_hidden(folder: Path) -> bool:
    """Return True for a folder without any rights: systemd mounts one over what a service may not see."""
    with contextlib.suppress(OSError):
        return stat.S_IMODE(folder.stat().st_mode) == 0
    return False


@contextlib.contextmanager
def folder_descriptor(folder: Path) -> Iterator[int]:
    """Open the spool folder. Its own path may contain links, because the administrator chose it.

    System errors inside the `with` that nothing else explains are raised as errors of the folder: a disk that
    fails, a server that goes away, rights that were removed. Raises NotPermitted, Deferred.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _trouble_of(folder, error) from error


def _trouble_of(folder: Path, error: OSError) -> UecError:
    if isinstance(error, PermissionError):
        above = find_closed_folder(folder)
        if above and _is_hidden(above):
            why = f"the service's unit hides {above} (ProtectHome= or InaccessiblePaths=)"
            hint = "Try, as root: uecwatchd check. It prints the command that shows it to the service."
            return NotPermitted(f"{folder}: cannot list the spool folder", why, hint)
        return NotPermitted(
            f"{folder}: cannot list the spool folder",
            f"the service's user has no right to {f'pass {above}' if above else 'read it'}",
            f"Try: {opened_by(folder)}",
        )
    what = f"{folder}: cannot open the spool folder"
    if error.errno == errno.ENOENT:
        make = f"Make it (mkdir -p {file_word(str(folder))})"
        return Deferred(what, NOT_THERE, f"{make} or mount what it is on; each scan looks for it.")
    hint = "Look at the disk or the server that it is on; each scan tries it again."
    return Deferred(what, error.strerror or str(error), hint)


@contextlib.contextmanager
def open_below(descriptor: int, path: str) -> Iterator[FileIO]:
    """Open a regular file below a folder for reading, without following a link at any step.

    Raises Rejected, with a sentence for its owner.
    """
    with contextlib.ExitStack() as stack:
        *folders, name = path.split("/")
        try:
            for folder in folders:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(folder, flags, dir_fd=descriptor)
                stack.callback(os.close, descriptor)
            # Opening a device can rewind a tape or start a watchdog, and a FIFO blocks: so the type is
            # checked first.
            seen = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
            stack.callback(os.close, seen)
            kind = kind_of(os.fstat(seen).st_mode)
            if kind != "file":
                raise not_regular(path, kind)
            opened = os.open(f"/proc/self/fd/{seen}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise cannot_open(descriptor, path, error) from error
        yield stack.enter_context(FileIO(opened, "rb"))


@contextlib.contextmanager
def open_folder_below(descriptor: int, path: str) -> Iterator[int]:
    """Open a folder below a folder, without following a link at any step. Raises OSError."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.ExitStack() as stack:
        for name in path.split("/"):
            descriptor = os.open(name, flags, dir_fd=descriptor)
            stack.callback(os.close, descriptor)
        yield descriptor


@contextlib.contextmanager
def open_member(folder: Path, path: str) -> Iterator[FileIO]:
    """Open a member of a set like `open_below`, from the path of the spool folder."""
    with folder_descriptor(folder) as descriptor, open_below(descriptor, path) as file:
        yield file


@contextlib.contextmanager
def open_image(
    folder: Path,
    path: str,
    how: Reading = "file",
    *,
    stamp: FileStamp | None = None,
    access: DiskAccess | None = None,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[BlockSource]:
    """Open the content of a member, to be read from its beginning to its end.

    `check` is called while a container's map is read, or a compressed file for the first time, and may raise
    to stop; `progress` with the number of compressed bytes so far. Raises Deferred if the file is
    not the listed one with that stamp, Rejected if the disk in it cannot be read.
    """
    with open_member(folder, path) as file:
        with reading(path):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            found = FileStamp.of(status := os.fstat(file.fileno()))
        if stamp and not stamp.is_of(status):
            raise changed(path)
        with reading(path):
            source = (
                FileSource(file)
                if whole(how) == "file"
                else _open_disk(file, path, found, access=access, check=check, progress=progress)
            )
        with open_part(source, how, name=path, check=check) as part:
            yield part


def _open_disk(
    file: FileIO,
    path: str,
    stamp: FileStamp,
    *,
    access: DiskAccess | None,
    check: Callable[[], None],
    progress: Callable[[int], None],
) -> BlockSource:
    """Open the disk in a file. What is damaged because it is being written to is raised as that."""
    try:
        return open_disk(file, name=path, access=access, check=check, progress=progress).source
    except Rejected as error:
        if FileStamp.of(os.fstat(file.fileno())) != stamp:
            raise changed(path) from error
        raise


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Raise a failed read as an error of the disk, which is temporary as far as we know."""
    try:
        yield
    except OSError as error:
        raise _unreadable(path, error) from error


class LeasedFile(Deferred):
    """A process, such as a file server, has a lease on the file, and may be writing to it."""


def cannot_open(descriptor: int, path: str, error: OSError) -> UecError:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):  # a link in place of the file, or of its folder
        return not_regular(path, "symlink")
    if isinstance(error, PermissionError):
        why, bits = _mode_and_owner(descriptor, basename(path))
        return Rejected(f"{path}: cannot read it", why, f"Try: chmod {bits} {file_word(path)}")
    if isinstance(error, FileNotFoundError):
        hint = "The folder is scanned again; drop the file again if it should not be gone."
        return Deferred(f"{path}: it is gone", "it was removed since it was listed", hint)
    if isinstance(error, BlockingIOError):
        why = "a process has a lease on it; the kernel has asked for it back, and takes it within a minute"
        return LeasedFile(f"{path}: cannot open it yet", why, "It is tried again by itself.")
    return _unreadable(path, error)


def _unreadable(path: str, error: OSError) -> Deferred:
    return Deferred(f"{path}: cannot read it", error.strerror or str(error), "Check the disk it is on.")


def _mode_and_owner(descriptor: int, name: str) -> tuple[str, str]:
    """Describe mode and owner of a closed file, and return the mode bits that would help."""
    try:
        status = os.lstat(name, dir_fd=descriptor)
    except OSError:
        return "permission denied", "g+rX"
    bits = "g+rx" if stat.S_ISDIR(status.st_mode) else "g+r"
    return f"mode {stat.S_IMODE(status.st_mode):04o}, owner {user_name(status.st_uid)}", bits


@functools.lru_cache(maxsize=1024)
def user_name(uid: int) -> str:
    """Return the name of a user, or the number if there is no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def not_regular(path: str, kind: EntryKind) -> Rejected:
    return Rejected(
        f"{path}: it is {KIND_WORDS[kind]}",
        "only regular files are taken from a spool, so that nobody can make the service read elsewhere",
        "Copy the image itself into the folder.",
    )


def digest(
    folder: Path,
    path: str,
    how: Reading = "file",
    *,
    stamp: FileStamp | None = None,
    taken: Digest | None = None,
    access: DiskAccess | None = None,
    progress: Callable[[int], None] = lambda _: None,
    check: Callable[[], None] = lambda: None,
) -> ContentDigest:
    """Return the digest of a member: `taken`, an empty one, or one of the kind for the file.

    `progress` is called with the number of bytes so far, of a compressed file as it is stored, and may raise
    to stop the work. Raises Deferred if the file changes while it is read, or is not the listed one with that
    stamp.
    """
    opened = open_image(folder, path, how, stamp=stamp, access=access, check=check, progress=progress)
    with opened as source, reading(path):
        if isinstance(source, PackedSource) and source.survey and taken is None:
            found = source.survey.digest  # from the one reading that was necessary to open it
        else:
            found = read_digest(source, taken, progress=progress)
        if not source.is_unchanged():
            raise changed(path)
    return found


def changed(path: str) -> Deferred:
    return Deferred(
        f"{path}: it changed while it was read",
        "its content, size, change time or inode is no longer what it was",
        "Its set continues when the file is unchanged for a while.",
    )
