"""Prepared images under the real program: what is registered has the changes, what was dropped has not."""

import gzip
import hashlib
import json
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.cloud_keys import with_keys
from tests.support.guest_images import Content, disk, ext, fill, run
from tests.support.host import Host
from tests.support.prepared_sets import SIDECAR, VERSION, unprepared_qcow2
from tests.support.qemu import convert_compressed
from tests.support.sizes import MIB
from uecwatchd.bundle.folder import SparseFile
from uecwatchd.clouds.connect import connect
from uecwatchd.clouds.download import download_bundle
from uecwatchd.config.load import load
from uecwatchd.delivery.verify import verify
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.sandbox.server import Sandbox

pytestmark = pytest.mark.exhaustive

GUEST: dict[str, Content] = {
    "usr/lib/systemd/systemd": "",
    "usr/lib/systemd/system/serial-getty@.service": "",
    "usr/bin/curl": "",
    "etc/passwd": "root:x:0:0::/root:/bin/sh\n",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
}
SIZE = 16 * MIB
EX_DATAERR = 65


@pytest.fixture
def host(tmp_path: Path, host_class: type[Host]) -> Iterator[Host]:
    with Sandbox(with_keys(tmp_path / "cloud"), dialect="euca4") as cloud:
        host = host_class.made(tmp_path / "host", cloud)
        text = host.config.read_text().replace('"sandbox"', '"euca4"')
        host.configure(text.replace("[state]\n", f'[state]\nwork = "{host.folder}/work"\n'))
        yield host


def drop_guest(host: Host, *, spoiled: bool = False) -> Path:
    """Drop a compressed qcow2 of a disk with one partition, and the sidecar."""
    root = ext("-t", "ext4", size=SIZE)(host.folder / "root.img", fill(host.folder / "root", GUEST))
    if spoiled:
        run("debugfs", "-w", "-R", "feature needs_recovery", root)
    script = f"label: dos\n2048,{SIZE // 512},83,*\n"
    whole = disk(host.folder / "disk", script, (1, root), size=SIZE + 2 * MIB)
    convert_compressed(whole, host.folder / "m.qcow2")
    (host.spool / "m.toml").write_text("prepare = true\n")
    return (host.folder / "m.qcow2").rename(host.spool / "m.qcow2")


def download(host: Host, member: dict[str, Any]) -> Path:
    """Return a file with the image of a member, as it is in its bucket."""
    cloud = connect(load(host.config, environ={}).clouds["default"], uploads=1, before={})
    with (host.folder / "taken").open("wb") as file:
        download_bundle(cloud, member["manifest"], SparseFile(file))
        file.truncate(member["size"])
    return host.folder / "taken"


def test_a_prepared_image_is_registered_says_so_and_is_found_again(host: Host) -> None:
    dropped = drop_guest(host)
    before = dropped.read_bytes(), dropped.stat().st_mtime_ns
    assert host.run("once").returncode == 0
    assert (dropped.read_bytes(), dropped.stat().st_mtime_ns) == before
    (member,) = host.report("m")["members"]
    assert (member["container"], member["size"]) == ("qcow2", SIZE + 2 * MIB)
    assert member["manifest"].startswith("uec-images/m-prepared-"), "clouds without tags list that too"
    assert member["prepared"][0] == "/etc/rc.local added: fetches the SSH key of root at boot"
    assert "/etc/machine-id emptied: each instance makes its own" in member["prepared"]
    log = (host.spool / "m.uec.log").read_text()
    assert f"m: prepared, in the image only: {member['prepared'][0]}\n" in log
    assert "/etc/machine-id: - 0123456789abcdef0123456789abcdef\n" in log
    assert "m: not prepared: its kernel writes to the serial console only" in log

    settings = load(host.config, environ={})
    cloud = connect(settings.clouds["default"], uploads=1, before={})
    taken = download(host, member).read_bytes()
    assert hashlib.sha256(taken).hexdigest() == member["sha256"]
    (host.folder / "taken").write_bytes(taken[MIB : MIB + SIZE])
    run("e2fsck", "-fn", host.folder / "taken")
    assert "169.254.169.254" in run("debugfs", "-R", "cat /etc/rc.local", host.folder / "taken")
    tags = cloud.ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [member["id"]]}])["Tags"]
    assert {"prepared": "uecwatchd"}.items() <= {tag["Key"]: tag["Value"] for tag in tags}.items()
    with closing(open_ledger(settings.state.dir)) as ledger:
        assert [result.digest for one in ledger.sets() for result in verify(one, cloud)] == [member["sha256"]]
    assert list((host.folder / "work").iterdir()) == []

    subprocess.run(["rm", "-r", host.state], check=True)  # nothing but the cloud remembers
    assert host.run("once").returncode == 0
    assert (host.spool / "m.emi").read_text() == f"{member['id']}\n"
    assert len(host.cloud.calls("RegisterImage")) == 1


