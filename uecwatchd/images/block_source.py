"""The bytes of an image, in a file or in any other storage.

Digests and bundles read an image by offset, from several threads at once, and leave out its holes. Nothing
else is asked of it, so that it need not be a raw file: a source may be the guest's disk inside a file of
another format, or one partition of a disk. It resembles a block device that is read-only.
"""

import os
from collections.abc import Iterator
from io import FileIO
from typing import Protocol

from uecwatchd.system import extents
from uecwatchd.system.extents import Extent
from uecwatchd.types import FileStamp

STAT_BLOCK_BYTES = 512  # unit of st_blocks, whatever the blocks of the file system are


class BlockSource(Protocol):
    """Bytes that can be read at any offset, and by any thread.

    What they are does not change, unless somebody writes to what they are stored in: see `is_unchanged`.
    """

    @property
    def size(self) -> int:
        """Length in bytes, holes included."""

    @property
    def stored_bytes(self) -> int:
        """Number of stored bytes, without holes. About the sum of the extents."""

    def extents(self) -> tuple[Extent, ...]:
        """Return the stretches that may hold something, in order. Everything between them reads as zeros.

        Raises OSError: when the storage fails.
        """

    def read_into(self, offset: int, buffer: memoryview, /) -> int:
        """Read into `buffer` from `offset` on. Returns the number of bytes read: 0 at the end, never before.

        May read less than fits into the buffer. Past `size` there is something only if the content has grown.
        Raises OSError: when the storage fails.
        """

    def is_unchanged(self) -> bool:
        """Return True if nothing has been written since the source was opened."""

    def close(self) -> None:
        """Close what the bytes are stored in."""


class FileSource:
    """A raw image: the bytes of a file that is open for reading."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        status = os.fstat(file.fileno())
        self.stamp = FileStamp.of(status)  #: when it was opened
        self.stored_bytes = status.st_blocks * STAT_BLOCK_BYTES

    @property
    def size(self) -> int:
        return self.stamp.size

    def extents(self) -> tuple[Extent, ...]:
        return extents.find_extents(self._file.fileno(), self.size)

    def read_into(self, offset: int, buffer: memoryview, /) -> int:
        return os.preadv(self._file.fileno(), [buffer], offset)

    def is_unchanged(self) -> bool:
        return FileStamp.of(os.fstat(self._file.fileno())) == self.stamp

    def close(self) -> None:
        self._file.close()


class View:
    """A stretch of another source, such as one partition of a disk. Closing it closes the other source."""

    def __init__(self, source: BlockSource, start: int, size: int) -> None:
        self._source, self._start = source, start
        self.size = max(0, min(size, source.size - start))

    @property
    def stored_bytes(self) -> int:
        return extents.data_bytes(self.extents())

    def extents(self) -> tuple[Extent, ...]:
        return extents.align_extents(self._find_stretches(), self.size, extents.MAX_EXTENTS)

    def _find_stretches(self) -> Iterator[tuple[int, int]]:
        """Yield the stretches in the view, as (start, end) from its own beginning."""
        for extent in self._source.extents():
            start = max(0, extent.offset - self._start)
            end = min(self.size, extent.offset + extent.length - self._start)
            if start < end:
                yield start, end

    def read_into(self, offset: int, buffer: memoryview, /) -> int:
        return self._source.read_into(self._start + offset, buffer[: max(0, self.size - offset)])

    def is_unchanged(self) -> bool:
        return self._source.is_unchanged()

    def close(self) -> None:
        self._source.close()


def read_exactly(source: BlockSource, offset: int, length: int) -> bytes:
    """Return the bytes at an offset; fewer only where the source ends."""
    data, done = memoryview(bytearray(length)), 0
    while done < length:
        count = source.read_into(offset + done, data[done:])
        if not count:
            break
        done += count
    return bytes(data[:done])
