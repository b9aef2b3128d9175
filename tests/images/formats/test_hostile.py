"""A file for each rule: the reason of the refusal, and the hint for its owner."""

import os
import struct
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import pytest

from tests.support.containers import (
    CONTAINERS,
    memory_file,
    vhd_footer,
    vhd_sum,
    vhdx_sum,
    write_qcow2,
    write_vmdk,
)
from tests.support.reading import opened, read
from tests.support.sizes import KIB, MIB, SECTOR
from uecwatchd.errors import Rejected
from uecwatchd.images.formats.open import DiskAccess, open_disk

DISK = b"karmic koala".ljust(3 * MIB, b"k") + bytes(MIB)
CLUSTER = 64 * KIB
L1, L2, DATA = 2 * CLUSTER, 3 * CLUSTER, 4 * CLUSTER  # of a qcow2 as it is written here
CONVERT = "qemu-img convert -O qcow2 disk.img disk.img.part && mv disk.img.part disk.img"
DIFFERENT_DISK = "a part of its disk"
COPY = "Copy it again"


@dataclass(frozen=True)
class Hostile:
    """A container with something wrong, and pieces of the sentence about it."""

    container: str
    spoil: Callable[[FileIO], object]
    why: str
    hint: str = COPY


def put(place: int, layout: str, *values: int | bytes) -> Callable[[FileIO], object]:
    """Return a function that writes values into a file."""
    return lambda file: os.pwrite(file.fileno(), struct.pack(layout, *values), place)


def both(*steps: Callable[[FileIO], object]) -> Callable[[FileIO], object]:
    return lambda file: [step(file) for step in steps]


def cut(length: int) -> Callable[[FileIO], object]:
    """Return a function that leaves only so many bytes; or, if negative, takes so many off."""
    return lambda file: file.truncate(length if length > 0 else os.fstat(file.fileno()).st_size + length)


def append(data: bytes) -> Callable[[FileIO], object]:
    return lambda file: os.pwrite(file.fileno(), data, os.fstat(file.fileno()).st_size)


def replace(old: bytes, new: bytes) -> Callable[[FileIO], object]:
    def step(file: FileIO) -> None:
        head = os.pread(file.fileno(), 16 * KIB, 0)
        assert old in head
        os.pwrite(file.fileno(), head.replace(old, new), 0)

    return step


def in_footer(at: int, layout: str, *values: int | bytes) -> Callable[[FileIO], object]:
    """Return a function that changes both footers of a VHD, and corrects their checksums."""

    def step(file: FileIO) -> None:
        for place in {0, os.fstat(file.fileno()).st_size - SECTOR}:
            footer = bytearray(os.pread(file.fileno(), SECTOR, place))
            if footer.startswith(b"conectix"):
                struct.pack_into(layout, footer, at, *values)
                os.pwrite(file.fileno(), vhd_sum(bytes(footer), at=64), place)

    return step


def in_second_header(at: int, layout: str, *values: int | bytes) -> Callable[[FileIO], object]:
    def step(file: FileIO) -> None:
        header = bytearray(os.pread(file.fileno(), 2 * SECTOR, SECTOR))
        struct.pack_into(layout, header, at, *values)
        os.pwrite(file.fileno(), vhd_sum(bytes(header), at=36, length=2 * SECTOR), SECTOR)

    return step


def in_vhdx(
    places: tuple[int, ...], length: int, at: int, layout: str, *values: int | bytes
) -> Callable[[FileIO], object]:
    """Return a function that changes both copies of a structure of a VHDX, and corrects their checksums."""

    def step(file: FileIO) -> None:
        for place in places:
            data = bytearray(os.pread(file.fileno(), length, place))
            struct.pack_into(layout, data, at, *values)
            os.pwrite(file.fileno(), vhdx_sum(bytes(data)), place)

    return step


HEADERS, REGIONS = ((64 * KIB, 128 * KIB), 4 * KIB), ((192 * KIB, 256 * KIB), 64 * KIB)
ITEMS, VALUES, BAT = 2 * MIB + 32, 2 * MIB + 64 * KIB, 3 * MIB
GT = 22 * SECTOR  # grain table of a VMDK as it is written here

