"""A small installation CD: isolinux, Debian's kernel, and a real installer of forty lines.

The installer partitions the first disk, makes a file system, copies a system, and installs a boot loader,
with the programs that every distribution uses for that. It asks no question: its answers are on a disk, or
were added to its initrd. The installed system runs user data at its first boot, like cloud-init but smaller,
so that a layer can be added to it.
"""

import gzip
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from uecwatchd.demo.material import (
    APPLETS,
    DebianKernel,
    fill_root,
    module_files,
    program,
    ramdisk,
    run,
    static_busybox,
    write_program,
)
from uecwatchd.errors import Halted
from uecwatchd.install.cpio import cpio

ISOLINUX = Path("/usr/lib/ISOLINUX/isolinux.bin")
LOADER = Path("/usr/lib/syslinux/modules/bios/ldlinux.c32")
MBR = Path("/usr/lib/EXTLINUX/mbr.bin")
# Files of packages, for the hint if one is not there.
PACKAGES = {ISOLINUX: "isolinux", LOADER: "syslinux-common", MBR: "extlinux"}
PROGRAMS = ("sfdisk", "mke2fs", "extlinux")
MORE_APPLETS = ("chmod", "cmp", "cp", "cut", "dd", "getty", "login", "mkdir", "rm", "sed", "sync", "umount")
ANSWERS = "hostname=karmic\n"
INSTALLED_LINE = "The installation is complete."

ISOLINUX_CFG = """\
DEFAULT install
LABEL install
  KERNEL /vmlinuz
  INITRD /initrd.gz
  APPEND console=ttyS0 quiet panic=-1
"""
EXTLINUX_CFG = """\
DEFAULT linux
LABEL linux
  KERNEL /boot/vmlinuz-{version}
  INITRD /boot/initrd.img-{version}
  APPEND console=ttyS0 panic=-1
"""
INSTALLER = f"""\
#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for module in /modules/*; do insmod "$module" 2>/dev/null; done
failed() {{
    echo "The installation has failed: $*"
    stty sane
    poweroff -f
}}
while [ ! -b /dev/vda ]; do sleep 0.1; done
if [ ! -f /answers ]; then
    mount -t vfat -o ro /dev/vdb /media 2>/dev/null
    cp /media/answers /answers 2>/dev/null || failed "there are no answers"
fi
name=$(sed -n 's/^hostname=//p' /answers)
[ -n "$name" ] || failed "the answers have no hostname"
echo "Making a file system for $name"
echo '2048,,L,*' | /sbin/sfdisk --quiet --label dos /dev/vda || failed "the disk cannot be partitioned"
while [ ! -b /dev/vda1 ]; do sleep 0.1; done
# Without what the boot loader does not read.
/sbin/mke2fs -q -F -t ext4 -O ^64bit,^metadata_csum -L "$name" /dev/vda1 || failed "there is no file system"
mount -t ext4 /dev/vda1 /target || failed "the new file system cannot be mounted"
echo "Copying the system"
cp -a /system/. /target/ || failed "the system does not fit on the disk"
echo "$name" >/target/etc/hostname
echo "Installing the boot loader"
/sbin/extlinux --install /target/boot/extlinux 2>&1 || failed "there is no boot loader"
dd if=/mbr.bin of=/dev/vda bs=440 count=1 2>/dev/null
umount /target
sync
echo "{INSTALLED_LINE}"
stty sane
poweroff -f
"""
# What cloud-init does with a script as user data, for the seed that a machine is given as a disk.
FIRST_BOOT = """\
#!/bin/sh
mount -t vfat -o ro /dev/vdb /media 2>/dev/null || exit 0
if ! cmp -s /media/meta-data /var/lib/first-boot; then
    cp /media/meta-data /var/lib/first-boot
    cp /media/user-data /run/user-data
    umount /media
    sh /run/user-data
fi
"""
INITTAB = """\
::sysinit:/etc/startup
::wait:/etc/first-boot
ttyS0::respawn:/bin/getty -L ttyS0 115200 vt100
::ctrlaltdel:/bin/reboot
"""


