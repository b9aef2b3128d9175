"""The one-member tar archive inside a bundle: GNU format, with holes as old-GNU sparse, and read back.

This does not use `tarfile` of the standard library for reading: a reader of bundles must be stricter (one
member, nothing after it, no PAX), must keep holes, and sees the stream only once.

A header is one block of 512 bytes; the fields read here, by offset:

      0  name         100 bytes, NUL-padded
    124  size          12 bytes, of what the archive stores: octal text, or base-256 behind a byte of 0x80
    148  checksum       8 bytes, sum of the header's bytes with this field taken as blanks
    156  type           1 byte: "0" or NUL regular, "S" old-GNU sparse
    257  magic          8 bytes: "ustar  \\0" GNU, "ustar\\0" "00" POSIX
    345  prefix       155 bytes, POSIX only: a folder
    386  sparse map    4 entries of 12 bytes offset, 12 bytes length    } old-GNU sparse only; further
    482  extended       1 byte: another block of the map follows        } blocks hold 21 entries and the
    483  real size     12 bytes, with the holes                         } same flag at offset 504
"""

import re
import tarfile
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from uecwatchd.bundle.damage import Damaged
from uecwatchd.bundle.names import is_plain_name
from uecwatchd.errors import Rejected
from uecwatchd.images.digests import Digest
from uecwatchd.system.extents import Extent, data_bytes

BLOCK = 512
# Maximum number of entries in a map that is read: 16 MiB of them. We write fewer (`extents.MOST_EXTENTS`).
MAP_LIMIT = 1 << 20
RECORD = 20 * BLOCK  # the default blocking factor of tar: archives are padded to whole records
NAME_LIMIT = 100  # the name field in the header: a longer name needs a second member, which readers refuse

REGULAR = (b"0", b"\0")
SPARSE = b"S"
REFUSED_TYPES = {
    b"x": "a PAX header",
    b"g": "a PAX header",
    b"L": "a GNU long name",
    b"K": "a GNU long link",
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"5": "a directory",
}
_GNU_MAGIC = b"ustar  \0"
_POSIX_MAGIC = b"ustar\x0000"
_MAP_ENTRY = 24
_MAP_FIRST, _MAP_FURTHER = 4, 21  # entries in the header, and in each block that follows it
_OCTAL = re.compile(rb" *([0-7]+)[ \0]*")


@dataclass(frozen=True, slots=True)
class TarMember:
    """The single file in the archive: its size with holes, and its stored extents, in order."""

    name: str
    size: int
    extents: Iterable[Extent]


class SparseMap(Iterable[Extent]):
    """Extents of another tool's archive. There may be very many: each takes 16 bytes."""

    def __init__(self, extents: Iterable[Extent]) -> None:
        """Store the extents. Raises `Damaged` for impossible numbers."""
        self._numbers = array("Q")
        try:
            for extent in extents:
                self._numbers.extend((extent.offset, extent.length))
        except OverflowError:
            raise _wrong_sparse_map() from None

    def __iter__(self) -> Iterator[Extent]:
        numbers = iter(self._numbers)
        return map(Extent, numbers, numbers)


def header(name: str, *, size: int) -> bytes:
    """Return the 512 bytes before a regular member: mode 0644, no particular owner, dated 1970.

    Raises `Rejected` for a name that does not fit into this one header.
    """
    if not name.isascii() or not is_plain_name(name) or len(name) > NAME_LIMIT:
        why = f"as a name inside a bundle it is not plain ASCII of at most {NAME_LIMIT} characters"
        raise Rejected(name, why, "Rename the file.")
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


def sparse_header(name: str, size: int, extents: tuple[Extent, ...]) -> bytes:
    """Return the blocks before a member without its holes, in the old GNU format.

    `extents` begin at multiples of 512, and end at a multiple or at the end of the image. GNU tar stores each
    extent in whole blocks, and other tools store them without gaps: with these extents both are the same.
    Raises `Rejected` as `header` does.
    """
    stored = data_bytes(extents)
    if not extents or extents[-1].offset + extents[-1].length < size:
        extents = (*extents, Extent(size, 0))  # without it GNU tar would end the file after its last data
    first, rest = extents[:_MAP_FIRST], extents[_MAP_FIRST:]
    block = bytearray(header(name, size=stored))
    block[156:157] = SPARSE
    block[386 : 386 + _MAP_ENTRY * len(first)] = _entries(first)
    block[482] = bool(rest)
    block[483:495] = _field(size)
    block[148:156] = b"%06o\0 " % _sum_of(block)
    return b"".join((block, *_further_blocks(rest)))


def _further_blocks(extents: tuple[Extent, ...]) -> Iterator[bytes]:
    for at in range(0, len(extents), _MAP_FURTHER):
        more = at + _MAP_FURTHER < len(extents)
        yield _entries(extents[at : at + _MAP_FURTHER]).ljust(504, b"\0") + bytes([more]) + bytes(7)


def _entries(extents: tuple[Extent, ...]) -> bytes:
    return b"".join(_field(extent.offset) + _field(extent.length) for extent in extents)