RULES: dict[str, Hostile] = {
    # qcow2
    "qcow2 without all of its header": Hostile("qcow2", cut(50), "truncated: its header ends at"),
    "qcow2 of version 3 without all of its header": Hostile(
        "qcow2", cut(80), "truncated: its header ends at"
    ),
    "qcow2 with four bytes": Hostile("qcow2", cut(4), "truncated: its header ends at"),
    "qcow2 of another version": Hostile("qcow2", put(4, ">I", 4), "qcow2 of version 4", CONVERT),
    "qcow2 with a backing file": Hostile("qcow2", put(8, ">QI", 200, 9), DIFFERENT_DISK, CONVERT),
    "qcow2 with the length of a backing file": Hostile("qcow2", put(16, ">I", 9), DIFFERENT_DISK, CONVERT),
    "qcow2 encrypted by AES": Hostile("qcow2", put(32, ">I", 1), "encrypted (AES)", "Decrypt it"),
    "qcow2 encrypted by LUKS": Hostile("qcow2", put(32, ">I", 2), "encrypted (LUKS)", "Decrypt it"),
    "qcow2 encrypted by a new method": Hostile(
        "qcow2", put(32, ">I", 9), "encrypted (method 9)", "Decrypt it"
    ),
    "qcow2 that is corrupt": Hostile("qcow2", put(72, ">Q", 2), "marked it as corrupt"),
    "qcow2 with a data file": Hostile("qcow2", put(72, ">Q", 4), "external data file", CONVERT),
    "qcow2 with an unknown feature": Hostile(
        "qcow2", put(72, ">Q", 1 << 40), "not known here (bits 0x100", CONVERT
    ),
    "qcow2 with an unknown compression": Hostile(
        "qcow2", both(put(72, ">Q", 8), put(104, "B", 2)), "compression type 2", CONVERT
    ),
    "qcow2 with zstd, and no bit for it": Hostile("qcow2", put(104, "B", 1), "contradicts itself"),
    "qcow2 with a bit for zstd, and none": Hostile("qcow2", put(72, ">Q", 8), "contradicts itself"),
    "qcow2 with extended entries in small clusters": Hostile(
        "qcow2-512", put(72, ">Q", 16), "a cluster has 2^9"
    ),
    "qcow2 with tiny clusters": Hostile("qcow2", put(20, ">I", 8), "header says"),
    "qcow2 with giant clusters": Hostile("qcow2", put(20, ">I", 22), "a cluster has 2^22"),
    "qcow2 with endless clusters": Hostile("qcow2", put(20, ">I", 0xFFFFFFFF), "a cluster has 2^4294967295"),
    "qcow2 with a giant disk": Hostile(
        "qcow2", put(24, ">Q", 1 << 62), "its disk has 4 EiB, and at most 16 TiB are accepted", "smaller"
    ),
    "qcow2 without a disk": Hostile("qcow2", put(24, ">Q", 0), "has 0 bytes"),
    "qcow2 that ends inside a sector": Hostile("qcow2", put(24, ">Q", 3 * MIB + 1), "no disk of sectors"),
    "qcow2 with a short L1 table": Hostile("qcow2", put(24, ">Q", 1 << 40), "L1 table is too short"),
    "qcow2 with an endless L1 table": Hostile("qcow2", put(36, ">I", 0xFFFFFFFF), "place for the L1 table"),
    "qcow2 with a slanted L1 table": Hostile("qcow2", put(40, ">Q", L1 + 8), "place for the L1 table"),
    "qcow2 with its L1 table elsewhere": Hostile("qcow2", put(40, ">Q", 1 << 50), "truncated: its L1 table"),
    "qcow2 with an L2 table behind its end": Hostile(
        "qcow2", put(L1, ">Q", 1 << 40), "truncated: a table of"
    ),
    "qcow2 with half an L2 table": Hostile(
        "qcow2", both(put(L1, ">Q", DATA), cut(DATA + 100)), "truncated: a table"
    ),
    "qcow2 with a slanted L2 table": Hostile("qcow2", put(L1, ">Q", L2 + SECTOR), "inside a cluster"),
    "qcow2 with a slanted cluster": Hostile("qcow2", put(L2, ">Q", DATA + SECTOR), "inside a cluster"),
    "qcow2 with a cluster behind its end": Hostile("qcow2", put(L2, ">Q", 1 << 40), "truncated: the data"),
    "qcow2 without its last cluster": Hostile("qcow2", cut(-1), "truncated: the data"),
    "qcow2 with one cluster twice": Hostile("qcow2", put(L2 + 8, ">Q", DATA), "the same place in the file"),
    "qcow2 with the last cluster first": Hostile("qcow2", put(L2, ">Q", DATA + CLUSTER), "the same place"),
    "qcow2 with zeros before their time": Hostile("qcow2-2", put(L2, ">Q", 1), "clusters of zeros"),
    "qcow2 with a compressed cluster behind its end": Hostile(
        "qcow2-zlib", put(L2, ">Q", 1 << 62 | 1 << 40), "truncated"
    ),
    "qcow2 with half a compressed cluster": Hostile("qcow2-zlib", cut(-600), "truncated"),
    "qcow2 with a negative compressed cluster": Hostile(
        "qcow2-zlib", put(L2, ">Q", 1 << 62 | (1 << 54) - 1), "truncated"
    ),
    # VMDK
    "VMDK without all of its header": Hostile("vmdk", cut(100), "truncated: its header"),
    "VMDK with a parent": Hostile(
        "vmdk", replace(b"parentCID=ffffffff", b"parentCID=12345678"), DIFFERENT_DISK, CONVERT
    ),
    "VMDK with the name of a parent": Hostile(
        "vmdk", replace(b"# The Disk Data Base", b'parentFileNameHint="x'), DIFFERENT_DISK, CONVERT
    ),
    "VMDK with two ideas of its parent": Hostile(
        "vmdk", replace(b"# The Disk Data Base", b"parentCID=12345678\n#"), DIFFERENT_DISK, CONVERT
    ),
    "VMDK that does not mention a parent": Hostile(
        "vmdk", replace(b"parentCID", b"otherCID_"), DIFFERENT_DISK, CONVERT
    ),
    "VMDK with a flat extent": Hostile(
        "vmdk", replace(b'SPARSE "disk', b'FLAT   "/etc'), "its extent is RW FLAT", CONVERT
    ),
    "VMDK with two extents": Hostile(
        "vmdk",
        replace(b"# The Disk Data Base\n", b'RW 1 SPARSE "x.vmdk"\n'),
        "2 extents instead of one",
        CONVERT,
    ),
    "VMDK without an extent": Hostile("vmdk", replace(b"RW 8192", b"## 8192"), "0 extents", CONVERT),
    "VMDK that denies access": Hostile(
        "vmdk", replace(b"RW 8192 SPARSE", b"NOACCESS 1 SPARSE"), "NOACCESS", CONVERT
    ),
    "VMDK without a descriptor": Hostile("vmdk", put(28, "<QQ", 0, 0), "one of several files", CONVERT),
    "VMDK with an endless descriptor": Hostile("vmdk", put(36, "<Q", 1 << 50), "its descriptor has"),
    "VMDK with its descriptor elsewhere": Hostile(
        "vmdk", put(28, "<Q", 1 << 50), "truncated: its descriptor"
    ),
    "VMDK without a disk, whose descriptor has it": Hostile("vmdk", put(12, "<Q", 0), "has 0 bytes"),
    "VMDK with a giant disk": Hostile("vmdk", put(12, "<Q", 1 << 54), "at most", "smaller"),
    "VMDK of another version": Hostile("vmdk", put(4, "<I", 4), "its version 4", CONVERT),
    "VMDK with odd grains": Hostile("vmdk", put(20, "<Q", 100), "a grain has 100 sectors"),
    "VMDK with giant grains": Hostile("vmdk", put(20, "<Q", 1 << 40), "a grain has"),
    "VMDK with odd tables": Hostile("vmdk", put(44, "<I", 1), "a grain table has 1 entries"),
    "VMDK without a directory": Hostile("vmdk", put(56, "<Q", 0), "no place for the grain directory"),
    "VMDK with its directory elsewhere": Hostile(
        "vmdk", put(56, "<Q", 1 << 50), "truncated: its grain directory"
    ),
    "VMDK with a table behind its end": Hostile(
        "vmdk", put(21 * SECTOR, "<I", 0xFFFFFFFF), "truncated: a grain table"
    ),
    "VMDK with a grain behind its end": Hostile("vmdk", put(GT, "<I", 0xFFFFFFFF), "truncated: the data"),
    "VMDK without its last grain": Hostile("vmdk", cut(-1), "truncated: the data"),
    "VMDK with one grain twice": Hostile("vmdk", put(GT, "<II", 128, 128), "the same place in the file"),
    "VMDK with an unknown compression": Hostile("vmdk", put(77, "<H", 2), "its compression 2", CONVERT),
    "VMDK with compression and no markers": Hostile(
        "vmdk-stream", put(8, "<I", 0x10001), "contradicts itself"
    ),
    "VMDK without its footer": Hostile("vmdk-footer", cut(-SECTOR), "it has no footer"),
    "VMDK with nothing but a header and no footer": Hostile(
        "vmdk-footer", both(put(12, "<Q", 0), cut(21 * SECTOR)), "it has no footer"
    ),
    "VMDK whose footer has no directory": Hostile(
        "vmdk-footer",
        lambda file: put(os.fstat(file.fileno()).st_size - 2 * SECTOR + 56, "<Q", (1 << 64) - 1)(file),
        "its footer does not say where",
    ),
    "VMDK with a grain of another place": Hostile(
        "vmdk-stream", put(CLUSTER, "<Q", 128), "is another grain's"
    ),
    "VMDK with a giant grain": Hostile(
        "vmdk-stream", put(CLUSTER + 8, "<I", 1 << 30), "claims 1073741824 bytes"
    ),
    "VMDK with half a grain": Hostile("vmdk-stream", cut(CLUSTER + 40), "truncated"),
    # VDI
    "VDI without all of its header": Hostile("vdi", cut(0x100), "truncated: its header"),
    "VDI of another version": Hostile("vdi", put(0x44, "<I", 0x20001), "its version 0x20001", CONVERT),
    "VDI that is an undo image": Hostile("vdi", put(0x4C, "<I", 3), "it is an undo image", CONVERT),
    "VDI that is a differencing image": Hostile(
        "vdi", put(0x4C, "<I", 4), "it is a differencing image", CONVERT
    ),
    "VDI of an unknown type": Hostile("vdi", put(0x4C, "<I", 9), DIFFERENT_DISK, CONVERT),
    "VDI with a link": Hostile("vdi", put(0x1A8, "B", 1), DIFFERENT_DISK, CONVERT),
    "VDI with a parent": Hostile("vdi", put(0x1B8, "B", 1), DIFFERENT_DISK, CONVERT),
    "VDI with odd sectors": Hostile("vdi", put(0x168, "<I", 4096), "a layout that is not known", CONVERT),
    "VDI with something before its blocks": Hostile(
        "vdi", put(0x17C, "<I", 512), "a layout that is not known", CONVERT
    ),
    "VDI with odd blocks": Hostile("vdi", put(0x178, "<I", 100_000), "a block has 100000 bytes"),
    "VDI with tiny blocks": Hostile("vdi", put(0x178, "<I", 512), "a block has 512 bytes"),
    "VDI with a slanted map": Hostile("vdi", put(0x154, "<I", 513), "inside a sector"),
    "VDI with a giant disk": Hostile("vdi", put(0x170, "<Q", 1 << 60), "at most", "smaller"),
    "VDI with a short map": Hostile("vdi", put(0x180, "<I", 1), "its map is too short"),
    "VDI with its map elsewhere": Hostile("vdi", put(0x154, "<I", 1 << 31), "truncated: its map"),
    "VDI with a block behind its end": Hostile("vdi", put(SECTOR, "<I", 77), "truncated: the data"),
    "VDI with one block twice": Hostile("vdi", put(SECTOR, "<II", 1, 1), "the same place in the file"),
    "VDI without its last block": Hostile("vdi", cut(-1), "truncated: the data"),
    # VHD
    "VHD with a wrong checksum": Hostile("vhd", put(50, "B", 1), "the checksum of its footer is wrong"),
    "VHD with a wrong checksum at its end": Hostile(
        "vhd-fixed", put(len(DISK) + 50, "B", 1), "the checksum of its"
    ),
    "VHD with a wrong second checksum": Hostile(
        "vhd", put(SECTOR + 40, "B", 1), "checksum of its second header"
    ),
    "VHD that is a differencing one": Hostile("vhd", in_footer(60, ">I", 4), "a differencing VHD", CONVERT),
    "VHD that is a fixed differencing one": Hostile(
        "vhd-fixed", in_footer(60, ">I", 4), "a differencing VHD", CONVERT
    ),
    "VHD of an unknown type": Hostile("vhd", in_footer(60, ">I", 5), "type 5 instead of 3"),
    "VHD that is dynamic at its end only": Hostile(
        "vhd-fixed", in_footer(60, ">I", 3), "type 3 instead of 2"
    ),
    "VHD without its end": Hostile("vhd", cut(-SECTOR), "truncated: the footer at its end is missing"),
    "VHD with a footer alone": Hostile("vhd", cut(SECTOR), "truncated: its second header"),
    "VHD with a giant disk": Hostile("vhd", in_footer(48, ">Q", 1 << 60), "at most", "smaller"),
    "VHD without a disk": Hostile("vhd-fixed", in_footer(48, ">Q", 0), "has 0 bytes"),
    "VHD with its second header elsewhere": Hostile(
        "vhd", in_footer(16, ">Q", 1 << 60), "truncated: its second"
    ),
    "VHD with another second header": Hostile(
        "vhd", in_second_header(0, "8s", b"cxsparsf"), "second header is not one"
    ),
    "VHD with odd blocks": Hostile("vhd", in_second_header(32, ">I", 100_000), "a block has 100000 bytes"),
    "VHD with tiny blocks": Hostile("vhd", in_second_header(32, ">I", 512), "a block has 512 bytes"),
    "VHD with a short map": Hostile("vhd", in_second_header(28, ">I", 1), "its map is too short"),
    "VHD with its map elsewhere": Hostile("vhd", in_second_header(16, ">Q", 1 << 60), "truncated: its map"),
    "VHD with a block behind its end": Hostile("vhd", put(1536, ">I", 0x7FFFFFFF), "truncated: the data"),
    "VHD with one block twice": Hostile("vhd", put(1540, ">I", 4), "the same place in the file"),
    "VHD with less than its disk": Hostile("vhd-fixed", in_footer(48, ">Q", 8 * MIB), "truncated: its disk"),
    # VHDX
    "VHDX without its headers": Hostile("vhdx", cut(100), "truncated: its header"),
    "VHDX with broken headers": Hostile(
        "vhdx", both(put(64 * KIB + 9, "B", 1), put(128 * KIB + 9, "B", 9)), "both of its headers are damaged"
    ),
    "VHDX with a log": Hostile(
        "vhdx", in_vhdx(*HEADERS, 48, "16s", b"l" * 16), "its log is in use", "Open it once"
    ),
    "VHDX of another version": Hostile("vhdx", in_vhdx(*HEADERS, 66, "<H", 2), "its version 2", CONVERT),
    "VHDX with broken regions": Hostile(
        "vhdx",
        both(put(192 * KIB + 90, "B", 1), put(256 * KIB + 90, "B", 9)),
        "both of its tables of regions",
    ),
    "VHDX with an unknown region": Hostile(
        "vhdx", in_vhdx(*REGIONS, 16, "16s", b"r" * 16), "needs a region", CONVERT
    ),
    "VHDX without a map": Hostile(
        "vhdx", in_vhdx(*REGIONS, 16, "<16sQII", b"r" * 16, 0, 0, 0), "lacks the map or the metadata"
    ),
    "VHDX with a slanted map": Hostile("vhdx", in_vhdx(*REGIONS, 32, "<Q", 3 * MIB + 1), "impossible place"),
    "VHDX with its map in its headers": Hostile("vhdx", in_vhdx(*REGIONS, 32, "<Q", 0), "impossible place"),
    "VHDX with its map elsewhere": Hostile(
        "vhdx", in_vhdx(*REGIONS, 32, "<Q", 1 << 50), "truncated: its map"
    ),
    "VHDX with its metadata elsewhere": Hostile(
        "vhdx", in_vhdx(*REGIONS, 64, "<Q", 1 << 50), "truncated: its meta"
    ),
    "VHDX with broken metadata": Hostile("vhdx", put(2 * MIB, "B", 1), "its metadata is damaged"),
    "VHDX with too much metadata": Hostile("vhdx", put(2 * MIB + 10, "<H", 2048), "its metadata is damaged"),
    "VHDX with unknown metadata": Hostile(
        "vhdx", put(ITEMS + 64, "16s", b"m" * 16), "needs metadata", CONVERT
    ),
    "VHDX without its size": Hostile(
        "vhdx", put(ITEMS + 32, "<16sIII", b"m" * 16, 0, 0, 0), "lacks the size"
    ),
    "VHDX with its size elsewhere": Hostile("vhdx", put(ITEMS + 48, "<I", 0xFFFFFFF8), "an impossible item"),
    "VHDX with a long size": Hostile("vhdx", put(ITEMS + 52, "<I", 80), "an impossible item"),
    "VHDX with a parent": Hostile("vhdx", put(VALUES + 4, "<I", 2), "a differencing VHDX", CONVERT),
    "VHDX with odd blocks": Hostile("vhdx", put(VALUES, "<I", 3 * MIB), "a block has 3145728 bytes"),
    "VHDX with odd sectors": Hostile("vhdx", put(VALUES + 32, "<I", 1024), "a sector has 1024 bytes"),
    "VHDX that ends inside a sector": Hostile(
        "vhdx-4096", put(VALUES + 8, "<Q", 3 * MIB + 512), "ends inside a sector"
    ),
    "VHDX with a giant disk": Hostile("vhdx", put(VALUES + 8, "<Q", 1 << 60), "at most", "smaller"),
    "VHDX with a short map": Hostile("vhdx", put(VALUES + 8, "<Q", 1 << 40), "its map is too short"),
    "VHDX with a block half there": Hostile("vhdx", put(BAT, "<Q", 4 * MIB | 7), "a block in state 7"),
    "VHDX with a block in its headers": Hostile("vhdx", put(BAT, "<Q", 6), "in the place of the headers"),
    "VHDX with a block behind its end": Hostile("vhdx", put(BAT, "<Q", 1 << 50 | 6), "truncated: the data"),
    "VHDX with one block twice": Hostile(
        "vhdx", put(BAT + 8, "<Q", 4 * MIB | 6), "the same place in the file"
    ),
    "VHDX without its last block": Hostile("vhdx", cut(-1), "truncated: the data"),
    # Two in one
    "qcow2 that is a VHD at its end": Hostile(
        "qcow2", append(vhd_footer(MIB, kind=2)), "qcow2 and vhd in one", "Make it"
    ),
    "qcow2 with a boot sector": Hostile(
        "qcow2", put(510, "BB", 0x55, 0xAA), "qcow2 and a boot sector", "Make it again"
    ),
    "qcow2 with an ISO inside": Hostile(
        "qcow2", put(0x8000, "6s", b"\1CD001"), "qcow2 and ISO 9660", "Make it again"
    ),
    "qcow2 with a GPT": Hostile("qcow2", put(512, "8s", b"EFI PART"), "qcow2 and a GPT", "Make it again"),
    "qcow2 that is a VDI": Hostile("qcow2", put(0x40, "<I", 0xBEDA107F), "qcow2 and vdi", "Make it again"),
    "VMDK that is a VDI": Hostile(
        "vmdk", put(0x40, "<I", 0xBEDA107F), "vmdk and vdi in one", "Make it again"
    ),
    "VHDX with a boot sector": Hostile(
        "vhdx", put(510, "BB", 0x55, 0xAA), "vhdx and a boot sector", "Make it again"
    ),
    "VHD around a qcow2": Hostile(
        "vhd-fixed", put(0, "4sI", b"QFI\xfb", 0x3000000), "qcow2 and vhd", "Make it again"
    ),
}

