"""The files of a guest, as the guest itself sees them: its root, and what is mounted below it.

Links are followed here, and never lead out: an absolute one begins at the root of the guest, and ".." ends
there.
"""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from uecwatchd.images.guest.files import MAX_READ_BYTES, FileEntry, GuestFiles

MAX_LINKS = 40  # as in Linux
MAX_TEXT_BYTES = MAX_READ_BYTES  # the list of all modules has half of it, other texts are shorter


@dataclass(frozen=True, slots=True)
class GuestFile:
    """A file, folder or special file of a guest, found through all links."""

    path: str  #: without links, as the guest sees it
    entry: FileEntry
    files: GuestFiles
    inner_path: str  #: in its file system


class GuestTree:
    """File systems by their mount points; "/" is one of them."""

    def __init__(self, mounts: Mapping[str, GuestFiles]) -> None:
        self._mounts = mounts
        self._known = dict[str, FileEntry | None]()

    def find(self, path: str) -> GuestFile | None:
        """Return what is at a path; None if nothing is, or only a link to nothing.

        Raises UnreadableVolume, OSError.
        """
        at, left, links = "/", _parts(path), 0
        while left:
            name = left.pop(0)
            if name == "..":
                at = posixpath.dirname(at)
                continue
            here = posixpath.join(at, name)
            entry = self._entry(here)
            if entry is None:
                return None
            if entry.type != "link":
                at = here
                continue
            links += 1
            if links > MAX_LINKS or not entry.target:
                return None
            at = "/" if entry.target.startswith("/") else at
            left = [*_parts(entry.target), *left]
        entry = self._entry(at)
        return GuestFile(at, entry, *self._place(at)) if entry else None

    def names(self, folder: str) -> tuple[str, ...]:
        """Return the names in a folder, sorted; none if there is no such folder."""
        found = self.find(folder)
        if found is None or found.entry.type != "folder":
            return ()
        return tuple(sorted(found.files.names(found.inner_path)))

    def is_file(self, path: str) -> bool:
        found = self.find(path)
        return found is not None and found.entry.type == "file"

    def read(self, path: str, limit: int = MAX_TEXT_BYTES) -> bytes:
        """Return the first bytes of a file; none if there is no such file."""
        found = self.find(path)
        if found is None or found.entry.type != "file":
            return b""
        return found.files.read(found.inner_path, 0, min(limit, MAX_READ_BYTES))

    def text(self, path: str) -> str:
        """Return the text of a small file; empty if there is none."""
        return self.read(path).decode("utf-8", "replace")

    def _entry(self, path: str) -> FileEntry | None:
        if path not in self._known:
            files, inner = self._place(path)
            self._known[path] = files.entry(inner)
        return self._known[path]

    def _place(self, path: str) -> tuple[GuestFiles, str]:
        """Return the file system of a path without links, and the path in it."""
        points = (
            point for point in self._mounts if path == point or path.startswith(point.rstrip("/") + "/")
        )
        point = max(points, key=len)
        return self._mounts[point], "/" + path[len(point) :].lstrip("/")


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
