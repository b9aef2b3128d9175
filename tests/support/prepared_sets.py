"""A disk in a compressed qcow2 with a Linux that needs preparation, and has its kernel in it."""

from pathlib import Path

from tests.support.guest_images import Content, bzimage, disk, ext, fill
from tests.support.qemu import convert_compressed
from tests.support.sizes import MIB

VERSION = "6.1.0-9-amd64"
GUEST: dict[str, Content] = {
    "usr/lib/systemd/systemd": "",
    "usr/lib/systemd/system/serial-getty@.service": "",
    "usr/bin/curl": "",
    "etc/passwd": "root:x:0:0::/root:/bin/sh\n",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    f"boot/vmlinuz-{VERSION}": bzimage(VERSION),
    f"boot/initrd.img-{VERSION}": b"070701" + bytes(3000),
}
SIDECAR = 'kernel = "from-image"\nprepare = true\n'
SIZE = 16 * MIB


def unprepared_qcow2(folder: Path) -> Path:
    """Make the image in a folder, with an ext4 in its only partition."""
    root = ext("-t", "ext4", size=SIZE)(folder / "root.img", fill(folder / "root", GUEST))
    script = f"label: dos\n2048,{SIZE // 512},83,*\n"
    whole = disk(folder / "disk", script, (1, root), size=SIZE + 2 * MIB)
    convert_compressed(whole, folder / "unprepared.qcow2")
    return folder / "unprepared.qcow2"