BY_NAME: dict[str, tuple[bytes, str]] = {
    "qcow": (b"QFI\xfb\0\0\0\1", "qcow"),
    "qed": (b"QED\0", "qed"),
    "parallels": (b"WithoutFreeSpace", "parallels"),
    "parallels with long sizes": (b"WithouFreSpacExt", "parallels"),
    "VMDK of ESX": (b"COWD\1\0\0\0", "a VMDK of ESX"),
    "VMDK of ESX 6": (struct.pack("<QQ", 0xCAFEBABE, 0x200000001), "a VMDK of ESX"),
    "LUKS": (b"LUKS\xba\xbe\0\1", "encrypted (LUKS)"),
    "VMDK descriptor": (
        b'# Disk DescriptorFile\nRW 1 FLAT "/etc/shadow" 0\n',
        "only the descriptor of a VMDK",
    ),
}


def refusal(file: FileIO) -> Rejected:
    with file, pytest.raises(Rejected) as raised:
        open_disk(file, name="disk.img")
    return raised.value


@pytest.mark.parametrize("hostile", RULES.values(), ids=RULES)
def test_each_mistake_is_reported_with_its_remedy(hostile: Hostile) -> None:
    file = CONTAINERS[hostile.container].make(DISK)
    hostile.spoil(file)
    error = refusal(file)
    assert error.what == "disk.img: it cannot be opened as a disk image"
    assert hostile.why in error.why
    assert hostile.hint in error.hint
    assert not error.why.endswith(".")
    assert "{" not in str(error)


