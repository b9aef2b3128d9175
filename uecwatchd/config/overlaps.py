"""Overlaps between folders of a configuration: two paths to one folder, or one folder inside another.

Paths alone cannot tell: symbolic links, bind mounts and `..` give one folder several paths.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path, PurePosixPath

from uecwatchd.config.records import Settings
from uecwatchd.system.mounts import Mount, find_mount, read_mounts


@dataclass(frozen=True, slots=True)
class Place:
    """A folder by its file system and its path from the root of that file system, not by its mount point.

    `inode` identifies it there, if it exists.
    """

    device: str
    path: PurePosixPath
    inode: tuple[int, int] | None = None

    def is_in(self, outer: "Place") -> bool:
        return self.device == outer.device and self.path.is_relative_to(outer.path)

    def is_same(self, other: "Place") -> bool:
        by_path = (self.device, self.path) == (other.device, other.path)
        return by_path or (self.inode is not None and self.inode == other.inode)


def place_of(folder: Path, mounts: Sequence[Mount]) -> Place:
    """Find the place of a folder; without `mounts`, only by its path."""
    path, inode = folder, None
    with suppress(OSError, RuntimeError):  # RuntimeError: links that lead in a circle
        path = folder.resolve()
        status = path.stat()
        inode = (status.st_dev, status.st_ino)
    mount = find_mount(path, mounts)
    if mount is None:
        return Place("", PurePosixPath(path), inode)
    return Place(mount.device, PurePosixPath(mount.root, path.relative_to(mount.point)), inode)


def clashes(settings: Settings) -> Iterator[str]:
    """Yield the overlaps between folders as sentences without full stop."""
    mounts = read_mounts()
    folders = [(folder, place_of(folder, mounts)) for folder in settings.spool.folders]
    for (one, here), (other, there) in combinations(folders, 2):
        if here.is_same(there):
            yield f"spool.folders: {one} and {other} are the same folder"
        elif here.is_in(there) or there.is_in(here):
            inner, outer = (one, other) if here.is_in(there) else (other, one)
            yield f"spool.folders must lie apart: {inner} lies in {outer}"
    for setting, folder in (("dir", settings.state.dir), ("work", settings.state.work)):
        place = place_of(folder, mounts)
        for spool, outer_place in folders:
            if place.is_in(outer_place) or place.is_same(outer_place):
                yield f"state.{setting} must lie outside spool.folders: {folder} is or lies in {spool}"
