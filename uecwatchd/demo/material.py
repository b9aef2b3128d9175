"""A real image set: Debian's cloud kernel, a ramdisk for it, and a bootable partition.

The set is as small as possible, and nothing in it is a fake. The machine image is a bare ext4 partition: a
para-virtual cloud boots it, after its node has wrapped it into a disk.
"""

import gzip
import json
import lzma
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from uecwatchd.errors import Halted
from uecwatchd.install.cpio import cpio

IMAGE_BYTES = 48 << 20  # space for kernel, ramdisk and busybox, and several parts of 10 MiB in its bundle
DOWNLOAD_SECONDS = 600  # 27 MB, over a slow network
TOOL_SECONDS = 60  # every other program takes at most two

USERSPACE_LINE = "UECWATCHD-USERSPACE"  # on the console after the image's own init has started
POWEROFF_WORD = "uecwatchd.poweroff"  # on the kernel's command line: stop there instead of offering a shell

META_PACKAGE = "linux-image-cloud-amd64"
KERNEL_GLOB = "vmlinuz-*-cloud-amd64"
INSTALL_HINT = f"Try: apt-get install {META_PACKAGE}"
# In the order of loading: each needs those before it. QEMU and KVM have virtio, Xen its own disk.
MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "failover",
    "net_failover",
    "virtio_net",
    "xen-blkfront",
    # FAT, for a disk with answers or user data.
    "nls_cp437",
    "nls_ascii",
    "fat",
    "vfat",
)
DEBIAN_PACKAGES = {
    "mke2fs": "e2fsprogs",
    "apt-get": "apt",
    "apt-cache": "apt",
    "dpkg-deb": "dpkg",
    "sfdisk": "fdisk",
    "extlinux": "extlinux",
    "xorriso": "xorriso",
}
BUSYBOX = Path("/bin/busybox")
APPLETS = (
    "sh", "mount", "insmod", "sleep", "switch_root", "init", "hostname",
    "grep", "poweroff", "reboot", "cat", "ls", "ps", "dmesg", "stty",
)  # fmt: skip

RAMDISK_INIT = """\
#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for module in /modules/*; do insmod "$module" 2>/dev/null; done  # of virtio and Xen, one is not there
tries=0
while [ $tries -lt 50 ]; do
    for disk in /dev/vda1 /dev/vda /dev/xvda1 /dev/xvda /dev/sda1 /dev/sda; do
        [ -b $disk ] && mount -t ext4 $disk /newroot 2>/dev/null || continue
        for held in dev proc sys; do mount -o move /$held /newroot/$held; done
        exec switch_root /newroot /sbin/init
    done
    tries=$((tries + 1))
    sleep 0.1
done
echo "No disk holds the root file system."
exec sh
"""
ROOT_STARTUP = f"""\
#!/bin/sh
hostname -F /etc/hostname
dmesg -n 1  # or the kernel's lines cut ours in two
echo {USERSPACE_LINE}
stty sane  # returns once the line has left the serial port: powering off would lose what has not
grep -qw {POWEROFF_WORD} /proc/cmdline && poweroff -f
"""
ROOT_INITTAB = """\
::sysinit:/etc/startup
::askfirst:-/bin/sh
::ctrlaltdel:/bin/reboot
"""


@dataclass(frozen=True, slots=True)
class DebianKernel:
    """A kernel with the `MODULES` that are not built in, in the order of loading."""

    version: str
    image: Path
    modules: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class RealSet:
    """The files of one set."""

    machine: Path
    kernel: Path
    ramdisk: Path
    sidecar: Path | None
    version: str


def make_set(
    folder: Path,
    *,
    kernel: DebianKernel,
    name: str = "tiny",
    size: int = IMAGE_BYTES,
    sidecar: bool = True,
) -> RealSet:
    """Make the files of a set, with the names that a distribution uses.

    `size` is the partition's, in whole KiB.
    """
    folder.mkdir(parents=True, exist_ok=True)
    machine = folder / f"{name}.img"
    vmlinuz = folder / f"vmlinuz-{kernel.version}"
    initrd = folder / f"initrd.img-{kernel.version}"
    shutil.copyfile(kernel.image, vmlinuz)
    initrd.write_bytes(ramdisk(kernel))
    make_partition(machine, boot=(vmlinuz, initrd), hostname=name, size=size)
    return RealSet(
        machine=machine,
        kernel=vmlinuz,
        ramdisk=initrd,
        sidecar=write_sidecar(folder / f"{name}.toml", machine, vmlinuz, initrd) if sidecar else None,
        version=kernel.version,
    )


