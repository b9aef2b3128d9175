"""Rules for a guest that is ready for a cloud: each case spoils one that is ready."""

import gzip
import lzma
from pathlib import Path

import pytest

from tests.support.folder_files import FolderFiles
from tests.support.guest_images import Content, Link, bzimage, fill
from uecwatchd.images.guest.disk import GuestDisk, LinuxSystem
from uecwatchd.images.guest.files import RamdiskModules
from uecwatchd.images.guest.fstab import PlacedVolume, parse_fstab
from uecwatchd.images.guest.guest_facts import gather_facts
from uecwatchd.images.guest.ramdisk import find_modules
from uecwatchd.images.guest.readiness import judge
from uecwatchd.images.guest.summary import ReadinessFinding
from uecwatchd.images.guest.tree import GuestTree
from uecwatchd.images.guest.volumes import Volume
from uecwatchd.images.partitions import Partition
from uecwatchd.install.cpio import cpio

VERSION = "6.1.0-9-amd64"
MODULES = f"lib/modules/{VERSION}"


def ramdisk(*modules: str) -> bytes:
    files = [(f"lib/modules/{VERSION}/kernel/{name}.ko", 0o100644, b"x" * 5000) for name in modules]
    return b"".join(cpio([("init", 0o100755, b"#!/bin/sh"), *files]))


CONFIG = "CONFIG_HOTPLUG_PCI_ACPI=y\nCONFIG_VIRTIO_BLK=m\n# CONFIG_XFS_FS is not set\n"
READY: dict[str, Content] = {
    f"boot/vmlinuz-{VERSION}": bzimage(VERSION),
    f"boot/initrd.img-{VERSION}": gzip.compress(ramdisk("ext4", "virtio_blk")),
    f"boot/config-{VERSION}": CONFIG,
    "boot/grub/grub.cfg": "linux /vmlinuz root=UUID=1234 console=ttyS0,115200\n",
    "etc/fstab": "UUID=1234-abcd / ext4 defaults 0 1\nproc /proc proc\n/dev/sdb none swap sw\n",
    "etc/rc.local": "#!/bin/sh\ncurl -s http://169.254.169.254/latest/meta-data/ | grep ssh\nexit 0\n",
    "etc/machine-id": "",
    "usr/bin/curl": "",
    "usr/sbin/sshd": "",
    "root/.bash_history": "",
}
UUID = "1234-abcd"


def findings(
    folder: Path, changes: dict[str, Content], *, without: tuple[str, ...] = ()
) -> list[ReadinessFinding]:
    files = {path: content for path, content in (READY | changes).items() if path not in without}
    fill(folder, files)
    if "etc/rc.local" in files and "etc/rc.local" not in changes:
        (folder / "etc/rc.local").chmod(0o755)
    tree = GuestTree({"/": FolderFiles(folder)})
    partition = Partition(1, 0, 1, "83", is_bootable=False, uuid="cafebabe-01")
    root = PlacedVolume(Volume("ext4", 1, UUID, "root", "", "", FolderFiles(folder)), partition)
    disk = GuestDisk("disk", None, (root,))
    system = LinuxSystem(tree, root, parse_fstab(tree.text("/etc/fstab")))
    return list(judge(gather_facts(disk, system, ("bios",))))


def test_a_guest_that_is_ready_has_no_findings(tmp_path: Path) -> None:
    assert findings(tmp_path, {}) == []


CLOUD_INIT: dict[str, Content] = {
    "etc/systemd/system/cloud-init.target.wants/cloud-init.service": Link(
        "/lib/systemd/system/cloud-init.service"
    )
}
MANUAL = """\
depmod -a
modprobe acpiphp
curl -m 10 -s http://169.254.169.254/latest/meta-data/public-keys/0/openssh-key | grep 'ssh-rsa' >> \\
/home/user/.ssh/authorized_keys
exit 0
"""
KEY = "-----BEGIN RSA PRIVATE KEY-----\n"

