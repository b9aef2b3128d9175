"""A reader for btrfs: one disk, any subvolume, compressed with zlib or zstd.

Everything is an item in a tree, with a key of three numbers. A tree is stored in nodes at logical addresses;
the chunk tree says where on the disk those are. Paths begin in the subvolume that a system would have as its
root: the default one, or one with a distribution's usual name.

Format: "On-disk format" in the documentation of btrfs. The checksums of nodes are not compared, because
CRC32C would take longer than everything else here; each node must be at its own address instead.
"""

import stat
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

from uecwatchd.images.block_source import BlockSource, read_exactly
from uecwatchd.images.guest.files import ENTRY_TYPES, MAX_NAMES, FileEntry, Unsupported

zstandard: Any
try:
    zstandard = import_module("zstandard")
except ImportError:
    zstandard = None

SUPERBLOCK_AT, SUPERBLOCK_BYTES = 0x10000, 4096
KEY = struct.Struct("<QBQ")
CHUNK = struct.Struct("<QQQQIIIHH")  # length, owner, stripe length, type, …, number of stripes
STRIPE = struct.Struct("<QQ16s")  # device, place, UUID
NODE_HEADER_BYTES, NODE_PLACE_AT, NODE_COUNT_AT = 101, 48, 96
LEAF_ITEM = struct.Struct("<QBQII")
NODE_POINTER = struct.Struct("<QBQQQ")
DIR_ITEM = struct.Struct("<QBQQHHB")  # key of the target, …, lengths of data and name, type
EXTENT = struct.Struct("<QQBBHB")  # generation, size in memory, compression, encryption, other, kind
EXTENT_PLACE = struct.Struct("<QQQQ")  # address, size on disk, offset in it, length
# Types of items
INODE, DIR_ENTRY, DIR_INDEX, EXTENT_DATA, ROOT, CHUNK_ITEM = 1, 84, 96, 108, 132, 228
ROOT_TREE_DIR, TOP_SUBVOLUME, FIRST_INODE = 6, 5, 256
ROOT_PLACE_AT = 176  # in a root item, behind its inode
STRIPED = 0x8 | 0x40 | 0x80 | 0x100  # RAID 0, 10, 5, 6: more than one disk has each stretch
INLINE, PREALLOCATED = 0, 2
MAX_LEVEL = 8
MAX_NODE_BYTES = 64 * 1024
KEPT_NODES = 512
MAX_EXTENT_BYTES = 1 << 20  # of a compressed one; btrfs makes at most 128 KiB
# Subvolumes with the root of a system: Ubuntu and SUSE, Debian, Fedora.
ROOT_NAMES = ("@", "@rootfs", "root")


class Key(NamedTuple):
    """The key of an item: a number of an object, a type, and a meaning that depends on the type."""

    number: int
    type: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of logical addresses, and its place on this disk; None if it is spread over several."""

    start: int
    length: int
    place: int | None


@dataclass(frozen=True, slots=True)
class Inode:
    """A file or folder: the address of its subvolume's tree, and its number there."""

    tree: int
    number: int