def test_the_root_partition_is_prepared_and_registered_without_its_disk(host: Host) -> None:
    unprepared_qcow2(host.folder).rename(host.spool / "m.qcow2")
    sidecar = f'{SIDECAR}layout = "partition"\nvirtualization = "paravirtual"\n'
    (host.spool / "m.toml").write_text(sidecar)
    assert host.run("once").returncode == 0, host.report("m")["error"]
    (member,) = (each for each in host.report("m")["members"] if each["role"] == "machine")
    assert (member["part"], member["size"]) == (f"partition:{MIB}+{SIZE}", SIZE)
    taken = download(host, member)
    assert hashlib.sha256(taken.read_bytes()).hexdigest() == member["sha256"]
    run("e2fsck", "-fn", taken)
    assert "169.254.169.254" in run("debugfs", "-R", "cat /etc/rc.local", taken)


REMEDIED = {"key-fetch", "machine-id", "console"}


def keys(told: dict[str, Any]) -> set[str]:
    return {finding["key"] for finding in told["findings"]}


def test_what_preparation_remedies_is_not_found_in_what_is_registered(host: Host) -> None:
    dropped = drop_guest(host)
    assert host.run("once").returncode == 0
    before, after = (json.loads(host.run("inspect", what, "--json").stdout) for what in (str(dropped), "m"))
    assert keys(before) >= REMEDIED
    assert keys(after) == keys(before) - REMEDIED
    assert (before["prepared"], after["prepared"]) == (None, host.report("m")["members"][0]["prepared"])
    assert after["remarks"] == before["remarks"], "it is what is registered"
    assert "prepared     /etc/rc.local added: fetches the SSH key" in host.run("inspect", "m").stdout
    assert list((host.folder / "work").iterdir()) == []


def test_a_disk_in_a_gzip_gives_its_kernel_and_is_prepared(host: Host) -> None:
    unprepared_qcow2(host.folder)
    with gzip.open(host.spool / "m.img.gz", "wb") as file:
        file.write((host.folder / "disk").read_bytes() + bytes(256 * MIB))
    (host.spool / "m.toml").write_text(f'{SIDECAR}virtualization = "paravirtual"\n')
    assert host.run("once").returncode == 0
    members = {member["role"]: member for member in host.report("m")["members"]}
    assert members["kernel"]["part"] == f"guest:/boot/vmlinuz-{VERSION}"
    assert members["machine"]["size"] == SIZE + 258 * MIB
    assert "/etc/machine-id emptied: each instance makes its own" in members["machine"]["prepared"]
    assert host.run("verify", "m").returncode == 0


def test_an_image_that_cannot_be_prepared_is_inspected_as_it_is(host: Host) -> None:
    drop_guest(host, spoiled=True)
    host.run("once")
    told = json.loads(host.run("inspect", "m", "--json").stdout)
    assert keys(told) >= REMEDIED
    assert "this is the image before its preparation: m.qcow2: it cannot be prepared" in told["remarks"][-1]


def test_an_image_that_was_not_shut_down_is_rejected_before_a_byte_goes_up(host: Host) -> None:
    drop_guest(host, spoiled=True)
    assert host.run("once").returncode == EX_DATAERR
    error = (host.spool / "m.uec.error").read_text()
    assert "m.qcow2: it cannot be prepared" in error
    assert "its journal has changes that are not in it yet: it was not shut down" in error
    assert not host.cloud.calls("PutObject")
