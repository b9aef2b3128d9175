"""Files for other programs and users, in a folder of the configuration: a web server, node_exporter.

Each is complete under its name, or not there at all, and readable by every user. A file or link of another
user is not replaced: the folder may be shared with other programs.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from uecwatchd.errors import Deferred, NotPermitted, UecError
from uecwatchd.ledger.state_folder import user_name
from uecwatchd.system import failpoints
from uecwatchd.system.file_errors import CLOSED, FULL
from uecwatchd.system.text import shell_word

PUBLIC_MODE = 0o644
_LOOK = "Look at the disk or the server that it lies on"


def replace_public(folder: Path, name: str, data: bytes) -> None:
    """Write a file in place of an older one of ours. Raises Deferred."""
    with _trouble_as_sentence(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _check_ours(descriptor, folder / name)
            _replace(descriptor, name, data)
        finally:
            os.close(descriptor)


def _replace(descriptor: int, name: str, data: bytes) -> None:
    # Always the same name: what a crash left is removed at the next time. node_exporter reads only *.prom.
    temporary = f".{name}.uec.part"
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=descriptor)
    try:
        with failpoints.effect(f"write {name}"):
            _write_new(descriptor, temporary, data)
        with failpoints.effect(f"place {name}"):
            # The folder is not flushed: after a power cut the older file may be there, and is written again.
            os.rename(temporary, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
    finally:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=descriptor)


def _write_new(descriptor: int, name: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    opened = os.open(name, flags, PUBLIC_MODE, dir_fd=descriptor)
    with os.fdopen(opened, "wb") as file:
        os.fchmod(opened, PUBLIC_MODE)  # whatever the umask is
        file.write(data)
        file.flush()
        os.fsync(opened)  # or there may be an empty file after a power cut


def _check_ours(descriptor: int, path: Path) -> None:
    try:
        status = os.lstat(path.name, dir_fd=descriptor)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        what = "a file" if stat.S_ISREG(status.st_mode) else "something that is no regular file"
        raise Deferred(
            f"{path}: cannot write it",
            f"the name is taken by {what} of {user_name(status.st_uid)}",
            f"Move it away: mv -T --backup=numbered {shell_word(str(path))} {shell_word(f'{path}.bak')}",
        )


@contextmanager
def _trouble_as_sentence(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_publish(folder, error) from error


def cannot_publish(folder: Path, error: OSError) -> UecError:
    """Return the error of a folder that cannot be written."""
    what, why, hint = f"{folder}: cannot write there", error.strerror or str(error), _LOOK
    if error.errno == errno.ENOENT:
        why, hint = "there is no such folder", f"Make it: {_install(folder)}"
    elif error.errno in FULL:
        hint = "Free some space there"
    elif error.errno == errno.EROFS:
        why = "it is read-only for the service"
        hint = "Mount it for writing, or let the unit write there: uecwatchd check prints the command"
    elif error.errno in CLOSED:
        hint = f"Let the service's user write there: setfacl -m u:{_user()}:rwx {shell_word(str(folder))}"
    kind = NotPermitted if error.errno in CLOSED else Deferred
    return kind(what, why, f"{hint}. It goes on by itself.")


def _install(folder: Path) -> str:
    return f"install -d -o {_user()} -m 0755 {shell_word(str(folder))}"


def _user() -> str:
    return user_name(os.geteuid())