# --- the kernel ---


def kernel(cache: Path) -> DebianKernel:
    """Return the kernel in `cache`, or the installed one, or download Debian's current one into `cache`.

    Raises Halted, with the package to install, if a program is missing or apt does not know the kernel.
    """
    return kept(cache) or installed() or downloaded(cache)


def kept(cache: Path) -> DebianKernel | None:
    """Return the newest kernel in `cache`. Each is in a folder with its version as name."""
    images = sorted(cache.glob("*/vmlinuz"), key=lambda path: release(path.parent.name))
    if not images:
        return None
    folder = images[-1].parent
    return DebianKernel(folder.name, images[-1], in_order(folder.iterdir()))


def installed(root: Path = Path("/")) -> DebianKernel | None:
    """Return the newest installed kernel that has its modules: without them a ramdisk finds no disk."""
    images = sorted((root / "boot").glob(KERNEL_GLOB), key=lambda path: release(path.name))
    for image in reversed(images):
        version = image.name.removeprefix("vmlinuz-")
        modules = modules_of(version, root)
        if modules and os.access(image, os.R_OK):
            return DebianKernel(version, image, modules)
    return None


def modules_of(version: str, root: Path) -> tuple[Path, ...]:
    """Return the modules. Debian's packages have them under /lib, later ones under /usr/lib."""
    folders = (root / lib / "modules" / version for lib in ("lib", "usr/lib"))
    return next(filter(None, (in_order(folder.rglob("*.ko*")) for folder in folders)), ())


def downloaded(cache: Path) -> DebianKernel:
    package = current_package()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as scratch:
        run("apt-get", "download", package, cwd=scratch, seconds=DOWNLOAD_SECONDS)
        archive = next(Path(scratch).glob("*.deb"))
        run("dpkg-deb", "-x", str(archive), f"{scratch}/tree")
        found = installed(Path(scratch, "tree"))
        if found is None:
            raise Halted(archive.name, "it holds no kernel with modules for a virtual disk", INSTALL_HINT)
        return keep(found, cache / found.version, scratch=Path(scratch, "keep"))


def current_package() -> str:
    """Return the package that Debian's metapackage depends on today."""
    found = re.search(r"Depends: (linux-image-\S+)", run("apt-cache", "depends", META_PACKAGE))
    if found is None:
        raise Halted(META_PACKAGE, "apt does not say which kernel it installs", "Try: apt-get update")
    return found[1]


def keep(kernel: DebianKernel, folder: Path, *, scratch: Path) -> DebianKernel:
    """Copy the kernel to `folder`.

    It is renamed into place when complete, so that two processes can do this at once.
    """
    scratch.mkdir()
    shutil.copyfile(kernel.image, scratch / "vmlinuz")
    for module in kernel.modules:
        shutil.copyfile(module, scratch / module.name)
    try:
        scratch.rename(folder)
    except OSError:
        if not folder.exists():
            raise
    return DebianKernel(kernel.version, folder / "vmlinuz", in_order(folder.iterdir()))


def in_order(paths: Iterable[Path]) -> tuple[Path, ...]:
    modules = (path for path in paths if module_name(path) in MODULES)
    return tuple(sorted(modules, key=lambda path: MODULES.index(module_name(path))))


def module_name(path: PurePath) -> str:
    """Return the name of a module; empty for other files. Debian 13 compresses them: virtio_blk.ko.xz."""
    found = re.fullmatch(r"(.+)\.ko(\.xz)?", path.name)
    return found[1] if found else ""


def release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


# --- the ramdisk ---


def ramdisk(kernel: DebianKernel) -> bytes:
    """Return a gzip'd cpio archive; the same kernel and busybox always give the same bytes."""
    return gzip.compress(b"".join(cpio(ramdisk_files(kernel))), mtime=0)


