"""Where a file has something in it.

A file system keeps no blocks for what was never written, and tells where (lseek(2), SEEK_DATA and SEEK_HOLE).
Whoever leaves such holes out does the work for what is in a file, and not for what it could hold.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from errno import EINVAL, ENOTSUP, ENXIO
from itertools import pairwise

# Shorter holes cost more than they save: an entry in a map, and a read of their own.
HOLE_BYTES = 64 * 1024
# If a file has more stretches, its shortest holes are filled. As records, and in a tar's header, these are
# about 20 MB; a terabyte's file system has a tenth of them.
MOST_EXTENTS = 1 << 17


@dataclass(frozen=True, slots=True)
class Extent:
    """A stretch of a file that holds something; what lies between two of them is a hole. In bytes."""

    offset: int
    length: int


def stored(descriptor: int, size: int) -> tuple[Extent, ...]:
    """The stretches of a file that hold something, in order; all of it where the file system cannot tell.

    Each begins at a multiple of `HOLE_BYTES` and ends at one or with the file, whatever lies between them.
    Raises OSError.
    """
    return rounded(_stretches(descriptor, size), size, MOST_EXTENTS)


def rounded(stretches: Iterable[tuple[int, int]], size: int, limit: int) -> tuple[Extent, ...]:
    """No more than that many, and never much more on the way: a file has as many holes as somebody likes."""
    found = list[Extent]()
    for start, end in stretches:
        start -= start % HOLE_BYTES
        end = min(size, end + -end % HOLE_BYTES)
        if found and start <= found[-1].offset + found[-1].length:
            start = found.pop().offset
        found.append(Extent(start, end - start))
        if len(found) == 2 * limit:  # which holes are the longest of all does not depend on it
            found = list(fewer(found, limit))
    return fewer(found, limit)


def _stretches(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
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


def fewer(extents: list[Extent], limit: int) -> tuple[Extent, ...]:
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
