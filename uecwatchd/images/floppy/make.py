"""Make the boot floppy of a Windows set: 1.44 MB, FAT12, and syslinux, which starts NTLDR.

The boot sector that Windows writes on a floppy is Microsoft's, and cannot be distributed. syslinux and its
chain.c32 load NTLDR to the same place in memory, and give it the same registers and parameters.

The same boot files always make the same bytes, so that a retry finds its uploaded floppy by the digest. The
serial number is fixed, and so are the times, which mtools takes from SOURCE_DATE_EPOCH. Another version of
mtools or syslinux may make other bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from uecwatchd.errors import Deferred
from uecwatchd.images.floppy.boot_files import BOOT_INI, DRIVER, BootFolder, choose_files
from uecwatchd.images.floppy.boot_ini import WindowsPlace, boot_ini, boot_ini_remarks
from uecwatchd.images.floppy.syslinux import (
    CONFIGURATION,
    CONFIGURATION_NAME,
    MODULE_FOLDERS,
    read_modules,
)
from uecwatchd.system.programs import Program, run_program

UNPROVEN = (
    "the boot floppy starts NTLDR through syslinux, which was not tried with Microsoft's NTLDR: if Windows "
    "does not start, format a floppy in Windows, copy the same files to it, and drop its image instead"
)
FLOPPY_BYTES = 1440 * 1024
TIME_OUT_SECONDS = 60  # each of them takes a tenth of a second
SERIAL_NUMBER = "19800101"  # of the file system, in hexadecimal; any fixed one is good
# The first second that FAT can express, 1980-01-01; FAT has local times.
FIXED_TIME: Mapping[str, str] = {"SOURCE_DATE_EPOCH": "315532800", "TZ": "UTC0"}

MFORMAT = Program("mformat", "mtools", TIME_OUT_SECONDS, FIXED_TIME)
MCOPY = Program("mcopy", "mtools", TIME_OUT_SECONDS, FIXED_TIME)
SYSLINUX = Program("syslinux", "syslinux", TIME_OUT_SECONDS, FIXED_TIME)  # runs mcopy and mattrib
IMAGE_NAME = "floppy.img"  # relative: in a path, mtools would read "@@" as an offset


@dataclass(frozen=True, slots=True)
class MadeFloppy:
    """The bytes of a floppy, and what is not certain about it."""

    content: bytes
    remarks: tuple[str, ...]


def make_boot_floppy(
    folder: BootFolder,
    scratch: Path,
    *,
    windows: WindowsPlace | None,
    module_folders: Sequence[Path] = MODULE_FOLDERS,
) -> MadeFloppy:
    """Make the floppy of a folder of boot files, with temporary files in the empty folder `scratch`.

    `windows` is for Boot.ini; None if it is not known. Raises Rejected for boot files that cannot start
    Windows. Raises Deferred if a program or a module is missing, or for a disk that fails.
    """
    files = choose_files(folder, default_boot_ini=boot_ini(windows) if windows else None)
    modules = read_modules(module_folders)
    try:
        run_program(
            MFORMAT, ["-C", "-f", "1440", "-N", SERIAL_NUMBER, "-i", IMAGE_NAME, "::"], folder=scratch
        )
        run_program(SYSLINUX, ["--install", IMAGE_NAME], folder=scratch)
        _copy({**modules, CONFIGURATION_NAME: CONFIGURATION, **files.contents}, scratch)
        content = (scratch / IMAGE_NAME).read_bytes()
    except OSError as fault:
        why = f"cannot write the boot floppy there: {fault.strerror or fault}"
        raise Deferred(str(scratch), why, "Check the disk and its free space.") from fault
    concerns = boot_ini_remarks(files.contents[BOOT_INI], has_driver=DRIVER in files.contents)
    return MadeFloppy(content, (UNPROVEN, *concerns, *files.remarks))


def _copy(contents: Mapping[str, bytes], work: Path) -> None:
    """Copy files to the floppy, in this order."""
    staged = work / "files"
    staged.mkdir()
    for name, content in contents.items():
        (staged / name).write_bytes(content)
    run_program(MCOPY, ["-i", IMAGE_NAME, *(f"files/{name}" for name in contents), "::"], folder=work)
