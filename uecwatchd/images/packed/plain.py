"""gzip (RFC 1952) and bzip2: streams one after another, without an index.

Both formats allow several streams in one file, which unpack to all of their contents. Behind the last one of
a gzip there may be zeros, which `gzip` ignores: they fill a tape's block.
"""

import bz2
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from uecwatchd.images.formats.container_file import ContainerFile
from uecwatchd.images.formats.decompress import copyable_zlib
from uecwatchd.images.packed.segments import (
    INPUT_BYTES,
    MAX_PADDING_BYTES,
    Segment,
    damaged,
    followed,
    read_some,
    truncated,
)

GZIP_WINDOW = 31  # as zlib names it: the largest window, in a gzip
# A copy is made where no input is left over. Of this much come at most 33 MiB, for zeros.
GZIP_INPUT_BYTES = 32 * 1024


class Decoder(Protocol):
    """Decompressor of the standard library."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class GzipDecoder:
    """A decompressor of gzip that keeps its input, as those of bz2 and lzma do.

    It can be copied with all that it knows, some 40 KiB.
    """

    def __init__(self) -> None:
        self._inner = copyable_zlib().decompressobj(GZIP_WINDOW)
        self._left = b""

    def copy(self) -> Self:
        """Return another one in the same state, when it needs input."""
        other = type(self)()
        other._inner = self._inner.copy()
        return other

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof)

    @property
    def needs_input(self) -> bool:
        return not self._left

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inner.unused_data)

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        try:
            content: bytes = self._inner.decompress(self._left or data, max_length)
        except copyable_zlib().error as error:
            raise ValueError(str(error)) from error
        self._left = self._inner.unconsumed_tail
        return content


@dataclass(frozen=True, slots=True)
class PlainFormat:
    """Differences between gzip and bzip2. `failures` is what the decoder raises for damaged data."""

    stream: str
    magic: bytes
    padding: bytes
    input_bytes: int
    decoder: Callable[[], Decoder]
    failures: tuple[type[Exception], ...]


FORMATS: Mapping[str, PlainFormat] = {
    "gzip": PlainFormat(
        "its gzip stream", b"\x1f\x8b", b"\0", GZIP_INPUT_BYTES, GzipDecoder, (ValueError, EOFError)
    ),
    "bzip2": PlainFormat(
        "its bzip2 stream", b"BZh", b"", INPUT_BYTES, bz2.BZ2Decompressor, (OSError, EOFError)
    ),
}


class PlainStream:
    """One stream of a gzip or bzip2."""

    def __init__(self, file: ContainerFile, form: PlainFormat, place: int) -> None:
        self._file, self._form, self._next = file, form, place
        self._decoder = form.decoder()

    @property
    def is_done(self) -> bool:
        return self._decoder.eof

    @property
    def place(self) -> int:
        return self._next - len(self._decoder.unused_data)

    def read(self, limit: int, /) -> bytes:
        data = b""
        if self._decoder.needs_input:
            data = read_some(self._file, self._next, self._form.input_bytes)
            self._next += len(data)
        is_short = self._decoder.needs_input and not data
        content = self._decode(data, limit)
        if is_short and not content and not self._decoder.eof:
            raise truncated(self._file, self._form.stream)
        return content

    def copy(self, file: ContainerFile, /) -> "PlainStream | None":
        if not isinstance(self._decoder, GzipDecoder) or not self._decoder.needs_input:
            return None
        other = PlainStream(file, self._form, self._next)
        other._decoder = self._decoder.copy()
        return other

    def _decode(self, data: bytes, limit: int) -> bytes:
        try:
            return self._decoder.decompress(data, limit)
        except self._form.failures as error:
            raise damaged(self._file, self._next, str(error) or "the data ends early") from error


class PlainFile:
    """A gzip or bzip2: its segments are known when they were unpacked."""

    def __init__(self, file: ContainerFile, form: PlainFormat) -> None:
        self.file, self._form = file, form

    def known_segments(self) -> tuple[Segment, ...]:
        return ()

    def open(self, segment: Segment, /) -> PlainStream:
        return PlainStream(self.file, self._form, segment.place)

    def find_segment(self, place: int, /) -> Segment | None:
        if read_some(self.file, place, len(self._form.magic)) == self._form.magic:
            return Segment(place)
        if self.file.size - place > MAX_PADDING_BYTES:
            raise followed(self.file, place, self._form.stream)
        end = place
        while data := read_some(self.file, end):
            if not self._form.padding or data.strip(self._form.padding):
                raise followed(self.file, place, self._form.stream)
            end += len(data)
        return None
