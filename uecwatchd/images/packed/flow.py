"""Unpacking in order: one segment after another, from any segment on."""

from dataclasses import dataclass, field

from uecwatchd.images.packed.segments import PackedFile, Segment, Stream


@dataclass(frozen=True, slots=True)
class SeekPoint:
    """A place where unpacking can begin: `offset` of its first byte in the content, and its segment.

    `stream` is a stream that is there already, inside of its segment; None at the beginning.
    """

    offset: int
    segment: Segment
    stream: Stream | None = field(default=None, repr=False, compare=False)


class Flow:
    """The content of a compressed file from a point on. Not for several threads."""

    def __init__(self, packed: PackedFile, point: SeekPoint) -> None:
        self._packed = packed
        self.point = point  #: where the segment begins that is being unpacked
        self.offset = point.offset  #: of the next byte in the content
        self.is_done = False
        self._stream = _begin(packed, point)

    @property
    def place(self) -> int:
        """Offset in the compressed file up to which it was used."""
        return self._stream.place

    def snapshot(self) -> SeekPoint | None:
        """Return a point at this place; None if the compression has none inside of its segments."""
        stream = None if self._stream.is_done else self._stream.copy(self._packed.file)
        return SeekPoint(self.offset, self.point.segment, stream) if stream else None

    def read(self, limit: int) -> bytes:
        """Return the next bytes, at most `limit`. May be none before the end: then `is_done` is not set.

        Uses a limited number of compressed bytes. Raises Rejected for damaged data, OSError.
        """
        if not self._stream.is_done:
            data = self._stream.read(limit)
            self.offset += len(data)
            return data
        following = self._packed.find_segment(self._stream.place)
        if following is None:
            self.is_done = True
        else:
            self.point = SeekPoint(self.offset, following)
            self._stream = self._packed.open(following)
        return b""

    def read_exactly(self, length: int) -> bytes:
        """Return the next `length` bytes, fewer only at the end. Raises as `read` does."""
        pieces, left = list[bytes](), length
        while left and not self.is_done:
            pieces.append(self.read(left))
            left -= len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _begin(packed: PackedFile, point: SeekPoint) -> Stream:
    """Return the stream at a point, reading from this file: that of an earlier opening may be closed."""
    if point.stream is None:
        return packed.open(point.segment)
    stream = point.stream.copy(packed.file)
    if stream is None:  # its segment begins elsewhere, so other content would be read from there
        raise RuntimeError(f"{packed.file.name}: unpacking cannot begin at byte {point.offset}")
    return stream
