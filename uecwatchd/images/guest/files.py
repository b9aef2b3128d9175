"""Files of a file system, as the rules about operating systems see them."""

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

EntryType = Literal["file", "folder", "link", "other"]
ENTRY_TYPES: Mapping[int, EntryType] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
}
# More names than any folder has that matters here: /boot, /etc/ssh, /home. Their message has a limit too.
MAX_NAMES = 4096
# The longest content that is read at once.
MAX_READ_BYTES = 1 << 20


class Unsupported(Exception):
    """A file system that cannot be read here, as a sentence without its beginning: "it is encrypted"."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One entry of a folder. `size` in bytes, `mode` the permissions, `target` that of a symbolic link."""

    type: EntryType
    size: int = 0
    mode: int = 0
    target: str = ""


@dataclass(frozen=True, slots=True)
class RamdiskModules:
    """Modules in a ramdisk: those asked for, and the versions of their kernels."""

    found: frozenset[str]
    versions: frozenset[str]


class FileSystem(Protocol):
    """A file system that is only read. Paths are absolute and plain: no link in them is followed.

    Every function raises UnreadableVolume if the file system is damaged there, OSError if the storage fails.
    """

    def entry(self, path: str) -> FileEntry | None:
        """Return what is there; None if nothing is."""

    def names(self, path: str) -> tuple[str, ...]:
        """Return the names in a folder, at most MAX_NAMES; none if it is no folder."""

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Return content of a file; less than `length` only at its end."""


class GuestFiles(FileSystem, Protocol):
    """A file system that can also look into a ramdisk."""

    def modules(self, path: str, wanted: frozenset[str]) -> RamdiskModules | None:
        """Return which of some kernel modules a ramdisk has, None if it cannot be read."""
