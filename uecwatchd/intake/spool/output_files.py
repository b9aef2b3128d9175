"""Writing of result files: complete or not at all, and never in place of a file that is not ours."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from uecwatchd.errors import Deferred, Rejected
from uecwatchd.intake.spool.folder_lease import FolderLease, check, is_leased, lease_of
from uecwatchd.intake.spool.safe_open import KIND_WORDS, EntryKind, folder_descriptor, kind_of, user_name
from uecwatchd.system import failpoints, lockfile
from uecwatchd.system.text import shell_word

# The name begins and goes on like that of an unfinished output: no reason to look at the folder.
SPOOL_LOCK = lockfile.LockFile(
    ".uec.lock",
    "another uecwatchd watches this folder",
    "Stop the other one, or give this one another folder. To find it: sudo lslocks | grep uec.lock",
)
# Of the host that works on a folder; see `host_mark`.
MARK_NAME = ".uec.host"
OUTPUT_SUFFIXES = (
    *(".uec.log", ".uec.json", ".uec.error", ".uec.png"),
    *(".emi", ".eki", ".eri", ".latest"),
)
# NAME_MAX is 255 bytes; the longest that we add is ".NAME.uec.error.uec.HOST." and 8 random letters.
OUTPUT_STEM_BYTES = 200
# Names that `place` gives to unfinished files. Before there were several hosts, they had none.
UNFINISHED = re.compile(r"\..+\.uec\.(?:(?P<host>[A-Za-z0-9_-]+)\.)?[0-9a-f]{8}")
# Errors of file systems without hard links: FAT, some FUSE and network file systems.
NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK})
# Readable by the group that drops files, not by the world.
OUTPUT_MODE = 0o640


class NameTaken(Rejected):
    """The name of a result file is taken by a file that is not the service's; `owner` is its uid."""

    def __init__(self, what: str, why: str, hint: str, *, owner: int) -> None:
        super().__init__(what, why, hint)
        self.owner = owner


class _Foreign(Exception):
    """A file under the name of a result file is not ours."""

    def __init__(self, status: os.stat_result) -> None:
        self.status = status


def is_output(name: str) -> bool:
    return name.endswith(OUTPUT_SUFFIXES)


def output_stem(set_name: str) -> str:
    """Return the stem of a set's result files: its name, shortened if it would be too long for a file."""
    encoded = os.fsencode(set_name)
    if len(encoded) <= OUTPUT_STEM_BYTES:
        return set_name
    tail = hashlib.sha256(encoded).hexdigest()[:8]
    return encoded[: OUTPUT_STEM_BYTES - 9].decode("utf-8", "ignore") + "-" + tail


def lock_spool(folder: Path) -> int | None:
    """Become the only daemon on a spool folder; return the lock, None if there is none to be had.

    The folder should have the sticky bit, or those who drop files can remove the lock file.
    Raises LockTaken, and what `folder_descriptor` raises.
    """
    with folder_descriptor(folder) as descriptor:
        return lockfile.acquire_in_shared_folder(folder, descriptor, SPOOL_LOCK)


def place(folder: Path, name: str, data: bytes) -> None:
    """Write a file beside the images, complete or not at all. Replaces only our own files.

    Raises NameTaken if somebody else's file has the name, Deferred if the disk is full.
    """
    with folder_descriptor(folder) as descriptor, _output_trouble(folder, name):
        _place(descriptor, name, data, lease_of(folder))


def _place(descriptor: int, name: str, data: bytes, lease: FolderLease) -> None:
    replaces = _check_ours(descriptor, name)
    temporary = f".{name}.uec.{lease.host}.{secrets.token_hex(4)}"
    try:
        with failpoints.effect(f"write {_ending(name)}"):
            lease.check()
            write_new(descriptor, temporary, data)
        with failpoints.effect(f"place {_ending(name)}"):
            lease.check()
            if replaces or not _is_named(descriptor, temporary, name):
                os.rename(temporary, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
            os.fsync(descriptor)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=descriptor)


def _is_named(descriptor: int, temporary: str, name: str) -> bool:
    """Give a finished file its name; return False if a file of ours has it, which a rename replaces.

    Also if the file system has no hard links, so that only a rename is possible.
    """
    try:
        return _link(descriptor, temporary, name)
    except FileExistsError:
        _check_ours(descriptor, name)
        return False


