"""A real set is tested by a real boot: what was registered runs under QEMU, and its own console decides."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.boots import living
from tests.support.cloud_keys import with_keys
from tests.support.host import Host
from uecwatchd.demo.material import USERSPACE_LINE, RealSet
from uecwatchd.sandbox.server import Sandbox

pytestmark = pytest.mark.exhaustive

# 3 s on two idle cores; other tests may hold them.
BOOT_SECONDS = 120


@pytest.fixture
def booting(tmp_path: Path) -> Iterator[Host]:
    assert shutil.which("qemu-system-x86_64"), "it is missing: apt-get install qemu-system-x86"
    with Sandbox(with_keys(tmp_path / "cloud"), boot=True) as cloud:
        host = Host.made(tmp_path / "host", cloud)
        host.configure(f"{host.config.read_text()}boot_seconds = {BOOT_SECONDS}\nboot_every = 0.3\n")
        yield host


def machines() -> list[str]:
    """Return the command lines of QEMU that this process has started."""
    listed = subprocess.run(
        ["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=True
    )
    return [
        line for line in listed.stdout.splitlines() if line.startswith(shutil.which("qemu-system-x86_64"))
    ]


def drop(host: Host, made: RealSet, *, expect: str = USERSPACE_LINE) -> None:
    host.drop_set(made, "karmic")
    (host.spool / "karmic.toml").write_text(f'test = true\nexpect = "{expect}"\npublic = true\n')


def test_a_set_that_comes_up_is_published_by_its_own_console(booting: Host, real_set: RealSet) -> None:
    drop(booting, real_set)
    booting.ask("once")
    log = (booting.spool / "karmic.uec.log").read_text()
    assert f"Linux version {real_set.version}" in log
    assert f"has passed its test boot: its console says {USERSPACE_LINE}" in log
    assert (booting.spool / "karmic.emi").exists()
    assert (living(booting.cloud), machines()) == ([], [])


def test_a_set_whose_root_does_not_start_is_withdrawn(
    booting: Host, real_set: RealSet, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.img"
    shutil.copyfile(real_set.machine, broken)
    command = ["/usr/sbin/debugfs", "-w", "-R", "rm /sbin/init", str(broken)]
    subprocess.run(command, capture_output=True, check=True)
    names = ["karmic.img", "karmic.vmlinuz", "karmic.initrd"]
    booting.drop(broken, real_set.kernel, real_set.ramdisk, names=names)
    (booting.spool / "karmic.toml").write_text(f'test = true\nexpect = "{USERSPACE_LINE}"\n')
    booting.ask("once", code=65)
    error = booting.report("karmic")["error"]
    assert error["why"].startswith("its kernel panics: ")
    assert any("Kernel panic - not syncing" in line for line in error["console"])
    assert booting.cloud.images == ()
    assert (living(booting.cloud), machines()) == ([], [])


def test_a_cloud_that_stops_ends_its_machines(booting: Host, real_set: RealSet) -> None:
    booting.drop_set(real_set, "karmic")
    booting.ask("once")
    data, _ = booting.ask("boot", "karmic", "--expect", USERSPACE_LINE)
    assert USERSPACE_LINE in data.splitlines()
    assert machines() == []
