"""Compression of single blocks, with a limit on what one can become.

Each function here returns at most `limit` bytes, however much more the data would make, and raises ValueError
for data that no compressor made. The zlib is the fastest that is installed: ISA-L decompresses twice as fast
as Python's own.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True, slots=True)
class Compression:
    """A method that compresses each block of an image by itself."""

    decompress: Callable[
        [bytes, int], bytes
    ]  #: of data, with the limit in bytes; ValueError for damaged data
    most_expansion: int  #: bytes that one byte can become


ZLIB_MODULES = ("isal.isal_zlib", "zlib")
COPYABLE_MODULES = ("zlib_ng.zlib_ng", "zlib")  # the first decompresses five times as fast
# Windows of deflate as zlib names them: negative without a header, 15 the largest with one.
QCOW2_WINDOW, ZLIB_WINDOW = -12, 15
# Memory for the window of a zstd frame. Its decoders are asked to support 8 MiB, and a block has at most 2.
ZSTD_WINDOW_BYTES = 8 * 1024 * 1024
# Deflate: two bits for 258 equal bytes. zstd: a block of 128 KiB that repeats one byte takes 4.
DEFLATE_EXPANSION, ZSTD_EXPANSION = 1032, 32768


@functools.cache
def fastest_zlib() -> Any:
    """Load the fastest module. A verb that decompresses nothing loads none."""
    return _load(ZLIB_MODULES)


@functools.cache
def copyable_zlib() -> Any:
    """Load the fastest module whose decompressors can be copied: those of ISA-L cannot."""
    return _load(COPYABLE_MODULES)


def _load(names: Sequence[str]) -> Any:
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    raise LookupError("there is no zlib")


def inflate(data: bytes, limit: int) -> bytes:
    """Inflate a deflate stream without header, as qcow2 has it. What follows the stream is ignored."""
    zlib = fastest_zlib()
    try:
        content: bytes = zlib.decompressobj(QCOW2_WINDOW).decompress(data, limit)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    return content


def decompress_zlib(data: bytes, limit: int) -> bytes:
    """Decompress a whole zlib stream (RFC 1950), and check its checksum."""
    zlib = fastest_zlib()
    stream = zlib.decompressobj(ZLIB_WINDOW)
    try:
        content: bytes = stream.decompress(data, limit + 1)  # the checksum is read only with space left
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not stream.eof or len(content) > limit:
        raise ValueError(f"its stream does not end within {limit} bytes")
    return content


def find_zstd() -> Compression:
    """Return the method for zstd frames. Raises LookupError if the package `zstandard` is not installed."""
    try:
        zstandard: Any = import_module("zstandard")
    except ImportError as error:
        raise LookupError("zstandard") from error

    def decompress(data: bytes, limit: int) -> bytes:
        frames = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)  # not for several threads
        try:
            with frames.stream_reader(data) as stream:
                content: bytes = stream.read(limit)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
        return content

    return Compression(decompress, ZSTD_EXPANSION)


QCOW2_DEFLATE = Compression(inflate, DEFLATE_EXPANSION)
ZLIB = Compression(decompress_zlib, DEFLATE_EXPANSION)
