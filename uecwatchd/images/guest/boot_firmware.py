"""Ways of a disk to boot by itself: through a BIOS, through UEFI, or both.

A BIOS starts the program in the first sector of the disk. UEFI starts a file with a fixed name, from a FAT
file system. Neither is needed by a cloud that starts an image with a separate kernel.
"""

import re
from collections.abc import Iterator
from typing import Literal

from uecwatchd.images.block_source import BlockSource, View, read_exactly
from uecwatchd.images.file_facts import SECTOR_BYTES
from uecwatchd.images.guest.disk import GuestDisk
from uecwatchd.images.guest.fstab import PlacedVolume
from uecwatchd.images.guest.volumes import DamagedVolume
from uecwatchd.images.partitions import BOOT_CODE_BYTES, MBR_MAGIC, MBR_MAGIC_AT, Partition

BootWay = Literal["bios", "uefi"]

BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"  # partition for GRUB on a GPT
# Loaders that find their second part from the first sector. Others start the active partition.
OWN_LOADERS = (b"GRUB", b"LILO")
# Boot code of a partitioner, which only says that the disk does not boot.
NO_LOADERS = (b"please use Linux's or another", b"not a bootable disk")
EFI_FOLDER = "/EFI/BOOT"
EFI_LOADER = re.compile(r"BOOT(X64|IA32|AA64|ARM|RISCV64|LOONGARCH64)\.EFI", re.IGNORECASE)


def find_boot_ways(source: BlockSource, disk: GuestDisk) -> tuple[BootWay, ...]:
    """Return the ways to boot that a disk is prepared for. Raises OSError."""
    return tuple(_ways(source, disk))


def _ways(source: BlockSource, disk: GuestDisk) -> Iterator[BootWay]:
    if _boots_from_bios(source, disk):
        yield "bios"
    if any(_has_efi_loader(placed) for placed in disk.volumes):
        yield "uefi"


def _boots_from_bios(source: BlockSource, disk: GuestDisk) -> bool:
    sector = read_exactly(source, 0, SECTOR_BYTES)
    code = sector[:BOOT_CODE_BYTES]
    if disk.table is None or not any(code) or any(text in code for text in NO_LOADERS):
        return disk.layout == "floppy" and sector.startswith(MBR_MAGIC, MBR_MAGIC_AT)
    partitions = disk.table.partitions
    if any(name in code for name in OWN_LOADERS):
        core = [each for each in partitions if each.type == BIOS_BOOT]
        return disk.table.scheme == "mbr" or any(_starts_with_code(source, each) for each in core)
    return any(each.is_bootable and _starts_with_code(source, each) for each in partitions)


def _starts_with_code(source: BlockSource, partition: Partition) -> bool:
    sector = read_exactly(View(source, partition.start, partition.size), 0, SECTOR_BYTES)
    if partition.type == BIOS_BOOT:
        return any(sector)
    return any(sector[:BOOT_CODE_BYTES]) and sector.startswith(MBR_MAGIC, MBR_MAGIC_AT)


def _has_efi_loader(placed: PlacedVolume) -> bool:
    files = placed.volume.files
    if files is None or placed.volume.type != "fat":
        return False
    try:
        return any(EFI_LOADER.fullmatch(name) for name in files.names(EFI_FOLDER))
    except DamagedVolume:
        return False
