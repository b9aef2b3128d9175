"""File systems with the content of a folder, as the real programs make them, and partitioned disks."""

import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.memory_source import MemorySource
from tests.support.sizes import MIB
from uecwatchd.images.block_source import read_exactly
from uecwatchd.images.guest.file_source import GuestFileSource
from uecwatchd.images.guest.tree import GuestFile

ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
LVM_START = MIB  # of the first extent, as lvcreate places it
PIECE_BYTES = 64 << 10
DD_SPARSELY = ("conv=notrunc,sparse", "status=none")


def run(*command: str | Path, stdin: str | None = None) -> str:
    """Run a program that makes images, and return what it says."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    done = subprocess.run(
        list(map(str, command)),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PATH": path},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def bzimage(version: str, *, size: int = 300_000) -> bytes:
    """Return what begins like a kernel of this version for x86_64."""
    kernel = bytearray(size)
    kernel[0x1F1] = 1
    kernel[0x1F4:0x1F8] = struct.pack("<I", (size - 1024) // 16)
    kernel[0x1FE:0x200] = b"\x55\xaa"
    kernel[0x202:0x208] = b"HdrS" + struct.pack("<H", 0x20F)
    kernel[0x20E:0x210] = struct.pack("<H", 0x100)
    kernel[0x236:0x238] = struct.pack("<H", 1)
    text = f"{version} (root@build) #1\0".encode()
    kernel[0x300 : 0x300 + len(text)] = text
    kernel[0x1000:] = bytes(range(256)) * ((size - 0x1000) // 256) + bytes((size - 0x1000) % 256)
    return bytes(kernel)


@dataclass(frozen=True)
class Link:
    """A symbolic link in a tree of files."""

    target: str


Content = bytes | str | Link | None


def content_of(file: GuestFile) -> bytes:
    """Return the content of a file of a guest."""
    source = GuestFileSource(file, MemorySource(b""))
    return read_exactly(source, 0, source.size)


def fill(root: Path, files: Mapping[str, Content]) -> Path:
    """Write files into a folder, by their paths. None is a folder."""
    root.mkdir(exist_ok=True)
    for path, content in files.items():
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            place.mkdir(parents=True, exist_ok=True)
        elif isinstance(content, Link):
            place.unlink(missing_ok=True)
            place.symlink_to(content.target)
        else:
            place.write_bytes(content if isinstance(content, bytes) else content.encode())
    root.chmod(0o755)
    return root


def empty(image: Path, size: int) -> Path:
    with image.open("wb") as file:
        file.truncate(size)
    return image


def ext(*options: str, size: int = 64 * MIB) -> Callable[[Path, Path], Path]:
    """Return what makes an ext file system from a folder, with these options of mke2fs."""

    def make(image: Path, root: Path) -> Path:
        run("mke2fs", "-q", "-F", *options, "-d", root, empty(image, size))
        return image

    return make


def xfs(image: Path, root: Path) -> Path:
    protofile = image.with_suffix(".proto")
    protofile.write_text("/\n0 0\n" + "\n".join(_protofile(root)) + "\n")
    run("mkfs.xfs", "-q", "-p", protofile, empty(image, 300 * MIB))
    return image


def _protofile(folder: Path) -> Iterator[str]:
    """Yield the lines for a folder: mkfs.xfs(8), at -p."""
    yield "d--755 0 0"
    for path in sorted(folder.iterdir()):
        mode = path.lstat().st_mode
        if path.is_symlink():
            yield f"{path.name} l--777 0 0 {path.readlink()}"
        elif stat.S_ISDIR(mode):
            first, *rest = _protofile(path)
            yield f"{path.name} {first}"
            yield from rest
        else:
            yield f"{path.name} ---{stat.S_IMODE(mode):03o} 0 0 {path}"
    yield "$"


def btrfs(image: Path, root: Path) -> Path:
    run("mkfs.btrfs", "-q", "--rootdir", root, empty(image, 128 * MIB))
    return image


def fat(image: Path, root: Path) -> Path:
    run("mkfs.fat", "-n", "BOOT", empty(image, 64 * MIB))
    for path in sorted(root.rglob("*")):
        inside = f"::/{path.relative_to(root)}"
        if path.is_dir():
            run("mmd", "-i", image, inside)
        else:
            run("mcopy", "-i", image, path, inside)
    return image


def ntfs(image: Path, root: Path) -> Path:
    """Make an NTFS. There are no folders in it, because ntfscp makes none."""
    run("mkntfs", "-q", "-F", empty(image, 16 * MIB))
    for path in root.iterdir():
        run("ntfscp", "-f", image, path, path.name)
    return image


def lvm(image: Path, root: Path) -> Path:
    """Make a physical volume with the logical volumes `vg-0/root`, an ext4, and `vg-0/swap`."""
    if not shutil.which("lvcreate", path="/usr/sbin:/sbin"):
        pytest.fail("install lvm2")
    inner = ext("-t", "ext4")(image.with_suffix(".root"), root)
    empty(image, 128 * MIB)
    try:
        device = run("losetup", "--find", "--show", image).strip()
    except AssertionError as error:
        pytest.skip(f"there are no loop devices here: {error}")
    try:
        # Without the device mapper: the volumes are only written to the metadata. And without a look at other
        # devices: a group of the same name may be on the one of another test.
        alone = ("--driverloaded", "n", "--devices", device)
        run("pvcreate", *alone, device)
        run("vgcreate", *alone, "vg-0", device)
        for name, size in (("root", "64M"), ("swap", "16M")):
            run("lvcreate", *alone, "-an", "-Zn", "-Wn", "-L", size, "-n", name, "vg-0")
    finally:
        run("losetup", "--detach", device)
    return place(inner, image, LVM_START // MIB)


MAKERS: Mapping[str, Callable[[Path, Path], Path]] = {
    "ext2": ext("-t", "ext2"),
    "ext3": ext("-t", "ext3"),
    "ext4": ext("-t", "ext4"),
    "ext4 with small blocks": ext("-t", "ext4", "-b", "1024", "-I", "128"),
    "ext4 with inline data": ext("-t", "ext4", "-O", "inline_data"),
    "ext4 with bigalloc": ext("-t", "ext4", "-O", "bigalloc"),
    "ext4 with casefold": ext("-t", "ext4", "-O", "casefold"),
    "ext4 with 64bit and metadata sums": ext("-t", "ext4", "-O", "64bit,metadata_csum"),
    "ext4 with meta groups": ext("-t", "ext4", "-O", "meta_bg,^resize_inode", "-b", "1024", "-g", "8192"),
    "ext4 with large folders and attributes": ext("-t", "ext4", "-O", "large_dir,ea_inode"),
    "ext4 with large blocks": ext("-t", "ext4", "-b", "4096", "-C", "65536", "-O", "bigalloc"),
    "ext3 with indirect blocks": ext("-t", "ext3", "-b", "1024"),
    "xfs": xfs,
    "btrfs": btrfs,
    "lvm": lvm,
}


def place(content: Path, image: Path, at: int) -> Path:
    """Write a file system into an image, at a place in MiB. What is a hole in it, or zero, stays a hole."""
    pieces = MIB // PIECE_BYTES
    run("dd", f"if={content}", f"of={image}", f"bs={PIECE_BYTES}", f"seek={at * pieces}", *DD_SPARSELY)
    return image


def disk(image: Path, script: str, *partitions: tuple[int, Path], size: int) -> Path:
    """Make a disk with the table of an sfdisk script, and file systems at these places, in MiB."""
    run("sfdisk", "-q", empty(image, size), stdin=script)
    for at, content in partitions:
        place(content, image, at)
    return image
