"""The disks of a build, in qcow2: a new one, or the copy of a base.

A base is read by our own readers, which follow no path in it, into a raw file; QEMU's tools see only that.
"""

import os
from collections.abc import Callable
from io import FileIO
from pathlib import Path

from uecwatchd.errors import Deferred, Rejected
from uecwatchd.images.block_source import BlockSource, read_exactly
from uecwatchd.images.formats.open import open_disk
from uecwatchd.install.child import run_child
from uecwatchd.install.recipe import InstallRecipe
from uecwatchd.install.request import DISK
from uecwatchd.system.disk_space import check_space_for
from uecwatchd.system.made_files import sync_folder
from uecwatchd.system.programs import Program
from uecwatchd.system.text import format_size

WHAT = "the folder of installations"
RAW, SECOND = "base.raw", "second.qcow2"
# Windows calls a smaller disk too small for anything, and it is never written.
SECOND_BYTES = 1 << 30
# A minimal system; what an installation really takes is not known before.
LEAST_SYSTEM_BYTES = 16 << 20
READ_BYTES = 1 << 20
SECTOR_BYTES, CODE_BYTES = 512, 440
BOOT_SIGNATURE = b"\x55\xaa"
# It may take as long as a copy of the base does.
QEMU_IMG = Program("qemu-img", "qemu-utils", 0)


def make_disk(folder: Path, recipe: InstallRecipe, *, check: Callable[[], None]) -> None:
    """Make an empty disk for an installation. Raises Deferred."""
    check_space_for(folder, LEAST_SYSTEM_BYTES, WHAT)
    _create(folder, DISK, recipe.disk or 0, check)


def copy_base(
    folder: Path, recipe: InstallRecipe, base: int, *, name: str, check: Callable[[], None]
) -> None:
    """Make a copy of a base as the disk, enlarged if the recipe wants more.

    `base` is its descriptor; `check` raises to stop. Raises Rejected and Deferred.
    """
    with FileIO(os.dup(base), "r") as file:
        source = open_disk(file, name=name, check=check).source
        if recipe.disk is not None and recipe.disk < source.size:
            sizes = f"the base has {format_size(source.size)}, and disk = {format_size(recipe.disk)}"
            raise Rejected(
                f"{name}: it does not fit on the new disk", sizes, "Enlarge disk, or leave it out."
            )
        check_space_for(folder, 2 * source.stored_bytes, WHAT)
        _write_raw(source, folder / RAW, check)
    (folder / DISK).unlink(missing_ok=True)
    run_child(QEMU_IMG, ["convert", "-q", "-f", "raw", "-O", "qcow2", RAW, DISK], folder, check=check)
    (folder / RAW).unlink()
    if recipe.disk is not None:
        run_child(QEMU_IMG, ["resize", "-q", "-f", "qcow2", DISK, str(recipe.disk)], folder, check=check)


def make_second_disk(folder: Path, *, check: Callable[[], None]) -> Path:
    """Make the empty disk that a driver is installed for. Raises Deferred."""
    _create(folder, SECOND, SECOND_BYTES, check)
    return folder / SECOND


def has_boot_loader(folder: Path) -> bool:
    """Tell if there is code in the first sector of the disk. Raises Rejected, Deferred and OSError.

    An installer that fails has often made partitions already, and the signature in that sector with them: a
    BIOS starts the zeros before it, and hangs without a word.
    """
    with FileIO(folder / DISK, "r") as file:
        sector = read_exactly(open_disk(file, name=DISK, walk=False).source, 0, SECTOR_BYTES)
    return sector.endswith(BOOT_SIGNATURE) and any(sector[:CODE_BYTES])


def flush_disk(folder: Path) -> None:
    """Write the disk to the storage, before anything says that it is there. Raises OSError."""
    descriptor = os.open(folder / DISK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(folder)


def _create(folder: Path, name: str, size: int, check: Callable[[], None]) -> None:
    (folder / name).unlink(missing_ok=True)
    run_child(QEMU_IMG, ["create", "-q", "-f", "qcow2", name, str(size)], folder, check=check)


def _write_raw(source: BlockSource, path: Path, check: Callable[[], None]) -> None:
    buffer = memoryview(bytearray(READ_BYTES))
    path.unlink(missing_ok=True)
    try:
        with path.open("xb") as file:
            for extent in source.extents():
                done = 0
                while done < extent.length:
                    check()
                    count = source.read_into(extent.offset + done, buffer[: extent.length - done])
                    if not count:
                        break
                    os.pwrite(file.fileno(), buffer[:count], extent.offset + done)
                    done += count
            file.truncate(source.size)
    except OSError as error:
        why = error.strerror or str(error)
        raise Deferred(f"{path.parent}: cannot copy the base there", why, "Free some space there.") from error
