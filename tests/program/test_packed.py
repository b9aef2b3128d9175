"""Compressed disk images under the real program: what is registered is the disk in them."""

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

EX_DATAERR = 65
# Shell commands that read `disk` and write the file of that name.
COMMANDS = {
    "bare.img": "cat",
    "one.img.gz": "gzip -1",
    "many.img.gz": "pigz -1 -b 1024",
    "blocks.img.xz": "xz -1 -T2 --block-size=1MiB",
    "fast.img.zst": "zstd -q --no-check",
    "bz.img.bz2": "bzip2 -1",
    "unnamed": "gzip -1",
}


@pytest.fixture
def host(tmp_path: Path, host_class: type[Host]) -> Iterator[Host]:
    with Sandbox(with_keys(tmp_path / "cloud"), dialect="euca4") as cloud:
        host = host_class.made(tmp_path / "host", cloud)
        host.configure(host.config.read_text().replace('"sandbox"', '"euca4"'))
        yield host


def drop_packed(host: Host, name: str, command: str, disk: str = "disk") -> Path:
    made = host.folder / name
    subprocess.run(["bash", "-c", f'cat "{disk}" | {command} > "{name}"'], check=True, cwd=host.folder)
    return made.rename(host.spool / name)


def test_one_disk_in_any_compression_is_one_image_and_its_files_stay_as_they_are(host: Host) -> None:
    content = write_disk(host.folder / "disk")
    dropped = {name: drop_packed(host, name, command) for name, command in COMMANDS.items()}
    before = {name: path.read_bytes() for name, path in dropped.items()}
    done = host.run("once")
    assert done.returncode == 0, done.stderr
    reports = {name: host.report(name.partition(".")[0]) for name in COMMANDS}
    expected = {"size": DISK_BYTES, "sha256": hashlib.sha256(content).hexdigest()}
    for name, report in reports.items():
        (member,) = report["members"]
        assert {key: member[key] for key in expected} == expected, name
        assert (member["container"] is None) == (name == "bare.img"), name
    assert len({report["members"][0]["id"] for report in reports.values()}) == 1, "the same disk in all"
    assert {name: path.read_bytes() for name, path in dropped.items()} == before
    assert {path.name.partition(".")[0] for path in host.state.rglob("*") if path.is_file()} <= {
        "ledger",
        "lock",
    }
    assert "compressed with gzip, " in (host.spool / "one.uec.log").read_text()
    settings = load(host.config, environ={})
    with closing(open_ledger(settings.state.dir)) as ledger:
        cloud = connect(settings.clouds["default"], uploads=1, before={})
        found = {finding.digest for record in ledger.sets() for finding in verify(record, cloud)}
    assert found == {expected["sha256"]}


def test_a_declared_sum_is_that_of_the_file_as_it_was_dropped(host: Host) -> None:
    content = write_disk(host.folder / "disk")
    made = drop_packed(host, "web.img.xz", "xz -1")
    (host.spool / "SHA256SUMS").write_text(f"{hashlib.sha256(made.read_bytes()).hexdigest()}  web.img.xz\n")
    wrong = drop_packed(host, "bad.img.gz", "gzip -1")
    (host.spool / "bad.img.gz.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  bad.img.gz\n")
    os.utime(wrong, (0, 0))
    host.run("once")
    assert host.report("web")["members"][0]["sha256"] == hashlib.sha256(content).hexdigest()
    assert host.report("web")["members"][0]["id"]
    assert "bad.img.gz to have its declared SHA-256" in host.run("status", "bad").stdout


def test_a_qcow2_in_blocks_of_xz_is_the_disk_in_it_and_one_in_a_gzip_is_refused(host: Host) -> None:
    content = write_disk(host.folder / "disk")
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", "disk", "disk.qcow2"], check=True, cwd=host.folder)
    drop_packed(host, "web.qcow2.xz", "xz -1 -T2 --block-size=1MiB", "disk.qcow2")
    drop_packed(host, "no.qcow2.gz", "gzip -1", "disk.qcow2")
    assert host.run("once").returncode == EX_DATAERR
    (member,) = host.report("web")["members"]
    assert (member["container"], member["size"]) == ("qcow2 in xz", DISK_BYTES)
    assert member["sha256"] == hashlib.sha256(content).hexdigest()
    error = (host.spool / "no.uec.error").read_text()
    assert "there is a qcow2 in it" in error
    assert "gzip -dc < no.qcow2.gz" in error


def test_bad_files_and_what_unpacks_to_too_much_are_rejected_before_a_byte_goes_up(host: Host) -> None:
    write_disk(host.folder / "disk")
    host.configure(host.config.read_text() + '\n[work]\nmax_disk_size = "15M"\n')
    drop_packed(host, "large.img.gz", "gzip -1")
    drop_packed(host, "large2.img.xz", "xz -1")
    drop_packed(host, "cut.img.bz2", "bzip2 -1 | head -c 100000")
    drop_packed(host, "more.img.zst", "(head -c 4M | zstd -q; echo more)")
    drop_packed(host, "short.img.gz", "head -c 1M | gzip -1")
    assert host.run("once").returncode == EX_DATAERR
    errors = {name: (host.spool / f"{name}.uec.error").read_text() for name in ("large", "large2", "cut")}
    assert "it unpacks to more than 15 MiB" in errors["large"]
    assert "it unpacks to 16 MiB" in errors["large2"]
    assert "max_disk_size" in errors["large"]
    assert "it is truncated" in errors["cut"]
    assert "5 bytes follow the end of its zstd frame" in (host.spool / "more.uec.error").read_text()
    short = (host.spool / "short.uec.error").read_text()
    assert "its partition table claims 16 MiB, the disk in it has 1 MiB" in short
    assert not host.cloud.calls("PutObject")
