"""Layout of an image's archive, in blocks that can be read and deflated independently."""

from collections.abc import Iterator
from dataclasses import dataclass

from uecwatchd.bundle import tar
from uecwatchd.system.extents import Extent, data_bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of `length` bytes in the image, from `offset` on."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of the archive: `size` bytes, with `before`, `pieces` of the image, and `after`."""

    before: bytes
    pieces: tuple[Piece, ...]
    after: bytes

    @property
    def size(self) -> int:
        return len(self.before) + sum(piece.length for piece in self.pieces) + len(self.after)


def archive_blocks(name: str, *, size: int, extents: tuple[Extent, ...], block_bytes: int) -> Iterator[Block]:
    """Yield the archive of an image in blocks of `block_bytes`; the last one has the rest.

    Raises Rejected for a name that does not fit into a header.
    """
    length = data_bytes(extents)
    header = tar.header(name, size=size) if length == size else tar.sparse_header(name, size, extents)
    trailer = tar.trailer(length, header=len(header))
    return _split_into_blocks(header, extents, trailer, block_bytes)


def _split_into_blocks(
    header: bytes, extents: tuple[Extent, ...], trailer: bytes, size: int
) -> Iterator[Block]:
    while len(header) > size:
        yield Block(header[:size], (), b"")
        header = header[size:]
    before, pieces, room = header, list[Piece](), size - len(header)
    for extent in extents:
        offset, end = extent.offset, extent.offset + extent.length
        while offset < end:
            if not room:
                yield Block(before, tuple(pieces), b"")
                before, pieces, room = b"", [], size
            piece = Piece(offset, min(room, end - offset))
            pieces.append(piece)
            offset, room = offset + piece.length, room - piece.length
    yield Block(before, tuple(pieces), trailer[:room])
    for at in range(room, len(trailer), size):
        yield Block(trailer[at : at + size], (), b"")
