"""The first reading of a compressed disk: its size, its holes, its digest, and where to begin again.

A bundle begins with the size and the holes of its image, and they are known only when all of it was unpacked
once. What is found takes little memory and is kept for the second reading. Content is counted while it comes:
a file that unpacks to more than is accepted is refused at that moment, after a piece of 1 MiB more.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

from uecwatchd.errors import Rejected
from uecwatchd.images.digests import BackgroundDigest, BlockDigest, Digest, FlatDigest, choose_digest
from uecwatchd.images.packed.flow import Flow, SeekPoint
from uecwatchd.images.packed.segments import PackedFile
from uecwatchd.system.extents import HOLE_BYTES, MAX_EXTENTS, Extent, align_extents
from uecwatchd.system.text import format_size
from uecwatchd.types import ContentDigest, FileStamp

PIECE_BYTES = 1024 * 1024  # unpacked at once: outside Python's lock, and little beside the limit
READS_AT_ONCE = 16  # for half of that, if the content of a gzip was hardly compressed
# Points that are kept, and the least content between two of them: as many as xz blocks of the usual size.
MAX_POINTS, POINT_BYTES = 1 << 16, 16 * 1024 * 1024
# Of those inside of a segment. Each takes 40 KiB; if there are more, each second one goes.
MAX_SNAPSHOTS = 256
# Surveys that are kept: for each set that is worked on and a few that wait. Each takes 30 MB at most.
MAX_SURVEYS = 16
ZEROS = bytes(PIECE_BYTES)


@dataclass(frozen=True, slots=True)
class DiskSurvey:
    """Result of one reading. Sizes in bytes."""

    size: int
    extents: tuple[Extent, ...]
    points: tuple[SeekPoint, ...]
    digest: ContentDigest
    tail: bytes = field(repr=False)  #: the last bytes, from a multiple of HOLE_BYTES on

    @property
    def stored_bytes(self) -> int:
        return sum(extent.length for extent in self.extents)


class Surveys:
    """The last surveys, by the stamp of the file. Shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _kept
        self._kept: OrderedDict[FileStamp, DiskSurvey] = OrderedDict()

    def get(self, stamp: FileStamp) -> DiskSurvey | None:
        with self._lock:
            return self._kept.get(stamp)

    def put(self, stamp: FileStamp, survey: DiskSurvey) -> None:
        with self._lock:
            self._kept[stamp] = survey
            if len(self._kept) > MAX_SURVEYS:
                self._kept.popitem(last=False)


def survey(
    packed: PackedFile,
    start: SeekPoint,
    *,
    limit: int,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[int], None] = lambda _place: None,
) -> DiskSurvey:
    """Unpack all of a file once. `limit` is the most content to accept, in bytes.

    `check` is called for each piece, and `progress` with the number of compressed bytes that are done; both
    may raise to stop. Raises Rejected for a file that is damaged, empty, or too large; OSError.
    """
    flow, reader = Flow(packed, start), SurveyReader()
    with closing(reader):
        while not flow.is_done:
            check()
            reader.take(_read_piece(flow, reader))
            progress(flow.place)
            if flow.offset > limit:
                raise too_large(packed, f"more than {format_size(limit)}")
        if not flow.offset:
            raise is_empty(packed)
        return reader.result()


def _read_piece(flow: Flow, reader: "SurveyReader") -> bytes:
    """Return some content. A compression that returns little at once is read several times.

    The place is noted before each time: a copy of the decompressor is possible at few of them.
    """
    pieces, length = list[bytes](), 0
    for _ in range(READS_AT_ONCE):
        if flow.is_done or length >= PIECE_BYTES // 2:
            break
        reader.note(flow)
        pieces.append(flow.read(PIECE_BYTES))
        length += len(pieces[-1])
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def is_empty(packed: PackedFile) -> Rejected:
    return packed.file.refuse("there is nothing in it", "Compress the image again.")


def too_large(packed: PackedFile, unpacked: str) -> Rejected:
    """Return the error for a file that unpacks to more than is accepted."""
    return packed.file.refuse(
        f"it unpacks to {unpacked}, which is not accepted",
        "Drop a smaller disk, or set a larger max_disk_size under [work] in the configuration.",
    )


