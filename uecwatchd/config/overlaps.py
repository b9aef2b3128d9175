"""Overlaps between folders of a configuration: two paths to one folder, or one folder inside another.

Paths alone cannot tell: symbolic links, bind mounts and `..` give one folder several paths.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path, PurePosixPath

from uecwatchd.config.records import Settings

MOUNTINFO = Path("/proc/self/mountinfo")
# Space, tab, newline and backslash are written there as a backslash and three octal digits.
OCTAL = re.compile(r"\\([0-7]{3})")


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


def place_of(folder: Path, mountinfo: str) -> Place:
    """Find the place of a folder; `mountinfo` is the text of `/proc/self/mountinfo`.

    The third to fifth fields of a line are the device, the mounted part of it, and the mount point.
    """
    path, inode = folder, None
    with suppress(OSError, RuntimeError):  # RuntimeError: links that lead in a circle
        path = folder.resolve()
        status = path.stat()
        inode = (status.st_dev, status.st_ino)
    device, root, point = "", "/", "/"
    for fields in (line.split(" ") for line in mountinfo.splitlines()):
        at = _plain(fields[4])
        if path.is_relative_to(at) and len(at) >= len(
            point
        ):  # of two on one point, the later hides the other
            device, root, point = fields[2], _plain(fields[3]), at
    return Place(device, PurePosixPath(root, path.relative_to(point)), inode)


def _plain(field: str) -> str:
    return OCTAL.sub(lambda found: chr(int(found[1], 8)), field)


def clashes(settings: Settings) -> Iterator[str]:
    """Yield the overlaps between folders as sentences without full stop."""
    mountinfo = ""
    with suppress(OSError):
        mountinfo = MOUNTINFO.read_text(errors="surrogateescape")
    folders = [(folder, place_of(folder, mountinfo)) for folder in settings.spool.folders]
    for (one, here), (other, there) in combinations(folders, 2):
        if here.is_same(there):
            yield f"spool.folders: {one} and {other} are the same folder"
        elif here.is_in(there) or there.is_in(here):
            inner, outer = (one, other) if here.is_in(there) else (other, one)
            yield f"spool.folders must lie apart: {inner} lies in {outer}"
    for setting, folder in (("dir", settings.state.dir), ("work", settings.state.work)):
        place = place_of(folder, mountinfo)
        for spool, outer_place in folders:
            if place.is_in(outer_place) or place.is_same(outer_place):
                yield f"state.{setting} must lie outside spool.folders: {folder} is or lies in {spool}"
