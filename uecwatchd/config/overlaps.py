"""Overlaps between folders of a configuration: two paths to one folder, or one folder inside another.

Paths alone cannot tell: symbolic links, bind mounts and `..` give one folder several paths.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path, PurePosixPath

from uecwatchd.config.records import Settings
from uecwatchd.system.mounts import Mount, find_mount, read_mounts


@dataclass(frozen=True, slots=True)
class FolderLocation:
    """A folder by its file system and its path there, not by its mount point."""

    device: str  #: of the file system, such as `8:1`; empty if unknown
    path: PurePosixPath  #: from the root of the file system
    inode: tuple[int, int] | None = None  #: of the folder, if it exists: device and number

    def is_in(self, outer: "FolderLocation") -> bool:
        return self.device == outer.device and self.path.is_relative_to(outer.path)

    def is_same(self, other: "FolderLocation") -> bool:
        by_path = (self.device, self.path) == (other.device, other.path)
        return by_path or (self.inode is not None and self.inode == other.inode)


def locate(folder: Path, mounts: Sequence[Mount]) -> FolderLocation:
    """Find the location of a folder; without `mounts`, only its path is known."""
    path, inode = folder, None
    with suppress(OSError, RuntimeError):  # RuntimeError: links that lead in a circle
        path = folder.resolve()
        status = path.stat()
        inode = (status.st_dev, status.st_ino)
    mount = find_mount(path, mounts)
    if mount is None:
        return FolderLocation("", PurePosixPath(path), inode)
    return FolderLocation(mount.device, PurePosixPath(mount.root, path.relative_to(mount.point)), inode)


def find_overlaps(settings: Settings) -> Iterator[str]:
    """Yield the overlaps between folders as sentences without full stop."""
    mounts = read_mounts()
    folders = [(folder, locate(folder, mounts)) for folder in settings.spool.folders]
    for (one, here), (other, there) in combinations(folders, 2):
        if here.is_same(there):
            yield f"spool.folders: {one} and {other} are the same folder"
        elif here.is_in(there) or there.is_in(here):
            inner, outer = (one, other) if here.is_in(there) else (other, one)
            yield f"spool.folders must be apart: {inner} is in {outer}"
    for setting, folder in _own_folders(settings).items():
        here = locate(folder, mounts)
        for spool, there in folders:
            if here.is_in(there) or here.is_same(there):
                yield f"{setting} must be outside spool.folders: {folder} is {spool}, or in it"


def _own_folders(settings: Settings) -> Mapping[str, Path]:
    """Return the folders that nobody drops files into, by the names of their settings."""
    own = {
        "state.dir": settings.state.dir,
        "state.work": settings.state.work_folder,
        "install.builds": settings.install.builds,
    }
    return own | dict(settings.outputs.folders())
