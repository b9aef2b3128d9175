"""xz (The .xz File Format 1.2.0): blocks, and behind them an index with the length of each.

The index is read from the end of the file backwards, so the size of the content is known at once, and each
block can be unpacked by itself: `xz -T` makes blocks of 24 MiB by default. A block is given to liblzma with
the header of its stream in front, which checks it as a whole; what it makes is compared with the index.
"""

import lzma
import zlib
from bisect import bisect_left
from collections.abc import Iterator
from operator import attrgetter, itemgetter

from uecwatchd.errors import Rejected
from uecwatchd.images.formats.container_file import ContainerFile
from uecwatchd.images.packed.segments import (
    INPUT_BYTES,
    MAX_PADDING_BYTES,
    Segment,
    damaged,
    followed,
    read_some,
    truncated,
)

MAGIC, END_MAGIC = b"\xfd7zXZ\0", b"YZ"
HEADER_BYTES = FOOTER_BYTES = 12
# `xz -9` needs 65 MiB to unpack. Larger dictionaries are made by hand, and help few images.
MEMORY_BYTES = 96 << 20
# Entries of the indexes of one file: enough for 3 TiB of the usual blocks, and 30 MB in memory.
MAX_BLOCKS = 1 << 17
MAX_INDEX_BYTES = 20 * MAX_BLOCKS  # two numbers of at most 9 bytes for each
LONGEST_NUMBER_BYTES = 9
LEAST_BLOCK_BYTES = 5
# How far from the end of a file with something behind its last stream that end is looked for.
SEARCH_BYTES = 64 * 1024
STREAM = "its xz stream"


class XzStream:
    """One block of an xz."""

    def __init__(self, file: ContainerFile, segment: Segment, header: bytes) -> None:
        self._file, self._segment = file, segment
        self._left = segment.length or 0
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY_BYTES)
        self._before = header  #: to be read before the block
        self.place, self._end = segment.place, segment.place + segment.packed
        self.is_done = False

    def read(self, limit: int, /) -> bytes:
        content = self._decode(min(limit, self._left) or 1)
        if len(content) > self._left:
            raise self._damaged("a block has more in it than the index says")
        self._left -= len(content)
        if not content and self.place == self._end and self._decoder.needs_input:
            if self._left:
                raise self._damaged("a block has less in it than the index says")
            self.is_done = True
        return content

    def _decode(self, limit: int) -> bytes:
        data = b""
        if self._decoder.needs_input and self.place < self._end:
            data = read_some(self._file, self.place, min(INPUT_BYTES, self._end - self.place))
            if not data:
                raise truncated(self._file, STREAM)
            self.place += len(data)
            data, self._before = self._before + data, b""
        try:
            return self._decoder.decompress(data, limit)
        except lzma.LZMAError as error:
            if "emory" in str(error):
                most = f"{MEMORY_BYTES >> 20} MiB"
                raise self._file.refuse(
                    f"it needs more than {most} of memory to unpack", "Compress it again with: xz -6"
                ) from error
            raise self._damaged(str(error).removesuffix(".").lower()) from error
        except EOFError as error:
            raise self._damaged("a block ends early") from error

    def copy(self, file: ContainerFile, /) -> None:
        del file

    def _damaged(self, why: str) -> Rejected:
        return damaged(self._file, self.place, why)


