"""VDI, the format of VirtualBox.

Source: VirtualBox, src/VBox/Storage/VDICore.h; the header is the same since version 1.1 (2006). All numbers
are little-endian. After 64 bytes of text for people comes the header. The map is one table: for each block of
the disk, 1 MiB by default, the number of a block in the file, or two values that mean zeros: -1 for one
that was never written, -2 for one that was discarded. A static image is the same, with all blocks in place.

A differencing image belongs to a parent, which it names by its UUID.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from uecwatchd.images.file_facts import SECTOR_BYTES
from uecwatchd.images.formats.block_map import PAGE_ENTRIES, Run
from uecwatchd.images.formats.container_file import ContainerFile
from uecwatchd.images.formats.tables import little_endian

MAGIC_AT, MAGIC = 0x40, b"\x7f\x10\xda\xbe"
HEADER_BYTES = 0x1C8
VERSION = 0x0001_0001
DYNAMIC, STATIC = 1, 2
TYPES_REFUSED = {3: "an undo image", 4: "a differencing image"}
NO_UUID = bytes(16)
FIRST_WITHOUT_PLACE = 0xFFFF_FFFE  # discarded; the next, and last, is one that was never written
# VirtualBox makes 1 MiB. Smaller ones would only serve to make the map long.
MIN_BLOCK_BYTES, MAX_BLOCK_BYTES = 64 * 1024, 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class VdiHeader:
    """Fields of the header that a reader needs. Sizes and places in bytes."""

    version: int
    kind: int
    map_place: int
    data_place: int
    sector_bytes: int
    disk_bytes: int
    block_bytes: int
    extra_bytes: int  #: before each block
    blocks: int
    link: bytes  #: UUID of the parent, and of its last state
    parent: bytes

    @classmethod
    def of(cls, data: bytes) -> "VdiHeader":
        version, kind = struct.unpack_from("<I4xI", data, 0x44)
        places = struct.unpack_from("<II12xI4xQIIII", data, 0x154)
        map_place, data_place, sector, disk, block, extra, blocks, _allocated = places
        link, parent = data[0x1A8:0x1B8], data[0x1B8:0x1C8]
        return cls(version, kind, map_place, data_place, sector, disk, block, extra, blocks, link, parent)


@dataclass(frozen=True, slots=True)
class VdiMap:
    """The map of a VDI. A page of it is a part of the table."""

    file: ContainerFile
    size: int
    block_bytes: int
    map_place: int
    data_place: int
    compression: None = None

    @property
    def page_bytes(self) -> int:
        return PAGE_ENTRIES * self.block_bytes

    def runs(self, page: int, /) -> Iterator[Run]:
        first = page * PAGE_ENTRIES
        count = min(PAGE_ENTRIES, -(-self.size // self.block_bytes) - first)
        data = self.file.read(self.map_place + 4 * first, 4 * count, "its map")
        for index, number in enumerate(little_endian("I", data), first):
            if number < FIRST_WITHOUT_PLACE:
                place = self.data_place + number * self.block_bytes
                yield Run(index * self.block_bytes, self.block_bytes, place)


def open_vdi(file: ContainerFile) -> VdiMap:
    """Return the map of a VDI. Raises Rejected for a header that cannot be used, OSError."""
    header = VdiHeader.of(file.read(0, HEADER_BYTES, "its header"))
    if header.version != VERSION:
        raise file.refuse_unless_converted(f"its version {header.version:#x} is not known here")
    if header.kind not in (DYNAMIC, STATIC) or header.link != NO_UUID or header.parent != NO_UUID:
        what = TYPES_REFUSED.get(header.kind, "an image with a parent")
        raise file.refuse_unless_converted(
            f"it is {what}, and a part of its disk is elsewhere", when=" where its parent is"
        )
    _check_layout(file, header)
    size = -(-header.disk_bytes // SECTOR_BYTES) * SECTOR_BYTES  # an odd rest is a sector, as for QEMU
    file.check_disk_size(size)
    if header.blocks * header.block_bytes < size:
        raise file.damaged("its map is too short for its disk")
    file.check_end(header.map_place + 4 * header.blocks, "its map")
    return VdiMap(file, size, header.block_bytes, header.map_place, header.data_place)


def _check_layout(file: ContainerFile, header: VdiHeader) -> None:
    block = header.block_bytes
    if not MIN_BLOCK_BYTES <= block <= MAX_BLOCK_BYTES or block & (block - 1):
        raise file.damaged(f"its header says that a block has {block} bytes")
    if header.sector_bytes != SECTOR_BYTES or header.extra_bytes:
        raise file.refuse_unless_converted("its blocks have a layout that is not known here")
    if header.map_place % SECTOR_BYTES or header.data_place % SECTOR_BYTES:
        raise file.damaged("its header has a place that is inside a sector")