@pytest.mark.parametrize(("magic", "name"), BY_NAME.values(), ids=BY_NAME)
def test_formats_that_are_not_read_are_refused_by_name(magic: bytes, name: str) -> None:
    error = refusal(memory_file(magic.ljust(MIB, b"\0")))
    assert name in error.why
    assert "qemu-img convert" in error.hint or "Decrypt it" in error.hint


def test_a_file_without_any_magic_is_raw() -> None:
    disk = opened(memory_file(DISK))
    with closing(disk.source) as source:
        assert (disk.format, source.size) == ("raw", len(DISK))


# --- bombs ---


def test_a_map_of_a_terabyte_in_half_a_megabyte_is_refused() -> None:
    file = memory_file()
    write_qcow2(file, b"k" * CLUSTER)
    tables = 2048  # 512 MiB each, all of them one and the same
    os.pwrite(file.fileno(), struct.pack(">Q", 1 << 40), 24)
    os.pwrite(file.fileno(), struct.pack(">I", tables), 36)
    os.pwrite(file.fileno(), struct.pack(">Q", L2) * tables, L1)
    os.pwrite(file.fileno(), struct.pack(">Q", DATA) * (CLUSTER // 8), L2)
    assert "the same place in the file" in refusal(file).why


def test_compressed_blocks_that_are_all_the_same_are_refused() -> None:
    file = memory_file()
    disk = b"k" * CLUSTER
    write_qcow2(file, disk, method="zlib")
    entries = CLUSTER // 8
    os.pwrite(file.fileno(), struct.pack(">Q", entries * CLUSTER), 24)
    os.pwrite(file.fileno(), os.pread(file.fileno(), 8, L2) * entries, L2)
    assert "more data than the 256.1 KiB that the file has" in refusal(file).why


def test_blocks_that_overlap_in_part_are_refused() -> None:
    file = memory_file()
    write_vmdk(file, b"k" * 2 * MIB)
    os.pwrite(file.fileno(), struct.pack("<II", 128, 129), GT)
    assert "the same place in the file" in refusal(file).why


# --- damage inside of compressed blocks ---


@pytest.mark.parametrize("name", ["qcow2-zlib", "qcow2-zstd", "vmdk-stream"])
def test_damaged_compressed_data_is_reported_in_a_sentence(name: str) -> None:
    container = CONTAINERS[name]
    file = memory_file()
    layout = container.write(file, DISK, **dict(container.options))
    os.pwrite(file.fileno(), b"\xff" * 8, layout.data + 20)
    with closing(opened(file).source) as source:
        with pytest.raises(Rejected, match="the compressed block at byte 0 of its disk is damaged"):
            read(source, 0, 100)
        with pytest.raises(Rejected, match="the compressed block at byte 0 of its disk is damaged"):
            read(source, 0, len(DISK))
        assert read(source, CLUSTER, 100) == DISK[CLUSTER : CLUSTER + 100]


def test_a_compressed_grain_that_is_too_long_is_damaged() -> None:
    file = memory_file()
    layout = write_vmdk(file, DISK, stream=True)
    stream = zlib.compress(b"k" * (CLUSTER + 1))
    os.pwrite(file.fileno(), struct.pack("<QI", 0, len(stream)) + stream, layout.data)
    with closing(opened(file).source) as source, pytest.raises(Rejected, match="does not end within 65536"):
        read(source, 0, 100)


# --- change, failure, interruption ---


@pytest.mark.parametrize(
    "name", ["qcow2", "qcow2-zlib", "vmdk", "vmdk-stream", "vdi", "vhd", "vhd-fixed", "vhdx"]
)
def test_a_file_that_is_cut_while_it_is_read_has_changed(name: str) -> None:
    """It reads as short, which readers report as a change: the image is not to blame."""
    file = CONTAINERS[name].make(os.urandom(4 * MIB))
    with closing(opened(file).source) as source:
        os.ftruncate(file.fileno(), 8 * KIB)
        assert source.read_into(2 * MIB, memoryview(bytearray(100))) == 0
        assert not source.is_unchanged()


@pytest.mark.parametrize("name", ["qcow2", "qcow2-zlib", "vhdx"])
def test_a_disk_that_cannot_be_read_is_not_blamed_on_the_image(name: str, tmp_path: Path) -> None:
    file = CONTAINERS[name].make(DISK)
    with closing(opened(file).source) as source:
        folder = os.open(tmp_path, os.O_RDONLY)
        os.dup2(folder, file.fileno())  # reads of a folder fail
        os.close(folder)
        with pytest.raises(OSError, match="Is a directory"):
            read(source, 0, 100)


def test_opening_a_long_map_can_be_stopped() -> None:
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise InterruptedError

    file = CONTAINERS["qcow2-512"].make(bytes(16 * MIB - 1) + b"k")
    with file, pytest.raises(InterruptedError):
        open_disk(file, name="disk.img", check=check)


def test_the_caller_sets_the_limit_of_the_disk_size() -> None:
    with (
        CONTAINERS["vdi"].make(DISK) as file,
        pytest.raises(Rejected, match="its disk has 4 MiB, and at most 3 MiB"),
    ):
        open_disk(file, name="disk.img", access=DiskAccess.limited_to(3 * MIB))


def test_commands_in_hints_can_be_copied() -> None:
    file = CONTAINERS["qcow2"].make(DISK)
    put(8, ">QI", 200, 9)(file)
    with file, pytest.raises(Rejected) as raised:
        open_disk(file, name="my disk.img")
    assert (
        "convert -O qcow2 'my disk.img' 'my disk.img'.part && mv 'my disk.img'.part 'my disk.img'"
        in raised.value.hint
    )
