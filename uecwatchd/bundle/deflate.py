"""One gzip member whose blocks are deflated independently, so that many threads can work on it.

A gzip member contains one deflate stream (RFC 1952): a sequence of blocks, bit by bit (RFC 1951). A full
flush ends with a whole byte, and nothing after it refers to anything before it. So stretches that are
deflated separately, each with a full flush, can be concatenated. Readers see a single member, as they must:
readers in Java stop after the first one, and take that for the whole.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from uecwatchd.config.records import Compression

# Magic, method deflate, no flags, mtime 0, no level, unknown system: nothing that could differ.
HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
# An empty last deflate block; the blocks before it do not know which of them is the last.
LAST_BLOCK = b"\x03\x00"
FRAME_BYTES = len(HEADER) + len(LAST_BLOCK) + 8
# Negative: deflate without a frame. 15 is its largest window.
WINDOW = -15
LENGTH_LIMIT = 1 << 32
# Maximum growth of data that cannot be compressed: a thousandth of it, and the end of each block.
GROWTH, FLUSH_BYTES = 1000, 16
# Modules with the functions of zlib, the fastest first, and their levels. Measured with programs and
# libraries, in blocks of 1 MiB on one core, for "fast" and "small": ISA-L 690 MB/s to 55 % of the size, 400
# MB/s to 54 %; zlib-ng 130 MB/s to 54 %, 91 MB/s to 52 %; zlib 95 MB/s to 54 %, 45 MB/s to 52 %.
LIBRARIES: Mapping[str, Mapping[Compression, int]] = {
    "isal.isal_zlib": {"fast": 1, "small": 3},
    "zlib_ng.zlib_ng": {"fast": 2, "small": 6},  # its level 1 makes dense data grow by 5 %
    "zlib": {"fast": 1, "small": 6},
}


@dataclass(frozen=True, slots=True)
class Deflater:
    """A compression library, at one of its levels."""

    module: Any
    level: int

    def block(self, data: bytes | memoryview) -> bytes:
        """Return a stretch of a deflate stream that can be anywhere in the stream except at the end."""
        stream = self.module.compressobj(self.level, self.module.DEFLATED, WINDOW)
        return b"".join((stream.compress(data), stream.flush(self.module.Z_FULL_FLUSH)))

    def crc32(self, data: bytes | memoryview, before: int) -> int:
        """Return the CRC-32 of `data` and everything before it."""
        crc: int = self.module.crc32(data, before)
        return crc


def choose_deflater(compression: Compression, libraries: Iterable[str] = LIBRARIES) -> Deflater:
    """Return the first of these libraries that is installed. The last one is Python's own."""
    module = fastest_library(libraries)
    return Deflater(module, LIBRARIES[module.__name__][compression])


def fastest_library(libraries: Iterable[str] = LIBRARIES) -> Any:
    """Return the first that is installed, with all functions of zlib. Raises LookupError."""
    for name in libraries:
        try:
            return import_module(name)
        except ImportError:
            continue
    raise LookupError(f"there is none of {', '.join(libraries)}")


def gzip_trailer(crc: int, length: int) -> bytes:
    """Return the end of the stream: an empty last block, the CRC-32 and the length of the content."""
    return LAST_BLOCK + struct.pack("<II", crc, length % LENGTH_LIMIT)


def max_deflated_bytes(length: int, *, block: int) -> int:
    """Return the maximum size of `length` bytes after compression, in blocks of `block` bytes."""
    blocks = -(-length // block)
    return FRAME_BYTES + length + length // GROWTH + blocks * FLUSH_BYTES
