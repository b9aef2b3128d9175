"""VHD, the format of Virtual PC and of the first Hyper-V: fixed and dynamic.

Source: Microsoft, Virtual Hard Disk Image Format Specification 1.0 (2006). All numbers are big-endian. A
fixed VHD is the raw disk with a footer of 512 bytes at its end; the earliest programs wrote 511. A dynamic
one begins with a copy of the footer, and a header with the place of the map: for each block, 2 MiB by
default, its first sector in the file, or -1 for zeros. A block begins with a bitmap of its sectors. It is of
use only in a differencing VHD, which is refused; QEMU and VirtualBox take all sectors from a block that is
there.

The size of the disk is in the footer twice: in bytes, and as cylinders, heads and sectors, which is less,
by up to a cylinder. What counts depends on the program that made it. Virtual PC and Virtual Server give the
guest what the cylinders make, and so does QEMU, unless it had to keep the size: then it signs as "qem2".
All others count bytes: Hyper-V, Azure, disk2vhd, XenServer, VirtualBox. (QEMU does not know VirtualBox's
signature, and cuts the end of its disks off.) The largest geometry, 127 GiB, means that it could not be
larger: there, bytes count for everybody.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from uecwatchd.images.file_facts import SECTOR_BYTES
from uecwatchd.images.formats.block_map import PAGE_ENTRIES, Run
from uecwatchd.images.formats.container_file import ContainerFile
from uecwatchd.images.formats.tables import big_endian

MAGIC, HEADER_MAGIC = b"conectix", b"cxsparse"
FOOTER_BYTES, SHORT_FOOTER_BYTES, HEADER_BYTES = 512, 511, 1024
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
NOT_STORED = 0xFFFF_FFFF
CREATORS_BY_GEOMETRY = (b"vpc ", b"vs  ", b"qemu")
LARGEST_GEOMETRY = 65535 * 16 * 255  # sectors
# The specification's default is 2 MiB, and Virtual PC also made 512 KiB.
MIN_BLOCK_BYTES, MAX_BLOCK_BYTES = 64 * 1024, 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class VhdFooter:
    """Fields of a footer that a reader needs."""

    header_place: int
    disk_bytes: int
    kind: int

    @classmethod
    def of(cls, file: ContainerFile, data: bytes) -> "VhdFooter":
        """Parse a footer. Raises Rejected if its checksum is wrong."""
        _check_sum(file, data, at=64, what="footer")
        (place,), creator = struct.unpack_from(">Q", data, 16), data[28:32]
        size, cylinders, heads, sectors, kind = struct.unpack_from(">QHBBI", data, 48)
        geometry = cylinders * heads * sectors
        if creator in CREATORS_BY_GEOMETRY and geometry != LARGEST_GEOMETRY:
            size = geometry * SECTOR_BYTES
        return cls(place, size, kind)


@dataclass(frozen=True, slots=True)
class FixedVhdMap:
    """The map of a fixed VHD: the disk is the start of the file, in one piece."""

    size: int
    compression: None = None

    @property
    def block_bytes(self) -> int:
        return self.size

    @property
    def page_bytes(self) -> int:
        return self.size

    def runs(self, page: int, /) -> Iterator[Run]:
        del page
        yield Run(0, self.size, 0)


@dataclass(frozen=True, slots=True)
class VhdMap:
    """The map of a dynamic VHD. A page of it is a part of the table."""

    file: ContainerFile
    size: int
    block_bytes: int
    map_place: int
    compression: None = None

    @property
    def page_bytes(self) -> int:
        return PAGE_ENTRIES * self.block_bytes

    @property
    def bitmap_bytes(self) -> int:
        """Length of the bitmap before each block: a bit for each sector, in whole sectors."""
        return -(-self.block_bytes // (SECTOR_BYTES * 8 * SECTOR_BYTES)) * SECTOR_BYTES

    def runs(self, page: int, /) -> Iterator[Run]:
        first = page * PAGE_ENTRIES
        count = min(PAGE_ENTRIES, -(-self.size // self.block_bytes) - first)
        data = self.file.read(self.map_place + 4 * first, 4 * count, "its map")
        for index, sector in enumerate(big_endian("I", data), first):
            if sector != NOT_STORED:
                place = sector * SECTOR_BYTES + self.bitmap_bytes
                yield Run(index * self.block_bytes, self.block_bytes, place)


def find_footer(file: ContainerFile) -> int | None:
    """Return the place of the footer at the end of a file, None if there is none."""
    for length in (FOOTER_BYTES, SHORT_FOOTER_BYTES):
        place = file.size - length
        if place >= 0 and file.read(place, len(MAGIC), "its end") == MAGIC:
            return place
    return None


def open_vhd(file: ContainerFile) -> FixedVhdMap | VhdMap:
    """Return the map of a VHD. Raises Rejected for one that cannot be used, OSError."""
    place = find_footer(file)
    if file.read_start(len(MAGIC)) == MAGIC:
        return _open_dynamic(file, VhdFooter.of(file, file.read(0, FOOTER_BYTES, "its header")), place)
    if place is None:
        raise file.damaged("it has no footer")
    footer = VhdFooter.of(file, file.read(place, file.size - place, "its footer"))
    _check_kind(file, footer, FIXED)
    file.check_disk_size(footer.disk_bytes)
    if footer.disk_bytes > place:
        raise file.truncated("its disk", footer.disk_bytes + FOOTER_BYTES)
    return FixedVhdMap(footer.disk_bytes)


def _open_dynamic(file: ContainerFile, footer: VhdFooter, end: int | None) -> VhdMap:
    _check_kind(file, footer, DYNAMIC)
    if end is None:
        raise file.refuse(
            "it is truncated: the footer at its end is missing", "Copy it again: the end is missing."
        )
    header = file.read(footer.header_place, HEADER_BYTES, "its second header")
    _check_sum(file, header, at=36, what="second header")
    map_place, _version, entries, block = struct.unpack_from(">QIII", header, 16)
    if not header.startswith(HEADER_MAGIC):
        raise file.damaged("its second header is not one")
    if not MIN_BLOCK_BYTES <= block <= MAX_BLOCK_BYTES or block & (block - 1):
        raise file.damaged(f"its header says that a block has {block} bytes")
    file.check_disk_size(footer.disk_bytes)
    if entries * block < footer.disk_bytes:
        raise file.damaged("its map is too short for its disk")
    file.check_end(map_place + 4 * entries, "its map")
    return VhdMap(file, footer.disk_bytes, block, map_place)


def _check_kind(file: ContainerFile, footer: VhdFooter, expected: int) -> None:
    if footer.kind == DIFFERENCING:
        raise file.refuse_unless_converted(
            "it is a differencing VHD, and a part of its disk is elsewhere", when=" where its parent is"
        )
    if footer.kind != expected:
        raise file.damaged(f"its footer has type {footer.kind} instead of {expected}")


def _check_sum(file: ContainerFile, data: bytes, *, at: int, what: str) -> None:
    """Check the one's complement of the sum of all other bytes."""
    (found,) = struct.unpack_from(">I", data, at)
    if found != ~(sum(data) - sum(data[at : at + 4])) & 0xFFFF_FFFF:
        raise file.damaged(f"the checksum of its {what} is wrong")