class SurveyReader:
    """The state of a survey. Content arrives in order, in pieces of any length.

    `snapshot_bytes` is the least content between two snapshots, as long as there are at most `max_snapshots`.
    """

    def __init__(self, *, snapshot_bytes: int = POINT_BYTES, max_snapshots: int = MAX_SNAPSHOTS) -> None:
        # One of the two will be the digest of an image with these holes, which are known at the end.
        kinds: tuple[Digest, Digest] = (FlatDigest(), BlockDigest())
        self._digests = tuple(BackgroundDigest(digest) for digest in kinds)
        self._stretches = list[tuple[int, int]]()
        self._points = list[SeekPoint]()
        self._snapshot_bytes, self._max_snapshots = snapshot_bytes, max_snapshots
        self._open = b""  # the beginning of a block of HOLE_BYTES
        self._last = b""  # the last whole block
        self._done = 0  # end of the whole blocks

    def close(self) -> None:
        for digest in self._digests:
            digest.close()

    def note(self, flow: Flow) -> None:
        """Keep the point where a flow is, if it is far enough from the one before."""
        last = self._points[-1].offset if self._points else -POINT_BYTES
        if flow.point.offset - last >= POINT_BYTES and len(self._points) < MAX_POINTS:
            self._points.append(flow.point)
        elif flow.offset - last >= self._snapshot_bytes and (point := flow.snapshot()):
            self._points.append(point)
            self._thin_out()

    def _thin_out(self) -> None:
        """Take away each second snapshot, and make fewer from now on, if there are too many for memory."""
        snapshots = [point.offset for point in self._points if point.stream]
        if len(snapshots) > self._max_snapshots:
            removed = set(snapshots[::2])
            self._points = [point for point in self._points if point.offset not in removed]
            self._snapshot_bytes *= 2

    def take(self, data: bytes) -> None:
        data = self._open + data if self._open else data
        whole = len(data) - len(data) % HOLE_BYTES
        self._open = data[whole:]
        for start, end, is_hole in _split(data, whole):
            self._add(memoryview(data)[start:end], is_hole=is_hole)
        if whole:
            self._last = data[whole - HOLE_BYTES : whole]

    def _add(self, piece: memoryview, *, is_hole: bool) -> None:
        for digest in self._digests:
            digest.skip(len(piece)) if is_hole else digest.update(piece)
        end = self._done + len(piece)
        if not is_hole:
            goes_on = bool(self._stretches) and self._stretches[-1][1] == self._done
            start = self._stretches.pop()[0] if goes_on else self._done
            self._stretches.append((start, end))
            self._merge()
        self._done = end

    def _merge(self) -> None:
        """Fill the shortest holes if there are too many for memory."""
        if len(self._stretches) >= 2 * MAX_EXTENTS:
            found = align_extents(self._stretches, self._done + HOLE_BYTES, MAX_EXTENTS)
            self._stretches = [(extent.offset, extent.offset + extent.length) for extent in found]

    def result(self) -> DiskSurvey:
        tail = self._open or self._last
        if self._open:
            self._add(memoryview(self._open), is_hole=False)
        extents = align_extents(self._stretches, self._done, MAX_EXTENTS)
        stored = sum(extent.length for extent in extents)
        is_flat = isinstance(choose_digest(self._done, stored=stored), FlatDigest)
        digest = ContentDigest(self._digests[0 if is_flat else 1].text())
        return DiskSurvey(self._done, extents, tuple(self._points), digest, tail)


def _split(data: bytes, whole: int) -> Iterator[tuple[int, int, bool]]:
    """Yield the stretches of a piece: data, or blocks of nothing but zeros."""
    if data[:whole] == ZEROS[:whole] and whole:
        yield 0, whole, True
        return
    begin, is_hole = 0, False
    for start in range(0, whole, HOLE_BYTES):
        is_zero = not data[start] and data[start : start + HOLE_BYTES] == ZEROS[:HOLE_BYTES]
        if is_zero != is_hole and start > begin:
            yield begin, start, is_hole
            begin = start
        is_hole = is_zero
    if whole > begin:
        yield begin, whole, is_hole
