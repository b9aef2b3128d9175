"""Disk images of other formats under the real program: what is registered is the disk in them."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.cloud_keys import with_keys
from tests.support.disks import DISK_BYTES, write_disk
from tests.support.host import Host
from uecwatchd.clouds.connect import connect
from uecwatchd.config.load import load
from uecwatchd.delivery.verify import verify
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.sandbox.server import Sandbox

pytestmark = pytest.mark.exhaustive

# The options of qemu-img for each name of a set.
FORMATS = {
    "old.qcow2": ["qcow2", "-o", "compat=0.10"],
    "usual.qcow2": ["qcow2"],
    "small.img": ["qcow2", "-c"],  # the name says nothing
    "zstd.qcow2": ["qcow2", "-c", "-o", "compression_type=zstd"],
    "sparse.vmdk": ["vmdk"],
    "stream.vmdk": ["vmdk", "-o", "subformat=streamOptimized"],
    "box.vdi": ["vdi"],
    "dynamic.vhd": ["vpc", "-o", "force_size=on"],
    "fixed.vhd": ["vpc", "-o", "subformat=fixed,force_size=on"],
    "hyper.vhdx": ["vhdx"],
}
EX_DATAERR = 65


@pytest.fixture
def host(tmp_path: Path, host_class: type[Host]) -> Iterator[Host]:
    with Sandbox(with_keys(tmp_path / "cloud"), dialect="euca4") as cloud:
        host = host_class.made(tmp_path / "host", cloud)
        host.configure(host.config.read_text().replace('"sandbox"', '"euca4"'))
        yield host


def drop_converted(host: Host, disk: Path, name: str, *options: str) -> Path:
    made = host.folder / name
    subprocess.run(["qemu-img", "convert", "-q", "-O", *options, disk, made], check=True)
    return made.rename(host.spool / name)


def test_the_disk_in_a_file_of_each_format_is_registered(host: Host) -> None:
    disk = host.folder / "disk"
    content = write_disk(disk)
    dropped = {name: drop_converted(host, disk, name, *options) for name, options in FORMATS.items()}
    before = {name: path.read_bytes() for name, path in dropped.items()}
    assert host.run("once").returncode == 0
    reports = {name: host.report(Path(name).stem) for name in FORMATS}
    expected = {
        "container": None,
        "size": DISK_BYTES,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    for name, report in reports.items():
        kind = FORMATS[name][0].replace("vpc", "vhd")
        (member,) = report["members"]
        assert {key: member[key] for key in expected} == {**expected, "container": kind}, name
    assert {name: path.read_bytes() for name, path in dropped.items()} == before
    assert len({report["members"][0]["id"] for report in reports.values()}) == 1, "the same disk in all"
    log = (host.spool / "usual.uec.log").read_text()
    assert "machine usual.qcow2 (16 MiB in a qcow2 of " in log
    settings = load(host.config, environ={})
    with closing(open_ledger(settings.state.dir)) as ledger:
        cloud = connect(settings.clouds["default"], uploads=1, before={})
        found = {finding.digest for record in ledger.sets() for finding in verify(record, cloud)}
    assert found == {expected["sha256"]}


def test_a_declared_sum_is_that_of_the_file(host: Host) -> None:
    disk = host.folder / "disk"
    write_disk(disk)
    made = drop_converted(host, disk, "web.qcow2", "qcow2")
    (host.spool / "web.sha256").write_text(f"{hashlib.sha256(made.read_bytes()).hexdigest()}  web.qcow2\n")
    assert host.run("once").returncode == 0
    assert host.report("web")["members"][0]["sha256"] == hashlib.sha256(disk.read_bytes()).hexdigest()


def test_a_container_is_kept_as_it_is_if_the_sidecar_says_so(host: Host) -> None:
    """The embedded cloud looks into what it is given, and takes no qcow2 for a machine."""
    write_disk(host.folder / "disk")
    made = drop_converted(host, host.folder / "disk", "web.qcow2", "qcow2")
    (host.spool / "web.toml").write_text('convert = "keep"\nvirtualization = "hvm"\n')
    assert host.run("once").returncode != 0
    report = host.report("web")
    assert "qcow image" in report["error"]["why"]
    (member,) = report["members"]
    assert (member["container"], member["size"]) == (None, made.stat().st_size)
    assert member["sha256"] == hashlib.sha256(made.read_bytes()).hexdigest()


def test_a_container_whose_map_leads_behind_its_end_is_rejected_before_a_byte_goes_up(host: Host) -> None:
    disk = host.folder / "disk"
    write_disk(disk)
    made = drop_converted(host, disk, "web.qcow2", "qcow2")
    os.truncate(made, made.stat().st_size // 2)
    assert host.run("once").returncode == EX_DATAERR
    error = (host.spool / "web.uec.error").read_text()
    assert "web.qcow2: " in error
    assert "truncated" in error
    assert "Copy it again" in error
    assert not host.cloud.calls("PutObject")


def test_an_image_that_needs_another_file_is_rejected_with_the_command_that_helps(host: Host) -> None:
    disk = host.folder / "disk"
    write_disk(disk)
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "raw", host.spool / "web.qcow2"],
        check=True,
    )
    assert host.run("once").returncode == EX_DATAERR
    error = (host.spool / "web.uec.error").read_text()
    assert "qemu-img convert" in error
    assert not host.cloud.images
