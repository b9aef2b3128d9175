"""A folder of this machine as the file system of a guest, for rules that do not care where files are."""

import stat
from functools import partial
from pathlib import Path

from uecwatchd.images.guest.files import ENTRY_TYPES, FileEntry, RamdiskModules, Unsupported
from uecwatchd.images.guest.ramdisk import find_modules


class FolderFiles:
    """The files below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def entry(self, path: str) -> FileEntry | None:
        place = self._place(path)
        try:
            status = place.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        type_ = ENTRY_TYPES.get(stat.S_IFMT(status.st_mode), "other")
        target = str(place.readlink()) if type_ == "link" else ""
        return FileEntry(type_, status.st_size, stat.S_IMODE(status.st_mode), target)

    def names(self, path: str) -> tuple[str, ...]:
        place = self._place(path)
        return tuple(each.name for each in place.iterdir()) if place.is_dir() else ()

    def read(self, path: str, offset: int, length: int) -> bytes:
        with self._place(path).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def modules(self, path: str, wanted: frozenset[str]) -> RamdiskModules | None:
        entry = self.entry(path)
        try:
            return find_modules(partial(self.read, path), entry.size, wanted) if entry else None
        except (Unsupported, ValueError):
            return None

    def _place(self, path: str) -> Path:
        return self.root / path.lstrip("/")
