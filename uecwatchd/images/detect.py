"""Detection of a file's format from its first bytes.

No function here opens a file: `detect` gets the first `HEAD_BYTES` and the last `TAIL_BYTES`. A slice past
the end of the head is short and reads as zero, so no content, however damaged, can raise an exception.

Offsets are from the specifications: ext4 disk layout, UEFI GPT, qcow2 (QEMU's interop/qcow2.txt), VMware
Virtual Disk Format 1.1, Microsoft VHD 1.0, ECMA-119.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from uecwatchd.images import kernels, partitions
from uecwatchd.images.file_facts import SECTOR_BYTES, Facts, Probe, Sample
from uecwatchd.images.partition_types import PARTITION_ARCH
from uecwatchd.types import Role

HEAD_BYTES = 68 * 1024  # up to the end of the btrfs superblock, which is farthest from the start
TAIL_BYTES = 512  # a VHD's footer
FLOPPY_MAX_BYTES = 2880 * 1024  # the largest floppy format; memdisk boots Windows from floppies
XZ_MEMORY_BYTES = 96 << 20  # `xz -9` needs 65 MiB to decompress; a file that needs more is not examined
TEXT_SAMPLE_BYTES = 4096  # a page without control characters is text

# Formats of files with a disk in them, or with what was a disk before it was encrypted.
CONTAINERS = frozenset({"qcow", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "qed", "parallels", "luks"})
ARCHIVES = frozenset({"tar", "zip"})
RAMDISK_FILE_SYSTEMS = frozenset(
    {"ext2", "fat", "squashfs", "cramfs", "romfs"}
)  # contents of initrds and boot floppies


def detect(head: bytes, tail: bytes, *, size: int) -> Facts:
    sample = Sample(head, tail, size)
    return compressed(sample) or identify(sample)


def identify(sample: Sample) -> Facts:
    found = (probe(sample) for probe in PROBES)
    return next((facts for facts in found if facts), Facts("unknown"))


# --- disks ---


def gpt(sample: Sample) -> Facts | None:
    """Detect a GPT. The address of its backup header, in the last sector, gives the size of the disk."""
    sector = next((n for n in (SECTOR_BYTES, 4096) if sample.has(n, b"EFI PART")), None)
    if sector is None:
        return None
    claimed = (sample.le(sector + 32, 8) + 1) * sector
    table, count, step = (
        sample.le(sector + 72, 8) * sector,
        sample.le(sector + 80, 4),
        sample.le(sector + 84, 4),
    )
    places = (table + i * step for i in range(min(count, partitions.MAX_PARTITIONS)))
    kinds = (sample.head[at : at + 16] for at in places)
    arches = [PARTITION_ARCH[kind] for kind in kinds if kind in PARTITION_ARCH]
    arch = "x86_64" if "x86_64" in arches else next(iter(arches), None)  # x86_64 first, if several
    return Facts("gpt", role="machine", arch=arch, layout="disk", claimed=claimed)


def mbr(sample: Sample) -> Facts | None:
    """Detect an MBR: a boot sector with partitions. Boot sectors of file systems end in 55 AA too."""
    entries = partitions.mbr_entries(sample.head[:SECTOR_BYTES])
    if not entries:
        return None
    # A protective entry may claim the largest possible disk. A GPT would have been read before.
    ends = [entry.start + entry.length for entry in entries if entry.type != partitions.PROTECTIVE]
    return Facts("mbr", role="machine", layout="disk", claimed=max(ends, default=1) * SECTOR_BYTES)


def vhd(sample: Sample) -> Facts | None:
    """Detect a VHD, which ends with a footer.

    A dynamic one starts with a copy of the footer, then the address of its block table.
    """
    has_footer = b"conectix" in (sample.tail[:8], sample.tail[1:9])  # the earliest programs wrote 511 bytes
    if not sample.has(0, b"conectix"):
        return Facts("vhd", role="machine") if has_footer else None
    blocks = sample.be(512 + 16, 8) + sample.be(512 + 28, 4) * 4 if sample.has(512, b"cxsparse") else 0
    end = 0 if has_footer else sample.size
    return Facts("vhd", role="machine", claimed=max(blocks, end) + TAIL_BYTES)


# --- file systems ---


def ext(sample: Sample) -> Facts | None:
    block_bits = 10 + sample.le(1024 + 24, 4)
    blocks = sample.le(1024 + 4, 4)
    if not sample.has(1024 + 56, b"\x53\xef") or block_bits > 16 or not blocks:  # 64 KiB is the largest block
        return None
    compatible, needed, readable = (sample.le(1024 + at, 4) for at in (92, 96, 100))
    if needed & 0x80:  # 64bit
        blocks |= sample.le(1024 + 336, 4) << 32
    # Extents, 64bit, flex_bg, and the read-only features that came with ext4; else a journal makes it ext3.
    name = "ext3" if compatible & 0x4 else "ext2"
    if needed & 0x2C0 or readable & 0x478:
        name = "ext4"
    return Facts(name, role="machine", layout="partition", claimed=blocks << block_bits)


def fat(sample: Sample) -> Facts | None:
    sector, cluster, media = sample.le(11, 2), sample.le(13, 1), sample.le(21, 1)
    shaped = sample.has(0x1FE, b"\x55\xaa") and sample.le(0, 1) in (0xEB, 0xE9) and sample.le(14, 2)
    sized = sector in (512, 1024, 2048, 4096) and cluster.bit_count() == 1
    if not (shaped and sized and sample.le(16, 1) in (1, 2) and media >= 0xF0):
        return None
    claimed = (sample.le(19, 2) or sample.le(32, 4)) * sector
    role: Role = "ramdisk" if claimed <= FLOPPY_MAX_BYTES else "machine"
    return Facts("fat", role=role, layout="partition", claimed=claimed)


# --- formats with one magic ---


@dataclass(frozen=True, slots=True)
class Signature:
    """A magic at an offset, the facts it shows, and a function for the size in the header."""

    facts: Facts
    at: int
    magic: bytes
    claim: Callable[[Sample], int] | None = None


def file_system(name: str) -> Facts:
    return Facts(name, role="machine", layout="partition")


def container(name: str) -> Facts:
    return Facts(name, role="machine")


def qcow2_bytes(sample: Sample) -> int:
    """Return the end of the two tables in the header: the L1 table and the table of reference counts."""
    l1_end = sample.be(40, 8) + sample.be(36, 4) * 8
    counts_end = sample.be(48, 8) + (
        sample.be(56, 4) << min(sample.be(20, 4), 21)
    )  # clusters are 2 MiB at most
    return max(l1_end, counts_end)


SIGNATURES = (
    Signature(container("qcow2"), 0, b"QFI\xfb\0\0\0\x02", qcow2_bytes),
    Signature(container("qcow2"), 0, b"QFI\xfb\0\0\0\x03", qcow2_bytes),
    Signature(container("qcow"), 0, b"QFI\xfb\0\0\0\x01"),
    Signature(
        container("vmdk"), 0, b"KDMV", lambda sample: sample.le(64, 8) * SECTOR_BYTES
    ),  # up to its data
    Signature(container("vmdk"), 0, b"COWD"),
    Signature(container("vmdk"), 0, b"\xbe\xba\xfe\xca\0\0\0\0"),
    Signature(container("vmdk"), 0, b"# Disk DescriptorFile"),
    Signature(container("vhdx"), 0, b"vhdxfile"),
    Signature(container("qed"), 0, b"QED\0"),
    Signature(container("parallels"), 0, b"WithoutFreeSpace"),
    Signature(container("parallels"), 0, b"WithouFreSpacExt"),
    Signature(container("luks"), 0, b"LUKS\xba\xbe"),
    Signature(
        container("vdi"),
        0x40,
        b"\x7f\x10\xda\xbe",
        lambda sample: sample.le(0x158, 4) + sample.le(0x178, 4) * sample.le(0x184, 4),
    ),
    Signature(file_system("xfs"), 0, b"XFSB", lambda sample: sample.be(8, 8) * sample.be(4, 4)),
    Signature(
        file_system("btrfs"), 0x10040, b"_BHRfS_M", lambda sample: sample.le(0x100D1, 8)
    ),  # this device's
    Signature(file_system("ntfs"), 3, b"NTFS    ", lambda sample: sample.le(40, 8) * sample.le(11, 2)),
    Signature(file_system("jfs"), 0x8000, b"JFS1"),
    Signature(file_system("reiserfs"), 0x10034, b"ReIsEr"),
    Signature(file_system("f2fs"), 0x400, b"\x10\x20\xf5\xf2"),
    Signature(file_system("squashfs"), 0, b"hsqs", lambda sample: sample.le(40, 8)),
    Signature(Facts("cramfs", role="ramdisk"), 0, b"\x45\x3d\xcd\x28"),
    Signature(Facts("romfs", role="ramdisk"), 0, b"-rom1fs-"),
    Signature(Facts("cpio", role="ramdisk"), 0, b"070701"),  # also one with microcode before the real one
    Signature(Facts("cpio", role="ramdisk"), 0, b"070702"),
    Signature(Facts("iso9660"), 0x8001, b"CD001", lambda sample: sample.le(0x8050, 4) * sample.le(0x8080, 2)),
    Signature(Facts("swap"), 4086, b"SWAPSPACE2", lambda sample: (sample.le(1028, 4) + 1) * 4096),
    Signature(Facts("tar"), 257, b"ustar"),
    Signature(Facts("zip"), 0, b"PK\x03\x04"),
)


def match_signature(sample: Sample) -> Facts | None:
    found = next((s for s in SIGNATURES if sample.has(s.at, s.magic)), None)
    if found is None:
        return None
    return replace(found.facts, claimed=found.claim(sample)) if found.claim else found.facts


def detect_empty(sample: Sample) -> Facts | None:
    if not sample.size:
        return Facts("empty")
    return Facts("zeros") if sample.head.count(0) == len(sample.head) else None


def text(sample: Sample) -> Facts | None:
    printable = b"\t\n\f\r" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
    return None if sample.head[:TEXT_SAMPLE_BYTES].translate(None, printable) else Facts("text")


# The order matters: a fixed VHD has the first sector of a disk, a bootable CD has a partition table, and a
# partition table has priority over remains of an earlier file system.
PROBES: tuple[Probe, ...] = (
    detect_empty,
    *kernels.HEADED,
    vhd,
    match_signature,
    gpt,
    mbr,
    ext,
    fat,
    *kernels.OTHERS,
    text,
)


# --- compressed files ---


class Decompressor(Protocol):
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


COMPRESSIONS: Mapping[bytes, str] = {
    b"\x1f\x8b\x08": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x5d\0\0": "lzma",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x02\x21\x4c\x18": "lz4",  # the legacy frame, the only one the kernel unpacks
    b"\x04\x22\x4d\x18": "lz4",
    b"\x89LZO\0\r\n\x1a\n": "lzop",
}

DECOMPRESSORS: Mapping[str, Callable[[], Decompressor]] = {
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "xz": lambda: lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES),
    "lzma": lambda: lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES),
    "bzip2": bz2.BZ2Decompressor,
}


def compressed(sample: Sample) -> Facts | None:
    name = next((name for magic, name in COMPRESSIONS.items() if sample.has(0, magic)), None)
    if name is None:
        return None
    inside = detect_inside(sample.head, name)
    if inside is None:
        return Facts(name)
    # A compressed ext2 is either an old initrd or a disk: only its name can tell.
    role = None if inside.format in RAMDISK_FILE_SYSTEMS else inside.role
    return Facts(name, role=role, arch=inside.arch, version=inside.version, inside=inside.format)


def detect_inside(head: bytes, name: str) -> Facts | None:
    """Detect the decompressed content of the first bytes; None if Python cannot decompress them."""
    if name == "lz4":  # its first bytes are literals: nothing before them could repeat
        return Facts("cpio", role="ramdisk") if b"070701" in head[4:32] else None
    data = decompress_head(head, name) if name in DECOMPRESSORS else b""
    return identify(Sample(data, b"", len(data))) if data else None


def decompress_head(head: bytes, name: str) -> bytes:
    try:
        return DECOMPRESSORS[name]().decompress(head, HEAD_BYTES)
    except (zlib.error, lzma.LZMAError, OSError):  # bz2 raises OSError for bad data
        return b""
