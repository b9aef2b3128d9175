"""VHDX, the format of Hyper-V: fixed and dynamic.

Source: Microsoft, [MS-VHDX] 8.0. All numbers are little-endian. Everything that a crash could leave half
written exists twice or has a checksum, CRC-32C:

    0         "vhdxfile"
    64 KiB    header, and a second one at 128 KiB: the valid one with the higher sequence number counts
    192 KiB   table of regions, and a copy at 256 KiB: it says where the map and the metadata are
    1 MiB     log, map, metadata and blocks, each at a multiple of 1 MiB

The metadata has the size of the disk, of its sectors (512 or 4096) and of its blocks (1 to 256 MiB); it has
no checksum of its own. The map has an entry for each block: three bits of state, and its place in MiB. Blocks
are in chunks of 2^23 sectors, and after the entries of each chunk comes one for a bitmap, which only a
differencing VHDX uses.

A log that is not empty means that its program was interrupted: some blocks of the file are only in the log.
Its own program brings them home when it opens the image, so that one is refused until then.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID

from uecwatchd.images.file_facts import SECTOR_BYTES
from uecwatchd.images.formats.block_map import PAGE_ENTRIES, Run
from uecwatchd.images.formats.container_file import ContainerFile
from uecwatchd.images.formats.crc32c import crc32c
from uecwatchd.images.formats.tables import little_endian

KIB, MIB = 1024, 1024 * 1024
MAGIC = b"vhdxfile"
HEADER_PLACES, HEADER_BYTES, HEADER_MAGIC = (64 * KIB, 128 * KIB), 4 * KIB, b"head"
REGION_PLACES, REGION_BYTES, REGION_MAGIC = (192 * KIB, 256 * KIB), 64 * KIB, b"regi"
METADATA_BYTES, METADATA_MAGIC = 64 * KIB, b"metadata"
MAX_REGIONS = MAX_ITEMS = 2047  # as the specification says
MAX_ITEM_BYTES = MIB
VERSION = 1
NO_LOG = bytes(16)

MAP_REGION = UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
METADATA_REGION = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
FILE_PARAMETERS = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
DISK_SIZE = UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
SECTOR_SIZE = UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f")
NEEDED_ITEMS = {FILE_PARAMETERS: 8, DISK_SIZE: 8, SECTOR_SIZE: 4}  # and their length in bytes
OTHER_ITEMS = {
    UUID("beca12ab-b2e6-4523-93ef-c309e000c746"),  # identity for SCSI
    UUID("cda348c7-445d-4471-9cc9-e9885251c556"),  # size of a physical sector
    UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c"),  # where the parent is: such an image is refused
}
HAS_PARENT = 2  # bit of the file parameters
ITEM_IS_REQUIRED = 4

CHUNK_SECTORS = 1 << 23
STATES_OF_ZEROS = (0, 1, 2, 3)  # not present, undefined, zero, unmapped
FULLY_PRESENT = 6  # 7, partially present, is one of a differencing image
STATE_BITS, PLACE_AT = 7, 20
ENTRY_BYTES = 8


@dataclass(frozen=True, slots=True)
class VhdxRegion:
    """A stretch of the file, in bytes."""

    place: int
    length: int


@dataclass(frozen=True, slots=True)
class VhdxMap:
    """The map of a VHDX. A page of it has the entries of one chunk."""

    file: ContainerFile
    size: int
    block_bytes: int
    chunk_bytes: int
    map_place: int
    compression: None = None

    @property
    def page_bytes(self) -> int:
        return min(self.chunk_bytes, PAGE_ENTRIES * self.block_bytes)

    def runs(self, page: int, /) -> Iterator[Run]:
        of_a_page = self.page_bytes // self.block_bytes
        first = page * of_a_page
        count = min(of_a_page, -(-self.size // self.block_bytes) - first)
        bitmaps_before = page * self.page_bytes // self.chunk_bytes
        place = self.map_place + (first + bitmaps_before) * ENTRY_BYTES
        entries = little_endian("Q", self.file.read(place, count * ENTRY_BYTES, "its map"))
        for index, entry in enumerate(entries, first):
            state = entry & STATE_BITS
            if state == FULLY_PRESENT:
                yield Run(index * self.block_bytes, self.block_bytes, self._place(entry))
            elif state not in STATES_OF_ZEROS:
                raise self.file.damaged(f"its map has a block in state {state}")

    def _place(self, entry: int) -> int:
        place = entry >> PLACE_AT << PLACE_AT
        if not place:
            raise self.file.damaged("its map has a block in the place of the headers")
        return place


def open_vhdx(file: ContainerFile) -> VhdxMap:
    """Return the map of a VHDX. Raises Rejected for one that cannot be used, OSError."""
    _check_log(file)
    regions = _read_regions(file)
    items = _read_metadata(file, regions[METADATA_REGION])
    block, flags = struct.unpack("<II", items[FILE_PARAMETERS])
    (size,), (sector,) = struct.unpack("<Q", items[DISK_SIZE]), struct.unpack("<I", items[SECTOR_SIZE])
    if flags & HAS_PARENT:
        raise file.refuse_unless_converted(
            "it is a differencing VHDX, and a part of its disk is elsewhere", when=" where its parent is"
        )
    if not MIB <= block <= 256 * MIB or block & (block - 1):
        raise file.damaged(f"its metadata says that a block has {block} bytes")
    if sector not in (SECTOR_BYTES, 4096):
        raise file.damaged(f"its metadata says that a sector has {sector} bytes")
    file.check_disk_size(size)
    if size % sector:
        raise file.damaged("its disk ends inside a sector")
    chunk = CHUNK_SECTORS * sector
    entries = -(-size // block) + (size - 1) // chunk
    if entries * ENTRY_BYTES > regions[MAP_REGION].length:
        raise file.damaged("its map is too short for its disk")
    return VhdxMap(file, size, block, chunk, regions[MAP_REGION].place)


def _check_log(file: ContainerFile) -> None:
    """Raise Rejected if the current header is damaged, or says that the log is in use."""
    headers = [file.read(place, HEADER_BYTES, "its header") for place in HEADER_PLACES]
    valid = [data for data in headers if data.startswith(HEADER_MAGIC) and _has_right_sum(data)]
    if not valid:
        raise file.damaged("both of its headers are damaged")
    current = max(valid, key=lambda data: struct.unpack_from("<Q", data, 8))
    (version,) = struct.unpack_from("<H", current, 66)
    if version != VERSION:
        raise file.refuse_unless_converted(f"its version {version} is not known here")
    if current[48:64] != NO_LOG:
        raise file.refuse(
            "its log is in use: its program was interrupted, and a part of its disk is only in the log",
            "Open it once in its own program and close it properly, then copy it again.",
        )


def _read_regions(file: ContainerFile) -> Mapping[UUID, VhdxRegion]:
    tables = (file.read(place, REGION_BYTES, "its table of regions") for place in REGION_PLACES)
    data = next((data for data in tables if data.startswith(REGION_MAGIC) and _has_right_sum(data)), None)
    if data is None:
        raise file.damaged("both of its tables of regions are damaged")
    regions: dict[UUID, VhdxRegion] = {}
    (count,) = struct.unpack_from("<I", data, 8)
    for at in range(16, 16 + 32 * min(count, MAX_REGIONS), 32):
        name = UUID(bytes_le=data[at : at + 16])
        place, length, is_required = struct.unpack_from("<QII", data, at + 16)
        if name not in (MAP_REGION, METADATA_REGION):
            if is_required & 1:
                raise file.refuse_unless_converted(f"it needs a region that is not known here ({name})")
            continue
        if name in regions or place < MIB or place % MIB:
            raise file.damaged("its table of regions has an impossible place")
        file.check_end(place + length, "its map" if name == MAP_REGION else "its metadata")
        regions[name] = VhdxRegion(place, length)
    if len(regions) != 2:
        raise file.damaged("its table of regions lacks the map or the metadata")
    return regions


def _read_metadata(file: ContainerFile, region: VhdxRegion) -> Mapping[UUID, bytes]:
    data = file.read(region.place, METADATA_BYTES, "its metadata")
    (count,) = struct.unpack_from("<H", data, 10)
    if not data.startswith(METADATA_MAGIC) or count > MAX_ITEMS:
        raise file.damaged("its metadata is damaged")
    items: dict[UUID, bytes] = {}
    for at in range(32, 32 + 32 * count, 32):
        name = UUID(bytes_le=data[at : at + 16])
        place, length, flags = struct.unpack_from("<III", data, at + 16)
        if length_needed := NEEDED_ITEMS.get(name):
            if length != length_needed or name in items or place + length > region.length:
                raise file.damaged("its metadata has an impossible item")
            items[name] = file.read(region.place + place, length, "its metadata")
        elif name not in OTHER_ITEMS and flags & ITEM_IS_REQUIRED:
            raise file.refuse_unless_converted(f"it needs metadata that is not known here ({name})")
    if len(items) != len(NEEDED_ITEMS):
        raise file.damaged("its metadata lacks the size of its disk, its blocks or its sectors")
    return items


def _has_right_sum(data: bytes) -> bool:
    """Return whether the CRC-32C of a structure is right. It is computed with zeros in its own place."""
    found = int.from_bytes(data[4:8], "little")
    return crc32c(data[:4] + bytes(4) + data[8:]) == found
