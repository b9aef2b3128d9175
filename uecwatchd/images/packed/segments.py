"""Segments of a compressed file: the stretches that can be unpacked without what is before them.

They are called members in gzip, streams in bzip2, blocks in xz, and frames in zstd. Programs that compress
with several threads make many; others make one.
"""

from dataclasses import dataclass
from typing import Protocol

from uecwatchd.errors import Rejected
from uecwatchd.images.formats.container_file import COPY_AGAIN, ContainerFile

# Compressed bytes that are read at once: large enough for fast reads, small enough to copy what is left over.
INPUT_BYTES = 256 * 1024
# Zeros that may follow a stream: what fills the last block of a tape.
MAX_PADDING_BYTES = 16 << 20
PACK_AGAIN = "Copy it again; if it stays so, compress the image again."
CUT_OFF = "If what follows does not belong to it, cut it off; otherwise compress the image again."


@dataclass(frozen=True, slots=True)
class Segment:
    """A place where unpacking can begin. All in bytes."""

    place: int  #: in the compressed file
    packed: int = 0  #: length in the compressed file; 0 if only unpacking tells
    length: int | None = None  #: of its content, where the format says so


class Stream(Protocol):
    """The content of one segment, from its beginning to its end."""

    @property
    def is_done(self) -> bool:
        """Return True after the last byte, when the checksum was right."""

    @property
    def place(self) -> int:
        """Offset of the first unused byte in the compressed file."""

    def read(self, limit: int, /) -> bytes:
        """Return the next bytes, at most `limit`. May be none although more follow.

        Raises Rejected for damaged data, OSError.
        """

    def copy(self, file: ContainerFile, /) -> "Stream | None":
        """Return another one at the same place, reading from `file`: the same one, perhaps opened again.

        Returns None if that cannot be done, or not here.
        """


class PackedFile(Protocol):
    """A compressed file that is open for reading, and its segments."""

    @property
    def file(self) -> ContainerFile: ...

    def find_segment(self, place: int, /) -> Segment | None:
        """Return the segment at or behind a place where another one ended, None at the end of the file.

        Raises Rejected if something else is there, OSError.
        """

    def open(self, segment: Segment, /) -> Stream: ...

    def known_segments(self) -> tuple[Segment, ...]:
        """Return all segments with the lengths of their contents, if that takes little; none otherwise.

        Raises Rejected for an index that is damaged, OSError.
        """


def read_some(file: ContainerFile, place: int, length: int = INPUT_BYTES) -> bytes:
    """Return the bytes at a place, fewer at the end of the file. Raises OSError."""
    buffer = bytearray(max(0, min(length, file.size - place)))
    return bytes(memoryview(buffer)[: file.source.read_into(place, memoryview(buffer))]) if buffer else b""


def truncated(file: ContainerFile, what: str) -> Rejected:
    return file.refuse(f"it is truncated: {what} has no end", COPY_AGAIN)


def damaged(file: ContainerFile, place: int, why: str) -> Rejected:
    return file.refuse(f"its compressed data is damaged near byte {place}: {why}", PACK_AGAIN)


def followed(file: ContainerFile, place: int, what: str) -> Rejected:
    """Return the error for a file with something behind its last segment."""
    count = file.size - place
    return file.refuse(f"{count} {'byte' if count == 1 else 'bytes'} follow the end of {what}", CUT_OFF)
