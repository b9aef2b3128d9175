"""Windows sets under the real program: a disk and its boot files, with memdisk of this host."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.cloud_keys import with_keys
from tests.support.guest_images import fill
from tests.support.host import Host
from tests.support.windows_sets import blank_disk, boot, boot_files, linux_disk, windows_disk
from uecwatchd.bundle.folder import SparseFile
from uecwatchd.clouds.connect import connect
from uecwatchd.clouds.download import download_bundle
from uecwatchd.config.load import load
from uecwatchd.images.floppy.syslinux import find_memdisk
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.sandbox.server import Sandbox

EX_DATAERR = 65


def host_on(dialect: str, folder: Path, host_class: type[Host], cloud: Sandbox) -> Host:
    host = host_class.made(folder, cloud)
    host.configure(host.config.read_text().replace('"sandbox"', f'"{dialect}"'))
    return host


@pytest.fixture(params=["uec"])
def host(tmp_path: Path, host_class: type[Host], request: pytest.FixtureRequest) -> Iterator[Host]:
    with Sandbox(with_keys(tmp_path / "cloud"), dialect=request.param) as cloud:
        yield host_on(request.param, tmp_path / "host", host_class, cloud)


def sums(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and ".uec" not in path.name)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def downloaded(host: Host, *roles: str) -> list[Path]:
    """Return what the cloud has of the only set, as its nodes would fetch it."""
    settings = load(host.config, environ={})
    with closing(open_ledger(settings.state.dir)) as ledger:
        (record,) = ledger.sets()
    cloud = connect(settings.clouds["default"], uploads=1, before={})
    files = []
    for image in record.target.images:
        if image.role in roles:
            files.append(host.folder / image.role)
            with files[-1].open("wb") as file:
                download_bundle(cloud, image.manifest, SparseFile(file))
    return files


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
    assert list((host.state / "work" / "sets").iterdir()) == []
    verified = host.run("verify", "win")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert host.run("once").stderr.strip() == "Nothing to do: 1 done."
    assert b"FAKE-NTLDR-DRIVE-0" in boot(*downloaded(host, "kernel", "ramdisk"))


def test_what_cannot_be_a_windows_set_is_refused_with_a_hint(host: Host) -> None:
    disk = windows_disk(host.folder / "disk")
    sets = {
        "large": {"NTLDR": bytes(1 << 20)},
        "twice": {"ntldr": b"another loader"},
        "fits": {"Boot.ini": b"[boot loader]\n"},
    }
    for name, others in sets.items():
        shutil.copyfile(disk, host.spool / f"{name}.img")
        fill(boot_files(host.spool / f"{name}-bootfiles"), dict(others))
    blank_disk(host.spool / "blank.img")
    boot_files(host.spool / "blank-bootfiles")
    linux_disk(host.spool / "linux.img")
    boot_files(host.spool / "linux-bootfiles")
    host.run("once")
    refused = {
        "large": "large-bootfiles/NTLDR: it does not fit on the boot floppy",
        "twice": "twice-bootfiles: two files would be NTLDR on the boot floppy",
        "blank": "blank-bootfiles: Boot.ini is missing",
        "linux": "linux-bootfiles/: it has boot files of Windows",
    }
    for name, what in refused.items():
        error = host.report(name)["error"]
        assert error["what"] == what
        assert error["hint"]
        assert host.report(name)["state"] == "rejected"
    assert host.report("fits")["state"] == "done"
    assert "Boot.ini has line ends of Unix" in (host.spool / "fits.uec.log").read_text()
    assert list((host.state / "work" / "sets").iterdir()) == []


@pytest.mark.parametrize("host", ["euca4"], indirect=True)
def test_a_cloud_that_boots_disks_gets_the_disk_alone(host: Host) -> None:
    windows_disk(host.folder / "disk").rename(host.spool / "win.img")
    boot_files(host.spool / "win-bootfiles")
    run = host.run("once")
    assert run.returncode == 0, run.stderr
    report = host.report("win")
    assert [member["role"] for member in report["members"]] == ["machine"]
    log = (host.spool / "win.uec.log").read_text()
    assert "win-bootfiles/ left out: cloud default boots the disk by itself" in log
    assert not (host.spool / "win.eki").exists()
