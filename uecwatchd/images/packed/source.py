"""The content of a compressed file as a block source.

Readers go from the beginning to the end, several threads in places near each other. The content is unpacked
once for all of them, by the thread that comes first, and the last few MiB are kept for the others. Holes are
known, and cost nothing. Whatever is asked for behind or far ahead is reached from the nearest point where
unpacking can begin: if the file has one segment only, that is its beginning.
"""

import threading
from bisect import bisect_right
from collections import OrderedDict
from operator import attrgetter

from uecwatchd.errors import Rejected
from uecwatchd.images.block_source import BlockSource
from uecwatchd.images.packed.flow import Flow, SeekPoint
from uecwatchd.images.packed.segments import PackedFile
from uecwatchd.images.packed.survey import DiskSurvey
from uecwatchd.system.extents import HOLE_BYTES, Extent

# The unit of what is kept: holes have this size, and what is between them is not kept for nothing.
BLOCK_BYTES = HOLE_BYTES
# Content that is kept: twice what bundling has in progress, which is how far a slow thread can be behind.
KEPT_BLOCKS = 16 * 1024 * 1024 // BLOCK_BYTES
# Content that is unpacked for nothing rather than to begin at a later point: threads that are a little behind
# would have to go back to an earlier one.
PASSED_BYTES = 64 * 1024 * 1024
UNPACKED_AT_ONCE = 1024 * 1024  # in bytes; a multiple of a block
# What may be unpacked to reach a place, of some hundred in a look at files: a fifth of a second with xz, and
# with gzip, which alone has points inside of its segments.
MAX_SKIP_BYTES, MAX_GZIP_SKIP_BYTES = 32 << 20, 128 << 20
ZEROS = memoryview(bytes(BLOCK_BYTES))


class PackedSource:
    """The disk that a compressed file unpacks to. `survey` is None if only its segments were looked at.

    `points` are in order, the first at offset 0.
    """

    def __init__(
        self, packed: PackedFile, points: tuple[SeekPoint, ...], size: int, survey: DiskSurvey | None = None
    ) -> None:
        self._packed, self._points = packed, points
        self.size = size
        self.survey = survey
        self._extents = survey.extents if survey else (Extent(0, size),) if size else ()
        self._starts = [extent.offset for extent in self._extents]
        self._tail = survey.tail if survey else b""
        self._lock = threading.Lock()  # guards all below, and is held while unpacking
        self._flow: Flow | None = None
        self._kept: OrderedDict[int, bytes] = OrderedDict()  # blocks by number, the oldest first

    @property
    def is_seekable(self) -> bool:
        """Tell if each place can be reached in a fraction of a second."""
        ends = [*(point.offset for point in self._points[1:]), self.size]
        skips = (end - point.offset for point, end in zip(self._points, ends, strict=True))
        limit = MAX_GZIP_SKIP_BYTES if any(point.stream for point in self._points) else MAX_SKIP_BYTES
        return max(skips, default=0) <= limit

    @property
    def stored_bytes(self) -> int:
        return sum(extent.length for extent in self._extents)

    def extents(self) -> tuple[Extent, ...]:
        return self._extents

    def is_unchanged(self) -> bool:
        return self._packed.file.source.is_unchanged()

    def close(self) -> None:
        self._packed.file.source.close()

    def read_into(self, offset: int, buffer: memoryview, /) -> int:
        """Read as the protocol says. Raises Rejected for damaged data in a file that has not changed."""
        buffer, done = buffer[: max(0, self.size - offset)], 0
        try:
            while done < len(buffer):
                count = self._read_block(offset + done, buffer[done:])
                if not count:
                    break
                done += count
        except Rejected:
            if self.is_unchanged():
                raise
        return done

    def _read_block(self, offset: int, buffer: memoryview) -> int:
        """Read from one block, or from the hole around it."""
        number, skip = divmod(offset, BLOCK_BYTES)
        if self._is_hole(number):
            count = min(len(buffer), BLOCK_BYTES - skip)
            buffer[:count] = ZEROS[:count]
            return count
        if self._tail and offset >= self.size - len(self._tail):
            block, skip = self._tail, offset - (self.size - len(self._tail))
        else:
            block = self._block(number)
        piece = memoryview(block)[skip : skip + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    def _is_hole(self, number: int) -> bool:
        """Return True for a block of zeros. Extents begin and end with a block."""
        place = number * BLOCK_BYTES
        index = bisect_right(self._starts, place) - 1
        return index < 0 or place >= self._extents[index].offset + self._extents[index].length

    def _block(self, number: int) -> bytes:
        """Return a block, unpacked now or lately; short if the file has become shorter."""
        with self._lock:
            block = self._kept.get(number)
            if block is None:
                block = self._unpack(number)
            return block

    def _unpack(self, wanted: int) -> bytes:
        """Unpack up to the end of a block, and keep what comes before it."""
        try:
            flow = self._flow = self._flow_to(wanted)
            while (number := flow.offset // BLOCK_BYTES) <= wanted and not flow.is_done:
                data = flow.read_exactly(UNPACKED_AT_ONCE - flow.offset % UNPACKED_AT_ONCE)
                self._keep(number, data)
        except BaseException:
            self._flow = None  # it may be in the middle of a block
            raise
        return self._kept.get(wanted, b"")

    def _flow_to(self, number: int) -> Flow:
        """Return the flow that reaches a block soonest: the present one, or one from a point."""
        place = number * BLOCK_BYTES
        point = self._points[bisect_right(self._points, place, key=attrgetter("offset")) - 1]
        flow = self._flow
        if flow is None or flow.offset > place or point.offset - flow.offset > PASSED_BYTES:
            flow = Flow(self._packed, point)
            flow.read_exactly(-point.offset % BLOCK_BYTES)  # what is left of a block that began before it
        return flow

    def _keep(self, number: int, data: bytes) -> None:
        for at in range(0, len(data), BLOCK_BYTES):
            if not self._is_hole(number):
                self._kept[number] = data[at : at + BLOCK_BYTES]
                self._kept.move_to_end(number)
            number += 1
        while len(self._kept) > KEPT_BLOCKS:
            self._kept.popitem(last=False)


def check_random_access(source: BlockSource, name: str) -> None:
    """Raise Rejected for a compressed disk whose files cannot be looked at in a reasonable time."""
    if isinstance(source, PackedSource) and not source.is_seekable:
        raise Rejected(
            f"{name}: it cannot be looked into",
            "it is compressed in one piece, and read from its beginning only",
            "Compress it in blocks (xz -T0), or drop it uncompressed.",
        )