class Btrfs:
    """A btrfs on one disk. Raises Unsupported or ValueError if it cannot be read, OSError."""

    def __init__(self, source: BlockSource) -> None:
        self._source = source
        block = read_exactly(source, SUPERBLOCK_AT, SUPERBLOCK_BYTES)
        if len(block) < SUPERBLOCK_BYTES:
            raise ValueError("its superblock is cut")
        roots, chunk_root, disks = *struct.unpack_from("<QQ", block, 0x50), block[0x88]
        self._node_bytes = int.from_bytes(block[0x94:0x98], "little")
        if not 4096 <= self._node_bytes <= MAX_NODE_BYTES:
            raise ValueError(f"its nodes have {self._node_bytes} bytes")
        if disks != 1:
            raise Unsupported(f"it needs {disks} disks")
        self._node = lru_cache(KEPT_NODES)(self._read_node)
        self._chunks = sorted(_system_chunks(block), key=lambda chunk: chunk.start)
        found = [
            _chunk(key.offset, data) for key, data in self._items(chunk_root, Key(FIRST_INODE, CHUNK_ITEM))
        ]
        self._chunks = sorted({*self._chunks, *found}, key=lambda chunk: chunk.start)
        self._roots = roots
        self._top = self._find_top()

    def entry(self, path: str) -> FileEntry | None:
        inode = self._find(path)
        return None if inode is None else self._describe(inode)

    def names(self, path: str) -> tuple[str, ...]:
        inode = self._find(path)
        if inode is None:
            return ()
        names = (name for name, _ in self._children(inode))
        return tuple(name for name, _ in zip(names, range(MAX_NAMES), strict=False))

    def read(self, path: str, offset: int, length: int) -> bytes:
        inode = self._find(path)
        return b"" if inode is None else self._read_file(inode, offset, length)

    # --- folders ---

    def _find_top(self) -> Inode:
        default = self._subvolume(self._default_subvolume())
        if self._child(default, "etc"):
            return default
        top = self._subvolume(TOP_SUBVOLUME)
        candidates = filter(None, (self._child(top, name) for name in ROOT_NAMES))
        return next((inode for inode in candidates if self._child(inode, "etc")), default)

    def _default_subvolume(self) -> int:
        for key, data in self._items(self._roots, Key(ROOT_TREE_DIR, DIR_ENTRY)):
            if key[:2] != (ROOT_TREE_DIR, DIR_ENTRY):
                break
            for name, target in _directory_items(data):
                if name == "default":
                    return target.number
        return TOP_SUBVOLUME

    def _subvolume(self, number: int) -> Inode:
        for key, data in self._items(self._roots, Key(number, ROOT)):
            if key[:2] == (number, ROOT):
                return Inode(int.from_bytes(data[ROOT_PLACE_AT : ROOT_PLACE_AT + 8], "little"), FIRST_INODE)
            break
        raise ValueError(f"its subvolume {number} is missing")

    def _find(self, path: str) -> Inode | None:
        inode: Inode | None = self._top
        for name in filter(None, path.split("/")):
            inode = self._child(inode, name) if inode else None
        return inode

    def _child(self, folder: Inode, name: str) -> Inode | None:
        target = next((target for found, target in self._children(folder) if found == name), None)
        if target is None:
            return None
        return self._subvolume(target.number) if target.type == ROOT else Inode(folder.tree, target.number)

    def _children(self, folder: Inode) -> Iterator[tuple[str, Key]]:
        for _, data in self._items_of(folder, DIR_INDEX):
            yield from _directory_items(data)

    # --- files ---

    def _describe(self, inode: Inode) -> FileEntry:
        data = next((data for _, data in self._items_of(inode, INODE)), b"")
        if len(data) < 56:
            raise ValueError(f"its inode {inode.number} is missing")
        size, mode = int.from_bytes(data[16:24], "little"), int.from_bytes(data[52:56], "little")
        type_ = ENTRY_TYPES.get(stat.S_IFMT(mode), "other")
        target = self._read_file(inode, 0, 4096).decode("utf-8", "surrogateescape") if type_ == "link" else ""
        return FileEntry(type_, size, stat.S_IMODE(mode), target)

    def _read_file(self, inode: Inode, offset: int, length: int) -> bytes:
        data = next((data for _, data in self._items_of(inode, INODE)), b"")
        size = int.from_bytes(data[16:24], "little")
        content = bytearray(max(0, min(length, size - offset)))
        # The extent that holds `offset` begins before it: at most 128 MiB, the longest extent there is.
        first = max(0, offset - (128 << 20))
        for key, item in self._items_of(inode, EXTENT_DATA, first):
            if key.offset >= offset + len(content):
                break
            self._copy_extent(key.offset - offset, item, content)
        return bytes(content)

    def _copy_extent(self, at: int, item: bytes, content: bytearray) -> None:
        """Copy the part of an extent that is wanted. `at` is its place in `content`, negative before it."""
        _, ram_bytes, compression, encryption, _, kind = EXTENT.unpack_from(item)
        if encryption:
            raise Unsupported("a file in it is encrypted")
        if kind == PREALLOCATED:
            return
        if kind == INLINE:
            skip, length, stored = 0, ram_bytes, item[EXTENT.size :]
            data = _decompress(compression, stored, ram_bytes)
        else:
            address, disk_bytes, skip, length = EXTENT_PLACE.unpack_from(item, EXTENT.size)
            start, end = max(0, -at), min(length, len(content) - at)
            if not address or start >= end:
                return
            if not compression:
                content[at + start : at + end] = self._read(address + skip + start, end - start)
                return
            if disk_bytes > MAX_EXTENT_BYTES:
                raise ValueError("a compressed extent is too long")
            data = _decompress(compression, self._read(address, disk_bytes), ram_bytes)
        start, end = max(0, -at), min(length, len(content) - at, len(data) - skip)
        if start < end:
            content[at + start : at + end] = data[skip + start : skip + end]

    # --- trees ---

    def _items_of(self, inode: Inode, type_: int, offset: int = 0) -> Iterator[tuple[Key, bytes]]:
        for key, data in self._items(inode.tree, Key(inode.number, type_, offset)):
            if key[:2] != (inode.number, type_):
                return
            yield key, data

    def _items(self, address: int, first: Key, level: int = MAX_LEVEL) -> Iterator[tuple[Key, bytes]]:
        """Yield the items of a tree from a key on, in order."""
        node = self._node(address)
        if node.level >= level:
            raise ValueError("a tree leads back into itself")
        if not node.level:
            for key, data in node.items():
                if key >= first:
                    yield key, data
            return
        pointers = node.pointers()
        begin = max(0, bisect_right(pointers, first, key=lambda pointer: pointer[0]) - 1)
        for _, below in pointers[begin:]:
            yield from self._items(below, first, node.level)

    def _read_node(self, address: int) -> "Node":
        data = self._read(address, self._node_bytes)
        if int.from_bytes(data[NODE_PLACE_AT : NODE_PLACE_AT + 8], "little") != address:
            raise ValueError(f"its node at {address} is not there")
        return Node(data)

    def _read(self, address: int, length: int) -> bytes:
        """Read from a logical address. Raises ValueError if it is not mapped, Unsupported."""
        found = bytearray()
        while len(found) < length:
            here = address + len(found)
            index = bisect_right(self._chunks, here, key=lambda chunk: chunk.start) - 1
            chunk = self._chunks[index] if index >= 0 else None
            if chunk is None or here >= chunk.start + chunk.length:
                raise ValueError(f"its address {here} is not on the disk")
            if chunk.place is None:
                raise Unsupported("it is spread over several disks")
            skip = here - chunk.start
            piece = read_exactly(
                self._source, chunk.place + skip, min(length - len(found), chunk.length - skip)
            )
            if not piece:
                raise ValueError("the disk ends before it")
            found += piece
        return bytes(found)


