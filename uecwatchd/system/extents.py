"""The parts of a sparse file that contain data.

A file system stores no blocks for what was never written, and reports where the holes are (lseek(2),
SEEK_DATA and SEEK_HOLE). With this, the work for a file depends on its data and not on its size.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from errno import EINVAL, ENOTSUP, ENXIO
from itertools import pairwise

# Shorter holes cost more than they save: each needs an entry in a map, and a separate read. File
# systems use blocks of 4 to 64 KiB, so that zeros of this size and alignment become a hole.
HOLE_BYTES = 64 * 1024
# If a file has more extents, its shortest holes are filled. This many take about 20 MB, as records and in the
# header of a tar; a file system of a terabyte has a tenth of them.
MAX_EXTENTS = 1 << 17


@dataclass(frozen=True, slots=True)
class Extent:
    """A stretch of a file that contains data, in bytes. Between two of them is a hole."""

    offset: int
    length: int


def data_bytes(extents: Iterable[Extent]) -> int:
    return sum(extent.length for extent in extents)


def find_extents(descriptor: int, size: int) -> tuple[Extent, ...]:
    """Return the extents of a file, in order; the whole file if the file system reports no holes.

    Each begins at a multiple of `HOLE_BYTES`, and ends at a multiple or at the end of the file. Raises
    OSError.
    """
    return align_extents(_find_stretches(descriptor, size), size, MAX_EXTENTS)


def align_extents(stretches: Iterable[tuple[int, int]], size: int, limit: int) -> tuple[Extent, ...]:
    """Round (start, end) pairs to multiples of `HOLE_BYTES`, and join them to at most `limit` extents.

    Memory stays bounded while it reads: a file can have any number of holes.
    """
    found = list[Extent]()
    for start, end in stretches:
        start -= start % HOLE_BYTES
        end = min(size, end + -end % HOLE_BYTES)
        if found and start <= found[-1].offset + found[-1].length:
            start = found.pop().offset
        found.append(Extent(start, end - start))
        if len(found) == 2 * limit:  # the longest holes stay the same
            found = list(merge_extents(found, limit))
    return merge_extents(found, limit)


def _find_stretches(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno in (EINVAL, ENOTSUP):
                yield 0, size
            elif error.errno != ENXIO:  # nothing but a hole up to the end
                raise
            return
        if start < size:
            yield start, min(end, size)


def merge_extents(extents: list[Extent], limit: int) -> tuple[Extent, ...]:
    if len(extents) <= limit:
        return tuple(extents)
    gaps = [
        (after.offset - before.offset - before.length, after.offset) for before, after in pairwise(extents)
    ]
    kept = {offset for _, offset in sorted(gaps, reverse=True)[: limit - 1]}
    joined = list[Extent]()
    for extent in extents:
        if joined and extent.offset not in kept:
            start = joined.pop().offset
            joined.append(Extent(start, extent.offset + extent.length - start))
        else:
            joined.append(extent)
    return tuple(joined)
