"""The bytes of a compressed file, forward only, with a limit on each step.

A step returns at most as much as was asked for, however much more the data would make. So the reader can stop
at a limit of its own, and the memory is that of one step and of the compressor's window.
"""

import bz2
import lzma
from collections.abc import Callable, Mapping
from importlib import import_module
from io import FileIO
from typing import Any, Protocol

from uecwatchd.images.detect import COMPRESSIONS, XZ_MEMORY_BYTES
from uecwatchd.images.formats.decompress import fastest_zlib

READ_BYTES = 256 * 1024
# What `zstd -d` accepts by default, and `zstd --long` makes.
ZSTD_WINDOW_BYTES = 128 * 1024 * 1024
GZIP_WINDOW = 31  # of deflate as zlib names it: the largest one, with a header of gzip

# Returns at most so many bytes, and none at the end. Raises ValueError for damaged data, OSError.
Read = Callable[[int], bytes]


class _Decompressor(Protocol):
    """One stream: `decompress` returns at most `limit` bytes, and keeps what it did not need."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, limit: int, /) -> bytes: ...


class _Gzip:
    """A stream of gzip, with the interface of the other decompressors."""

    def __init__(self) -> None:
        self._stream: Any = fastest_zlib().decompressobj(GZIP_WINDOW)
        self._left = b""

    def decompress(self, data: bytes, limit: int, /) -> bytes:
        content: bytes = self._stream.decompress(self._left + data, limit)
        self._left = self._stream.unconsumed_tail
        return content

    @property
    def eof(self) -> bool:
        return bool(self._stream.eof)

    @property
    def needs_input(self) -> bool:
        return not self._left

    @property
    def unused_data(self) -> bytes:
        return bytes(self._stream.unused_data)


_STREAMS: Mapping[str, Callable[[], _Decompressor]] = {
    "gzip": _Gzip,
    "xz": lambda: lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES),
    "bzip2": bz2.BZ2Decompressor,
}
_DAMAGES = (lzma.LZMAError, EOFError)


class _Streams:
    """Compressed streams one after the other, as `pigz`, `pbzip2` and `cat` write them."""

    def __init__(self, read: Read, start: Callable[[], _Decompressor]) -> None:
        self._read, self._start = read, start
        self._stream: _Decompressor | None = start()

    def read(self, limit: int) -> bytes:
        while self._stream:
            if self._stream.eof:
                self._begin_next(self._stream.unused_data)
                continue
            data = self._read(READ_BYTES) if self._stream.needs_input else b""
            content = _decompress(self._stream, data, limit)
            if content:
                return content
            if not data and not self._stream.eof and self._stream.needs_input:
                raise ValueError("its end is missing")
        return b""

    def _begin_next(self, data: bytes) -> None:
        """Begin the next stream, if there is one. Zeros behind the last are padding, as on tapes."""
        self._stream = None
        while not (data := data.lstrip(b"\0")):
            if not (data := self._read(READ_BYTES)):
                return
        self._stream, before = self._start(), self._read
        rest = [data]
        self._read = lambda limit: rest.pop() if rest else before(limit)


def _decompress(stream: _Decompressor, data: bytes, limit: int) -> bytes:
    try:
        return stream.decompress(data, limit)
    except (*_DAMAGES, fastest_zlib().error) as error:
        raise ValueError(str(error)) from error
    except OSError as error:  # of bz2, for damaged data; this is no call of the system
        raise ValueError(str(error)) from error


def open_stream(file: FileIO, *, check: Callable[[], None]) -> Read:
    """Return the function that reads a file, decompressed if it is compressed.

    The compression is known by its magic. `check` is called for each piece of the file, and may raise to
    stop. Raises LookupError with the name of a compression that cannot be read here.
    """

    def read(limit: int) -> bytes:
        check()
        return file.read(limit) or b""

    magic = file.read(max(map(len, COMPRESSIONS))) or b""
    file.seek(0)
    name = next((name for start, name in COMPRESSIONS.items() if magic.startswith(start)), "")
    if not name:
        return read
    if name == "zstd":
        return _open_zstd(read)
    if name not in _STREAMS:
        raise LookupError(name)
    return _Streams(read, _STREAMS[name]).read


class _Readable:
    """A file for the package zstandard, which wants an object."""

    def __init__(self, read: Read) -> None:
        self.read = read


def _open_zstd(read: Read) -> Read:
    try:
        zstandard: Any = import_module("zstandard")
    except ImportError as error:
        raise LookupError("zstd") from error
    frames = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
    stream = frames.stream_reader(_Readable(read), read_size=READ_BYTES, read_across_frames=True)

    def read_content(limit: int) -> bytes:
        try:
            content: bytes = stream.read(limit)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
        return content

    return read_content
