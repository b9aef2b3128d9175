"""Check of an image's first and last bytes: could it boot in its role?

A node boots raw bytes: a qcow2 or VMDK inside a bundle registers everywhere and boots nowhere.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Mapping

from uecwatchd.sandbox.ec2.manifest import ImageType

HEAD = (
    68 << 10
)  # compressed heads need some length before anything comes out of them; s390 has its mark at 64
TAIL = 512  # a fixed VHD has its only mark in the last sector
SECTOR = 512

BOOT_MARK = (510, b"\x55\xaa")
LINUX_MARK = (514, b"HdrS")
EXT_MARK = (1080, b"\x53\xef")
CPIO_MARKS = (b"070701", b"070702", b"070707", b"\xc7\x71")
GZIP, BZIP2, XZ, LZMA = b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00", b"\x5d\x00\x00"
# Compressions the standard library cannot look into: zstd, lz4 (two forms), lzo.
OPAQUE = (b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"\x02\x21\x4c\x18", b"\x89LZO\x00")

# Offset and mark of what a machine image must not be.
NOT_RAW: Mapping[str, tuple[int, bytes]] = {
    "a qcow image": (0, b"QFI\xfb"),
    "a QED image": (0, b"QED\x00"),
    "a VMDK": (0, b"KDMV"),
    "an ESX VMDK": (0, b"COWD"),
    "a VMDK descriptor": (0, b"# Disk DescriptorFile"),
    "a dynamic VHD": (0, b"conectix"),
    "a VHDX": (0, b"vhdxfile"),
    "a VDI": (64, b"\x7f\x10\xda\xbe"),
    "a Parallels disk": (0, b"WithoutFreeSpace"),
    "compressed with gzip": (0, GZIP),
    "compressed with bzip2": (0, BZIP2),
    "compressed with xz": (0, XZ),
    "compressed with zstd": (0, OPAQUE[0]),
    "compressed with lz4": (0, OPAQUE[1]),
    "a zip archive": (0, b"PK\x03\x04"),
    "a tar archive": (257, b"ustar"),
    "a cpio archive": (0, b"07070"),
    "a program or kernel (ELF)": (0, b"\x7fELF"),
    "a Linux kernel": LINUX_MARK,
}


def reason_unsuitable(kind: ImageType, head: bytes, tail: bytes, *, size: int) -> str | None:
    """Return the reason why these bytes cannot serve in that role, or None.

    `head` and `tail` are at most HEAD and TAIL bytes long.
    """
    return JUDGES[kind](head, tail, size)


def is_disk(head: bytes) -> bool:
    """Tell if the image has a boot sector, as a disk that boots by itself must."""
    return _has(head, BOOT_MARK) and not _has(head, LINUX_MARK)


def _has(head: bytes, mark: tuple[int, bytes]) -> bool:
    offset, magic = mark
    return head.startswith(magic, offset)


def _check_machine(head: bytes, tail: bytes, size: int) -> str | None:
    if size % SECTOR:
        return f"its length {size} is not a multiple of {SECTOR}"
    if tail.startswith(b"conectix"):
        return "it is a fixed VHD"
    return next((f"it is {what}" for what, mark in NOT_RAW.items() if _has(head, mark)), None)


def _check_kernel(head: bytes, tail: bytes, size: int) -> str | None:
    del tail, size
    if _has(head, BOOT_MARK) and _has(head, LINUX_MARK):
        return None
    if head.startswith((b"\x7fELF", GZIP)) or any(_has(head, mark) for mark in OTHER_KERNELS):
        return None
    return "it is no bzImage, ELF or gzip"


def _check_ramdisk(head: bytes, tail: bytes, size: int) -> str | None:
    """Check a ramdisk; a boot floppy is accepted too, since memdisk boots Windows from one."""
    del tail
    if _is_ramdisk(head) or head.startswith(OPAQUE):
        return None
    if is_disk(head) and size % SECTOR == 0:
        return None
    inflate = next((way for mark, way in INFLATE.items() if head.startswith(mark)), None)
    if inflate is None:
        return "it is no cpio, plain or compressed, and no file system or boot floppy"
    inside = inflate(head)
    if inside is None or _is_ramdisk(inside):
        return None
    return "it is compressed, but inside is no cpio or file system"


def _is_ramdisk(head: bytes) -> bool:
    return head.startswith(CPIO_MARKS) or _has(head, EXT_MARK)


def _gunzip(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(head, HEAD)
    except zlib.error:
        return b""


def _bunzip2(head: bytes) -> bytes | None:
    """Decompress the head, or return None if it is too short: a block of up to 900 kB comes out whole."""
    try:
        return bz2.BZ2Decompressor().decompress(head, HEAD) or None
    except OSError:
        return b""


def _unxz(head: bytes) -> bytes:
    try:
        return lzma.LZMADecompressor().decompress(head, HEAD)
    except lzma.LZMAError:
        return b""


INFLATE: Mapping[bytes, Callable[[bytes], bytes | None]] = {
    GZIP: _gunzip,
    BZIP2: _bunzip2,
    XZ: _unxz,
    LZMA: _unxz,
}

# Those of ARM (Image, zImage), RISC-V, s390, and one that unpacks itself under EFI.
OTHER_KERNELS = (
    *((56, b"ARM\x64"), (0x24, b"\x18\x28\x6f\x01"), (56, b"RSC\x05")),
    *((0x10008, b"S390EP"), (4, b"zimg"), (0, b"\x27\x05\x19\x56")),
)

JUDGES: Mapping[ImageType, Callable[[bytes, bytes, int], str | None]] = {
    "machine": _check_machine,
    "kernel": _check_kernel,
    "ramdisk": _check_ramdisk,
}