def make_mini_iso(path: Path, *, kernel: DebianKernel, boots: bool = True) -> None:
    """Make the CD. Raises Halted, with the package to install, if a program or file is missing."""
    with tempfile.TemporaryDirectory(prefix="uecwatchd-iso-") as scratch:
        tree, system = Path(scratch, "tree"), Path(scratch, "system")
        (tree / "isolinux").mkdir(parents=True)
        system.mkdir()
        _fill_system(system, kernel, Path(scratch))
        shutil.copyfile(kernel.image, tree / "vmlinuz")
        archive = b"".join(cpio(_installer_files(kernel, system)))
        (tree / "initrd.gz").write_bytes(gzip.compress(archive, compresslevel=1, mtime=0))
        (tree / "isolinux/isolinux.cfg").write_text(ISOLINUX_CFG)
        for file in (ISOLINUX, LOADER):
            shutil.copyfile(_there(file), tree / "isolinux" / file.name)
        loader = ["-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat"]
        how = ["-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"]
        options = ["-quiet", "-r", "-J", "-V", "MINI", *((*loader, *how) if boots else ())]
        path.unlink(missing_ok=True)
        run("xorriso", "-as", "mkisofs", *options, "-o", str(path.absolute()), str(tree))


def _fill_system(root: Path, kernel: DebianKernel, scratch: Path) -> None:
    """Make the tree of the system that is installed."""
    image, initrd = scratch / f"vmlinuz-{kernel.version}", scratch / f"initrd.img-{kernel.version}"
    shutil.copyfile(kernel.image, image)
    initrd.write_bytes(ramdisk(kernel))
    fill_root(root, boot=(image, initrd), hostname="mini")
    for folder in ("boot/extlinux", "media", "run", "tmp", "var/lib"):
        (root / folder).mkdir(parents=True)
    for applet in MORE_APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/inittab").write_text(INITTAB)
    (root / "etc/os-release").write_text('ID=mini\nPRETTY_NAME="Mini Linux"\n')
    (root / "etc/fstab").write_text("LABEL=karmic / ext4 defaults 0 1\n")
    write_program(root / "etc/first-boot", FIRST_BOOT.encode())
    (root / "boot/extlinux/extlinux.conf").write_text(EXTLINUX_CFG.format(version=kernel.version))


def _installer_files(kernel: DebianKernel, system: Path) -> Iterator[tuple[str, int, bytes]]:
    """Yield the files of the installer's initrd: path, mode, content."""
    for folder in ("bin", "sbin", "dev", "proc", "sys", "media", "target", "modules"):
        yield folder, stat.S_IFDIR | 0o755, b""
    yield "init", stat.S_IFREG | 0o755, INSTALLER.encode()
    yield "mbr.bin", stat.S_IFREG | 0o644, _there(MBR).read_bytes()
    yield "bin/busybox", stat.S_IFREG | 0o755, static_busybox()
    for applet in (*APPLETS, *MORE_APPLETS):
        yield f"bin/{applet}", stat.S_IFLNK | 0o777, b"busybox"
    yield from module_files(kernel)
    yield from _programs()
    for path in (system, *sorted(system.rglob("*"))):
        name, status = f"system/{path.relative_to(system)}".removesuffix("/."), path.lstat()
        yield name, status.st_mode, _content(path)


def _content(path: Path) -> bytes:
    if path.is_symlink():
        return str(path.readlink()).encode()
    return path.read_bytes() if path.is_file() else b""


def _programs() -> Iterator[tuple[str, int, bytes]]:
    """Yield the programs of this system that the installer runs, with their libraries."""
    libraries: dict[str, bytes] = {}
    for name in PROGRAMS:
        path = Path(program(name)).resolve()
        yield f"sbin/{name}", stat.S_IFREG | 0o755, path.read_bytes()
        libraries |= {library: Path(library).read_bytes() for library in _libraries(path)}
    folders = {str(above).lstrip("/") for library in libraries for above in Path(library).parents}
    for folder in sorted(folders - {"", "bin", "sbin"}):
        yield folder, stat.S_IFDIR | 0o755, b""
    for library, content in libraries.items():
        yield library.lstrip("/"), stat.S_IFREG | 0o755, content


def _libraries(program: Path) -> Iterable[str]:
    """Return the paths of a program's libraries; ldd fails for a program that needs none."""
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False, timeout=60)
    return re.findall(r"(/\S+) \(0x", listed.stdout)


def _there(file: Path) -> Path:
    if not file.exists():
        raise Halted(str(file), "it is not installed", f"Try: apt-get install {PACKAGES[file]}")
    return file
