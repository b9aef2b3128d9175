"""A reader for ext2, ext3 and ext4, with all features that a system's disk may have.

An inode has either a map of blocks (ext2), a tree of extents, or the content itself (inline data), which goes
on in an extended attribute. A folder is read from its first entry to its last: the tree of hashes in a large
one looks like empty entries then. A journal that was not replayed is not replayed here.

Format: "ext4 Data Structures and Algorithms" in the documentation of Linux. Checksums are not compared.
"""

import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from uecwatchd.images.block_source import BlockSource, read_exactly
from uecwatchd.images.guest.files import (
    ENTRY_TYPES,
    MAX_NAMES,
    MAX_READ_BYTES,
    FileEntry,
    Unsupported,
)

SUPERBLOCK_AT, SUPERBLOCK_BYTES = 1024, 1024
ROOT_INODE = 2
MAX_BLOCK_BITS = 16  # 64 KiB is the largest block
MAX_DEPTH = 5  # of a tree of extents
MAX_FOLDER_BYTES = 16 << 20
MAX_GROUPS = 1 << 16  # 8 TiB with the usual blocks; their list has to fit into a message
SPARE_INODES = 32  # more than files are added to a guest
UNUSED_INODES = 0x1  # flag of a group whose bitmap of inodes was never written: all are free
KEPT_FOLDERS, KEPT_BLOCKS = 256, 512
# Features of the file system.
SPARSE_SUPER, SPARSE_SUPER2 = 0x1, 0x200
GROUP_SUMS, METADATA_SUMS = 0x10, 0x400
JOURNAL_DEVICE, META_GROUPS, WIDE = 0x8, 0x10, 0x80
# Flags of an inode.
EXTENTS, INLINE, ENCRYPTED_FILE = 0x80000, 0x10000000, 0x800
EXTENT_HEADER = struct.Struct("<HHHHI")  # magic, entries, room, depth, generation
EXTENT_MAGIC = 0xF30A
EXTENT = struct.Struct("<IHHI")  # first block, length, place (high, low)
EXTENT_INDEX = struct.Struct("<IIHH")  # first block, place of the node (low, high)
INITIALIZED = 32768  # a longer extent is allocated and not written
DIRECT, MAP_BYTES = 12, 60
ATTRIBUTES_MAGIC = b"\x00\x00\x02\xea"
ATTRIBUTE = struct.Struct("<BBHIII")  # length of the name, namespace, place, inode, size, hash
DATA_ATTRIBUTE = (7, b"data")  # system.data
ENTRY = struct.Struct("<IHBB")  # inode, length of the entry, of the name, type


@dataclass(frozen=True, slots=True)
class ExtInode:
    """An inode. `map` has its blocks, its extents or its content, `inline` the rest of that content."""

    number: int
    mode: int
    size: int
    flags: int
    map: bytes
    inline: bytes
    attributes: int  #: block with extended attributes, 0 for none


@dataclass(frozen=True, slots=True)
class ExtGroup:
    """Places of a group's own metadata: numbers of blocks."""

    block_bitmap: int
    inode_bitmap: int
    inode_table: int
    flags: int


