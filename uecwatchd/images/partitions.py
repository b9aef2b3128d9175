"""Partition tables: the old one of the PC (MBR) and the one of UEFI (GPT).

A table is untrusted. Its checksums are checked, every number is compared with the size of the disk, and the
work is limited whatever it says: a chain of logical partitions may be a circle, and a GPT may claim billions
of entries. What cannot be used is reported as a sentence.

Formats: UEFI specification 2.10, chapter 5; logical partitions as Linux reads them, block/partitions/msdos.c.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from uecwatchd.errors import Rejected
from uecwatchd.images.block_source import BlockSource, read_exactly
from uecwatchd.images.file_facts import SECTOR_BYTES
from uecwatchd.system.text import format_size

MBR_MAGIC_AT, MBR_MAGIC = 0x1FE, b"\x55\xaa"
MBR_ENTRIES_AT = 0x1BE
BOOT_CODE_BYTES = 440  # before the disk's signature and the entries
ENTRY = struct.Struct("<B3sB3sII")  # state, CHS, type, CHS, first sector, number of sectors
PROTECTIVE = 0xEE  # the whole disk, for programs that do not know GPT
EXTENDED = frozenset({0x05, 0x0F, 0x85})  # a chain of logical partitions
MAX_PARTITIONS = 128  # looked at: a GPT reserves space for this number
MAX_LOGICAL = 128  # Linux numbers no more partitions on a disk of virtio

GPT_MAGIC = b"EFI PART"
# Magic, revision, size of the header, its sum, zero, its place, the backup's, first and last usable sector,
# the disk's GUID, place of the entries, their number, size of one, their sum.
GPT_HEADER = struct.Struct("<8sIII4xQQQQ16sQIII")
GPT_ENTRY = struct.Struct("<16s16sQQQ72s")  # type, own GUID, first and last sector, attributes, name
GPT_SECTORS = (SECTOR_BYTES, 4096)
MAX_GPT_BYTES = 1 << 20  # of entries; every partitioner makes 16 KiB
LEGACY_BOOT = 1 << 2  # the attribute for a BIOS
COPY_AGAIN = "Copy the image again; if it stays so, repair its partition table with gdisk or sfdisk."

Scheme = Literal["mbr", "gpt"]


@dataclass(frozen=True, slots=True)
class MbrEntry:
    """One of the four entries of an MBR, or one of a logical partition. Start and length in sectors."""

    state: int
    type: int
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Partition:
    """A stretch of a disk with a use. Start and size in bytes."""

    number: int  #: as Linux counts: logical partitions begin with 5
    start: int
    size: int
    type: str  #: two hex digits in an MBR, a GUID in a GPT
    is_bootable: bool
    name: str = ""  #: only in a GPT
    uuid: str = ""  #: as in PARTUUID=


@dataclass(frozen=True, slots=True)
class PartitionTable:
    """The partitions of a disk. `remark` names a mistake in a table that can still be used."""

    scheme: Scheme
    partitions: tuple[Partition, ...]
    has_boot_code: bool  #: the first sector is a program, which a BIOS starts
    remark: str = ""


class BadPartitionTable(Rejected):
    """A partition table that cannot be used."""

    def __init__(self, why: str) -> None:
        super().__init__("the partition table cannot be used", why, COPY_AGAIN)


def read_partitions(source: BlockSource) -> PartitionTable | None:
    """Return the partition table of a disk; None if it has none, such as a bare file system.

    Raises BadPartitionTable, OSError.
    """
    sector = read_exactly(source, 0, SECTOR_BYTES)
    entries = mbr_entries(sector)
    has_code = bool(entries) and any(sector[:BOOT_CODE_BYTES])
    # A GPT counts only with its protective entry: without it, it is what an earlier use of the disk has left.
    if any(entry.type == PROTECTIVE for entry in entries) or not entries:
        found = _read_gpt(source)
        if found or not entries:
            return found and PartitionTable("gpt", found[0], has_code, found[1])
    if all(entry.type == PROTECTIVE for entry in entries):
        raise BadPartitionTable("both copies of its GPT are damaged")
    return PartitionTable("mbr", tuple(_mbr_partitions(source, sector, entries)), has_code)


# --- MBR ---


def mbr_entries(sector: bytes) -> tuple[MbrEntry, ...]:
    """Return the used entries of a boot sector; none if it is not an MBR.

    Boot sectors of file systems end with the same magic. They have code where the entries would be.
    """
    if not sector.startswith(MBR_MAGIC, MBR_MAGIC_AT) or len(sector) < SECTOR_BYTES:
        return ()
    entries = _entries(sector)
    used = tuple(entry for entry in entries if entry.type)
    sane = all(entry.state in (0, 0x80) for entry in entries) and all(e.start and e.length for e in used)
    return used if sane else ()


def _entries(sector: bytes) -> list[MbrEntry]:
    """Return all four entries, in order: their places are their numbers."""
    places = range(MBR_ENTRIES_AT, MBR_MAGIC_AT, ENTRY.size)
    fields = (ENTRY.unpack_from(sector, place) for place in places)
    return [MbrEntry(state, type_, start, length) for state, _, type_, _, start, length in fields]


def _mbr_partitions(source: BlockSource, sector: bytes, used: tuple[MbrEntry, ...]) -> Iterator[Partition]:
    signature = int.from_bytes(sector[BOOT_CODE_BYTES : BOOT_CODE_BYTES + 4], "little")
    for number, entry in enumerate(_entries(sector), start=1):
        if entry in used and entry.type not in (*EXTENDED, PROTECTIVE):
            yield _mbr_partition(source, number, entry, signature)
    logical = 5
    for container in (entry for entry in used if entry.type in EXTENDED):
        for entry in _logical_entries(source, container):
            yield _mbr_partition(source, logical, entry, signature)
            logical += 1


def _logical_entries(source: BlockSource, container: MbrEntry) -> Iterator[MbrEntry]:
    """Yield the logical partitions in a container, with places from the start of the disk.

    Each has a sector of its own with two entries: itself, from that sector on, and the next sector of this
    kind, from the container's first sector on.
    """
    place, seen = container.start, set[int]()
    while place not in seen:
        seen.add(place)
        sector = read_exactly(source, place * SECTOR_BYTES, SECTOR_BYTES)
        if len(sector) < SECTOR_BYTES or not sector.startswith(MBR_MAGIC, MBR_MAGIC_AT):
            raise BadPartitionTable(f"the chain of its logical partitions is cut at sector {place}")
        entries = _entries(sector)
        for entry in entries:
            if entry.type and entry.type not in EXTENDED and entry.length:
                yield MbrEntry(entry.state, entry.type, place + entry.start, entry.length)
        following = [entry for entry in entries if entry.type in EXTENDED and entry.length]
        if not following:
            return
        if len(seen) == MAX_LOGICAL:
            raise BadPartitionTable(f"it has more than {MAX_LOGICAL} logical partitions")
        place = container.start + following[0].start
    raise BadPartitionTable("the chain of its logical partitions is a circle")


def _mbr_partition(source: BlockSource, number: int, entry: MbrEntry, signature: int) -> Partition:
    start, size = entry.start * SECTOR_BYTES, entry.length * SECTOR_BYTES
    _check_end(source, number, start + size)
    uuid = f"{signature:08x}-{number:02x}" if signature else ""
    return Partition(number, start, size, f"{entry.type:02x}", entry.state == 0x80, uuid=uuid)


def _check_end(source: BlockSource, number: int, end: int) -> None:
    if end > source.size:
        there, here = format_size(end), format_size(source.size)
        if there == here:
            there, here = f"byte {end}", f"{source.size} bytes"
        raise BadPartitionTable(f"its partition {number} ends at {there}, the disk has {here}")


# --- GPT ---


def _read_gpt(source: BlockSource) -> tuple[tuple[Partition, ...], str] | None:
    """Return the partitions of the first intact copy, and a remark if it is the backup; None if none is.

    The backup is in the last sector.
    """
    places = [(sector, sector) for sector in GPT_SECTORS]
    backups = [(sector, source.size // sector * sector - sector) for sector in GPT_SECTORS]
    for sector, place in (*places, *backups):
        entries = _gpt_entries(source, sector, place)
        if entries is not None:
            remark = "" if (sector, place) in places else "its first GPT is damaged, so its backup was used"
            return tuple(_gpt_partitions(source, entries, sector)), remark
    return None


def _gpt_entries(source: BlockSource, sector: int, place: int) -> list[bytes] | None:
    """Return the used entries of one copy; None if it is not there, or damaged."""
    header = read_exactly(source, place, sector) if place > 0 else b""
    if len(header) < sector or not header.startswith(GPT_MAGIC):
        return None
    _, _, length, own_sum, own_place, *_, table, count, step, table_sum = GPT_HEADER.unpack_from(header)
    if not GPT_HEADER.size <= length <= sector or own_place * sector != place:
        return None
    if zlib.crc32(header[:16] + bytes(4) + header[20:length]) != own_sum:
        return None
    if step < GPT_ENTRY.size or not 0 < count * step <= MAX_GPT_BYTES or table * sector >= source.size:
        return None
    data = read_exactly(source, table * sector, count * step)
    if zlib.crc32(data) != table_sum:
        return None
    return [data[at : at + GPT_ENTRY.size] for at in range(0, count * step, step)]


def _gpt_partitions(source: BlockSource, entries: list[bytes], sector: int) -> Iterator[Partition]:
    for number, entry in enumerate(entries, start=1):
        type_, own, first, last, attributes, name = GPT_ENTRY.unpack(entry)
        if not any(type_):
            continue
        if last < first or not first:
            raise BadPartitionTable(f"its partition {number} goes from sector {first} to {last}")
        _check_end(source, number, (last + 1) * sector)
        yield Partition(
            number,
            first * sector,
            (last + 1 - first) * sector,
            str(UUID(bytes_le=type_)),
            bool(attributes & LEGACY_BOOT),
            name.decode("utf-16-le", "replace").partition("\0")[0],
            str(UUID(bytes_le=own)),
        )
