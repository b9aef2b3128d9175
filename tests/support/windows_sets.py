"""Windows sets as people drop them: a disk with NTFS, and boot files around a loader that says a word."""

import shutil
import subprocess
from pathlib import Path

from tests.support.guest_images import Content, disk, empty, ext, fill, ntfs, run
from tests.support.sizes import MIB

BOOT_SECONDS = 120  # half a second on an idle core; other tests may hold them
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


def windows_disk(image: Path) -> Path:
    """Make a disk whose first partition is an NTFS with the loader of Windows."""
    inside = ntfs(image.with_suffix(".ntfs"), fill(image.with_suffix(".files"), {"ntldr": b"NTLDR"}))
    return disk(image, MBR, (1, inside), size=20 * MIB)


def boot_files(folder: Path) -> Path:
    """Make a folder of boot files, without Boot.ini."""
    return fill(folder, BOOT_FILES)


def blank_disk(image: Path) -> Path:
    """Make a disk with a partition and nothing in it."""
    run("sfdisk", "-q", empty(image, 20 * MIB), stdin=MBR)
    return image


def linux_disk(image: Path) -> Path:
    """Make a disk with a Linux system in its first partition. Its parts go beside the folder of the disk."""
    at = image.parent.parent / "linux"
    files: dict[str, Content] = {
        "etc/fstab": "",
        "bin/sh": "#!",
        "etc/os-release": "ID=debian\nNAME=Debian\n",
    }
    inside = ext("-t", "ext4", size=16 * MIB)(at.with_suffix(".ext4"), fill(at, files))
    return disk(image, MBR.replace("type=7", "type=83"), (1, inside), size=20 * MIB)


def boot(memdisk: Path, floppy: Path) -> bytes:
    """Start a floppy as a node does, with memdisk as the kernel; returns what the serial port has said."""
    qemu = shutil.which("qemu-system-x86_64")
    assert qemu, "qemu-system-x86_64 is missing: apt-get install qemu-system-x86"
    command = [qemu, "-accel", "tcg", "-m", "64", "-nographic", "-no-reboot", "-nic", "none"]
    command += ["-kernel", str(memdisk), "-initrd", str(floppy)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=BOOT_SECONDS, check=True
    )
    return done.stdout
