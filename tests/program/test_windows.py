"""Windows sets under the real program: a disk and its boot files, with memdisk of this host."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host import Host
from tests.support.windows_sets import boot_files, windows_disk
from uecwatchd.images.floppy.syslinux import find_memdisk
from uecwatchd.sandbox.server import Sandbox

EX_DATAERR = 65


def host_on(dialect: str, folder: Path, host_class: type[Host], cloud: Sandbox) -> Host:
    host = host_class.made(folder, cloud)
    host.configure(host.config.read_text().replace('"sandbox"', f'"{dialect}"'))
    return host


@pytest.fixture(params=["uec"])
def host(tmp_path: Path, host_class: type[Host], request: pytest.FixtureRequest) -> Iterator[Host]:
    with Sandbox(tmp_path / "cloud", dialect=request.param) as cloud:
        yield host_on(request.param, tmp_path / "host", host_class, cloud)


def sums(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and ".uec" not in path.name)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_disk_and_its_boot_files_become_three_images(host: Host) -> None:
    (host.spool / "win").mkdir()
    windows_disk(host.folder / "disk").rename(host.spool / "win" / "win.img")
    boot_files(host.spool / "win" / "bootfiles")
    before = sums(host.spool / "win")
    run = host.run("once")
    assert run.returncode == 0, run.stderr
    assert host.outputs() == [f"win{ending}" for ending in (".eki", ".emi", ".eri", ".uec.json", ".uec.log")]
    report = host.report("win")
    members = {member["role"]: member for member in report["members"]}
    memdisk = find_memdisk()
    assert members["kernel"]["origin"] == f"memdisk of this host, {memdisk}"
    assert members["kernel"]["sha256"] == hashlib.sha256(memdisk.read_bytes()).hexdigest()
    assert members["ramdisk"]["origin"] == "boot floppy of win/bootfiles/"
    assert members["ramdisk"]["size"] == 1440 * 1024
    assert members["machine"]["origin"] is None
    assert report["image"]["windows_partition"] == 1
    log = (host.spool / "win.uec.log").read_text()
    assert "made for it: kernel memdisk of this host, " in log
    assert "was not tried with Microsoft's NTLDR" in log
    assert "was not tried" not in run.stderr
    assert sums(host.spool / "win") == before
    assert list((host.state / "work").iterdir()) == []
    verified = host.run("verify", "win")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert host.run("once").stderr.strip() == "Nothing to do: 1 done."