class Ext:
    """An ext file system. Raises Unsupported or ValueError if it cannot be read, OSError."""

    def __init__(self, source: BlockSource) -> None:
        self._source = source
        block = read_exactly(source, SUPERBLOCK_AT, SUPERBLOCK_BYTES)
        if len(block) < SUPERBLOCK_BYTES:
            raise ValueError("its superblock is cut")

        def number(at: int, width: int = 4) -> int:
            return int.from_bytes(block[at : at + width], "little")

        self._features, self._needed, self._sparse = number(0x5C), number(0x60), number(0x64)
        if self._needed & JOURNAL_DEVICE:
            raise Unsupported("it is the journal of another file system")
        if number(0x18) + 10 > MAX_BLOCK_BITS:
            raise ValueError("its blocks are too large")
        self.block_bytes = 1024 << number(0x18)
        self._blocks = number(4) | (number(0x150) << 32 if self._needed & WIDE else 0)
        self._first_block, self._first_meta_group = number(0x14), number(0x104)
        self._blocks_per_group, self._inodes_per_group = number(0x20), number(0x28)
        self._inode_bytes = number(0x58, 2) if number(0x4C) else 128
        self._group_bytes = number(0xFE, 2) if self._needed & WIDE else 32
        self._backup_groups = (number(0x24C), number(0x250))
        if not (self._blocks_per_group and self._inodes_per_group) or self._inode_bytes < 128:
            raise ValueError("its superblock has impossible numbers")
        if not 32 <= self._group_bytes <= self.block_bytes or self._inode_bytes > self.block_bytes:
            raise ValueError("its superblock has impossible numbers")
        self._block = lru_cache(KEPT_BLOCKS)(self._read_block)
        self._children = lru_cache(KEPT_FOLDERS)(self._read_folder)
        self._describe(self._inode(ROOT_INODE))

    def entry(self, path: str) -> FileEntry | None:
        inode = self._find(path)
        return None if inode is None else self._describe(inode)

    def names(self, path: str) -> tuple[str, ...]:
        inode = self._find(path)
        if inode is None or not stat.S_ISDIR(inode.mode):
            return ()
        return tuple(self._children(inode.number))[:MAX_NAMES]

    def read(self, path: str, offset: int, length: int) -> bytes:
        inode = self._find(path)
        return b"" if inode is None else self._read_content(inode, offset, length)

    # --- metadata ---

    def bitmap_stretches(self) -> Iterator[tuple[int, int]]:
        """Yield the bitmaps of all groups, as (start, length) in bytes."""
        for group in map(self._group, range(self._count_groups())):
            yield group.block_bitmap * self.block_bytes, self.block_bytes
            yield group.inode_bitmap * self.block_bytes, self.block_bytes

    def read_free_inodes(self, path: str) -> None:
        """Read the free inodes that are the next ones for files in a folder: the first ones of its group.

        If they are all in use, those of the next group follow.
        """
        folder = self._find(path)
        left, count = SPARE_INODES if folder else 0, self._count_groups()
        first = (folder.number - 1) // self._inodes_per_group if folder else 0
        for number in (*range(first, count), *range(first)):
            for index in islice(self._free_indexes(number), left):
                self._read(self._inode_place(number, index), self._inode_bytes)
                left -= 1
            if not left:
                return

    def _free_indexes(self, number: int) -> Iterator[int]:
        group, size = self._group(number), self._inodes_per_group // 8
        has_flags = self._sparse & (GROUP_SUMS | METADATA_SUMS)
        bitmap = bytes(size) if has_flags and group.flags & UNUSED_INODES else self._block(group.inode_bitmap)
        for at, byte in enumerate(bitmap[:size]):
            if byte != 0xFF:
                yield from (8 * at + bit for bit in range(8) if not byte >> bit & 1)

    def _count_groups(self) -> int:
        count = -(-(self._blocks - self._first_block) // self._blocks_per_group)
        if count > MAX_GROUPS:
            raise Unsupported("it is too large to be changed here")
        return count

    def _group(self, number: int) -> ExtGroup:
        data, is_wide = self._descriptor(number), self._group_bytes >= 64

        def place(low: int, high: int) -> int:
            top = data[high : high + 4] if is_wide else b""
            return int.from_bytes(data[low : low + 4] + top, "little")

        flags = int.from_bytes(data[0x12:0x14], "little")
        return ExtGroup(place(0, 0x20), place(4, 0x24), place(8, 0x28), flags)

    def read_everything(self, path: str) -> None:
        """Read all that a path and the folders above it have: entries, maps, content, attributes."""
        inode = self._find(path)
        if inode is None:
            return
        if stat.S_ISDIR(inode.mode):
            self._children(inode.number)
        elif not stat.S_ISLNK(inode.mode) or inode.size >= MAP_BYTES:
            self._read_content(inode, 0, MAX_READ_BYTES)
        if inode.attributes:
            self._block(inode.attributes)

    # --- folders ---

    def _find(self, path: str) -> ExtInode | None:
        number: int | None = ROOT_INODE
        for name in filter(None, path.split("/")):
            if number is None or not stat.S_ISDIR(self._inode(number).mode):
                return None
            number = self._children(number).get(name)
        return None if number is None else self._inode(number)

    def _read_folder(self, number: int) -> dict[str, int]:
        inode = self._inode(number)
        if inode.flags & ENCRYPTED_FILE:
            raise Unsupported("a folder in it is encrypted")
        if inode.size > MAX_FOLDER_BYTES:
            raise ValueError("a folder in it is too large")
        if inode.flags & INLINE:  # the map begins with the number of the folder above
            pieces = [inode.map[4:], inode.inline]
        else:
            data = self._read_content(inode, 0, inode.size)
            pieces = [data[at : at + self.block_bytes] for at in range(0, len(data), self.block_bytes)]
        return {name: child for piece in pieces for name, child in _folder_entries(piece)}

    # --- inodes ---

    def _inode(self, number: int) -> ExtInode:
        group, index = divmod(number - 1, self._inodes_per_group)
        data = self._read(self._inode_place(group, index), self._inode_bytes)
        mode, size = struct.unpack_from("<HxxI", data)
        if stat.S_ISREG(mode):
            size |= int.from_bytes(data[0x6C:0x70], "little") << 32
        flags = int.from_bytes(data[0x20:0x24], "little")
        inline = _inline_attribute(data) if flags & INLINE else b""
        attributes = int.from_bytes(data[0x68:0x6C] + data[0x76:0x78], "little")
        return ExtInode(number, mode, size, flags, data[0x28 : 0x28 + MAP_BYTES], inline, attributes)

    def _inode_place(self, group: int, index: int) -> int:
        return self._group(group).inode_table * self.block_bytes + index * self._inode_bytes

    def _descriptor(self, group: int) -> bytes:
        per_block = self.block_bytes // self._group_bytes
        meta_group, index = divmod(group, per_block)
        superblock = SUPERBLOCK_AT // self.block_bytes  # not the first block, with small ones and bigalloc
        block = superblock + 1 + meta_group
        if self._needed & META_GROUPS and meta_group >= self._first_meta_group:
            first = meta_group * per_block
            block = self._first_block + first * self._blocks_per_group + self._has_superblock(first)
            block += first == 0 and superblock > self._first_block
        return self._block(block)[index * self._group_bytes : (index + 1) * self._group_bytes]

    def _has_superblock(self, group: int) -> bool:
        if self._features & SPARSE_SUPER2:
            return group == 0 or group in self._backup_groups
        if not self._sparse & SPARSE_SUPER or group <= 1:
            return True
        return any(_is_power(group, base) for base in (3, 5, 7))

    def _describe(self, inode: ExtInode) -> FileEntry:
        type_ = ENTRY_TYPES.get(stat.S_IFMT(inode.mode), "other")
        target = ""
        if type_ == "link":
            is_fast = inode.size < MAP_BYTES and not inode.flags & (EXTENTS | INLINE)
            data = inode.map[: inode.size] if is_fast else self._read_content(inode, 0, 4096)
            target = data.decode("utf-8", "surrogateescape")
        return FileEntry(type_, inode.size, stat.S_IMODE(inode.mode), target)

    # --- content ---

    def _read_content(self, inode: ExtInode, offset: int, length: int) -> bytes:
        if inode.flags & ENCRYPTED_FILE:
            raise Unsupported("a file in it is encrypted")
        if inode.flags & INLINE:
            return (inode.map + inode.inline)[: inode.size][offset : offset + length]
        content = bytearray(max(0, min(length, inode.size - offset)))
        end = offset + len(content)
        first, last = offset // self.block_bytes, -(-end // self.block_bytes)
        for block, place, count in self._runs(inode, first, last):
            start = max(offset, block * self.block_bytes)
            stop = min(end, (block + count) * self.block_bytes)
            if start < stop:
                skip = start - block * self.block_bytes
                data = self._read(place * self.block_bytes + skip, stop - start)
                content[start - offset : stop - offset] = data
        return bytes(content)

    def _runs(self, inode: ExtInode, first: int, last: int) -> Iterator[tuple[int, int, int]]:
        """Yield the stored runs with a block of first…last: first block of the file, place, number."""
        if inode.flags & EXTENTS:
            yield from self._extents(inode.map, first, last, MAX_DEPTH + 1)
            return
        for block in range(first, last):
            if place := self._mapped(inode.map, block):
                yield block, place, 1

    def _extents(self, node: bytes, first: int, last: int, above: int) -> Iterator[tuple[int, int, int]]:
        magic, count, _, depth, _ = EXTENT_HEADER.unpack_from(node)
        if magic != EXTENT_MAGIC or depth >= above:
            raise ValueError("a tree of extents is damaged")
        count = min(count, (len(node) - EXTENT_HEADER.size) // EXTENT.size)
        places = [EXTENT_HEADER.size + EXTENT.size * index for index in range(count)]
        if depth:
            nodes = [EXTENT_INDEX.unpack_from(node, place) for place in places]
            for index, (block, low, high, _) in enumerate(nodes):
                end = nodes[index + 1][0] if index + 1 < len(nodes) else last
                if block < last and end > first:
                    yield from self._extents(self._block(low | high << 32), first, last, depth)
            return
        for place in places:
            block, length, high, low = EXTENT.unpack_from(node, place)
            if length <= INITIALIZED and block < last and block + length > first:
                yield block, low | high << 32, length

    def _mapped(self, map_: bytes, block: int) -> int:
        """Return the place of a block through the map of ext2, 0 for a hole."""
        if block < DIRECT:
            return int.from_bytes(map_[4 * block : 4 * block + 4], "little")
        block, per_block = block - DIRECT, self.block_bytes // 4
        for level in range(1, 4):
            if block < per_block**level:
                at = 4 * (DIRECT + level - 1)
                place = int.from_bytes(map_[at : at + 4], "little")
                for power in range(level - 1, -1, -1):
                    at = 4 * (block // per_block**power % per_block)
                    place = int.from_bytes(self._block(place)[at : at + 4], "little") if place else 0
                return place
            block -= per_block**level
        return 0

    def _read_block(self, number: int) -> bytes:
        return self._read(number * self.block_bytes, self.block_bytes)

    def _read(self, place: int, length: int) -> bytes:
        if place + length > self._source.size:
            raise ValueError("something in it is behind the end of the disk")
        return read_exactly(self._source, place, length)


def _folder_entries(data: bytes) -> Iterator[tuple[str, int]]:
    """Yield names and inodes of one block of a folder. Unused entries have no inode."""
    at = 0
    while at + ENTRY.size <= len(data):
        inode, step, length, _ = ENTRY.unpack_from(data, at)
        step = step if step not in (0, 0xFFFF) else 0x10000  # of a block of 64 KiB
        if step < ENTRY.size:
            return
        name = data[at + ENTRY.size : at + ENTRY.size + length]
        if inode and name not in (b"", b".", b".."):
            yield name.decode("utf-8", "surrogateescape"), inode
        at += step


def _inline_attribute(inode: bytes) -> bytes:
    """Return the value of system.data, which is in the inode behind its last field."""
    start = 128 + int.from_bytes(inode[0x80:0x82], "little")
    if not inode.startswith(ATTRIBUTES_MAGIC, start):
        return b""
    first = at = start + len(ATTRIBUTES_MAGIC)
    while at + ATTRIBUTE.size <= len(inode) and any(inode[at : at + 4]):
        length, space, place, _, size, _ = ATTRIBUTE.unpack_from(inode, at)
        name = inode[at + ATTRIBUTE.size : at + ATTRIBUTE.size + length]
        if (space, name) == DATA_ATTRIBUTE:
            return inode[first + place : first + place + size]
        at += ATTRIBUTE.size + length + -length % 4
    return b""


def _is_power(number: int, base: int) -> bool:
    while number > 1 and number % base == 0:
        number //= base
    return number == 1