SPOILED: dict[str, tuple[dict[str, Content], tuple[str, ...], tuple[str, str, str]]] = {
    "no kernel": ({}, (f"boot/vmlinuz-{VERSION}",), ("kernel", "warning", "the image has no kernel")),
    "no virtio": (
        {f"boot/config-{VERSION}": "CONFIG_HOTPLUG_PCI_ACPI=y\n"},
        (),
        ("virtio", "error", "has no driver for virtio disks"),
    ),
    "virtio only in the root": (
        {f"boot/initrd.img-{VERSION}": lzma.compress(ramdisk("ext4"))},
        (),
        ("virtio", "error", "is a module, and its ramdisk does not have it"),
    ),
    "virtio without a ramdisk": (
        {},
        (f"boot/initrd.img-{VERSION}",),
        ("virtio", "error", "is a module, and there is no ramdisk"),
    ),
    "modules of another kernel": (
        {"lib/modules/5.10.0-8-amd64/modules.dep": ""},
        (),
        ("modules", "warning", "the modules in /lib/modules are for 5.10.0-8-amd64"),
    ),
    "a kernel that needs modules, and none": (
        {f"boot/config-{VERSION}": f"{CONFIG}CONFIG_MODULES=y\n"},
        (),
        ("modules", "warning", "/lib/modules has none for it"),
    ),
    "a ramdisk of another kernel": (
        {f"boot/initrd.img-{VERSION}": ramdisk("virtio_blk").replace(b"6.1.0-9", b"6.1.0-8")},
        (),
        ("modules", "warning", "its ramdisk are for 6.1.0-8-amd64: it may not find its root"),
    ),
    "no hot-plug": (
        {f"boot/config-{VERSION}": "CONFIG_VIRTIO_BLK=y\n"},
        (),
        ("hotplug", "warning", "no driver for PCI hot-plug"),
    ),
    "hot-plug that nothing loads": (
        {f"boot/config-{VERSION}": "CONFIG_VIRTIO_BLK=y\nCONFIG_HOTPLUG_PCI_ACPI=m\n"},
        (),
        ("hotplug", "warning", "Nothing loads the module acpiphp"),
    ),
    "no line for the root": (
        {"etc/fstab": "# UNCONFIGURED FSTAB\n"},
        (),
        ("fstab-root", "warning", "no line for the root"),
    ),
    "the root of another disk": (
        {"etc/fstab": "UUID=9999 / ext4\n"},
        (),
        ("fstab-root", "error", "UUID=9999 as the root, which is not on this disk"),
    ),
    "the root by an old name": (
        {"etc/fstab": "/dev/sda1 / ext4\n"},
        (),
        ("fstab-root", "warning", "/dev/sda1 as the root; on a virtio disk"),
    ),
    "a volume that is not there": (
        {"etc/fstab": f"UUID={UUID} / ext4\nLABEL=data /data ext4\nUUID=8 /x ext4 nofail\n"},
        (),
        ("fstab-mount", "warning", "LABEL=data for /data"),
    ),
    "rules for a network card": (
        {"etc/udev/rules.d/70-persistent-net.rules": '# comment\nSUBSYSTEM=="net", NAME="eth0"\n'},
        (),
        ("net-rules", "error", "binds eth0 to the network card of another machine"),
    ),
    "nothing fetches a key": ({}, ("etc/rc.local",), ("key-fetch", "warning", "Nothing in it fetches")),
    "a comment fetches no key": (
        {"etc/rc.local": "# curl http://169.254.169.254/\n"},
        (),
        ("key-fetch", "warning", "Nothing in it fetches"),
    ),
    "cloud-init that is disabled": (
        {"etc/cloud/cloud-init.disabled": "", **CLOUD_INIT},
        ("etc/rc.local",),
        ("key-fetch", "warning", "Nothing in it fetches"),
    ),
    "a script that is not executable": (
        {"etc/rc.local": MANUAL},
        (),
        ("key-fetch", "warning", "/etc/rc.local would fetch the user's SSH key, but it is not executable"),
    ),
    "no curl": ({}, ("usr/bin/curl",), ("key-fetch", "warning", "it uses curl, which is not installed")),
    "no SSH server": ({}, ("usr/sbin/sshd",), ("sshd", "warning", "no SSH server")),
    "no console": ({}, ("boot/grub/grub.cfg",), ("console", "note", "serial console")),
    "a machine-id": ({"etc/machine-id": "0123abcd\n"}, (), ("machine-id", "warning", "machine-id is set")),
    "host keys": (
        {"etc/ssh/ssh_host_rsa_key": KEY, "etc/ssh/ssh_host_rsa_key.pub": "ssh-rsa"},
        (),
        ("host-keys", "warning", "/etc/ssh/ssh_host_rsa_key: all instances have the same SSH host keys"),
    ),
    "keys of people": (
        {"home/alice/.ssh/authorized_keys": "ssh-rsa AAAA\n", "home/bob/.ssh/authorized_keys": "# none\n"},
        (),
        ("authorized-keys", "warning", "/home/alice/.ssh/authorized_keys: their owners can log in"),
    ),
    "a history": ({"root/.bash_history": "passwd\n"}, (), ("history", "note", "/root/.bash_history")),
    "an eucarc": ({"root/.euca/eucarc": "export"}, (), ("credentials", "error", "/root/.euca/eucarc")),
    "a private key": (
        {"home/a/pk.pem": KEY, "home/a/ca.pem": "CERT"},
        (),
        ("credentials", "error", "/home/a/pk.pem:"),
    ),
    "AWS credentials": (
        {"root/.aws/credentials": "[x]"},
        (),
        ("credentials", "error", "/root/.aws/credentials"),
    ),
}