def ramdisk_files(kernel: DebianKernel) -> Iterator[tuple[str, int, bytes]]:
    """Yield path, mode and content of each file; the content of a symbolic link is its target."""
    for folder in ("bin", "dev", "proc", "sys", "newroot", "modules"):
        yield folder, stat.S_IFDIR | 0o755, b""
    yield "init", stat.S_IFREG | 0o755, RAMDISK_INIT.encode()
    yield "bin/busybox", stat.S_IFREG | 0o755, static_busybox()
    for applet in APPLETS:
        yield f"bin/{applet}", stat.S_IFLNK | 0o777, b"busybox"
    yield from module_files(kernel)


def module_files(kernel: DebianKernel) -> Iterator[tuple[str, int, bytes]]:
    """Yield the modules of a kernel, under names in the order of loading."""
    for order, module in enumerate(kernel.modules):
        content = module.read_bytes()
        plain = lzma.decompress(content) if module.suffix == ".xz" else content
        yield f"modules/{order:02}-{module_name(module)}.ko", stat.S_IFREG | 0o644, plain


def static_busybox() -> bytes:
    """Return the static busybox. The dynamic one needs a C library, which ramdisk and image do not have."""
    hint = "Try: apt-get install busybox-static"
    if not BUSYBOX.exists():
        raise Halted(str(BUSYBOX), "it is not installed", hint)
    content = BUSYBOX.read_bytes()
    if b"/ld-linux" in content[:4096]:  # the path of the dynamic linker follows the ELF headers
        raise Halted(str(BUSYBOX), "it is not the statically linked one", hint)
    return content


# --- the machine image ---


def make_partition(image: Path, *, boot: Iterable[Path], hostname: str, size: int) -> None:
    with tempfile.TemporaryDirectory(prefix="uecwatchd-root-") as scratch:
        root = Path(scratch)
        fill_root(root, boot=boot, hostname=hostname)
        image.unlink(missing_ok=True)
        label = ("-L", hostname[:16])  # the limit of an ext4 label
        run(
            "mke2fs",
            "-q",
            "-t",
            "ext4",
            *label,
            "-d",
            str(root),
            "-E",
            "root_owner=0:0",
            str(image),
            f"{size >> 10}k",
        )


def fill_root(root: Path, *, boot: Iterable[Path], hostname: str) -> None:
    for folder in ("bin", "boot", "dev", "etc", "proc", "root", "sbin", "sys"):
        (root / folder).mkdir()
    write_program(root / "bin/busybox", static_busybox())
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "sbin/init").symlink_to("../bin/busybox")
    (root / "etc/hostname").write_text(f"{hostname}\n")
    (root / "etc/passwd").write_text("root::0:0:root:/root:/bin/sh\n")
    (root / "etc/inittab").write_text(ROOT_INITTAB)
    write_program(root / "etc/startup", ROOT_STARTUP.encode())
    for file in boot:
        shutil.copyfile(file, root / "boot" / file.name)


def write_program(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o755)


def write_sidecar(path: Path, machine: Path, kernel: Path, ramdisk: Path) -> Path:
    keys = {
        "description": "A tiny Linux that says one line on its console",
        "machine": machine.name,
        "kernel": kernel.name,
        "ramdisk": ramdisk.name,
        "arch": "x86_64",
    }
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items()))
    return path


# --- programs ---


def run(name: str, *arguments: str, cwd: str | None = None, seconds: int = TOOL_SECONDS) -> str:
    """Return the output of a program.

    Raises Halted if it is missing, fails, or takes longer than `seconds`.
    """
    command = [program(name), *arguments]
    plain = os.environ | {"LC_ALL": "C"}  # apt translates the words we look for
    try:
        done = subprocess.run(
            command, cwd=cwd, env=plain, timeout=seconds, capture_output=True, text=True, check=True
        )
    except subprocess.TimeoutExpired as error:
        raise Halted(name, f"it was not done after {seconds} s", "Try it again, or by hand.") from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["it said nothing"]
        raise Halted(
            name, f"it failed: {lines[-1]}", f"Try by hand: {' '.join([name, *arguments])}"
        ) from error
    return done.stdout


def program(name: str) -> str:
    """Return the path of a program. /usr/sbin is not on every user's PATH, and mke2fs needs no privilege."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise Halted(name, "it is not installed", f"Try: apt-get install {DEBIAN_PACKAGES[name]}")
    return found
