"""Detection of kernels of every architecture from their headers.

Offsets are from the documentation of Linux: x86/boot.rst, arch/arm64/booting.rst and riscv's
boot-image-header.rst; from its headers for ARM's zImage, LoongArch, s390 and the compressed EFI image
(zboot); from System V ELF, the PE format, and U-Boot's image.h.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from uecwatchd.images.file_facts import SECTOR_BYTES, Facts, Probe, Sample
from uecwatchd.types import Arch, Role


def bzimage(sample: Sample) -> Facts | None:
    """Detect a bzImage, or memdisk, which has the same header so that it can load a floppy as its initrd."""
    if not (sample.has(0x1FE, b"\x55\xaa") and sample.has(0x202, b"HdrS")):
        return None
    protocol = sample.le(0x206, 2)
    words = kernel_version(sample)
    facts = Facts("bzimage", role="kernel", claimed=kernel_bytes(sample, protocol))
    if words[:1] == ["MEMDISK"]:
        return replace(facts, format="memdisk")
    return replace(facts, arch=kernel_arch(sample, protocol), version=words[0] if words else None)


def kernel_version(sample: Sample) -> list[str]:
    pointer = sample.le(0x20E, 2)
    start = pointer + 0x200
    field = sample.head[start : start + 128] if pointer else b""
    return field.split(b"\0")[0].decode("ascii", "replace").split()


def kernel_arch(sample: Sample, protocol: int) -> Arch | None:
    """Return the architecture from XLF_KERNEL_64, which exists since protocol 2.12 (Linux 3.8)."""
    if protocol < 0x20C:
        return None
    return "x86_64" if sample.le(0x236, 2) & 1 else "i386"


def kernel_bytes(sample: Sample, protocol: int) -> int:
    setup = ((sample.le(0x1F1, 1) or 4) + 1) * SECTOR_BYTES  # 0 means 4; the boot sector is extra
    if protocol < 0x204:  # the size had two bytes, which is not enough
        return setup
    return max(setup, setup + sample.le(0x1F4, 4) * 16 - 15)  # in paragraphs, the last not always filled


@dataclass(frozen=True, slots=True)
class KernelHeader:
    """The magic of one architecture's kernels, at an offset."""

    at: int
    magic: bytes
    arch: Arch


HEADERS = (
    KernelHeader(56, b"ARM\x64", "arm64"),
    KernelHeader(56, b"RSC\x05", "riscv64"),
    KernelHeader(56, b"\xcd\x23\x82\x81", "loongarch64"),
    KernelHeader(0x10008, b"S390EP", "s390x"),
)
RISCV32_TEXT_OFFSET = 0x400000  # load address of such a kernel; a 64-bit kernel has half of it
ZBOOT_MAGIC = b"zimg"  # a compressed kernel that unpacks itself under EFI


def image(sample: Sample) -> Facts | None:
    """Detect an uncompressed kernel; some are also EFI programs, which begin with MZ."""
    found = next((header for header in HEADERS if sample.has(header.at, header.magic)), None)
    if found is None or sample.has(4, ZBOOT_MAGIC):
        return None
    is_narrow = found.arch == "riscv64" and sample.le(8, 8) == RISCV32_TEXT_OFFSET
    return Facts("image", role="kernel", arch="riscv32" if is_narrow else found.arch)


def zimage(sample: Sample) -> Facts | None:
    """Detect a zImage for 32-bit ARM, in either byte order. Its start and end are addresses."""
    if sample.has(0x24, b"\x18\x28\x6f\x01"):
        return Facts(
            "zimage", role="kernel", arch="arm", claimed=max(0, sample.le(0x2C, 4) - sample.le(0x28, 4))
        )
    if sample.has(0x24, b"\x01\x6f\x28\x18"):
        return Facts(
            "zimage", role="kernel", arch="arm", claimed=max(0, sample.be(0x2C, 4) - sample.be(0x28, 4))
        )
    return None


