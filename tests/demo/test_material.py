"""The demo's set is a real one: checked by the programs that know the formats."""

import lzma
import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from uecwatchd.demo import material
from uecwatchd.errors import Halted
from uecwatchd.images.detect import HEAD_BYTES, detect
from uecwatchd.images.suitability import reason_unsuitable


@pytest.fixture(scope="module")
def made(real_kernel: material.DebianKernel, tmp_path_factory: pytest.TempPathFactory) -> material.RealSet:
    return material.make_set(tmp_path_factory.mktemp("set"), kernel=real_kernel, name="karmic")


def output(*command: str | Path) -> str:
    found = shutil.which(command[0], path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert found, f"{command[0]} is missing: apt-get install e2fsprogs fdisk"
    done = subprocess.run([found, *command[1:]], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_each_member_is_fit_for_its_role(made: material.RealSet) -> None:
    for role, path in (("machine", made.machine), ("kernel", made.kernel), ("ramdisk", made.ramdisk)):
        data = path.read_bytes()
        facts = detect(data[:HEAD_BYTES], data[-512:], size=len(data))
        assert facts.role == role
        assert reason_unsuitable(role, facts, size=len(data)) is None


def test_the_machine_image_is_a_sound_file_system_with_kernel_and_ramdisk_inside(
    made: material.RealSet,
) -> None:
    output("e2fsck", "-fn", made.machine)
    listing = output("debugfs", "-R", "ls -p /boot", made.machine)
    assert made.kernel.name in listing
    assert made.ramdisk.name in listing


def test_the_machine_image_has_the_size_asked_for(real_kernel: material.DebianKernel, tmp_path: Path) -> None:
    made = material.make_set(tmp_path, kernel=real_kernel, size=32 << 20, sidecar=False)
    assert made.machine.stat().st_size == 32 << 20
    assert made.sidecar is None
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        path.name for path in (made.machine, made.kernel, made.ramdisk)
    )


def test_the_ramdisk_unpacks_to_what_its_init_needs(made: material.RealSet, tmp_path: Path) -> None:
    packed = made.ramdisk.read_bytes()
    plain = subprocess.run(["gzip", "-dc"], input=packed, capture_output=True, check=True).stdout
    subprocess.run(["cpio", "-id", "--quiet"], input=plain, cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / "init").read_text() == material.RAMDISK_INIT
    assert (tmp_path / "init").stat().st_mode & 0o111
    assert (tmp_path / "bin/sh").readlink() == Path("busybox")
    assert min(path.name for path in (tmp_path / "modules").iterdir()) == "00-virtio_ring.ko"


def test_the_same_kernel_gives_the_same_ramdisk(
    real_kernel: material.DebianKernel, made: material.RealSet
) -> None:
    assert material.ramdisk(real_kernel) == made.ramdisk.read_bytes()


def test_the_sidecar_names_the_files_beside_it(made: material.RealSet) -> None:
    assert made.sidecar
    named = tomllib.loads(made.sidecar.read_text())
    assert {named["machine"], named["kernel"], named["ramdisk"]} == {
        made.machine.name,
        made.kernel.name,
        made.ramdisk.name,
    }


def test_of_several_kernels_kept_the_newest_is_used(
    real_kernel: material.DebianKernel, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    for version in ("6.1.0-10-cloud-amd64", "6.1.0-9-cloud-amd64"):
        material.keep(real_kernel, tmp_path / "cache" / version, scratch=tmp_path / f"scratch-{version}")
    found = material.kernel(tmp_path / "cache")
    assert found.version == "6.1.0-10-cloud-amd64"
    assert found.image.read_bytes() == real_kernel.image.read_bytes()
    assert [path.name for path in found.modules] == [path.name for path in real_kernel.modules]


def test_a_kernel_that_another_process_has_kept_is_used(
    real_kernel: material.DebianKernel, tmp_path: Path
) -> None:
    first, second = (
        material.keep(real_kernel, tmp_path / "one", scratch=tmp_path / scratch) for scratch in ("a", "b")
    )
    assert first == second


def test_an_installed_kernel_serves_with_its_modules_compressed(
    real_kernel: material.DebianKernel, tmp_path: Path
) -> None:
    install(real_kernel, tmp_path, "6.12.1-cloud-amd64")
    found = material.installed(tmp_path)
    assert found
    assert found.version == "6.12.1-cloud-amd64"
    assert material.ramdisk(found) == material.ramdisk(real_kernel)


def test_an_installed_kernel_without_modules_is_passed_over(
    real_kernel: material.DebianKernel, tmp_path: Path
) -> None:
    install(real_kernel, tmp_path, "6.1.0-9-cloud-amd64")
    (tmp_path / "boot/vmlinuz-6.12.1-cloud-amd64").touch()
    found = material.installed(tmp_path)
    assert found
    assert found.version == "6.1.0-9-cloud-amd64"


def install(kernel: material.DebianKernel, root: Path, version: str) -> None:
    """As Debian 13 does: modules under /usr, each an xz file."""
    drivers = root / "usr/lib/modules" / version / "kernel/drivers"
    drivers.mkdir(parents=True)
    (root / "boot").mkdir()
    shutil.copyfile(kernel.image, root / f"boot/vmlinuz-{version}")
    for module in kernel.modules:
        (drivers / f"{module.name}.xz").write_bytes(lzma.compress(module.read_bytes()))


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Halted, match=r"^dpkg-deb: it is not installed\. Try: apt-get install dpkg$"):
        material.run("dpkg-deb", "--version")


def test_a_failing_program_is_quoted() -> None:
    with pytest.raises(Halted) as caught:
        material.run("dpkg-deb", "-x", "/nowhere.deb", "/tmp")  # noqa: S108 - nothing is written there
    assert "No such file" in caught.value.why
    assert caught.value.hint == "Try by hand: dpkg-deb -x /nowhere.deb /tmp"
