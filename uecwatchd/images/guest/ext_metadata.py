"""The part of an ext file system that a program reads to change some files.

debugfs needs the superblock, the descriptors and bitmaps of all groups; of the files that it changes the
inodes, the folders above them, their maps and their attributes; and the inodes that are free for new ones. A
copy of these stretches, with holes for everything else, is a file system to it. e2image(8) makes such a copy
of a raw file, with all inodes; this works on any source.
"""

from collections.abc import Iterable

from uecwatchd.images.block_source import BlockSource
from uecwatchd.images.guest.ext import Ext
from uecwatchd.images.guest.files import Unsupported
from uecwatchd.system.extents import Extent

MAX_STRETCHES = 200_000  # a message has space for 30 bytes of each


class RecordedSource:
    """A source that remembers what was read, as (start, end)."""

    def __init__(self, source: BlockSource) -> None:
        self._source = source
        self.size, self.stored_bytes = source.size, source.stored_bytes
        self.stretches = list[tuple[int, int]]()

    def extents(self) -> tuple[Extent, ...]:
        return self._source.extents()

    def read_into(self, offset: int, buffer: memoryview, /) -> int:
        count = self._source.read_into(offset, buffer)
        self.stretches.append((offset, offset + count))
        return count

    def is_unchanged(self) -> bool:
        return self._source.is_unchanged()

    def close(self) -> None:
        self._source.close()


def find_metadata(source: BlockSource, paths: Iterable[str]) -> list[tuple[int, int]]:
    """Return what has to be read to change these paths, as (start, length), in order, in whole blocks.

    What our own reader reads on the way to a path is what debugfs reads, so it is recorded. Raises
    Unsupported, ValueError, OSError.
    """
    recorded = RecordedSource(source)
    files = Ext(recorded)
    bitmaps = [(start, start + length) for start, length in files.bitmap_stretches()]
    for path in paths:
        files.read_everything(path)
        files.read_free_inodes(path)
    step, size, found = files.block_bytes, source.size, [*recorded.stretches, *bitmaps]
    if any(end > size for _, end in found):
        raise ValueError("its metadata would be behind the end of its volume")
    joined = _join((start - start % step, min(size, end + -end % step)) for start, end in found)
    if len(joined) > MAX_STRETCHES:
        raise Unsupported("its metadata is in too many places")
    return [(start, end - start) for start, end in joined]


def _join(stretches: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    found = list[tuple[int, int]]()
    for start, end in sorted(stretches):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        elif start < end:
            found.append((start, end))
    return found
