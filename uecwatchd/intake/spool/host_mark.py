"""Marks of services in their folders: small files, renewed as long as the services live.

Locks do not reach other hosts on every file system: those of NFS do unless it is mounted with `nolock` or
`local_lock`, those of 9p, virtiofs, sshfs and most of FUSE do not. So on file systems that other hosts may
have mounted there is this mark in addition. It resembles the host names in the locks of Maildir and of rpm.

Its age is the difference between its time of modification and that of a file that was written just now: both
are by the clock of the file server. The file is replaced as a whole each time.
"""

import json
import os
import secrets
import stat
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from uecwatchd.errors import Deferred, Halted
from uecwatchd.intake.spool.folder_lease import host_word
from uecwatchd.intake.spool.output_files import MARK_NAME, give_name, write_new
from uecwatchd.intake.spool.safe_open import folder_descriptor, user_name
from uecwatchd.system.lockfile import LockTaken
from uecwatchd.system.text import printable, shell_word

MARK_VERSION = 1
# Everybody on any host may see whose folder it is.
MARK_MODE = 0o644
MARK_LIMIT_BYTES = 16 * 1024
RENEW_SECONDS = 10.0
# NFS keeps what it knows of names and of files for a minute each, if it is mounted with its defaults.
STALE_SECONDS = 120.0
# After a mark of somebody else was replaced: another host may have replaced it at the same moment.
SETTLE_SECONDS = 1.0
TRIES = 5


@dataclass(frozen=True, slots=True)
class HostMark:
    """The host that works on a folder, and its ledger."""

    ledger: str  #: same for all that may work on the folder at once
    host: str
    folder: str  #: its path on that host


@dataclass(frozen=True, slots=True)
class FoundMark:
    """A mark as it is found in a folder. None in place of one that makes no sense."""

    mark: HostMark | None
    owner: int
    modified: float


def write_mark(mark: HostMark) -> bytes:
    """Return the text of a mark."""
    return json.dumps({"version": MARK_VERSION, **asdict(mark)}).encode() + b"\n"


def read_mark(data: bytes) -> HostMark:
    """Parse what `write_mark` has written. Raises ValueError for anything else."""
    fields = json.loads(data)
    if not isinstance(fields, dict) or fields.pop("version", None) != MARK_VERSION:
        raise ValueError("not a mark of this version")
    try:
        return HostMark(**{key: str(value) for key, value in fields.items()})
    except TypeError as error:
        raise ValueError("not a mark") from error


def find_mark(descriptor: int) -> FoundMark | None:
    """Return the mark in an open folder, or None if there is none."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        status = os.lstat(MARK_NAME, dir_fd=descriptor)
        found = FoundMark(None, status.st_uid, status.st_mtime)
        if not stat.S_ISREG(status.st_mode):
            return found
        opened = os.open(MARK_NAME, flags, dir_fd=descriptor)
    except FileNotFoundError:
        return None
    except OSError:  # closed to this user, or replaced by something else
        return found
    try:
        now = os.fstat(opened)
        with suppress(ValueError, RecursionError):
            data = os.read(opened, MARK_LIMIT_BYTES)
            return FoundMark(read_mark(data), now.st_uid, now.st_mtime)
        return FoundMark(None, now.st_uid, now.st_mtime)
    finally:
        os.close(opened)


def is_marked(folder: Path) -> bool:
    """Tell if a service with our user has marked a folder. Raises NotPermitted or Deferred."""
    with folder_descriptor(folder) as descriptor:
        found = find_mark(descriptor)
    return found is not None and found.owner == os.geteuid()


def place_mark(folder: Path, mark: HostMark, *, is_known: bool = False) -> None:
    """Mark a folder, or renew the mark there; with `is_known`, there must be one.

    Raises LockTaken while another service has it, Halted if that runs as another user; and NotPermitted or
    Deferred.
    """
    with folder_descriptor(folder) as descriptor:
        if is_known and find_mark(descriptor) is None:
            raise _not_there(folder)
        temporary = f"{MARK_NAME}.uec.{host_word(mark.host)}.{secrets.token_hex(4)}"
        write_new(descriptor, temporary, write_mark(mark), mode=MARK_MODE)
        try:
            is_taken_over = _place(descriptor, temporary, folder, mark)
        finally:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=descriptor)
        if is_taken_over:
            time.sleep(SETTLE_SECONDS)
            found = find_mark(descriptor)
            if found is None or found.mark is None or found.mark.ledger != mark.ledger:
                raise _taken(folder, found.mark if found else None)


def _place(descriptor: int, temporary: str, folder: Path, mark: HostMark) -> bool:
    """Give a new mark its name. Return True if it is in the place of somebody else's."""
    now = os.lstat(temporary, dir_fd=descriptor).st_mtime
    for _ in range(TRIES):
        found = find_mark(descriptor)
        if found is None:
            if give_name(descriptor, temporary, MARK_NAME):
                return False
            continue  # another host was faster
        if found.owner != os.geteuid():
            _remove_foreign(descriptor, folder, found)
            continue
        is_same = found.mark is not None and found.mark.ledger == mark.ledger
        if not is_same and now - found.modified < STALE_SECONDS:
            raise _taken(folder, found.mark)
        os.rename(temporary, MARK_NAME, src_dir_fd=descriptor, dst_dir_fd=descriptor)
        return not is_same
    raise _taken(folder, None)


def _remove_foreign(descriptor: int, folder: Path, found: FoundMark) -> None:
    """Remove a mark of another user, which the owner of the folder takes for planted. Raises Halted."""
    if wrong := wrong_user(descriptor, folder, found):
        raise wrong
    with suppress(OSError):
        os.unlink(MARK_NAME, dir_fd=descriptor)


def wrong_user(descriptor: int, folder: Path, found: FoundMark) -> Halted | None:
    """Return the error for the mark of another user, unless this one owns the folder."""
    if os.geteuid() in (found.owner, os.fstat(descriptor).st_uid):
        return None
    other = f"uecwatchd on host {printable(found.mark.host)}" if found.mark else "another uecwatchd"
    return Halted(
        f"{folder}: {other} works there as {user_name(found.owner)} (uid {found.owner})",
        f"this one runs as uid {os.geteuid()}, so neither could replace the result files of the other",
        f"Give the service's user the same uid on every host. Then, as root: rm {folder / MARK_NAME}",
    )


def _not_there(folder: Path) -> Deferred:
    path = shell_word(str(folder / MARK_NAME))
    return Deferred(
        f"{folder}: it is not the folder that the other hosts share",
        f"their mark {MARK_NAME} is not in it: perhaps the file server is not mounted here",
        f"Mount it. If the folder is new: sudo -u {user_name(os.geteuid())} touch {path}",
    )


def _taken(folder: Path, mark: HostMark | None) -> LockTaken:
    where = f"uecwatchd on host {printable(mark.host)} ({printable(mark.folder)})" if mark else "a uecwatchd"
    return LockTaken(
        f"{folder}: another uecwatchd watches this folder",
        f"{where} has renewed its mark {MARK_NAME} there within the last {STALE_SECONDS:g} seconds",
        "Let one host alone watch it, or all hosts of one fleet, each with shared = true for it under"
        " spool.policy.",
    )


def remove_mark(folder: Path, mark: HostMark) -> None:
    """Remove our mark, if it is there. Raises NotPermitted or Deferred."""
    with folder_descriptor(folder) as descriptor:
        found = find_mark(descriptor)
        if found and found.mark == mark and found.owner == os.geteuid():
            with suppress(FileNotFoundError):
                os.unlink(MARK_NAME, dir_fd=descriptor)
