"""A source with some blocks replaced, as an overlay file system has it: nothing below it is written."""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping

from uecwatchd.images.block_source import BlockSource
from uecwatchd.system.extents import MAX_EXTENTS, Extent, align_extents


class OverlaidSource:
    """The bytes of `source` with `blocks` over them, by their offsets. Closing it closes the source.

    The blocks do not overlap, and end before the source does. Nothing changes here after the start, so any
    number of threads can read.
    """

    def __init__(self, source: BlockSource, blocks: Mapping[int, bytes]) -> None:
        self._source = source
        self._starts = sorted(blocks)
        self._blocks = [blocks[start] for start in self._starts]
        self.size = source.size

    @property
    def overlaid_bytes(self) -> int:
        return sum(map(len, self._blocks))

    @property
    def fingerprint(self) -> str:
        """A digest of the blocks and their places."""
        digest = hashlib.sha256()
        for start, block in zip(self._starts, self._blocks, strict=True):
            digest.update(start.to_bytes(8) + len(block).to_bytes(8) + block)
        return digest.hexdigest()

    @property
    def stored_bytes(self) -> int:
        return self._source.stored_bytes + self.overlaid_bytes

    def extents(self) -> tuple[Extent, ...]:
        return align_extents(self._find_stretches(), self.size, MAX_EXTENTS)

    def _find_stretches(self) -> Iterator[tuple[int, int]]:
        """Yield the stretches of both, in order and without overlaps, as (start, end)."""
        below = [(extent.offset, extent.offset + extent.length) for extent in self._source.extents()]
        above = [(start, start + len(block)) for start, block in zip(self._starts, self._blocks, strict=True)]
        done = 0
        for start, end in sorted([*below, *above]):
            if end > done:
                yield max(start, done), end
                done = end

    def read_into(self, offset: int, buffer: memoryview, /) -> int:
        count = self._source.read_into(offset, buffer)
        end = offset + count
        index = max(0, bisect_right(self._starts, offset) - 1)
        while index < len(self._starts) and (start := self._starts[index]) < end:
            block = self._blocks[index]
            first, last = max(start, offset), min(start + len(block), end)
            if first < last:
                buffer[first - offset : last - offset] = block[first - start : last - start]
            index += 1
        return count

    def is_unchanged(self) -> bool:
        return self._source.is_unchanged()

    def close(self) -> None:
        self._source.close()
