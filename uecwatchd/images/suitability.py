"""Checks that content can be used in a role, before gigabytes are uploaded and a node fails to boot."""

from collections.abc import Callable, Mapping

from uecwatchd.images.detect import CONTAINERS, RAMDISK_FILE_SYSTEMS
from uecwatchd.images.file_facts import SECTOR_BYTES, ContainedDisk, Facts, Reason
from uecwatchd.system.text import file_word, format_size
from uecwatchd.types import Role

DESCRIPTIONS: Mapping[str, str] = {
    "bzimage": "a Linux kernel",
    "image": "a Linux kernel",
    "zimage": "a Linux kernel",
    "uimage": "an image for U-Boot",
    "pe": "an EFI program",
    "memdisk": "a memdisk boot loader",
    "elf": "an ELF program",
    "gpt": "a partitioned disk (GPT)",
    "mbr": "a partitioned disk (MBR)",
    "qcow": "a qcow disk image",
    "qcow2": "a qcow2 disk image",
    "vmdk": "a VMDK disk image",
    "vhd": "a VHD disk image",
    "vhdx": "a VHDX disk image",
    "vdi": "a VDI disk image",
    "qed": "a QED disk image",
    "parallels": "a Parallels disk image",
    "luks": "an encrypted disk (LUKS)",
    "xfs": "an XFS file system",
    "ntfs": "an NTFS file system",
    "fat": "a FAT file system",
    "jfs": "a JFS file system",
    "cpio": "a cpio archive",
    "iso9660": "a CD image (ISO 9660)",
    "swap": "a swap area",
    "tar": "a tar archive",
    "zip": "a zip archive",
    "text": "a text file",
    "empty": "an empty file",
    "zeros": "nothing but zeros where a header should be",
    "unknown": "of no kind known here",
    **{name: f"an {name} file system" for name in ("ext2", "ext3", "ext4", "f2fs")},
    **{name: f"a {name} file system" for name in ("btrfs", "reiserfs", "squashfs", "cramfs", "romfs")},
    **{name: f"{name}-compressed data" for name in ("gzip", "xz", "lzma", "bzip2", "zstd", "lz4", "lzop")},
}
MACHINE_HINTS: Mapping[str, str] = {
    "text": "Look into it: it may be an error page that was saved as an image.",
    "tar": "Try: tar -xf {name}",
    "zip": "Try: unzip {name}",
    "iso9660": "To install from it, name it as iso under [install] in the sidecar, and no machine image.",
}
KEEP_HINT = 'If the cloud can boot it all the same, put convert = "keep" in the sidecar.'
LINUX_KERNELS = frozenset({"bzimage", "image", "zimage"})
COMPRESSORS = frozenset({"gzip", "xz", "lzma", "bzip2", "zstd", "lz4", "lzop"})  # each name is also a program


# Sizes of floppies in KiB, as memdisk tells them apart (syslinux, memdisk/setup.c).
FLOPPY_SIZES_KIB = frozenset(
    (
        *(160, 180, 320, 360, 640, 720, 1200, 1440, 1600, 1680),
        *(1722, 1743, 1760, 1840, 1920, 1984, 2880, 3840),
    )
)


def reason_unsuitable(
    role: Role, facts: Facts, *, size: int, keep: bool = False, name: str = "FILE", in_set: bool = False
) -> Reason | None:
    """Return why content cannot be used in a role, and what to do about it; None if it can.

    `size` is that of the file, in bytes; `name` is used in the commands of hints. With `keep`, the sidecar
    wants the machine image as it is: only an incomplete one is refused. If the file is `in_set`, the
    suggested command writes the new image under its own name: with another name it would be in another set.
    """
    if not size:
        return "the file is empty", "Copy it again."
    if facts.claimed is not None and facts.claimed > size:
        return reason_truncated(facts, facts.claimed, size)
    if role == "machine" and keep:
        return None
    word = file_word(name)
    reason, made = ROLE_CHECKS[role](facts, size, word), f"{word}.part"
    if reason is None or not in_set:
        return reason
    why, hint = reason
    return why, hint.replace(f"{word}.raw", f"{made} && mv {made} {word}")


def reason_truncated(facts: Facts, claimed: int, size: int, *, holder: str = "the file") -> Reason:
    noun = DESCRIPTIONS[facts.format].partition(" ")[2]
    claimant = "partition table" if facts.layout == "disk" else noun
    there, here = format_size(claimed), format_size(size)
    if there == here:
        there, here = f"{claimed} bytes", f"{size} bytes"
    return f"its {claimant} claims {there}, {holder} has {here}", "Copy it again: the end is missing."


