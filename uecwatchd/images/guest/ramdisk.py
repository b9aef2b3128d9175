"""The kernel modules in a ramdisk, without unpacking it to a disk.

A ramdisk is a row of cpio archives ("newc", driver-api/early-userspace/buffer-format.rst of Linux). The first
ones are mostly not compressed and have microcode, the last one is compressed. It is read as a stream, in the
confined process: names are kept, contents are skipped, and there is a limit on what it may become.
"""

import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, Protocol

from uecwatchd.images.guest.files import MAX_READ_BYTES, RamdiskModules, Unsupported

CPIO_MAGICS = (b"070701", b"070702")
CPIO_HEADER_BYTES = 110
NAME_SIZE_AT, FILE_SIZE_AT = 94, 54  # eight hex digits each
MAX_NAME_BYTES = 4096
MAX_CONTENT_BYTES = 1 << 30  # of all archives together; Ubuntu's largest have a third
XZ_MEMORY_BYTES = 128 << 20
TRAILER = b"TRAILER!!!"
# The version of the kernel, and the name.
MODULE = re.compile(rb"(?:(?:.*/)?lib/modules/([^/]+)/)?(?:.*/)?([^/]+)\.ko(?:\.(?:xz|gz|zst))?")

zstandard: Any
try:
    zstandard = import_module("zstandard")
except ImportError:
    zstandard = None


class StreamDecompressor(Protocol):
    """A decompressor that takes its data in pieces."""

    def decompress(self, data: bytes, /) -> bytes: ...

    @property
    def unused_data(self) -> bytes:
        """The bytes after the end of the compressed data."""


def _zstd() -> StreamDecompressor:
    if zstandard is None:
        raise Unsupported("it is compressed with zstd, and the package zstandard is not installed")
    decompressor: StreamDecompressor = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True)
    return decompressor


DECOMPRESSORS: Mapping[bytes, Callable[[], StreamDecompressor]] = {
    b"\x1f\x8b": lambda: zlib.decompressobj(wbits=31),
    b"\xfd7zXZ": lambda: lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES),
    b"\x5d\0\0": lambda: lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES),
    b"BZh": bz2.BZ2Decompressor,
    b"\x28\xb5\x2f\xfd": _zstd,
}
# A piece of a megabyte of zeros would become a gigabyte at once.
PIECE_BYTES = 16 * 1024


class SizeLimit:
    """A number of bytes for all archives together."""

    def __init__(self, left: int) -> None:
        self._left = left

    def take(self, count: int) -> None:
        """Count bytes. Raises ValueError when there are more than allowed."""
        self._left -= count
        if self._left < 0:
            raise ValueError("it is larger than a ramdisk can be")


class ByteStream:
    """Bytes that come in pieces, to be read or skipped. Raises ValueError past the limit."""

    def __init__(self, pieces: Iterator[bytes], limit: SizeLimit) -> None:
        self._pieces, self.limit = pieces, limit
        self._kept, self._at = b"", 0  # a piece, and how much of it was read

    def peek(self, length: int) -> bytes:
        """Return the next bytes, fewer at the end, without reading them."""
        while len(self._kept) - self._at < length and (piece := next(self._pieces, b"")):
            self._kept, self._at = self._kept[self._at :] + piece, 0
            self.limit.take(len(piece))
        return self._kept[self._at : self._at + length]

    def read(self, length: int) -> bytes:
        data = self.peek(length)
        self._at += len(data)
        return data

    def skip(self, length: int) -> None:
        while length and self.peek(1):
            step = min(length, len(self._kept) - self._at)
            self._at += step
            length -= step

    def skip_zeros(self) -> None:
        while self.peek(1) == b"\0":
            rest = self._kept[self._at :]
            self._at += len(rest) - len(rest.lstrip(b"\0"))

    def put_back(self, data: bytes) -> None:
        """Return bytes to the front, which were read too early."""
        self._kept, self._at = data + self._kept[self._at :], 0

    def rest(self) -> Iterator[bytes]:
        while piece := self.read(PIECE_BYTES):
            yield piece


def find_modules(
    read: Callable[[int, int], bytes],
    size: int,
    wanted: frozenset[str],
    *,
    max_bytes: int = MAX_CONTENT_BYTES,
) -> RamdiskModules:
    """Return which of some modules a ramdisk has, by their names as `modprobe` knows them.

    `read` returns bytes from an offset on; they may become `max_bytes`. It is read no further than needed for
    that and for one version of a kernel. Raises Unsupported, and ValueError if it is no ramdisk.
    """
    pieces = (read(at, min(MAX_READ_BYTES, size - at)) for at in range(0, size, MAX_READ_BYTES))
    stream = ByteStream(pieces, SizeLimit(max_bytes))
    found, versions, modules = set[str](), set[str](), _modules(stream)
    while (found != wanted or not versions) and (module := next(modules, None)) is not None:
        version, name = module
        found |= wanted & {name}
        versions |= {version} - {""}
    return RamdiskModules(frozenset(found), frozenset(versions))


def _modules(stream: ByteStream, *, is_inner: bool = False) -> Iterator[tuple[str, str]]:
    """Yield the modules of all archives, which are padded with zeros: version of the kernel, and name."""
    while head := stream.peek(6):
        if head in CPIO_MAGICS:
            yield from _archive(stream)
        elif not head[0]:
            stream.skip_zeros()
        elif is_inner:
            raise ValueError("it is compressed twice")
        else:
            inner = ByteStream(_decompressed(stream, head), stream.limit)
            yield from _modules(inner, is_inner=True)


def _decompressed(stream: ByteStream, head: bytes) -> Iterator[bytes]:
    make = next((make for magic, make in DECOMPRESSORS.items() if head.startswith(magic)), None)
    if make is None:
        raise Unsupported("it is compressed in a way that is not read here")
    decompressor = make()
    try:
        for piece in stream.rest():
            if data := decompressor.decompress(piece):
                yield data
            if getattr(decompressor, "eof", False):
                stream.put_back(decompressor.unused_data)
                return
    except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
        raise ValueError(f"its compressed data is damaged ({error})") from error
    except Exception as error:
        if zstandard is None or not isinstance(error, zstandard.ZstdError):
            raise
        raise ValueError("its compressed data is damaged") from error


def _archive(stream: ByteStream) -> Iterator[tuple[str, str]]:
    """Yield the modules of one archive, up to its trailer."""
    while (header := stream.read(CPIO_HEADER_BYTES)).startswith(CPIO_MAGICS):
        if len(header) < CPIO_HEADER_BYTES:
            raise ValueError("its archive is cut")
        length, size = (int(header[at : at + 8], 16) for at in (NAME_SIZE_AT, FILE_SIZE_AT))
        if length > MAX_NAME_BYTES:
            raise ValueError("a name in it is too long")
        name = stream.read(length).rstrip(b"\0")
        stream.skip(-(CPIO_HEADER_BYTES + length) % 4)
        stream.skip(size + -size % 4)
        if name == TRAILER:
            return
        if module := MODULE.fullmatch(name):
            version, plain = (part.decode("ascii", "replace") for part in (module[1] or b"", module[2]))
            yield version, plain.replace("-", "_")