@pytest.mark.parametrize(("changes", "without", "expected"), SPOILED.values(), ids=SPOILED)
def test_each_mistake_is_one_finding_with_a_remedy(
    tmp_path: Path, changes: dict[str, Content], without: tuple[str, ...], expected: tuple[str, str, str]
) -> None:
    found = findings(tmp_path, changes, without=without)
    assert [(finding.key, finding.severity) for finding in found] == [expected[:2]]
    assert expected[2] in found[0].sentence
    assert found[0].remedy


FINE: dict[str, tuple[dict[str, Content], tuple[str, ...]]] = {
    "cloud-init": (CLOUD_INIT, ("etc/rc.local",)),
    "host keys that cloud-init replaces": ({"etc/ssh/ssh_host_rsa_key": KEY, **CLOUD_INIT}, ()),
    "empty rules": ({"etc/udev/rules.d/70-persistent-net.rules": "# written by the cleaner\n\n"}, ()),
    "acpiphp in a list": (
        {f"boot/config-{VERSION}": CONFIG.replace("ACPI=y", "ACPI=m"), "etc/modules": "loop\nacpiphp\n"},
        (),
    ),
    "acpiphp in the ramdisk": (
        {
            f"boot/config-{VERSION}": CONFIG.replace("ACPI=y", "ACPI=m"),
            f"boot/initrd.img-{VERSION}": ramdisk("virtio_blk", "acpiphp"),
        },
        (),
    ),
    "a module list instead of a configuration": (
        {
            f"{MODULES}/modules.builtin": "kernel/drivers/pci/hotplug/acpiphp.ko\n",
            f"{MODULES}/modules.dep": "kernel/drivers/block/virtio_blk.ko.xz: kernel/virtio.ko.xz\n",
        },
        (f"boot/config-{VERSION}",),
    ),
    "a kernel that tells nothing": ({}, (f"boot/config-{VERSION}",)),
    "a ramdisk of an unknown kind": ({f"boot/initrd.img-{VERSION}": b"\x02\x21\x4c\x18" + bytes(500)}, ()),
    "a getty of init": ({"etc/inittab": "T0:23:respawn:/sbin/getty -L ttyS0\n"}, ("boot/grub/grub.cfg",)),
    "a getty of systemd": (
        {"etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service": Link("/x")},
        ("boot/grub/grub.cfg",),
    ),
    "machine-id that is set at boot": ({"etc/machine-id": "uninitialized\n"}, ()),
}


@pytest.mark.parametrize(("changes", "without"), FINE.values(), ids=FINE)
def test_a_correct_alternative_is_no_finding(
    tmp_path: Path, changes: dict[str, Content], without: tuple[str, ...]
) -> None:
    assert findings(tmp_path, changes, without=without) == []


def test_the_lines_of_the_manual_make_a_guest_ready(tmp_path: Path) -> None:
    fill(tmp_path, {"etc/rc.local": MANUAL})
    (tmp_path / "etc/rc.local").chmod(0o755)
    changes: dict[str, Content] = {f"boot/config-{VERSION}": CONFIG.replace("ACPI=y", "ACPI=m")}
    assert findings(tmp_path, {**changes, "etc/rc.local": MANUAL}) == []