def _field(number: int) -> bytes:
    """Return a number as GNU writes it in 12 bytes: octal below 8 GiB, then big-endian after 0x80."""
    return b"%011o\0" % number if number < 8**11 else b"\x80" + number.to_bytes(11)


def trailer(stored: int, *, header: int = BLOCK) -> bytes:
    """Return the end of an archive with `stored` bytes of image, as zeros.

    It fills the last block of the image, adds two empty blocks, and fills the record. `header` is the length
    of the headers.
    """
    used = header + _padded(stored) + 2 * BLOCK
    return bytes(_padded(stored) - stored + 2 * BLOCK + -used % RECORD)


class TarReader:
    """An archive that is read once, forward; all bytes go into its SHA-1."""

    def __init__(self, chunks: Iterator[bytes], sha1: Digest) -> None:
        self._chunks = chunks
        self._chunk = b""
        self._at = 0
        self._sha1 = sha1
        self._length = 0

    def take(self, count: int) -> Iterator[bytes]:
        """Yield exactly `count` bytes in pieces. Raises `Damaged` if the archive ends before."""
        while count:
            piece = self._piece(count)
            if not piece:
                raise Damaged("its archive ends before the image does")
            count -= len(piece)
            yield piece

    def block(self) -> bytes:
        return b"".join(self.take(BLOCK))

    def finish(self) -> str:
        """Read the zeros at the end, and return the SHA-1 in hex. Raises `Damaged` for anything else."""
        trailing = 0
        while piece := self._piece(RECORD):
            if piece.count(0) != len(piece):
                raise Damaged("its archive holds something after the image")
            trailing += len(piece)
        if trailing < 2 * BLOCK or self._length % BLOCK:
            raise Damaged("the end of its archive is cut off")
        return self._sha1.text()

    def _piece(self, limit: int) -> bytes:
        """Return the next bytes, at most `limit`; none at the end."""
        while self._at == len(self._chunk):
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._chunk, self._at = chunk, 0
            self._sha1.update(chunk)
            self._length += len(chunk)
        piece = self._chunk[self._at : self._at + limit]
        self._at += len(piece)
        return piece


def read_member(reader: TarReader) -> TarMember:
    """Read the header of the member, and its sparse map if it has one. Raises `Damaged`."""
    block = reader.block()
    _check_header(block)
    name, stored = _name(block), _number(block[124:136])
    if block[156:157] != SPARSE:
        return TarMember(name, stored, (Extent(0, stored),))
    size, extents = _number(block[483:495]), SparseMap(_sparse_map(block, reader))
    _check_map(extents, stored=stored, size=size)
    return TarMember(name, size, extents)


def _check_header(block: bytes) -> None:
    if block[257:265] not in (_GNU_MAGIC, _POSIX_MAGIC) or _number(block[148:156]) != _sum_of(block):
        raise Damaged("there is no tar archive inside")
    kind = block[156:157]
    if kind in REGULAR or (kind == SPARSE and block[257:265] == _GNU_MAGIC):
        return
    found = REFUSED_TYPES.get(kind, f"a member of type {kind!r}")
    raise Damaged(f"its archive begins with {found}, not with a regular file")


def _sum_of(block: bytes | bytearray) -> int:
    return sum(block[:148]) + 8 * ord(" ") + sum(block[156:])


def _name(block: bytes) -> str:
    raw = block[:NAME_LIMIT].partition(b"\0")[0]
    folder = block[257:265] == _POSIX_MAGIC and block[345] != 0
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise Damaged(f"the name in its archive is not text: {raw!r}") from None
    if folder or not is_plain_name(name) or name.startswith("."):
        raise Damaged(f"the name in its archive is not a plain file name: {name!r}")
    return name


def _number(field: bytes) -> int:
    """Parse a number in a header: octal text, or big-endian base-256, which GNU uses from 8 GiB on."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:])
    if (octal := _OCTAL.fullmatch(field)) is None:
        raise Damaged("its archive's header holds something that is not a number")
    return int(octal[1], 8)


def _sparse_map(block: bytes, reader: TarReader) -> Iterator[Extent]:
    yield from _map_entries(block[386:482])
    extended, blocks = block[482], 0
    while extended:
        blocks += 1
        if blocks * _MAP_FURTHER > MAP_LIMIT:
            raise Damaged(f"its archive's sparse map has more than {MAP_LIMIT} entries")
        block = reader.block()
        yield from _map_entries(block[:504])
        extended = block[504]


def _map_entries(fields: bytes) -> Iterator[Extent]:
    """Yield the entries before the first unused one, which is all NULs."""
    for at in range(0, len(fields), _MAP_ENTRY):
        if not fields[at]:
            return
        yield Extent(_number(fields[at : at + 12]), _number(fields[at + 12 : at + _MAP_ENTRY]))


def _check_map(extents: Iterable[Extent], *, stored: int, size: int) -> None:
    end = 0
    for extent in extents:
        if extent.offset < end:
            raise Damaged("its archive's sparse map runs backwards")
        end = extent.offset + extent.length
    if end > size or data_bytes(extents) != stored:
        raise _wrong_sparse_map()


def _wrong_sparse_map() -> Damaged:
    return Damaged("its archive's sparse map does not fit the sizes beside it")


def _padded(size: int) -> int:
    return size + -size % BLOCK
