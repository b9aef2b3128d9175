"""VMDK, the format of VMware, where one file is the whole disk: monolithicSparse and streamOptimized.

Source: VMware, Virtual Disk Format 1.1 (2007). All numbers are little-endian, all places are sectors of 512
bytes. After the header comes a descriptor, a text that lists the files of the disk, and then the map: a grain
directory has the places of grain tables, each with 512 entries, and an entry is the place of a grain, which
is 64 KiB by default. An entry of 0 means zeros, and so does 1 if the header says so.

A streamOptimized image is written in one go, for a download: each grain is a marker (its place on the disk,
its length in the file) followed by a zlib stream. It ends with a footer, a second header. The place of the
grain directory is known only there: the first header then has -1.

The descriptor can name any file of the host as a part of the disk, or as its parent. No name in it is ever
used: an image is read only if it has one extent, a sparse one, and no parent, so the extent is the file
itself. A descriptor alone has its disk elsewhere, and is refused.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from uecwatchd.errors import Rejected
from uecwatchd.images.file_facts import SECTOR_BYTES
from uecwatchd.images.formats.block_map import PAGE_ENTRIES, Run
from uecwatchd.images.formats.container_file import ContainerFile
from uecwatchd.images.formats.decompress import ZLIB, Compression
from uecwatchd.images.formats.tables import little_endian
from uecwatchd.system.text import shorten

MAGIC = b"KDMV"
HEADER_BYTES = 512
VERSIONS = (1, 2, 3)  # 2 can mark grains as zero, 3 counts changes for backups: a reader sees no difference
HAS_ZERO_GRAINS, IS_COMPRESSED, HAS_MARKERS = 1 << 2, 1 << 16, 1 << 17
DEFLATE = 1
AT_END = (1 << 64) - 1  # place of the grain directory, where it is in the footer
FOOTER_MARKER, END_MARKER = 3, 0
TABLE_ENTRIES = 512
TABLES_PER_PAGE = PAGE_ENTRIES // TABLE_ENTRIES
# Above 4 KiB says the specification, and qemu-img makes 64 KiB. The upper limit is for the memory of readers.
MIN_GRAIN_SECTORS, MAX_GRAIN_SECTORS = 8, 16384
MAX_DESCRIPTOR_BYTES = 1024 * 1024  # as QEMU; usual is 10 KiB
ZERO_GRAIN = 1
MARKER = struct.Struct("<QI")  # sector on the disk, length of the stream that follows
# A grain that cannot be compressed grows by less than this: 5 bytes for each 16 KiB, header and checksum.
MOST_GROWTH = 1024

EXTENT_LINE = re.compile(r"^[ \t]*(RW|RDONLY|NOACCESS)[ \t]+\d+[ \t]+(\w+)", re.MULTILINE)
PARENT_LINE = re.compile(r"^[ \t]*parentCID[ \t]*=[ \t]*(\S+)", re.MULTILINE)
NO_PARENT = "ffffffff"


@dataclass(frozen=True, slots=True)
class VmdkHeader:
    """Fields of a header or footer that a reader needs. Places in sectors."""

    version: int
    flags: int
    capacity: int  #: sectors of the disk
    grain_sectors: int
    descriptor_place: int
    descriptor_sectors: int
    table_entries: int
    directory_place: int
    compression: int

    @property
    def tables(self) -> int:
        """Number of grain tables that the disk needs."""
        return -(-self.capacity // (self.grain_sectors * TABLE_ENTRIES))

    @classmethod
    def of(cls, data: bytes) -> "VmdkHeader":
        version, flags, capacity, grain, descriptor, sectors, entries = struct.unpack_from("<4xIIQQQQI", data)
        (directory,), (compression,) = struct.unpack_from("<Q", data, 56), struct.unpack_from("<H", data, 77)
        return cls(version, flags, capacity, grain, descriptor, sectors, entries, directory, compression)


@dataclass(frozen=True, slots=True)
class VmdkMap:
    """The map of a VMDK. A page of it is some grain tables."""

    file: ContainerFile
    header: VmdkHeader

    @property
    def size(self) -> int:
        return self.header.capacity * SECTOR_BYTES

    @property
    def block_bytes(self) -> int:
        return self.header.grain_sectors * SECTOR_BYTES

    @property
    def page_bytes(self) -> int:
        return PAGE_ENTRIES * self.block_bytes

    @property
    def compression(self) -> Compression | None:
        return ZLIB if self.header.compression else None

    def runs(self, page: int, /) -> Iterator[Run]:
        first = page * TABLES_PER_PAGE
        count = min(TABLES_PER_PAGE, self.header.tables - first)
        place = self.header.directory_place * SECTOR_BYTES + 4 * first
        directory = little_endian("I", self.file.read(place, 4 * count, "its grain directory"))
        for index, table in enumerate(directory, first):
            if table:
                yield from self._runs_of_table(table, index * TABLE_ENTRIES * self.block_bytes)

    def _runs_of_table(self, table: int, first: int) -> Iterator[Run]:
        """Yield the runs of one grain table; `first` is the place of its first grain on the disk."""
        data = self.file.read(table * SECTOR_BYTES, 4 * TABLE_ENTRIES, "a grain table")
        has_zero_grains, step = self.header.flags & HAS_ZERO_GRAINS, self.block_bytes
        for start, sector in zip(range(first, self.size, step), little_endian("I", data), strict=False):
            if not sector or (sector == ZERO_GRAIN and has_zero_grains):
                continue
            place = sector * SECTOR_BYTES
            yield self._compressed_run(start, place) if self.header.compression else Run(start, step, place)

    def _compressed_run(self, start: int, place: int) -> Run:
        sector, length = MARKER.unpack(self.file.read(place, MARKER.size, "a compressed grain"))
        if sector * SECTOR_BYTES != start:
            raise self.file.damaged(f"the marker of the grain at byte {start} of its disk is another grain's")
        if not 0 < length <= self.block_bytes + MOST_GROWTH:
            raise self.file.damaged(f"the grain at byte {start} of its disk claims {length} bytes")
        return Run(start, self.block_bytes, place + MARKER.size, stored=length)


def open_vmdk(file: ContainerFile) -> VmdkMap:
    """Return the map of a VMDK. Raises Rejected for one that cannot be used, OSError."""
    header = VmdkHeader.of(file.read(0, HEADER_BYTES, "its header"))
    _check_descriptor(file, header)
    if header.directory_place == AT_END:
        header = _read_footer(file)
    _check_header(file, header)
    return VmdkMap(file, header)


def refuse_descriptor(file: ContainerFile) -> Rejected:
    """Return the error for a descriptor without a disk."""
    return file.refuse_unless_converted(
        "it is only the descriptor of a VMDK, and its disk is in other files", when=" where all its files are"
    )


def _check_descriptor(file: ContainerFile, header: VmdkHeader) -> None:
    """Raise Rejected unless the descriptor says that this file is the whole disk."""
    text = _read_descriptor(file, header)
    if "parentfilenamehint" in text.lower() or _parent(text) != NO_PARENT:
        raise file.refuse_unless_converted(
            "it has a parent, where a part of its disk is", when=" where its parent is"
        )
    found = EXTENT_LINE.findall(text)
    if len(found) != 1:
        raise file.refuse_unless_converted(
            f"its descriptor has {len(found)} extents instead of one", when=" where all its files are"
        )
    access, kind = found[0]
    if kind != "SPARSE" or access == "NOACCESS":
        raise file.refuse_unless_converted(
            f"its extent is {shorten(f'{access} {kind}')}, and not in this file",
            when=" where all its files are",
        )


def _read_descriptor(file: ContainerFile, header: VmdkHeader) -> str:
    length = header.descriptor_sectors * SECTOR_BYTES
    if not header.descriptor_place or not length:
        raise file.refuse_unless_converted(
            "it has no descriptor: it is one of several files of a disk", when=" with the disk's descriptor"
        )
    if length > MAX_DESCRIPTOR_BYTES:
        raise file.damaged(f"its header says that its descriptor has {length} bytes")
    data = file.read(header.descriptor_place * SECTOR_BYTES, length, "its descriptor")
    return data.partition(b"\0")[0].decode("latin-1")


def _parent(text: str) -> str:
    found = PARENT_LINE.findall(text)
    return found[0].lower() if len(found) == 1 else ""


def _read_footer(file: ContainerFile) -> VmdkHeader:
    """Return the second header, which has the place of the map. It is between two markers, at the end."""
    place = file.size // SECTOR_BYTES * SECTOR_BYTES - 3 * SECTOR_BYTES
    if place < HEADER_BYTES:
        raise file.truncated("its footer", HEADER_BYTES + 3 * SECTOR_BYTES)
    data = file.read(place, 3 * SECTOR_BYTES, "its footer")
    marker, footer, end = (data[at : at + SECTOR_BYTES] for at in range(0, len(data), SECTOR_BYTES))
    is_marked = struct.unpack_from("<8xII", marker) == (0, FOOTER_MARKER)
    is_end = struct.unpack_from("<QII", end) == (0, 0, END_MARKER)
    if not (is_marked and is_end and footer.startswith(MAGIC)):
        raise file.refuse(
            "it has no footer, which a stream ends with: it is truncated or damaged",
            "Copy it again: the end is missing.",
        )
    header = VmdkHeader.of(footer)
    if header.directory_place == AT_END:
        raise file.damaged("its footer does not say where its map is")
    return header


def _check_header(file: ContainerFile, header: VmdkHeader) -> None:
    if header.version not in VERSIONS:
        raise file.refuse_unless_converted(f"its version {header.version} is not known here")
    grain = header.grain_sectors
    if not MIN_GRAIN_SECTORS <= grain <= MAX_GRAIN_SECTORS or grain & (grain - 1):
        raise file.damaged(f"its header says that a grain has {grain} sectors")
    if header.table_entries != TABLE_ENTRIES:
        raise file.damaged(f"its header says that a grain table has {header.table_entries} entries")
    _check_compression(file, header)
    file.check_disk_size(header.capacity * SECTOR_BYTES)
    if not header.directory_place:
        raise file.damaged("its header has no place for the grain directory")
    file.check_end(header.directory_place * SECTOR_BYTES + 4 * header.tables, "its grain directory")


def _check_compression(file: ContainerFile, header: VmdkHeader) -> None:
    if header.compression not in (0, DEFLATE):
        raise file.refuse_unless_converted(f"its compression {header.compression} is not known here")
    marks = IS_COMPRESSED | HAS_MARKERS
    if header.flags & marks != (marks if header.compression else 0):
        raise file.damaged("its header contradicts itself about the compression")
