"""A picture of a machine's screen: from the PPM of QEMU to the PNG of browsers."""

import re
import struct
import zlib

# The largest screen of a standard VGA card.
MOST_PIXELS = 4096 * 4096
_HEADER = re.compile(rb"P6\s+(\d{1,5})\s+(\d{1,5})\s+255\s")
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png_from_ppm(data: bytes) -> bytes:
    """Return a binary PPM of 24 bits as PNG. Raises ValueError for anything else."""
    header = _HEADER.match(data)
    if header is None:
        raise ValueError("it is not a PPM of 24 bits")
    width, height = int(header[1]), int(header[2])
    if not 0 < width * height <= MOST_PIXELS or len(data) - header.end() < width * height * 3:
        raise ValueError("it is not complete")
    line = width * 3
    starts = range(header.end(), header.end() + height * line, line)
    pixels = b"".join(b"\0" + data[start : start + line] for start in starts)
    described = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", described), (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
    return SIGNATURE + b"".join(_chunk(kind, content) for kind, content in parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
