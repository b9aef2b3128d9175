"""zstd (RFC 8878): frames, each a header and blocks of at most 128 KiB.

The frames are followed block by block here, because the library reports a frame without an end as one that
has ended. The package `zstandard` unpacks them.
"""

from importlib import import_module
from typing import Any

from uecwatchd.errors import Rejected
from uecwatchd.images.formats.container_file import ContainerFile
from uecwatchd.images.packed.segments import Segment, damaged, followed, read_some, truncated

MAGIC = b"\x28\xb5\x2f\xfd"
SKIPPABLE = (
    b"\x2a\x4d\x18"  # behind a byte from 0x50 to 0x5f; pzstd and the seekable format write such frames
)
LONGEST_HEADER_BYTES = 18
# What `zstd -d` supports without an option: windows of `zstd --long`, and of every level.
WINDOW_BYTES = 128 << 20
# Blocks that are followed to know all frames before they are unpacked: those of 512 MiB that hardly compress.
MAX_BLOCKS = 4096
# Blocks that may be followed for 1 MiB of content, or frames that are skipped before a real one. A file made
# by hand can have any number with nothing in them.
MAX_EMPTY = 1 << 16
STREAM = "its zstd frame"


class Frame:
    """A frame in a file, read block by block: what the library reads from."""

    def __init__(self, file: ContainerFile, place: int) -> None:
        self._file, self.place = file, place
        head = read_some(file, place, LONGEST_HEADER_BYTES)
        if len(head) < 5:
            raise truncated(file, STREAM)
        flags = head[4]
        size_bytes = (1 if flags & 0x20 else 0, 2, 4, 8)[flags >> 6]
        size_at = 5 + (not flags & 0x20) + (0, 1, 2, 4)[flags & 3]
        self._sum_bytes = 4 if flags & 4 else 0
        self._block_end = place + size_at + size_bytes  # of the header first
        self._is_last = False
        self.blocks = 0  #: that were begun since it was set
        self.length: int | None = None
        if size_bytes:
            extra = 256 if size_bytes == 2 else 0
            self.length = int.from_bytes(head[size_at : size_at + size_bytes], "little") + extra

    def read(self, limit: int = -1) -> bytes:
        """Return bytes of the frame, none at its end. Raises Rejected if the file ends before it."""
        del limit  # a block at once, which is shorter
        if self.place == self._block_end and not self._go_on():
            return b""
        data = read_some(self._file, self.place, self._block_end - self.place)
        if not data:
            raise truncated(self._file, STREAM)
        self.place += len(data)
        return data

    def skip_block(self) -> bool:
        """Go to the end of the next block without reading it; False at the end of the frame."""
        self.place = self._block_end
        if self.place > self._file.size:
            raise truncated(self._file, STREAM)
        return self._go_on()

    def _go_on(self) -> bool:
        """Find the end of the next block, or of the checksum behind the last one."""
        if self._is_last:
            left, self._sum_bytes = self._sum_bytes, 0
            self._block_end = self.place + left
            return left > 0
        header = read_some(self._file, self.place, 3)
        if len(header) < 3:
            raise truncated(self._file, STREAM)
        bits = int.from_bytes(header, "little")
        kind, size = bits >> 1 & 3, bits >> 3
        self.blocks += 1
        if self.blocks > MAX_EMPTY:
            raise damaged(self._file, self.place, "it has blocks with nothing in them")
        if kind == 3:
            raise damaged(self._file, self.place, "a block of an unknown kind")
        self._is_last = bool(bits & 1)
        self._block_end = self.place + 3 + (1 if kind == 1 else size)
        return True


class ZstdStream:
    """The content of one frame."""

    def __init__(self, file: ContainerFile, place: int, zstandard: Any) -> None:
        self._file, self._frame, self._error = file, Frame(file, place), zstandard.ZstdError
        decoder = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES)
        self._reader = decoder.stream_reader(self._frame)
        self.is_done = False

    @property
    def place(self) -> int:
        return self._frame.place

    def read(self, limit: int, /) -> bytes:
        self._frame.blocks = 0
        try:
            content: bytes = self._reader.read(limit)
        except self._error as error:
            raise self._refuse(str(error)) from error
        if not content:
            while self._frame.read():  # the library need not have read all of it
                continue
            self.is_done = True
        return content

    def copy(self, file: ContainerFile, /) -> None:
        del file

    def _refuse(self, why: str) -> Rejected:
        if "too much memory" in why:
            most = f"{WINDOW_BYTES >> 20} MiB"
            return self._file.refuse(
                f"it needs more than {most} of memory to unpack", "Compress it again with: zstd -19"
            )
        return damaged(self._file, self.place, why.partition(": ")[2] or why)


class ZstdFile:
    """A zstd. Raises Rejected if the package that unpacks it is not installed."""

    def __init__(self, file: ContainerFile) -> None:
        self.file = file
        try:
            self._zstandard: Any = import_module("zstandard")
        except ImportError as error:
            raise file.refuse(
                "it is compressed with zstd, and the package zstandard is not installed",
                "Try: pip install 'uecwatchd[formats]'; or compress it with xz.",
            ) from error

    def open(self, segment: Segment, /) -> ZstdStream:
        return ZstdStream(self.file, segment.place, self._zstandard)

    def find_segment(self, place: int, /) -> Segment | None:
        for _ in range(MAX_EMPTY):
            if place >= self.file.size:
                break
            head = read_some(self.file, place, 8)
            if head.startswith(MAGIC):
                return Segment(place, length=Frame(self.file, place).length)
            if head[1:4] != SKIPPABLE or head[0] >> 4 != 5:
                raise followed(self.file, place, STREAM)
            place += 8 + int.from_bytes(head[4:8], "little")
        if place > self.file.size:
            raise truncated(self.file, STREAM)
        if place < self.file.size:
            raise damaged(self.file, place, "it has frames with nothing in them")
        return None

    def known_segments(self) -> tuple[Segment, ...]:
        found, place, left = list[Segment](), 0, MAX_BLOCKS
        while segment := self.find_segment(place):
            frame = Frame(self.file, segment.place)
            while frame.skip_block() and left:
                left -= 1
            place = frame.place
            if segment.length is None or not left:
                return ()
            found.append(Segment(segment.place, place - segment.place, segment.length))
        return tuple(found)
