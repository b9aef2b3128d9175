"""Boot.ini: where NTLDR finds Windows (Microsoft, "Boot.ini file reference": ARC paths, CRLF)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from uecwatchd.errors import Rejected
from uecwatchd.system.text import quoted

MENU_SECONDS = 30  # NTLDR's own default; without a second entry it shows no menu
# What NTLDR reads in the code page of the firmware: plain ASCII without the characters that FAT and the
# syntax of the file reserve. Folders below others have a backslash between their names.
FOLDER = re.compile(r"[A-Za-z0-9_~$.-]{1,64}(?:\\[A-Za-z0-9_~$.-]{1,64}){0,3}")


@dataclass(frozen=True, slots=True)
class WindowsPlace:
    """Place of Windows on the first disk."""

    partition: int  #: counted from 1, as ARC paths do
    folder: str = "WINDOWS"  #: without drive and leading backslash


def boot_ini(place: WindowsPlace) -> bytes:
    """Return a Boot.ini with one system. Raises Rejected for a folder that cannot stand in it."""
    if not FOLDER.fullmatch(place.folder):
        raise Rejected(
            f"{quoted(place.folder)}: it cannot be the Windows folder in Boot.ini",
            "it is not a plain ASCII name, or has a drive or a leading backslash",
            "Write the name alone, such as WINDOWS or WINNT.",
        )
    path = f"multi(0)disk(0)rdisk(0)partition({place.partition})\\{place.folder}"
    lines = ["[boot loader]", f"timeout={MENU_SECONDS}", f"default={path}"]
    lines += ["[operating systems]", f'{path}="Windows"']
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def boot_ini_remarks(content: bytes, *, has_driver: bool) -> Iterator[str]:
    """Yield what may be wrong with a Boot.ini that is used as it is."""
    lines = [line.strip().lower() for line in content.splitlines()]
    if b"[boot loader]" not in lines:
        yield "Boot.ini has no line [boot loader], so NTLDR may not find Windows"
    if content.count(b"\n") != content.count(b"\r\n"):
        yield "Boot.ini has line ends of Unix, and NTLDR expects CRLF (try: unix2dos Boot.ini)"
    if not has_driver and any(b"scsi(" in line for line in lines):
        yield "Boot.ini names a disk with scsi(), which needs a driver on the floppy: sym_hi.sys"