def reason_unsuitable_machine(facts: Facts, size: int, name: str) -> Reason | None:
    if facts.unreadable:
        return facts.unreadable
    if facts.disk:
        return reason_unsuitable_disk(facts, facts.disk)
    if facts.layout:
        return reason_unaligned(size, name)
    if facts.role in ("kernel", "ramdisk"):
        return f"{describe_content(facts)}, not a disk", f"Name it as {facts.role} in the sidecar."
    if facts.format in COMPRESSORS:
        unpack = f"Try: {facts.format} -dc < {name} > {name}.raw"
        return f"{describe_content(facts)}, and nodes boot raw bytes", unpack
    hint = MACHINE_HINTS.get(facts.format, KEEP_HINT)
    return f"{describe_content(facts)}, not a disk", hint.format(name=name)


def reason_unsuitable_disk(facts: Facts, disk: ContainedDisk) -> Reason | None:
    """Return why the disk in a container or a compressed file cannot be a machine."""
    claimed, size = disk.facts.claimed, disk.size
    if claimed is not None and size is not None and claimed > size:
        return reason_truncated(disk.facts, claimed, size, holder="the disk in it")
    if disk.facts.layout:
        return None
    if disk.facts.format == "luks":
        return describe_content(facts), "Decrypt it, and drop the disk that was in it."
    hint = MACHINE_HINTS.get(disk.facts.format, KEEP_HINT)
    return f"{describe_content(facts)}, not a disk", hint.format(name="it")


def reason_unaligned(size: int, name: str) -> Reason | None:
    """Return why a size is not a multiple of a sector: nodes refuse the rest, or drop it."""
    if size % SECTOR_BYTES == 0:
        return None
    return (
        f"its size of {size} bytes is not a multiple of {SECTOR_BYTES}",
        f"Try: truncate -s %{SECTOR_BYTES} {name}",
    )


def reason_unsuitable_kernel(facts: Facts, size: int, name: str) -> Reason | None:
    if facts.role == "kernel":
        return None
    return (
        f"{describe_content(facts)}, not a kernel",
        "A kernel is a bzImage (vmlinuz), an ELF vmlinux, or memdisk for Windows.",
    )


def reason_unsuitable_ramdisk(facts: Facts, size: int, name: str) -> Reason | None:
    content = facts.inside or facts.format
    if content == "cpio" or content in RAMDISK_FILE_SYSTEMS or content in COMPRESSORS:
        return None
    return (
        f"{describe_content(facts)}, not a ramdisk",
        "A ramdisk is a cpio archive, compressed or not, or a boot floppy for memdisk.",
    )


def is_floppy(facts: Facts) -> bool:
    return "fat" in (facts.format, facts.inside)


def reason_incompatible(kernel: Facts, ramdisk: Facts) -> Reason | None:
    """Return why a kernel cannot use this ramdisk.

    Linux mounts no FAT as its root, and memdisk nothing else.
    """
    if kernel.format not in LINUX_KERNELS or not is_floppy(ramdisk):
        return None
    return (
        f"{describe_content(ramdisk)}, as memdisk starts it, and the kernel is Linux",
        "Give the kernel its own initrd, a cpio archive.",
    )


def reason_no_floppy(facts: Facts, size: int) -> Reason | None:
    """Return why memdisk cannot start a boot floppy: its size in bytes says which drive it is for."""
    if facts.format != "fat" or size in {kib * 1024 for kib in FLOPPY_SIZES_KIB}:
        return None
    return (
        f"its size of {size} bytes is not that of any floppy",
        "Copy it again, or make one of 1474560 bytes, as dd bs=512 count=2880 does.",
    )


UNKNOWN_INSIDE = {
    "unknown": "what is inside is of no kind known here",
    "zeros": "inside are zeros where a header should be",
}


def describe_content(facts: Facts) -> str:
    if facts.inside is None:
        return f"it is {DESCRIPTIONS[facts.format]}"
    if facts.inside in UNKNOWN_INSIDE:
        outside = DESCRIPTIONS[facts.format] if facts.format in CONTAINERS else f"{facts.format}-compressed"
        return f"it is {outside}, and {UNKNOWN_INSIDE[facts.inside]}"
    if facts.format in CONTAINERS:
        return f"it is {DESCRIPTIONS[facts.format]} with {DESCRIPTIONS[facts.inside]} inside"
    return f"it is {facts.format}-compressed, with {DESCRIPTIONS[facts.inside]} inside"


ROLE_CHECKS: Mapping[Role, Callable[[Facts, int, str], Reason | None]] = {
    "machine": reason_unsuitable_machine,
    "kernel": reason_unsuitable_kernel,
    "ramdisk": reason_unsuitable_ramdisk,
}