UBOOT_ARCH: Mapping[int, Arch] = {
    1: "alpha", 2: "arm", 3: "i386", 4: "ia64", 5: "mips", 6: "mips64", 7: "ppc", 8: "s390",
    22: "arm64", 23: "arc", 24: "x86_64", 26: "riscv64",
}  # fmt: skip
UBOOT_ROLES: Mapping[int, Role] = {2: "kernel", 3: "ramdisk", 4: "kernel"}  # 4: kernel and ramdisk in one


def uimage(sample: Sample) -> Facts | None:
    """Detect the header of U-Boot, of 64 bytes.

    Its code for ARM covers both widths in old files; 64 bits has its own code since 2013.
    """
    if not sample.has(0, b"\x27\x05\x19\x56"):
        return None
    role, arch = UBOOT_ROLES.get(sample.le(30, 1)), UBOOT_ARCH.get(sample.le(29, 1))
    return Facts("uimage", role=role, arch=arch, claimed=64 + sample.be(12, 4))


PE_ARCH: Mapping[int, Arch] = {
    0x14C: "i386", 0x8664: "x86_64", 0xAA64: "arm64", 0x1C0: "arm", 0x1C2: "arm", 0x1C4: "arm", 0x200: "ia64",
    0x5032: "riscv32", 0x5064: "riscv64", 0x6264: "loongarch64", 0x166: "mipsel", 0x1F0: "ppc",
}  # fmt: skip


def pe(sample: Sample) -> Facts | None:
    """Detect an EFI program: a compressed kernel in this format, or a program that no cloud starts."""
    start = sample.le(0x3C, 4)
    if not (sample.has(0, b"MZ") and sample.has(start, b"PE\0\0")):
        return None
    arch = PE_ARCH.get(sample.le(start + 4, 2))
    return Facts("pe", role="kernel" if sample.has(4, ZBOOT_MAGIC) else None, arch=arch)


# By e_machine, class (1: 32 bits, 2: 64) and byte order (1: little, 2: big).
ELF_ARCH: Mapping[tuple[int, int, int], Arch] = {
    (3, 1, 1): "i386", (62, 2, 1): "x86_64", (62, 1, 1): "x86_64", (183, 2, 1): "arm64", (40, 1, 1): "arm",
    (40, 1, 2): "arm", (21, 2, 1): "ppc64le", (21, 2, 2): "ppc64", (20, 1, 2): "ppc", (243, 2, 1): "riscv64",
    (243, 1, 1): "riscv32", (22, 2, 2): "s390x", (22, 1, 2): "s390", (50, 2, 1): "ia64",
    (258, 2, 1): "loongarch64", (8, 2, 1): "mips64el", (8, 2, 2): "mips64", (8, 1, 1): "mipsel",
    (8, 1, 2): "mips", (0x9026, 2, 1): "alpha", (195, 1, 1): "arc", (15, 1, 2): "parisc",
    (191, 2, 1): "tilegx",
}  # fmt: skip
ELF_FIXED = 2  # ET_EXEC: linked to fixed addresses, like kernels and unlike today's programs
ELF_MOVABLE = 3  # ET_DYN: kernels that relocate themselves, in the upper half of the address space
UPPER_HALF = 1 << 63


def elf(sample: Sample) -> Facts | None:
    """Detect a vmlinux or a para-virtual boot loader; other programs have no role."""
    if not sample.has(0, b"\x7fELF"):
        return None
    number = sample.be if sample.le(5, 1) == 2 else sample.le
    is_wide = sample.le(4, 1) == 2
    start, step, count = ((40, 8), (58, 2), (60, 2)) if is_wide else ((32, 4), (46, 2), (48, 2))
    claimed = number(*start) + number(*step) * number(*count)  # the table of sections comes last
    arch = ELF_ARCH.get((number(18, 2), sample.le(4, 1), sample.le(5, 1)))
    moves = number(16, 2) == ELF_MOVABLE and is_wide and number(24, 8) >= UPPER_HALF
    is_kernel = arch and (number(16, 2) == ELF_FIXED or moves)
    return Facts("elf", role="kernel" if is_kernel else None, arch=arch, claimed=claimed)


# Kernels with unique headers, and kernels that are probed after disks.
HEADED: tuple[Probe, ...] = (bzimage, image)
OTHERS: tuple[Probe, ...] = (zimage, uimage, pe, elf)
