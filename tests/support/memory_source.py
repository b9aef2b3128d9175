"""A block source that is no file."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from uecwatchd.system.extents import Extent


@dataclass
class MemorySource:
    """An image in memory."""

    data: bytes = field(repr=False)
    announced: int | None = None  # the size, for a source that changes while it is read
    stored: tuple[Extent, ...] | None = None  # the extents, None for an image without holes
    is_closed: bool = False

    @property
    def size(self) -> int:
        return len(self.data) if self.announced is None else self.announced

    @property
    def stored_bytes(self) -> int:
        return sum(extent.length for extent in self.extents())

    def extents(self) -> tuple[Extent, ...]:
        return (Extent(0, self.size),) if self.stored is None else self.stored

    def read_into(self, offset: int, buffer: memoryview, /) -> int:
        if self.is_closed:
            raise ValueError("it is closed")
        piece = self.data[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    def is_unchanged(self) -> bool:
        return True

    def close(self) -> None:
        self.is_closed = True


class DamagedSource(MemorySource):
    """A disk with some other bytes, by their places, which costs no copy of it."""

    changes: Mapping[int, int]

    def read_into(self, offset: int, buffer: memoryview, /) -> int:
        count = super().read_into(offset, buffer)
        for place, value in self.changes.items():
            if offset <= place < offset + count:
                buffer[place - offset] = value
        return count
