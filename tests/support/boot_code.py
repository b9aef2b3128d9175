"""Installation CDs of a few bytes of machine code: what an installer does, in half a second.

A BIOS loads the code from the CD and starts it in real mode. It writes lines on the serial port, may write a
boot sector to the first disk, and ends in one of the ways in which installers end. So a whole installation
with its second boot takes two seconds without hardware acceleration.
"""

import subprocess
from pathlib import Path

SECTOR_BYTES = 512
LOAD_ADDRESS = 0x7C00
LOADED_SECTORS = 4

# In Intel's notation; see `LOAD_ADDRESS` for where they are.
HANG = b"\xfa\xf4\xeb\xfd"  # cli; again: hlt; jmp again
POWER_OFF = b"\xba\x04\x06\xb8\x00\x20\xef" + HANG  # mov dx, 0x604; mov ax, 0x2000; out dx, ax
# The firmware, which reads the serial port as a keyboard, is kept out: cli
# again: mov dx, 0x3fd; in al, dx; test al, 1; jz again; mov dx, 0x3f8; in al, dx; out dx, al; jmp again
ECHO = b"\xfa\xba\xfd\x03\xec\xa8\x01\x74\xf8\xba\xf8\x03\xec\xee\xeb\xf1"
RESTART = b"\xb0\xfe\xe6\x64" + HANG  # mov al, 0xfe; out 0x64, al

# A second or more: mov ecx, 0x18000000; again: loop again (with a 32-bit counter)
DELAY = b"\x66\xb9\x00\x00\x00\x18\x67\xe2\xfd"


def say(*lines: str) -> bytes:
    """Return code that writes lines on the first serial port: mov dx, 0x3f8; mov al, LETTER; out dx, al."""
    text = "\r\n".join(("", *lines, "")).encode()
    return b"\xba\xf8\x03" + b"".join(b"\xb0" + bytes([letter]) + b"\xee" for letter in text)


def sector(code: bytes) -> bytes:
    """Return a boot sector with this code."""
    assert len(code) <= SECTOR_BYTES - 2, "it does not fit in a sector"
    return code.ljust(SECTOR_BYTES - 2, b"\0") + b"\x55\xaa"


def write_disk() -> bytes:
    """Return code that copies the second loaded sector to the first sector of the first disk.

    xor ax, ax; mov es, ax; mov bx, 0x7e00; mov ax, 0x0301; mov cx, 1; mov dx, 0x80; int 0x13
    """
    return b"\x31\xc0\x8e\xc0\xbb\x00\x7e\xb8\x01\x03\xb9\x01\x00\xba\x80\x00\xcd\x13"


def installer(
    system: bytes | None, end: bytes, *, lines: tuple[str, ...] = ("INSTALLING",), before: bytes = b""
) -> bytes:
    """Return an installer that writes `system`, the code of a boot sector, to the disk, and ends somehow."""
    code = say(*lines) + before + (write_disk() if system is not None else b"") + end
    assert len(code) <= SECTOR_BYTES, "the first loaded sector is for the installer"
    return code.ljust(SECTOR_BYTES, b"\0") + (sector(system) if system is not None else b"")


#: What the boot sector of a good system does: a login prompt, and nothing more.
GOOD_SYSTEM = say("karmic login: ") + HANG


def make_iso(path: Path, code: bytes, *, boots: bool = True) -> Path:
    """Make the CD with this code as its boot record; without `boots` it is a file like any other."""
    tree = path.with_suffix(".tree")
    tree.mkdir()
    (tree / "boot.bin").write_bytes(code.ljust(LOADED_SECTORS * SECTOR_BYTES, b"\0"))
    (tree / "Read Me.txt").write_text("An installation CD.\n")
    how = ["-b", "boot.bin", "-no-emul-boot", "-boot-load-size", str(LOADED_SECTORS)] if boots else []
    command = ["xorriso", "-as", "mkisofs", "-quiet", "-r", "-J", "-V", "TINY", *how, "-o", path, tree]
    subprocess.run(command, check=True, capture_output=True)
    return path
