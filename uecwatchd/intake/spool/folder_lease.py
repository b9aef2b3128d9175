"""Leases on folders of several hosts.

A lease belongs to the process, as a lock of the kernel does. Whatever writes beside the images looks here
right before it does: a host that was frozen for longer than its lease writes nothing when it wakes up.
"""

import hashlib
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# `output_files` leaves room for so many in the longest name of an unfinished file.
HOST_WORD_CHARS = 22


def _stay() -> None:
    """Raise nothing: no other host can be there."""


@dataclass(frozen=True, slots=True)
class FolderLease:
    """Right to write in a folder. `check` raises when it may have ended, and asks nobody."""

    host: str  #: as a part of a file's name
    check: Callable[[], None] = _stay


# By folder. The second of the two global variables of the program, beside the listener of `failpoints`.
_leases: dict[Path, FolderLease] = {}


def host_word(host: str) -> str:
    """Return the name of a host as a short part of a file's name, another one for each host."""
    word = re.sub(r"[^A-Za-z0-9_-]", "-", host)
    if word == host and len(word) <= HOST_WORD_CHARS:
        return word
    return f"{word[: HOST_WORD_CHARS - 9]}-{hashlib.sha256(host.encode()).hexdigest()[:8]}"


def enter(folder: Path, lease: FolderLease) -> None:
    """Write in this folder only while the lease lasts."""
    _leases[folder] = lease


def leave(folder: Path) -> None:
    """Forget the lease of a folder, if there is one."""
    _leases.pop(folder, None)


def lease_of(folder: Path) -> FolderLease:
    """Return the lease of a folder; one without end where no other host is."""
    return _leases.get(folder) or FolderLease(host_word(socket.gethostname()))


def is_leased(folder: Path) -> bool:
    """Tell if other hosts may be in a folder."""
    return folder in _leases


def check(folder: Path) -> None:
    """Raise Deferred or Overtaken if this host may not write in a folder any more."""
    lease_of(folder).check()
