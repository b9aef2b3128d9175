"""Containers made by hand: small files with any disk in them, to be read, patched and cut.

Each writer follows the specification of its format and knows nothing of our readers; that QEMU reads what it
writes is a test of its own. A block of nothing but zeros is left out.
"""

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import FileIO
from uuid import UUID

from tests.support.sizes import KIB, MIB, SECTOR
from uecwatchd.images.formats.crc32c import crc32c

DESCRIPTOR = """\
# Disk DescriptorFile
version=1
CID=12345678
parentCID=ffffffff
createType="{kind}"

# Extent description
RW {sectors} SPARSE "disk.vmdk"

# The Disk Data Base
#DDB
ddb.adapterType = "ide"
"""


def memory_file(content: bytes = b"") -> FileIO:
    file = FileIO(os.memfd_create("image"), "r+b")
    os.pwrite(file.fileno(), content, 0)
    return file


def content_of(file: FileIO) -> bytes:
    """Read all of a file, and close it."""
    with file:
        return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)


def blocks_of(disk: bytes, block: int) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks that are not zero, with their numbers. The last one is padded."""
    for index in range(-(-len(disk) // block)):
        piece = disk[index * block : (index + 1) * block]
        if piece.count(0) != len(piece):
            yield index, piece.ljust(block, b"\0")


@dataclass(frozen=True)
class Layout:
    """Layout of a container: places in bytes."""

    tables: int = 0  # of the last level, one after the other
    data: int = 0  # of the first block


def write_qcow2(file: FileIO, disk: bytes, *, bits: int = 16, version: int = 3, method: str = "") -> Layout:
    """Write header, an empty table of reference counts, L1, L2s, and the clusters."""
    cluster = 1 << bits
    per_table = cluster // 8
    tables = max(1, -(-len(disk) // (cluster * per_table)))
    l1_clusters = -(-tables * 8 // cluster)
    l1, l2 = 2 * cluster, (2 + l1_clusters) * cluster
    zstd = method == "zstd"
    header = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", version, 0, 0, bits, len(disk), 0, tables, l1, cluster, 1, 0, 0
    )
    if version == 3:
        header += struct.pack(">QQQIIB7x", 8 * zstd, 0, 0, 4, 112, int(zstd))
    os.pwrite(file.fileno(), header, 0)
    os.pwrite(
        file.fileno(), struct.pack(f">{tables}Q", *(l2 + n * cluster | 1 << 63 for n in range(tables))), l1
    )
    place = data = l2 + tables * cluster
    os.ftruncate(file.fileno(), place)
    for index, block in blocks_of(disk, cluster):
        entry, stored = place | 1 << 63, block
        if method:
            stored = _packed(block, method)
            shift = 62 - (bits - 8)
            entry = 1 << 62 | (((place % SECTOR + len(stored) - 1) // SECTOR) << shift) | place
        os.pwrite(file.fileno(), struct.pack(">Q", entry), l2 + 8 * index)
        os.pwrite(file.fileno(), stored, place)
        place += len(stored)
    return Layout(l2, data)


def _packed(block: bytes, method: str) -> bytes:
    if method == "zstd":
        import zstandard

        return zstandard.ZstdCompressor().compress(block)
    packer = zlib.compressobj(6, zlib.DEFLATED, -12)
    return packer.compress(block) + packer.flush()


def write_vmdk(file: FileIO, disk: bytes, *, stream: bool = False, footer: bool = False) -> Layout:
    """Write header, descriptor, directory, tables and grains; for a stream the grains come before the map."""
    grain, capacity = 64 * KIB, len(disk) // SECTOR
    tables = max(1, -(-len(disk) // (grain * 512)))
    directory, first_table = 21, 21 + -(-tables * 4 // SECTOR)
    place = data = -(-(first_table + 4 * tables) * SECTOR // grain) * grain
    flags, method = (0x30001, 1) if stream else (1, 0)
    text = DESCRIPTOR.format(kind="streamOptimized" if stream else "monolithicSparse", sectors=capacity)
    fields = (b"KDMV", 3 if stream else 1, flags, capacity, 128, 1, 20, 512, 0, directory, place // SECTOR)
    header = struct.pack("<4sIIQQQQIQQQB4sH", *fields, 0, b"\n \r\n", method).ljust(SECTOR, b"\0")
    os.pwrite(file.fileno(), header + text.encode(), 0)
    numbers = (first_table + 4 * n for n in range(tables))
    os.pwrite(file.fileno(), struct.pack(f"<{tables}I", *numbers), directory * SECTOR)
    os.ftruncate(file.fileno(), place)
    for index, block in blocks_of(disk, grain):
        stored = block
        if stream:
            stored = zlib.compress(block)
            stored = struct.pack("<QI", index * 128, len(stored)) + stored
            stored = stored.ljust(-(-len(stored) // SECTOR) * SECTOR, b"\0")
        os.pwrite(file.fileno(), struct.pack("<I", place // SECTOR), first_table * SECTOR + 4 * index)
        os.pwrite(file.fileno(), stored, place)
        place += len(stored)
    if footer:
        marker = struct.pack("<QII", 1, 0, 3).ljust(SECTOR, b"\0")
        os.pwrite(file.fileno(), marker + header + bytes(SECTOR), place)
        os.pwrite(file.fileno(), b"\xff" * 8, 56)
    return Layout(first_table * SECTOR, data)


def write_vdi(file: FileIO, disk: bytes, *, static: bool = False) -> Layout:
    blocks, table, data = -(-len(disk) // MIB), SECTOR, MIB
    there = {index: index for index in range(blocks)} if static else {}
    pieces = list(blocks_of(disk, MIB))
    there |= {} if static else {index: number for number, (index, _) in enumerate(pieces)}
    header = struct.pack(
        "<64sIIIII256sIIIIIIIQIIII", b"<<< a disk >>>", 0xBEDA107F, 0x10001, 0x190, 2 if static else 1, 0,
        b"", table, data, 0, 0, 0, SECTOR, 0, len(disk), MIB, 0, blocks, len(there),
    )  # fmt: skip
    os.pwrite(file.fileno(), header + os.urandom(32), 0)
    numbers = (there.get(index, 0xFFFFFFFF) for index in range(blocks))
    os.pwrite(file.fileno(), struct.pack(f"<{blocks}I", *numbers), table)
    os.ftruncate(file.fileno(), data + len(there) * MIB)
    for index, block in pieces:
        os.pwrite(file.fileno(), block, data + there[index] * MIB)
    return Layout(table, data)


def vhd_footer(
    size: int, *, kind: int, creator: bytes = b"qem2", geometry: tuple[int, int, int] = (1, 4, 17)
) -> bytes:
    place = 0xFFFF_FFFF_FFFF_FFFF if kind == 2 else SECTOR
    fields = struct.pack(
        ">8sIIQI4sIIQQHBBI4x16s", b"conectix", 2, 0x10000, place, 0, creator, 0x50003, 0x5769326B,
        size, size, *geometry, kind, b"u" * 16,
    )  # fmt: skip
    return vhd_sum(fields, at=64)


def vhd_sum(data: bytes, *, at: int, length: int = SECTOR) -> bytes:
    """Pad a structure, and put its checksum where it belongs."""
    data = data.ljust(length, b"\0")
    data = data[:at] + bytes(4) + data[at + 4 :]
    return data[:at] + struct.pack(">I", ~sum(data) & 0xFFFF_FFFF) + data[at + 4 :]


def write_fixed_vhd(
    file: FileIO, disk: bytes, *, creator: bytes = b"qem2", footer_bytes: int = SECTOR
) -> Layout:
    for index, block in blocks_of(disk, 64 * KIB):
        os.pwrite(file.fileno(), block, index * 64 * KIB)
    footer = vhd_footer(len(disk), kind=2, creator=creator)
    os.ftruncate(file.fileno(), len(disk))
    os.pwrite(file.fileno(), footer[:footer_bytes], len(disk))
    return Layout()


def write_vhd(file: FileIO, disk: bytes, *, block: int = 2 * MIB) -> Layout:
    blocks, table = -(-len(disk) // block), 1536
    bitmap = -(-block // SECTOR // 8 // SECTOR) * SECTOR
    footer = vhd_footer(len(disk), kind=3)
    header = struct.pack(">8sQQIII", b"cxsparse", 0xFFFF_FFFF_FFFF_FFFF, table, 0x10000, blocks, block)
    os.pwrite(file.fileno(), footer + vhd_sum(header, at=36, length=1024), 0)
    os.pwrite(file.fileno(), b"\xff" * -(-4 * blocks // SECTOR) * SECTOR, table)
    place = data = table + -(-4 * blocks // SECTOR) * SECTOR
    for index, piece in blocks_of(disk, block):
        os.pwrite(file.fileno(), struct.pack(">I", place // SECTOR), table + 4 * index)
        os.pwrite(file.fileno(), b"\xff" * bitmap + piece, place)
        place += bitmap + block
    os.pwrite(file.fileno(), footer, place)
    return Layout(table, data)


def vhdx_sum(data: bytes) -> bytes:
    data = data[:4] + bytes(4) + data[8:]
    return data[:4] + struct.pack("<I", crc32c(data)) + data[8:]


def write_vhdx(file: FileIO, disk: bytes, *, sector: int = SECTOR) -> Layout:
    """Write everything at its usual place: log, metadata, map and blocks from 1 MiB on."""
    metadata, table, place = 2 * MIB, 3 * MIB, 4 * MIB
    os.pwrite(file.fileno(), b"vhdxfile", 0)
    for number, at in enumerate((64 * KIB, 128 * KIB)):
        header = struct.pack(
            "<4s4xQ16s16s16sHHIQ", b"head", number, b"f" * 16, b"d" * 16, bytes(16), 0, 1, MIB, MIB
        )
        os.pwrite(file.fileno(), vhdx_sum(header.ljust(4 * KIB, b"\0")), at)
    regions = b"".join(
        struct.pack("<16sQII", UUID(name).bytes_le, at, MIB, 1)
        for name, at in (
            ("2dc27766-f623-4200-9d64-115e9bfd4a08", table),
            ("8b7ca206-4790-4b9a-b8fe-575f050f886e", metadata),
        )
    )
    for at in (192 * KIB, 256 * KIB):
        found = struct.pack("<4s4xII", b"regi", 2, 0) + regions
        os.pwrite(file.fileno(), vhdx_sum(found.ljust(64 * KIB, b"\0")), at)
    items = (
        ("caa16737-fa36-4d43-b3b6-33f0aa44e76b", struct.pack("<II", MIB, 0)),
        ("2fa54224-cd1b-4876-b211-5dbed83bf4b8", struct.pack("<Q", len(disk))),
        ("beca12ab-b2e6-4523-93ef-c309e000c746", b"i" * 16),
        ("8141bf1d-a96f-4709-ba47-f233a8faab5f", struct.pack("<I", sector)),
        ("cda348c7-445d-4471-9cc9-e9885251c556", struct.pack("<I", 4096)),
    )
    entries, values = b"", b""
    for name, value in items:
        entries += struct.pack("<16sIII4x", UUID(name).bytes_le, 64 * KIB + len(values), len(value), 4)
        values += value
    os.pwrite(file.fileno(), struct.pack("<8s2xH20x", b"metadata", len(items)) + entries, metadata)
    os.pwrite(file.fileno(), values, metadata + 64 * KIB)
    os.ftruncate(file.fileno(), place)
    for index, block in blocks_of(disk, MIB):
        os.pwrite(file.fileno(), struct.pack("<Q", place | 6), table + 8 * index)
        os.pwrite(file.fileno(), block, place)
        place += MIB
    return Layout(table, 4 * MIB)


@dataclass(frozen=True)
class Container:
    """A kind of file, as a writer makes it."""

    format: str
    write: Callable[..., Layout]
    options: tuple[tuple[str, object], ...] = ()
    for_qemu: str = ""  # QEMU's name of the format, if it is another; "-" if QEMU cannot read it
    sector: int = SECTOR

    def make(self, disk: bytes, file: FileIO | None = None) -> FileIO:
        file = file or memory_file()
        self.write(file, disk, **dict(self.options))
        return file

    def but(self, **options: object) -> "Container":
        return replace(self, options=(*self.options, *options.items()))


CONTAINERS = {
    "qcow2": Container("qcow2", write_qcow2),
    "qcow2-2": Container("qcow2", write_qcow2, (("version", 2),)),
    "qcow2-512": Container("qcow2", write_qcow2, (("bits", 9),)),
    "qcow2-zlib": Container("qcow2", write_qcow2, (("method", "zlib"),)),
    "qcow2-zstd": Container("qcow2", write_qcow2, (("method", "zstd"),)),
    "vmdk": Container("vmdk", write_vmdk),
    "vmdk-stream": Container("vmdk", write_vmdk, (("stream", True),)),
    "vmdk-footer": Container("vmdk", write_vmdk, (("stream", True), ("footer", True))),
    "vdi": Container("vdi", write_vdi),
    "vdi-static": Container("vdi", write_vdi, (("static", True),)),
    "vhd": Container("vhd", write_vhd, for_qemu="vpc"),
    "vhd-small-blocks": Container("vhd", write_vhd, (("block", 512 * KIB),), for_qemu="vpc"),
    "vhd-fixed": Container("vhd", write_fixed_vhd, for_qemu="vpc"),
    "vhd-fixed-511": Container("vhd", write_fixed_vhd, (("footer_bytes", 511),), for_qemu="-"),
    "vhdx": Container("vhdx", write_vhdx),
    "vhdx-4096": Container("vhdx", write_vhdx, (("sector", 4096),), for_qemu="-", sector=4096),
}
