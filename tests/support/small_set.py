"""A set in the form of the real one, and as small as it can be: for tests in which nothing boots."""

import gzip
import stat
from pathlib import Path

from tests.support.guest_images import bzimage
from tests.support.sizes import MIB
from uecwatchd.demo.material import RAMDISK_INIT, RealSet, make_partition, write_sidecar
from uecwatchd.install.cpio import cpio

VERSION = "6.1.0-9-cloud-amd64"


def make_small_set(folder: Path, name: str = "tiny") -> RealSet:
    """Make a file system with a system in it, and what begins like its kernel and its ramdisk."""
    machine, kernel, ramdisk = (
        folder / file for file in (f"{name}.img", f"vmlinuz-{VERSION}", f"initrd.img-{VERSION}")
    )
    kernel.write_bytes(bzimage(VERSION))
    init = ("init", stat.S_IFREG | 0o755, RAMDISK_INIT.encode())
    ramdisk.write_bytes(gzip.compress(b"".join(cpio([init])), mtime=0))
    make_partition(machine, boot=(kernel, ramdisk), hostname=name, size=8 * MIB)
    sidecar = write_sidecar(folder / f"{name}.toml", machine, kernel, ramdisk)
    return RealSet(machine, kernel, ramdisk, sidecar, VERSION)
