"""Files of a dropped folder for a boot floppy, and their names on it.

Names are compared without case. NTLDR and NTDETECT.COM are required; sym_hi.sys becomes NTBOOTDD.SYS, as
NTLDR calls the driver of the boot disk. Every other file with a DOS name is taken along while there is space:
Windows in some languages needs more of them, such as bootfont.bin.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from uecwatchd.errors import Deferred, Rejected
from uecwatchd.images.file_facts import SECTOR_BYTES
from uecwatchd.images.floppy.syslinux import CONFIGURATION_NAME, LOADER_NAMES, MODULES
from uecwatchd.system.text import format_size, quoted

DATA_SECTORS = 2847  # of 2880; the others are boot sector, two FATs and the root directory
# For syslinux's loader and modules: 390 KiB in version 6.04, 90 KiB more for a version to come.
SYSLINUX_SECTORS = 960
MOST_FILES = 200  # the root directory has 224 entries, and syslinux's files have some of them

NTLDR, NTDETECT, BOOT_INI, DRIVER = BOOT_NAMES = ("NTLDR", "NTDETECT.COM", "BOOT.INI", "NTBOOTDD.SYS")
RENAMED: Mapping[str, str] = {"SYM_HI.SYS": DRIVER}
OWN_NAMES = frozenset(name.upper() for name in (*LOADER_NAMES, *MODULES, CONFIGURATION_NAME))

_DOS_CHARACTER = r"[A-Z0-9!#$%&'()@^_`{}~-]"
DOS_NAME = re.compile(rf"{_DOS_CHARACTER}{{1,8}}(\.{_DOS_CHARACTER}{{1,3}})?")
DOS_DEVICE = re.compile(r"(CON|PRN|AUX|NUL|CLOCK\$|COM\d|LPT\d)(\..*)?")  # DOS opens these, never a file

NAMES_SHOWN = 5  # of files that are left out; people find the others themselves


class BootFile(Protocol):
    """A boot file, which is read once, from its beginning."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class BootFolder:
    """A dropped folder of boot files."""

    name: str  #: for sentences, with its path in the spool
    files: Mapping[str, BootFile]  #: by name


@dataclass(frozen=True, slots=True)
class FloppyFiles:
    """The boot files of a floppy."""

    contents: Mapping[str, bytes]  #: by name on the floppy, in the order of writing
    remarks: tuple[str, ...] = ()  #: files that are left out, and why


def choose_files(folder: BootFolder, *, default_boot_ini: bytes | None) -> FloppyFiles:
    """Read the files that go on the floppy, the required ones first.

    The default is for a folder without Boot.ini; None if it is not known where Windows is.

    Raises Rejected if one is missing, empty or too large, or if two files would have one name.
    Raises Deferred if one cannot be read.
    """
    spellings = _spellings(folder.files)
    _check_required(folder)
    if BOOT_INI not in spellings and default_boot_ini is None:
        raise Rejected(
            f"{folder.name}: Boot.ini is missing",
            "it cannot be written, because no partition with Windows is found on the disk",
            "Copy it from drive C: of the installed Windows.",
        )
    contents: dict[str, bytes] = {}
    too_large = []
    free_sectors = DATA_SECTORS - SYSLINUX_SECTORS
    for name in _in_order(spellings):
        most = free_sectors * SECTOR_BYTES
        content = default_boot_ini or b""
        if name in spellings:
            content = _read(folder, spellings[name], name, most=most)
        if len(content) > most or len(contents) == MOST_FILES:
            file, *_ = spellings.get(name, [name.lower()])  # a Boot.ini that we make has no file
            too_large.append(_additional(folder, file, name, most=most))
            continue
        contents[name] = content
        free_sectors -= math.ceil(len(content) / SECTOR_BYTES)
    return FloppyFiles(contents, tuple(_remarks(folder.files, too_large)))


def floppy_name(name: str) -> str | None:
    """Return the name of a file on the floppy; None if it has no DOS name."""
    upper = name.upper()  # makes ASCII of some other letters, so the name itself has to be ASCII
    if not name.isascii() or not DOS_NAME.fullmatch(upper) or DOS_DEVICE.fullmatch(upper):
        return None
    return RENAMED.get(upper, upper)


def _spellings(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the files for each name on the floppy."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        on_floppy = floppy_name(name)
        if on_floppy and on_floppy not in OWN_NAMES:
            found.setdefault(on_floppy, []).append(name)
    return found


def missing_files(names: Iterable[str]) -> list[str]:
    """Return the files that every boot floppy needs and that are not among these names."""
    there = set(map(floppy_name, names))
    return [name.lower() for name in (NTLDR, NTDETECT) if name not in there]


def _check_required(folder: BootFolder) -> None:
    if missing := missing_files(folder.files):
        raise Rejected(
            f"{folder.name}: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing",
            "a boot floppy starts Windows with ntldr and ntdetect.com",
            "Copy from the folder I386 of the Windows CD, or from drive C: of the installed Windows.",
        )


def _in_order(spellings: Iterable[str]) -> Iterator[str]:
    """Yield the names on the floppy in the order of writing, with Boot.ini, which is made if missing."""
    names = {BOOT_INI, *spellings}
    yield from (name for name in BOOT_NAMES if name in names)
    yield from sorted(names.difference(BOOT_NAMES))


def _read(folder: BootFolder, spellings: Iterable[str], name: str, *, most: int) -> bytes:
    """Return the content of all files for one name, or its first `most` + 1 bytes."""
    first, *others = spellings
    content = _read_file(folder, first, most=most)
    for other in others:
        if _read_file(folder, other, most=most) != content:
            raise Rejected(
                f"{folder.name}: two files would be {name} on the boot floppy",
                f"{quoted(first)} and {quoted(other)} have different contents",
                "Remove one of them.",
            )
    if not content and name in (NTLDR, NTDETECT):
        raise Rejected(f"{folder.name}/{first}: it is empty", "Windows starts with it", "Copy it again.")
    return content


def _read_file(folder: BootFolder, name: str, *, most: int) -> bytes:
    """Return a file, or its first `most` + 1 bytes."""
    try:
        return folder.files[name].read(most + 1)
    except OSError as error:
        why = error.strerror or str(error)
        raise Deferred(f"{folder.name}/{name}: cannot read it", why, "Check the disk it is on.") from error


def _additional(folder: BootFolder, file: str, name: str, *, most: int) -> str:
    """Return a file without a place on the floppy. Raises Rejected if Windows starts with it."""
    if name not in BOOT_NAMES:
        return file
    raise Rejected(
        f"{folder.name}/{file}: it does not fit on the boot floppy",
        f"{format_size(most)} are left for it, beside the boot loader and the files before it",
        "Look whether it is the right file: ntldr has about 300 KiB, the others less than 100 KiB.",
    )


def _remarks(names: Iterable[str], too_large: list[str]) -> Iterator[str]:
    ordered = sorted(names)
    reasons = {
        "a DOS name has at most 8 characters, a dot and 3 characters": [
            name for name in ordered if floppy_name(name) is None
        ],
        "syslinux has its own files of these names": [
            name for name in ordered if floppy_name(name) in OWN_NAMES
        ],
        "there is no space for them": too_large,
    }
    for why, left_out in reasons.items():
        if left_out:
            more = f" and {len(left_out) - NAMES_SHOWN} more" if len(left_out) > NAMES_SHOWN else ""
            shown = ", ".join(map(quoted, left_out[:NAMES_SHOWN]))
            yield f"not on the boot floppy: {shown}{more} ({why})"
