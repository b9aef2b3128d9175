"""One file of a guest as the bytes of an image: its kernel, for instance."""

import threading

from uecwatchd.images.block_source import BlockSource
from uecwatchd.images.guest.files import MAX_READ_BYTES
from uecwatchd.images.guest.tree import GuestFile
from uecwatchd.images.guest.volumes import HINT, DamagedVolume
from uecwatchd.system.extents import Extent


class GuestFileSource:
    """A block source over a file in a disk image. The reader of that disk must stay open.

    Reading raises UnreadableVolume if the file system is damaged, OSError if the storage fails.
    """

    def __init__(self, file: GuestFile, disk: BlockSource) -> None:
        self._file, self._disk = file, disk
        self._lock = threading.Lock()  # guards the connection to the reader
        self.size = self.stored_bytes = file.entry.size

    def extents(self) -> tuple[Extent, ...]:
        return (Extent(0, self.size),) if self.size else ()

    def read_into(self, offset: int, buffer: memoryview, /) -> int:
        wanted = max(0, min(len(buffer), self.size - offset, MAX_READ_BYTES))
        if not wanted:
            return 0
        with self._lock:
            data = self._file.files.read(self._file.inner_path, offset, wanted)
        if not data:
            raise DamagedVolume(self._file.path, f"it ends at byte {offset} of {self.size}", HINT)
        buffer[: len(data)] = data
        return len(data)

    def is_unchanged(self) -> bool:
        return self._disk.is_unchanged()

    def close(self) -> None:
        """Do nothing: the disk is closed where it was opened."""
