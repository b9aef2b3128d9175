"""Origins of members that are made for a set, because they are no files of its spool folder.

Such a member is in the set's work folder, under its `path`, which begins with that of its source:
`karmic.tar.gz/karmic.img`. So no file of the spool folder has the same path. The disk of an installation is
in the folder of all builds instead, where another set may be built on it.
"""

from dataclasses import dataclass

from uecwatchd.types import FileStamp

# Files of the spool folder that a member is made of: path and stamp.
Sources = tuple[tuple[str, FileStamp], ...]


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """A file in an archive. `archive` is a path in the spool folder, `name` the path in the archive."""

    archive: str
    stamp: FileStamp
    name: str

    @property
    def sources(self) -> Sources:
        return ((self.archive, self.stamp),)

    def __str__(self) -> str:
        return f"{self.name} in {self.archive}"


@dataclass(frozen=True, slots=True)
class BootFloppy:
    """A boot floppy for Windows. `folder` is the folder of its boot files, a path in the spool folder."""

    folder: str
    sources: Sources

    def __str__(self) -> str:
        return f"boot floppy of {self.folder}/"


@dataclass(frozen=True, slots=True)
class HostMemdisk:
    """The memdisk of syslinux on this host. `place` is its path."""

    place: str

    @property
    def sources(self) -> Sources:
        return ()

    def __str__(self) -> str:
        return f"memdisk of this host, {self.place}"


@dataclass(frozen=True, slots=True)
class InstalledDisk:
    """A disk with a new system. `source` is the name of the ISO image or base."""

    source: str
    is_layer: bool = False

    @property
    def sources(self) -> Sources:
        """None: a finished disk does not depend on its ISO image any more."""
        return ()

    def __str__(self) -> str:
        return f"disk installed {'on' if self.is_layer else 'from'} {self.source}"


Origin = ArchiveMember | BootFloppy | HostMemdisk | InstalledDisk
