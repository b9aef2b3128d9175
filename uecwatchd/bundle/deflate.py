"""One gzip member, whose blocks are deflated apart from each other and so by as many threads as there are.

A gzip member holds one deflate stream (RFC 1952), and that is a row of blocks which follow each other bit by
bit (RFC 1951). What a full flush ends, ends with a whole byte, and nothing after it refers to anything
before it: stretches that are deflated separately and ended so can be put one behind the other. Readers see a
single member, as they must: those in Java stop after the first one, and take what they have for the whole.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from uecwatchd.config.records import Compression

# Magic, method deflate, no flags, mtime 0, no word on the level, unknown system: nothing that could differ.
HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
# A last deflate block with nothing in it; the blocks before it do not know which of them is the last.
LAST_BLOCK = b"\x03\x00"
FRAME_BYTES = len(HEADER) + len(LAST_BLOCK) + 8
# Negative: deflate without a frame. 15 is its largest window.
WINDOW = -15
LENGTH_LIMIT = 1 << 32
# By how much data grows at most that cannot be deflated: a thousandth of it, and the end of a block.
GROWTH, FLUSH_BYTES = 1000, 16
# Modules with zlib's functions, the fastest first, and their levels. Of programs and libraries, in blocks of
# 1 MiB and on one core: ISA-L does 690 MB/s when it is to be fast and leaves 55 %, and 400 MB/s and 54 % when
# the result is to be small; zlib-ng 130 and 54 %, or 91 and 52 %; zlib 95 and 54 %, or 45 and 52 %.
LIBRARIES: Mapping[str, Mapping[Compression, int]] = {
    "isal.isal_zlib": {"fast": 1, "small": 3},
    "zlib_ng.zlib_ng": {"fast": 2, "small": 6},  # its level 1 makes dense data grow by 5 %
    "zlib": {"fast": 1, "small": 6},
}


@dataclass(frozen=True, slots=True)
class Deflater:
    """A library that deflates, at one of its levels."""

    module: Any
    level: int

    def block(self, data: bytes | memoryview) -> bytes:
        """A stretch of a deflate stream that can stand anywhere in it but at the end."""
        stream = self.module.compressobj(self.level, self.module.DEFLATED, WINDOW)
        return b"".join((stream.compress(data), stream.flush(self.module.Z_FULL_FLUSH)))

    def crc32(self, data: bytes | memoryview, before: int) -> int:
        """The CRC-32 of `data` and of all that came before."""
        crc: int = self.module.crc32(data, before)
        return crc


def deflater(compression: Compression, libraries: Iterable[str] = LIBRARIES) -> Deflater:
    """The first that is installed of these libraries. The last one of them all is Python's own."""
    module = best_module(libraries)
    return Deflater(module, LIBRARIES[module.__name__][compression])


def best_module(libraries: Iterable[str] = LIBRARIES) -> Any:
    """The first that is installed, with all that zlib has. Raises LookupError."""
    for name in libraries:
        try:
            return import_module(name)
        except ImportError:
            continue
    raise LookupError(f"there is none of {', '.join(libraries)}")


def ending(crc: int, length: int) -> bytes:
    """What stands behind the last block: an empty last one, the CRC-32 and the length of the content."""
    return LAST_BLOCK + struct.pack("<II", crc, length % LENGTH_LIMIT)


def most(length: int, *, block: int) -> int:
    """How many bytes so many can become at worst, in blocks of that many."""
    blocks = -(-length // block)
    return FRAME_BYTES + length + length // GROWTH + blocks * FLUSH_BYTES
