"""The set that demo and tests use is a machine: QEMU, without KVM, runs it up to its own init."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.disks import whole_disk
from tests.support.host import Host
from tests.support.qemu import convert_compressed
from uecwatchd.bundle.folder import SparseFile
from uecwatchd.clouds.client import make_cloud
from uecwatchd.clouds.credentials.account import gather
from uecwatchd.clouds.dialects import DIALECTS
from uecwatchd.clouds.download import download_bundle
from uecwatchd.config.load import load
from uecwatchd.demo import material

pytestmark = pytest.mark.exhaustive

Boot = Callable[[Path, Path, Path], str]
BOOT_SECONDS = 120  # 3 s on two idle cores; other tests may hold them


@pytest.fixture
def boot() -> Boot:
    """Kernel, ramdisk and raw machine image in, everything on the serial console out. No file is changed."""
    found = shutil.which("qemu-system-x86_64")
    assert found, "qemu-system-x86_64 is missing: apt-get install qemu-system-x86"

    def run(kernel: Path, ramdisk: Path, machine: Path) -> str:
        command = [found, "-accel", "tcg", "-m", "256", "-nographic", "-no-reboot", "-nic", "none"]
        command += ["-kernel", str(kernel), "-initrd", str(ramdisk)]
        command += ["-drive", f"file={machine},format=raw,if=virtio,snapshot=on"]
        command += ["-append", f"console=ttyS0 panic=-1 {material.POWEROFF_WORD}"]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=BOOT_SECONDS, check=True
        )
        return done.stdout.decode(errors="replace")

    return run


@pytest.fixture(scope="module")
def made(real_kernel: material.DebianKernel, tmp_path_factory: pytest.TempPathFactory) -> material.RealSet:
    return material.make_set(tmp_path_factory.mktemp("set"), kernel=real_kernel)


def test_a_made_set_boots_to_its_userspace_line(made: material.RealSet, boot: Boot) -> None:
    console = boot(made.kernel, made.ramdisk, made.machine)
    assert f"Linux version {made.version}" in console
    assert material.USERSPACE_LINE in console.splitlines()


def test_the_same_machine_boots_as_a_whole_disk(made: material.RealSet, boot: Boot, tmp_path: Path) -> None:
    disk = whole_disk(tmp_path / "tiny.disk", made.machine)
    assert material.USERSPACE_LINE in boot(made.kernel, made.ramdisk, disk).splitlines()


def test_a_machine_without_its_init_does_not_pass_for_booted(
    made: material.RealSet, boot: Boot, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.img"
    shutil.copyfile(made.machine, broken)
    subprocess.run(
        ["/usr/sbin/debugfs", "-w", "-R", "rm /sbin/init", broken], capture_output=True, check=True
    )
    assert material.USERSPACE_LINE not in boot(made.kernel, made.ramdisk, broken)


def test_a_set_taken_back_out_of_the_cloud_boots(
    host: Host, made: material.RealSet, boot: Boot, tmp_path: Path
) -> None:
    host.drop_set(made, "m")
    assert material.USERSPACE_LINE in boot(*registered(host, tmp_path)).splitlines()


def test_a_qcow2_whose_kernel_is_in_it_boots_after_it_was_taken_back_out_of_the_cloud(
    host: Host, made: material.RealSet, boot: Boot, tmp_path: Path
) -> None:
    convert_compressed(made.machine, host.spool / "m.qcow2")
    kernel, ramdisk, machine = registered(host, tmp_path)
    assert kernel.read_bytes() == made.kernel.read_bytes()
    assert material.USERSPACE_LINE in boot(kernel, ramdisk, machine).splitlines()


def registered(host: Host, folder: Path) -> tuple[Path, Path, Path]:
    """Register the set m, and return its kernel, ramdisk and machine, downloaded into a folder."""
    assert host.run("once").returncode == 0
    settings = load(host.config, environ={})
    cloud = make_cloud(gather(settings.clouds["default"]), DIALECTS["sandbox"], uploads=1)
    taken = {}
    for member in host.report("m")["members"]:
        taken[member["role"]] = folder / member["role"]
        with taken[member["role"]].open("wb") as file:
            download_bundle(cloud, member["manifest"], SparseFile(file))
            file.truncate(member["size"])
    return taken["kernel"], taken["ramdisk"], taken["machine"]
