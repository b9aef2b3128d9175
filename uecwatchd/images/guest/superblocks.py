"""Identity of a file system: its type, and the UUID and label that an fstab names it by.

Offsets are from the documentation of each: ext4's disk layout, XFS algorithms and data structures, btrfs'
on-disk format, Microsoft's FAT specification, NTFS as Linux reads it, and mkswap.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from uecwatchd.images.block_source import BlockSource, read_exactly
from uecwatchd.images.detect import HEAD_BYTES, detect
from uecwatchd.images.file_facts import SECTOR_BYTES

LVM_LABEL = b"LABELONE"  # in one of the first four sectors
LVM_TYPE_AT, LVM_TYPE = 24, b"LVM2 001"
LUKS = b"LUKS\xba\xbe"
FAT32_MARK_AT, FAT32_MARK = 82, b"FAT32"


@dataclass(frozen=True, slots=True)
class Superblock:
    """Type of a file system, as `detect` names it, also "lvm2" and "luks"; UUID and label as text."""

    type: str
    uuid: str = ""
    label: str = ""


# Place of the UUID; place and length of the label.
PLACES: Mapping[str, tuple[int, int, int]] = {
    "ext2": (1024 + 104, 1024 + 120, 16),
    "ext3": (1024 + 104, 1024 + 120, 16),
    "ext4": (1024 + 104, 1024 + 120, 16),
    "xfs": (32, 108, 12),
    "btrfs": (0x10020, 0x1012B, 256),
    "swap": (1036, 1052, 16),
}


def read_superblock(source: BlockSource) -> Superblock:
    """Return what a partition, or the whole disk, begins with. Raises OSError."""
    head = read_exactly(source, 0, HEAD_BYTES)
    if head.startswith(LUKS):
        return Superblock("luks")
    if any(
        head.startswith(LVM_LABEL, at) and head.startswith(LVM_TYPE, at + LVM_TYPE_AT)
        for at in range(0, 4 * SECTOR_BYTES, SECTOR_BYTES)
    ):
        return Superblock("lvm2")
    tail = read_exactly(source, max(0, source.size - SECTOR_BYTES), SECTOR_BYTES)
    return _identify(detect(head, tail, size=source.size).format, head)


def _identify(type_: str, head: bytes) -> Superblock:
    if type_ in PLACES:
        uuid, label, length = PLACES[type_]
        return Superblock(type_, str(UUID(bytes=head[uuid : uuid + 16])), _text(head[label : label + length]))
    if type_ == "fat":
        serial, label = (67, 71) if head.startswith(FAT32_MARK, FAT32_MARK_AT) else (39, 43)
        digits = f"{int.from_bytes(head[serial : serial + 4], 'little'):08X}"
        return Superblock(type_, f"{digits[:4]}-{digits[4:]}", _text(head[label : label + 11]).rstrip())
    if type_ == "ntfs":
        return Superblock(type_, f"{int.from_bytes(head[72:80], 'little'):016X}")
    return Superblock(type_)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")