def test_lines_behind_an_exit_are_never_reached(tmp_path: Path) -> None:
    fill(tmp_path, {"etc/rc.local": ""})
    (tmp_path / "etc/rc.local").chmod(0o755)
    (finding,) = findings(tmp_path, {"etc/rc.local": f"exit 0\n{MANUAL}"})
    assert "it ends with an exit before that line" in finding.sentence


def test_errors_come_first_and_long_lists_are_cut(tmp_path: Path) -> None:
    secrets = {f"root/{number}.pem": KEY for number in range(5)}
    found = findings(tmp_path, {"root/.bash_history": "x", "etc/machine-id": "x", **secrets})
    assert [finding.severity for finding in found] == ["error", "warning", "note"]
    assert "and 2 more" in found[0].sentence
    assert found[0].remedy.endswith("/root/4.pem")


# --- ramdisks ---------------------------------------------------------------------------------------------


WANTED = frozenset({"virtio_blk", "ext4", "xfs"})


def content_of(data: bytes, wanted: frozenset[str], *, max_bytes: int = 1 << 30) -> RamdiskModules:
    def read(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    return find_modules(read, len(data), wanted, max_bytes=max_bytes)


def modules_of(data: bytes, *, max_bytes: int = 1 << 30) -> frozenset[str]:
    return content_of(data, WANTED, max_bytes=max_bytes).found


@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress], ids=["plain", "gzip", "xz"])
def test_modules_are_found_behind_microcode_and_padding(compress: type[bytes]) -> None:
    microcode = b"".join(cpio([("kernel/x86/microcode/GenuineIntel.bin", 0o100644, b"m" * 3000)]))
    data = microcode + bytes(-len(microcode) % 512) + compress(ramdisk("virtio-blk", "ext4"))
    assert modules_of(data) == {"virtio_blk", "ext4"}


@pytest.mark.parametrize("folder", ["lib", "usr/lib", "./usr/lib"])
def test_the_kernel_that_modules_are_for_is_found(folder: str) -> None:
    name = f"{folder}/modules/5.10.0-8-amd64/updates/dkms/zfs.ko.xz"
    data = b"".join(cpio([("lib/firmware/x.ko.bin", 0o100644, b"x"), (name, 0o100644, b"x")]))
    assert content_of(data, frozenset()).versions == {"5.10.0-8-amd64"}
    assert content_of(ramdisk("ext4") + data, WANTED).versions == {VERSION, "5.10.0-8-amd64"}
    assert content_of(ramdisk(), frozenset()).versions == frozenset()


def test_several_compressed_archives_are_read() -> None:
    assert modules_of(gzip.compress(ramdisk("ext4")) + lzma.compress(ramdisk("xfs"))) == {"ext4", "xfs"}


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress], ids=["gzip", "xz"])
def test_a_damaged_ramdisk_is_refused(compress: type[bytes]) -> None:
    data = bytearray(compress(ramdisk("ext4") * 50))
    data[len(data) // 2 : len(data) // 2 + 16] = b"\xff" * 16
    with pytest.raises(ValueError, match="damaged"):
        modules_of(bytes(data))


def test_a_ramdisk_is_read_no_further_than_needed() -> None:
    """The data after it would be refused."""
    wanted = ramdisk("ext4", "xfs", "virtio_blk")
    assert modules_of(wanted + bytes(4 << 20) + b"nonsense", max_bytes=2 << 20) == WANTED


@pytest.mark.parametrize("copies", [1, 8])
def test_a_ramdisk_that_becomes_too_large_is_refused(copies: int) -> None:
    bomb = gzip.compress(ramdisk("ext4") + bytes((8 << 20) // copies))
    with pytest.raises(ValueError, match="larger than a ramdisk can be"):
        modules_of(bomb * copies, max_bytes=8 << 20)


def test_a_ramdisk_that_is_compressed_again_and_again_is_refused() -> None:
    with pytest.raises(ValueError, match="compressed twice"):
        modules_of(gzip.compress(gzip.compress(ramdisk("ext4"))))
