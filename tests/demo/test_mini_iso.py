"""The small installation CD, installed for real: its kernel, its boot loader, and a layer on top."""

import shutil
import subprocess

import pytest

from tests.support.builds import Builds
from uecwatchd.demo.material import DebianKernel
from uecwatchd.demo.mini_iso import ANSWERS, INSTALLED_LINE, make_mini_iso
from uecwatchd.install.request import BuildStatus

pytestmark = pytest.mark.exhaustive

TABLE = {"iso": "mini.iso", "answers": "answers", "disk": "128M", "memory": "256M", "time_limit": "5m"}
LAYER = {"base": "karmic.qcow2", "memory": "256M", "time_limit": "5m"}


@pytest.fixture(scope="module")
def builds(real_kernel: DebianKernel, tmp_path_factory: pytest.TempPathFactory) -> Builds:
    builds = Builds(tmp_path_factory.mktemp("mini"))
    make_mini_iso(builds.files / "mini.iso", kernel=real_kernel)
    (builds.files / "answers").write_text(ANSWERS)
    return builds


@pytest.fixture(scope="module")
def installed(builds: Builds) -> BuildStatus:
    status = builds.build(**TABLE)
    assert status.state == "done", (status.failure, status.console)
    shutil.copyfile(builds.folder / status.key / status.disk, builds.files / "karmic.qcow2")
    return status


def test_it_installs_a_system_that_boots(builds: Builds, installed: BuildStatus) -> None:
    assert installed.last_line == "karmic login:", "the host name is from the answers"
    assert INSTALLED_LINE in builds.console(installed.key)


def test_the_installed_file_system_is_sound(builds: Builds, installed: BuildStatus) -> None:
    raw = builds.files / "karmic.raw"
    disk = builds.folder / installed.key / installed.disk
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk, raw], check=True)
    checked = subprocess.run(
        ["e2fsck", "-fn", f"{raw}?offset=1048576"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout
    raw.unlink()


def test_a_layer_is_added_to_an_installed_system(builds: Builds, installed: BuildStatus) -> None:
    layer = builds.build(**LAYER, disk="160M", run=["echo LAYERED >/etc/issue"], expect="LAYERED")
    assert layer.state == "done", (layer.failure, layer.console)
    assert builds.console(layer.key).count("uecwatchd-layer: done") == 1, "the second boot has no seed"


def test_a_disk_that_is_too_small_is_on_the_console(builds: Builds) -> None:
    """With kernel and initrd out of the ISO, and the answers in that initrd."""
    direct = {"kernel": "/vmlinuz", "initrd": "initrd.gz", "arguments": "quiet", "answers_as": "initrd"}
    status = builds.build(**{**TABLE, "disk": "16M", **direct})
    assert status.failure
    assert "there is no boot loader on its disk" in status.failure.why
    assert "The installation has failed: the system does not fit on the disk" in status.console
