"""Whole disks, made of partitions."""

import hashlib
import os
import struct
import subprocess
from pathlib import Path

from tests.support.sizes import MIB

SECTOR_BYTES = 512
DISK_START_SECTOR = 2048  # of the first partition, at 1 MiB, as in every partitioner since 2010
LINUX_TYPE, NTFS_TYPE = 0x83, 0x07
DISK_BYTES = 16 * MIB  # of what `write_disk` makes


def whole_disk(disk: Path, partition: Path, *, kind: int = LINUX_TYPE, code: bytes = b"") -> Path:
    """Write an MBR with boot code and one active partition, and the partition."""
    sectors = partition.stat().st_size // SECTOR_BYTES
    no_cylinders = b"\xfe\xff\xff"  # "use the sector numbers": every partitioner writes this for large disks
    entry = struct.pack("<B3sB3sII", 0x80, no_cylinders, kind, no_cylinders, DISK_START_SECTOR, sectors)
    with disk.open("wb") as file:
        file.write(code.ljust(0x1BE, b"\0") + entry + bytes(48) + b"\x55\xaa")
        file.seek(DISK_START_SECTOR * SECTOR_BYTES)
        file.write(partition.read_bytes())
    return disk


def write_disk(path: Path) -> bytes:
    """Write a whole disk with data, a hole, and a partition that claims all of it; return its content."""
    path.touch()
    os.truncate(path, DISK_BYTES)
    script = "label: dos\nstart=2048, type=83, bootable\n"
    subprocess.run(["sfdisk", "-q", path], input=script, text=True, check=True, capture_output=True)
    with path.open("r+b") as file:
        file.seek(3 * MIB)
        file.write(hashlib.shake_128(path.name.encode()).digest(2 * MIB) + b"text" * MIB)
    return path.read_bytes()