class XzFile:
    """An xz with its index."""

    def __init__(self, file: ContainerFile) -> None:
        self.file = file
        self._headers: list[tuple[int, bytes]] = []  # of the streams, with their places, from the last on
        self._segments = tuple(sorted(self._read_streams(), key=attrgetter("place")))
        self._headers.sort()
        self._places = [segment.place for segment in self._segments]

    def known_segments(self) -> tuple[Segment, ...]:
        return self._segments

    def open(self, segment: Segment, /) -> XzStream:
        _, header = self._headers[bisect_left(self._headers, segment.place, key=itemgetter(0)) - 1]
        return XzStream(self.file, segment, header)

    def find_segment(self, place: int, /) -> Segment | None:
        index = bisect_left(self._places, place)
        return self._segments[index] if index < len(self._segments) else None

    def _read_streams(self) -> Iterator[Segment]:
        """Yield the blocks of each stream, from the last stream on. Raises Rejected."""
        end, count = self.file.size, 0
        while end := self._skip_padding(end):
            blocks, end = self._read_stream(end)
            count += len(blocks) + 1  # a stream may be empty
            if count > MAX_BLOCKS:
                raise self.file.refuse(
                    f"it has more than {MAX_BLOCKS} blocks", "Compress it again with: xz -T0"
                )
            yield from blocks

    def _skip_padding(self, end: int) -> int:
        """Return where the last stream before a place ends: zeros may follow it, in groups of four."""
        lowest = max(3, end - MAX_PADDING_BYTES)
        while end > lowest:
            start = max(0, end - SEARCH_BYTES)
            data = read_some(self.file, start, end - start)
            found = data.rstrip(b"\0")
            if found:
                zeros = len(data) - len(found)
                return end - zeros + zeros % 4
            end = start
        return end

    def _read_stream(self, end: int) -> tuple[list[Segment], int]:
        """Return the blocks of a stream by its end, and its beginning."""
        footer = read_some(self.file, max(0, end - FOOTER_BYTES), min(FOOTER_BYTES, end))
        if not _is_footer(footer):
            raise self._no_end(end)
        length = (int.from_bytes(footer[4:8], "little") + 1) * 4
        start = end - FOOTER_BYTES - length
        if start < HEADER_BYTES or length > MAX_INDEX_BYTES:
            raise damaged(self.file, end, "its index is too long")
        records = self._read_index(start, length)
        begin = start - sum(packed + -packed % 4 for packed, _ in records) - HEADER_BYTES
        header = read_some(self.file, max(0, begin), HEADER_BYTES)
        if begin < 0 or header[:6] != MAGIC or header[6:8] != footer[8:10]:
            raise damaged(self.file, end, "its index does not fit its blocks")
        self._headers.append((begin, header))
        return list(_place_blocks(records, begin + HEADER_BYTES)), begin

    def _read_index(self, start: int, length: int) -> list[tuple[int, int]]:
        """Return the lengths of each block in the file, without padding, and of its content."""
        data = read_some(self.file, start, length)
        if (
            len(data) < length
            or data[:1] != b"\0"
            or zlib.crc32(data[:-4]).to_bytes(4, "little") != data[-4:]
        ):
            raise damaged(self.file, start, "the checksum of its index is wrong")
        count, at = _read_number(data, 1)
        if count > len(data):
            raise damaged(self.file, start, "its index is too short")
        records = []
        for _ in range(count):
            packed, at = _read_number(data, at)
            content, at = _read_number(data, at)
            if packed < LEAST_BLOCK_BYTES:
                raise damaged(self.file, start, "its index has a block without bytes")
            records.append((packed, content))
        return records

    def _no_end(self, end: int) -> Rejected:
        """Return the error for a file without the end of a stream: cut, or with something behind it."""
        start = max(0, end - SEARCH_BYTES)
        data, at = read_some(self.file, start, end - start), 0
        found = 0
        while at := data.find(END_MAGIC, at) + 1:
            if _is_footer(data[max(0, at + 1 - FOOTER_BYTES) : at + 1]):
                found = start + at + 1
        return followed(self.file, found, STREAM) if found else truncated(self.file, STREAM)


def _is_footer(data: bytes) -> bool:
    is_whole = len(data) == FOOTER_BYTES and data[10:] == END_MAGIC
    return is_whole and zlib.crc32(data[4:10]).to_bytes(4, "little") == data[:4]


def _place_blocks(records: list[tuple[int, int]], place: int) -> Iterator[Segment]:
    for packed, content in records:
        padded = packed + -packed % 4
        yield Segment(place, padded, content)
        place += padded


def _read_number(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, the lowest first, and the place behind it."""
    number = 0
    for index, byte in enumerate(data[at : at + LONGEST_NUMBER_BYTES]):
        number |= (byte & 0x7F) << 7 * index
        if not byte & 0x80:
            return number, at + index + 1
    return 0, at + LONGEST_NUMBER_BYTES
