"""Windows sets as people drop them: a disk with NTFS, and boot files around a loader that says a word."""

from pathlib import Path

from tests.support.guest_images import Content, disk, fat, fill, ntfs
from tests.support.sizes import MIB

MBR = "label: dos\nstart=2048, size=32768, type=7, bootable\n"
KERNEL = "WINDOWS/system32/ntoskrnl.exe"


def fake_ntldr(word: bytes) -> bytes:
    """Return a program in real mode that prints a word and DL on the serial port, and resets the machine.

    It is at offset 0 of its segment, as Microsoft's NTLDR is.
    """
    text_at = 32
    code = bytes.fromhex("fc 0e 1f 88d3 be") + text_at.to_bytes(
        2, "little"
    )  # cld; ds = cs; bl = dl; si = text
    code += bytes.fromhex("ba f803 b9") + len(word).to_bytes(2, "little")  # dx = the first serial port; cx
    code += bytes.fromhex("f3 6e 88d8 04 30 ee")  # rep outsb; al = bl + "0"; out dx, al
    code += bytes.fromhex("b0 fe e6 64 f4 eb fd")  # reset by the keyboard controller; hlt until it happens
    return code.ljust(text_at, b"\x90") + word


BOOT_FILES: dict[str, Content] = {
    "NTLDR": fake_ntldr(b"FAKE-NTLDR-DRIVE-"),
    "ntdetect.com": b"detect" * 8000,
    "sym_hi.sys": b"driver" * 5000,
}


def windows_disk(image: Path, *, files: dict[str, Content] | None = None) -> Path:
    """Make a disk whose first partition is an NTFS with the loader of Windows, or with these files."""
    inside = ntfs(image.with_suffix(".ntfs"), fill(image.with_suffix(".files"), files or {"ntldr": b"NTLDR"}))
    return disk(image, MBR, (1, inside), size=20 * MIB)


def fat_disk(image: Path, script: str, number: int, files: dict[str, Content]) -> Path:
    """Make a disk with these files on a FAT in one of its partitions."""
    inside = fat(image.with_suffix(".fat"), fill(image.with_suffix(".files"), files))
    return disk(image, script, (number, inside), size=160 * MIB)


def boot_files(folder: Path, **others: bytes) -> Path:
    """Make a folder of boot files, `others` by their names with an underscore for the dot."""
    named: dict[str, Content] = {name.replace("_", "."): content for name, content in others.items()}
    return fill(folder, BOOT_FILES | named)