class Node:
    """A node of a tree: items in a leaf, pointers above."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.level = data[100]
        self._count = int.from_bytes(data[NODE_COUNT_AT : NODE_COUNT_AT + 4], "little")

    def _fields(self, form: struct.Struct) -> Iterator[tuple[Any, ...]]:
        end = min(NODE_HEADER_BYTES + self._count * form.size, len(self._data) - form.size)
        return (form.unpack_from(self._data, at) for at in range(NODE_HEADER_BYTES, end, form.size))

    def items(self) -> Iterator[tuple[Key, bytes]]:
        for number, type_, offset, at, length in self._fields(LEAF_ITEM):
            start = NODE_HEADER_BYTES + at
            yield Key(number, type_, offset), self._data[start : start + length]

    def pointers(self) -> list[tuple[Key, int]]:
        return [
            (Key(number, type_, offset), place)
            for number, type_, offset, place, _ in self._fields(NODE_POINTER)
        ]


def _system_chunks(block: bytes) -> Iterator[Chunk]:
    """Yield the chunks in the superblock, where the chunk tree itself is."""
    at, end = 0x32B, 0x32B + min(int.from_bytes(block[0xA0:0xA4], "little"), 2048)
    while at + KEY.size + CHUNK.size <= end:
        _, _, start = KEY.unpack_from(block, at)
        chunk = block[at + KEY.size : end]
        yield _chunk(start, chunk)
        at += KEY.size + CHUNK.size + CHUNK.unpack_from(chunk)[7] * STRIPE.size


def _chunk(start: int, data: bytes) -> Chunk:
    if len(data) < CHUNK.size + STRIPE.size:
        raise ValueError("a chunk is cut")
    length, _, _, type_, *_ = CHUNK.unpack_from(data)
    place = STRIPE.unpack_from(data, CHUNK.size)[1]
    return Chunk(start, length, None if type_ & STRIPED else place)


def _directory_items(data: bytes) -> Iterator[tuple[str, Key]]:
    at = 0
    while at + DIR_ITEM.size <= len(data):
        number, type_, offset, _, extra, length, _ = DIR_ITEM.unpack_from(data, at)
        at += DIR_ITEM.size
        yield data[at : at + length].decode("utf-8", "surrogateescape"), Key(number, type_, offset)
        at += length + extra


def _decompress_zstd(data: bytes, size: int) -> bytes:
    if zstandard is None:
        raise Unsupported("a file in it is compressed with zstd, and the package zstandard is not installed")
    try:
        content: bytes = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    except zstandard.ZstdError as error:
        raise ValueError("a compressed extent is damaged") from error
    return content[:size]


DECOMPRESSORS: Mapping[int, Callable[[bytes, int], bytes]] = {
    0: lambda data, _size: data,
    1: lambda data, size: zlib.decompressobj().decompress(data, size),
    3: _decompress_zstd,
}


def _decompress(kind: int, data: bytes, size: int) -> bytes:
    if kind not in DECOMPRESSORS:
        raise Unsupported("a file in it is compressed with LZO")
    if size > MAX_EXTENT_BYTES:
        raise ValueError("a compressed extent is too long")
    try:
        return DECOMPRESSORS[kind](data, size)
    except zlib.error as error:
        raise ValueError("a compressed extent is damaged") from error
