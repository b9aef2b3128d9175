"""The verb `inspect`, on images of real file systems."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.disks import whole_disk
from tests.support.guest_images import Content, bzimage, disk, empty, ext, fill, run
from tests.support.host import Host
from tests.support.sizes import MIB
from uecwatchd.demo.material import DebianKernel, RealSet, make_set

SCRIPT = "label: dos\nsize=64MiB, type=83, bootable\n"
RAMDISK = b"070701" + bytes(104)


def inspect(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "uecwatchd", "inspect", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def found(*arguments: str | Path) -> dict[str, Any]:
    ended = inspect(*arguments, "--json")
    assert ended.stderr == ""
    told: dict[str, Any] = json.loads(ended.stdout)
    assert ended.returncode == (0 if told["ready"] else 65)
    return told


def test_a_real_set_is_inspected(real_set: RealSet) -> None:
    told = found(real_set.machine)
    assert (told["format"], told["layout"], told["arch"]) == ("raw", "partition", "x86_64")
    assert (told["kernel"], told["ramdisk"]) == (
        f"/boot/{real_set.kernel.name}",
        f"/boot/{real_set.ramdisk.name}",
    )
    assert told["kernels"] == [{"version": real_set.version, "path": f"/boot/{real_set.kernel.name}"}]
    assert {"key-fetch", "sshd", "fstab-root"} <= {finding["key"] for finding in told["findings"]}
    assert "virtio" not in {finding["key"] for finding in told["findings"]}


def test_a_disk_is_described_in_readable_lines(real_kernel: DebianKernel, tmp_path: Path) -> None:
    made = make_set(tmp_path / "set", kernel=real_kernel)
    ended = inspect(whole_disk(tmp_path / "disk.img", made.machine))
    assert ended.returncode == 0, ended.stderr
    words = " ".join(ended.stdout.split())
    assert "layout whole disk, MBR" in words
    assert "partition 1 (ext4, tiny)" in words
    assert f"kernel {made.version}, /boot/{made.kernel.name}, with /boot/{made.ramdisk.name}" in words
    assert "warning It has no SSH server" in words
    assert "In the guest: apt-get install openssh-server" in words


def test_the_disk_in_a_qcow2_is_inspected(real_set: RealSet, tmp_path: Path) -> None:
    disk = whole_disk(tmp_path / "disk.img", real_set.machine)
    packed = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "convert", "-c", "-O", "qcow2", disk, packed], check=True)
    assert found(packed) == {**found(disk), "format": "qcow2"}


def test_an_image_with_an_error_is_not_ready(tmp_path: Path) -> None:
    rules = "etc/udev/rules.d/70-persistent-net.rules"
    files: dict[str, Content] = {
        "bin/sh": Path("/bin/sh").read_bytes(),
        "boot/vmlinuz-6.1": bzimage("6.1"),
        "boot/initrd.img-6.1": RAMDISK,
        "etc/passwd": "root::0:0::/root:/bin/sh\n",
        rules: 'NAME="eth0"\n',
    }
    root = ext("-t", "ext4")(tmp_path / "root.img", fill(tmp_path / "root", files))
    told = found(disk(tmp_path / "disk.img", SCRIPT, (1, root), size=70 * MIB))
    assert not told["ready"]
    assert (told["partition_table"], told["volumes"][0]["partition"]) == ("mbr", 1)
    error = told["findings"][0]
    assert (error["key"], error["severity"], error["remedy"]) == (
        "net-rules",
        "error",
        f"In the guest: rm /{rules}",
    )


def test_the_kernel_tells_the_architecture_if_no_program_does(tmp_path: Path) -> None:
    files: dict[str, Content] = {"boot/vmlinuz-6.1": bzimage("6.1"), "bin/sh": "#!", "etc/passwd": "x"}
    image = ext("-t", "ext4")(tmp_path / "root.img", fill(tmp_path / "root", files))
    assert found(image)["arch"] == "x86_64"
    assert "architecture x86_64" in inspect(image).stdout


def test_an_image_without_a_system_is_not_ready(tmp_path: Path) -> None:
    (finding,) = found(empty(tmp_path / "empty.img", MIB))["findings"]
    assert "no operating system in it that is known" in finding["sentence"]


def test_a_file_system_that_is_damaged_is_named(tmp_path: Path) -> None:
    image = ext("-t", "ext4")(tmp_path / "image", fill(tmp_path / "root", {"etc/passwd": "x", "bin/sh": "x"}))
    with image.open("r+b") as file:
        file.seek(1024 + 0x58)
        file.write(b"\xff\xff")
    (finding,) = found(image)["findings"]
    assert finding["sentence"].startswith("The disk (ext4) could not be read: it is damaged")


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (None, 66, "there is no such file"),
        (b"hello\n", 65, "it cannot be inspected: it is a text file, not a disk"),
        (b"QFI\xfb\0\0\0\x03" + bytes(1000), 65, "it cannot be opened as a disk image"),
        (bytes(510) + b"\x55\xaa" + bytes(512), 65, ""),
    ],
    ids=["missing", "text", "broken container", "nothing"],
)
def test_a_file_that_cannot_be_inspected_is_reported_in_a_sentence(
    tmp_path: Path, content: bytes | None, code: int, said: str
) -> None:
    image = tmp_path / "karmic.img"
    if content is not None:
        image.write_bytes(content)
    ended = inspect(image)
    assert ended.returncode == code
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_name_that_is_neither_a_file_nor_a_set_is_reported(host: Host) -> None:
    ended = host.run("inspect", "karmik")
    assert ended.returncode == 66
    assert "karmik: there is no such file here, and no such set" in ended.stderr


def test_a_partition_behind_the_end_of_the_disk_is_reported_in_a_sentence(tmp_path: Path) -> None:
    image = disk(tmp_path / "disk.img", SCRIPT, size=70 * MIB)
    with image.open("r+b") as file:
        file.truncate(40 * MIB)
    ended = inspect(image)
    assert ended.returncode == 65
    assert "its partition 1 ends at 65 MiB, the disk has 40 MiB" in ended.stderr


# --- a real Debian ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory, real_kernel: DebianKernel) -> Path:
    """An ext4 with files of Debian's own packages that are installed here, and its kernel."""
    root = tmp_path_factory.mktemp("debian")
    packages = ("base-files", "dash", "coreutils", "openssh-client", "util-linux")
    listed = run("dpkg", "-L", *packages).splitlines()
    paths = [path for path in listed if path.startswith(("/etc/", "/bin/", "/usr/bin/", "/usr/lib/", "/lib"))]
    files = "\0".join(
        path.removeprefix("/") for path in paths if not Path(path).is_dir() or Path(path).is_symlink()
    )
    archive = subprocess.run(
        ["tar", "-C", "/", "--null", "-T", "-", "-c"], input=files.encode(), capture_output=True, check=True
    )
    subprocess.run(["tar", "-C", str(root), "-x"], input=archive.stdout, check=True)
    version = real_kernel.version
    fill(
        root,
        {f"boot/vmlinuz-{version}": real_kernel.image.read_bytes(), f"boot/initrd.img-{version}": RAMDISK},
    )
    return ext("-t", "ext4", size=256 * MIB)(root.with_suffix(".img"), root)


def test_a_debian_of_this_machines_packages_is_recognised(debian: Path, real_kernel: DebianKernel) -> None:
    told = found(debian)
    assert (told["system"]["id"], told["arch"]) == ("debian", "x86_64")
    assert told["system"]["name"].startswith("Debian GNU/Linux")
    assert told["kernels"][0]["version"] == real_kernel.version
    assert told["ramdisk"] == f"/boot/initrd.img-{real_kernel.version}"