def give_name(descriptor: int, temporary: str, name: str) -> bool:
    """Give a finished file in an open folder its name; return False if that is taken."""
    try:
        if not _link(descriptor, temporary, name):
            os.rename(temporary, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
    except FileExistsError:
        return False
    return True


def _link(descriptor: int, temporary: str, name: str) -> bool:
    """Give a file a second name, which fails, unlike a rename, if the name is taken.

    Returns False if the file system has no hard links.
    """
    try:
        os.link(temporary, name, src_dir_fd=descriptor, dst_dir_fd=descriptor, follow_symlinks=False)
    except OSError as error:
        if error.errno in NO_HARD_LINKS:
            return False
        raise
    return True


def check_free(folder: Path, name: str) -> None:
    """Raise the error of `place` if the name is taken by somebody else's file."""
    with folder_descriptor(folder) as descriptor, _output_trouble(folder, name):
        _check_ours(descriptor, name)


def sweep(folder: Path) -> None:
    """Remove unfinished files of a killed process, but not those of other hosts.

    Only the holder of the folder's lock may call this.
    """
    hosts = (lease_of(folder).host,) if is_leased(folder) else ()
    with folder_descriptor(folder) as descriptor:
        for name in sorted(os.listdir(descriptor)):  # noqa: PTH208 (a path would be resolved again)
            found = UNFINISHED.fullmatch(name)
            if not found or (hosts and found["host"] not in hosts):
                continue
            with contextlib.suppress(OSError):
                status = os.lstat(name, dir_fd=descriptor)
                if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                    os.unlink(name, dir_fd=descriptor)


def append(folder: Path, name: str, text: str, *, lasting: bool = False) -> None:
    """Add lines to a log beside the images. Raises as `place` does.

    With `lasting`, everything is on the disk when this returns. A log with a second name is started again:
    somebody may have linked the log's name to another file of ours, to make us write into it.
    """
    data = text.encode("utf-8", "backslashreplace")
    with folder_descriptor(folder) as descriptor, _output_trouble(folder, name):
        status = _check_ours(descriptor, name)
        if status is None or status.st_nlink > 1:
            _place(descriptor, name, data, lease_of(folder))
            return
        with failpoints.effect(f"append to {_ending(name)}"):
            check(folder)
            _append(descriptor, name, data, lasting=lasting)


def _append(descriptor: int, name: str, data: bytes, *, lasting: bool) -> None:
    # O_NONBLOCK and the second check: somebody may have put a pipe or a link in its place since the first.
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    opened = os.open(name, flags, dir_fd=descriptor)
    with os.fdopen(opened, "ab") as file:  # buffered: a raw write may stop half way on a full disk
        # The name and the open file are compared at the same moment. Looking at the open file alone is not
        # enough: it may have had two names, and have lost the log's.
        now = os.lstat(name, dir_fd=descriptor)
        same = os.path.samestat(now, os.fstat(opened))
        if not same or is_foreign(now, owner=os.geteuid()) or now.st_nlink > 1:
            raise _Foreign(now)
        file.write(data)
        file.flush()
        if lasting:
            os.fsync(opened)


def remove(folder: Path, name: str) -> None:
    """Remove one of our result files, if it is there and ours."""
    with folder_descriptor(folder) as descriptor, _output_trouble(folder, name):
        _check_ours(descriptor, name)
        if not _is_there(descriptor, name):
            return
        with failpoints.effect(f"remove {_ending(name)}"):
            check(folder)
            os.unlink(name, dir_fd=descriptor)
            os.fsync(descriptor)  # or the file would come back after a power loss


def _is_there(descriptor: int, name: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        os.lstat(name, dir_fd=descriptor)
        return True
    return False


def _ending(name: str) -> str:
    """Return the suffix of a result file: failpoints have the same names for every set."""
    return next((suffix for suffix in OUTPUT_SUFFIXES if name.endswith(suffix)), name)


def write_new(descriptor: int, name: str, data: bytes, *, mode: int = OUTPUT_MODE) -> None:
    """Write a new file in an open folder, down to the disk. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    opened = os.open(name, flags, mode, dir_fd=descriptor)
    with os.fdopen(opened, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(opened)


def _check_ours(descriptor: int, name: str) -> os.stat_result | None:
    """Return the status of the file, or None if there is none. Raises _Foreign if it is not ours."""
    try:
        status = os.lstat(name, dir_fd=descriptor)
    except FileNotFoundError:
        return None
    if is_foreign(status, owner=os.geteuid()):
        raise _Foreign(status)
    return status


def is_foreign(status: os.stat_result, *, owner: int) -> bool:
    """Return True if the file under the name of a result file was not put there by the user `owner`."""
    return not stat.S_ISREG(status.st_mode) or status.st_uid != owner


def taken_words(name: str) -> str:
    """Return the beginning of a sentence about a taken name."""
    return f"{name}: cannot write it: the name is taken"


def name_taken(folder: Path, name: str, kind: EntryKind, owner: int) -> NameTaken:
    """Return the error for a taken name. The suggested command renames the file so that scans ignore it."""
    whose, path = user_name(owner), str(folder / name)
    who = "root" if owner == 0 else f"{whose} or root"
    return NameTaken(
        f"{name}: cannot write it",
        f"the name is taken by {KIND_WORDS[kind]} that is not the service's; it belongs to {whose}",
        f"As {who}: mv -T --backup=numbered {shell_word(path)} {shell_word(f'{path}.bak')}",
        owner=owner,
    )


@contextlib.contextmanager
def _output_trouble(folder: Path, name: str) -> Iterator[None]:
    try:
        yield
    except _Foreign as error:
        status = error.status
        raise name_taken(folder, name, kind_of(status.st_mode), status.st_uid) from error
    except OSError as error:
        raise Deferred(
            f"{folder / name}: cannot write it",
            error.strerror or str(error),
            "Free some space, or let the service's user write to the folder.",
        ) from error
