"""Contents of a machine image, under the real program: its kernel, its root partition, its readiness."""

import gzip
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cloud_keys import with_keys
from tests.support.guest_images import Content, bzimage, disk, ext, fill, run
from tests.support.host import Host
from tests.support.sizes import MIB
from uecwatchd.install.cpio import cpio
from uecwatchd.sandbox.server import Sandbox

pytestmark = pytest.mark.exhaustive

EX_DATAERR = 65
VERSION = "6.1.0-9-amd64"
KERNEL, RAMDISK = bzimage(VERSION), b"070701" + bytes(3000)
BOOT: dict[str, Content] = {f"boot/vmlinuz-{VERSION}": KERNEL, f"boot/initrd.img-{VERSION}": RAMDISK}
CLOUD_KERNEL: dict[str, Content] = {
    "boot/vmlinuz-6.1.0-9-cloud": bzimage("6.1.0-9-cloud"),
    "boot/initrd-6.1.0-9-cloud": RAMDISK,
}
SYSTEM: dict[str, Content] = {
    "etc/os-release": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "etc/fstab": "LABEL=root / ext4 defaults 0 1\n",
    "bin/sh": "#!",
}
REACHABLE: dict[str, Content] = {
    "usr/sbin/sshd": "#!",
    "usr/lib/systemd/system-generators/cloud-init-generator": "#!",
    "usr/bin/cloud-init": "#!",
}
MBR = "label: dos\nstart=2048, size=131072, type=83, bootable\n"


@pytest.fixture(params=["uec"])
def host(tmp_path: Path, host_class: type[Host], request: pytest.FixtureRequest) -> Iterator[Host]:
    dialect = request.param
    with Sandbox(with_keys(tmp_path / "cloud"), dialect=dialect) as cloud:
        host = host_class.made(tmp_path / "host", cloud)
        host.configure(host.config.read_text().replace('"sandbox"', f'"{dialect}"'))
        yield host


def root(host: Host, files: dict[str, Content]) -> Path:
    return ext("-t", "ext4", "-L", "root")(host.folder / "root.img", fill(host.folder / "root", files))


def drop(host: Host, image: Path, name: str = "karmic.img", sidecar: str = "") -> Path:
    if sidecar:
        (host.spool / name).with_suffix(".toml").write_text(sidecar)
    return image.rename(host.spool / name)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("is_disk", [False, True], ids=["partition", "whole disk"])
def test_kernel_and_ramdisk_are_taken_out_of_an_image_that_has_them(host: Host, *, is_disk: bool) -> None:
    image = root(host, SYSTEM | BOOT)
    if is_disk:
        image = disk(host.folder / "disk", MBR, (1, image), size=80 * MIB)
    dropped = drop(host, image)
    before = dropped.read_bytes()
    assert host.run("once").returncode == 0
    report = host.report("karmic")
    sums = {member["role"]: member["sha256"] for member in report["members"]}
    assert sums == {"kernel": sha256(KERNEL), "ramdisk": sha256(RAMDISK), "machine": sha256(before)}
    parts = {member["role"]: member["part"] for member in report["members"]}
    assert parts == {
        "kernel": f"guest:/boot/vmlinuz-{VERSION}",
        "ramdisk": f"guest:/boot/initrd.img-{VERSION}",
        "machine": None,
    }
    assert (host.spool / "karmic.eki").read_text().startswith("eki-")
    assert report["image"]["system"] == "Debian GNU/Linux 12 (bookworm)"
    assert report["image"]["kernel"] == VERSION
    log = (host.spool / "karmic.uec.log").read_text()
    assert f"taken out of the image: kernel /boot/vmlinuz-{VERSION} in karmic.img" in log
    verified = host.run("verify", "karmic")
    assert verified.returncode == 0
    assert f"equals /boot/vmlinuz-{VERSION} in karmic.img" in verified.stdout
    assert dropped.read_bytes() == before
    assert host.run("once").stderr.strip() == "Nothing to do: 1 done."


def test_an_image_without_a_kernel_waits_for_one_and_takes_the_one_that_is_dropped(host: Host) -> None:
    drop(host, root(host, SYSTEM))
    host.run("once")
    report = host.report("karmic")
    assert report["state"] == "waiting"
    assert report["waiting_for"].startswith(
        "a kernel: a paravirtual image boots only with one (add karmic.vm"
    )
    assert "the image has no kernel: there is none in its folder /boot" in report["waiting_for"]
    assert not (host.spool / "karmic.uec.error").exists()
    attempts = (host.spool / "karmic.uec.log").read_text().count("--- attempt")
    host.run("once")
    assert (host.spool / "karmic.uec.log").read_text().count("--- attempt") == attempts, "not looked at again"
    (host.spool / "karmic.vmlinuz").write_bytes(KERNEL)
    (host.spool / "karmic.initrd").write_bytes(RAMDISK)
    assert host.run("once").returncode == 0
    assert [member["file"] for member in host.report("karmic")["members"]] == [
        "karmic.vmlinuz", "karmic.initrd", "karmic.img",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "sidecar", "sentence"),
    [
        ({}, 'kernel = "from-image"', "the image has no kernel: there is none in its folder /boot"),
        (
            {"boot/vmlinuz-1": bzimage("1")},
            'kernel = "from-image"\nramdisk = "from-image"',
            "it has no ramdisk to take out: its kernel 1 has none",
        ),
        (
            BOOT | CLOUD_KERNEL,
            'kernel = "from-image"',
            "two kernels of version 6.1.0-9",
        ),
        (BOOT, 'layout = "partition"\nkernel = "from-image"', ""),
    ],
    ids=["none", "no ramdisk", "two of one version", "a partition already"],
)
def test_a_demand_that_an_image_does_not_meet_is_an_error(
    host: Host, files: dict[str, Content], sidecar: str, sentence: str
) -> None:
    drop(host, root(host, SYSTEM | files), sidecar=sidecar)
    code = host.run("once").returncode
    if not sentence:
        assert code == 0
        return
    assert code == EX_DATAERR
    error = host.report("karmic")["error"]
    assert sentence in f"{error['what']}: {error['why']}"
    assert error["hint"]


def test_the_root_partition_of_a_disk_is_registered_if_the_sidecar_says_so(host: Host) -> None:
    inside = root(host, SYSTEM | BOOT)
    content = inside.read_bytes()
    drop(host, disk(host.folder / "disk", MBR, (1, inside), size=80 * MIB), sidecar='layout = "partition"')
    assert host.run("once").returncode == 0
    (machine,) = (one for one in host.report("karmic")["members"] if one["role"] == "machine")
    assert (machine["size"], machine["sha256"]) == (len(content), sha256(content))
    assert machine["part"] == f"partition:{MIB}+{len(content)}"


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("karmic.img.gz", "gzip -1 < disk"),
        ("karmic.img.xz", "xz -1 -T2 --block-size=8MiB < disk"),
        ("karmic.qcow2", "qemu-img convert -q -c -f raw -O qcow2 disk made && cat made"),
    ],
)
def test_the_root_partition_of_a_packed_disk_is_registered(host: Host, name: str, command: str) -> None:
    inside = root(host, SYSTEM | BOOT)
    content = inside.read_bytes()
    disk(host.folder / "disk", MBR, (1, inside), size=80 * MIB)
    made = host.folder / "packed"
    subprocess.run(["bash", "-c", f"({command}) > {made.name}"], check=True, cwd=host.folder)
    drop(host, made, name)
    (host.spool / "karmic.toml").write_text('layout = "partition"\n')
    assert host.run("once").returncode == 0, host.report("karmic")["error"]
    (machine,) = (one for one in host.report("karmic")["members"] if one["role"] == "machine")
    assert (machine["size"], machine["sha256"]) == (len(content), sha256(content))
    assert host.run("verify", "karmic").returncode == 0


def test_the_same_kernel_in_two_images_is_registered_once(host: Host) -> None:
    drop(host, root(host, SYSTEM | BOOT), "first.img")
    drop(host, root(host, SYSTEM | BOOT | {"etc/motd": "other"}), "second.img")
    assert host.run("once").returncode == 0
    assert (host.spool / "first.eki").read_text() == (host.spool / "second.eki").read_text()
    assert (host.spool / "first.emi").read_text() != (host.spool / "second.emi").read_text()


def test_an_image_that_is_not_ready_is_rejected_if_the_sidecar_requires_that(host: Host) -> None:
    rules: dict[str, Content] = {"etc/udev/rules.d/70-persistent-net.rules": 'NAME="eth0"\n'}
    drop(host, root(host, SYSTEM | BOOT | rules), sidecar='require = "ready"')
    assert host.run("once").returncode == EX_DATAERR
    error = host.report("karmic")["error"]
    assert error["what"] == "karmic: it is not ready for a cloud"
    assert "70-persistent-net.rules" in error["why"]
    assert error["hint"].startswith("Try prepare = true in the sidecar")
    assert error["hint"].endswith("For the rest: In the guest: apt-get install openssh-server")
    assert not (host.spool / "karmic.emi").exists()
    asked = host.run("inspect", "karmic", "--json")
    assert asked.returncode == EX_DATAERR
    assert {one["key"] for one in json.loads(asked.stdout)["findings"] if one["severity"] == "error"}


@pytest.mark.parametrize("host", ["euca4"], indirect=True)
def test_a_disk_that_starts_by_no_boot_loader_is_not_ready_for_a_cloud_that_starts_disks(host: Host) -> None:
    image = disk(host.folder / "disk", MBR, (1, root(host, SYSTEM | BOOT | REACHABLE)), size=80 * MIB)
    drop(host, image, sidecar='require = "ready"')
    assert host.run("once").returncode == EX_DATAERR
    assert "It does not boot by itself" in host.report("karmic")["error"]["why"]


def test_an_image_that_nobody_can_log_in_to_is_not_ready(host: Host) -> None:
    drop(host, root(host, SYSTEM | BOOT), sidecar='require = "ready"')
    assert host.run("once").returncode == EX_DATAERR
    assert "no SSH server" in host.report("karmic")["error"]["why"]


@pytest.mark.parametrize(
    ("lacks", "prepare", "hint"),
    [
        ("cloud-init", "", "Try prepare = true in the sidecar"),
        ("sshd", "", "In the guest: apt-get install openssh-server"),
        ("sshd", "prepare = true\n", "In the guest: apt-get install openssh-server"),
        ("cloud-init", "prepare = true\n", "Install cloud-init, or add lines to /etc/rc.local"),
    ],
)
def test_preparation_is_the_remedy_for_what_it_mends(host: Host, lacks: str, prepare: str, hint: str) -> None:
    """Preparation does not fetch a key without curl or wget, which are not in the image."""
    reachable = {path: content for path, content in REACHABLE.items() if lacks not in path}
    drop(host, root(host, SYSTEM | BOOT | reachable), sidecar=f'require = "ready"\n{prepare}')
    assert host.run("once").returncode == EX_DATAERR
    assert host.report("karmic")["error"]["hint"].startswith(hint)


def test_a_kernel_for_another_architecture_is_not_taken_out(host: Host) -> None:
    arm = b"\x7fELF\x02\x01\x01" + bytes(9) + (2).to_bytes(2, "little") + (183).to_bytes(2, "little")
    programs: dict[str, Content] = {"bin/sh": arm + bytes(4096), "sbin/init": arm + bytes(4096)}
    drop(host, root(host, SYSTEM | BOOT | programs), sidecar='kernel = "from-image"')
    assert host.run("once").returncode == EX_DATAERR
    error = host.report("karmic")["error"]
    assert error["what"].endswith("the kernel in the image is for x86_64")
    assert error["why"] == "its programs are for arm64"


def test_kernel_and_ramdisk_are_taken_out_of_the_image_in_an_archive(host: Host) -> None:
    image = root(host, SYSTEM | BOOT)
    subprocess.run(["tar", "-C", host.folder, "-cSf", host.spool / "karmic.tar", image.name], check=True)
    assert host.run("once").returncode == 0
    members = {member["role"]: member for member in host.report("karmic")["members"]}
    assert members["kernel"]["sha256"] == sha256(KERNEL)
    assert {member["origin"] for member in members.values()} == {"root.img in karmic.tar"}


def test_the_image_in_an_archive_is_inspected_when_its_set_is_done(host: Host) -> None:
    image = root(host, SYSTEM | BOOT)
    archive = host.spool / "karmic.tar.gz"
    subprocess.run(["tar", "-C", host.folder, "-czSf", archive, f"./{image.name}"], check=True)
    assert host.run("once").returncode == 0
    told = json.loads(host.run("inspect", "karmic", "--json").stdout)
    assert told == json.loads(host.run("inspect", str(image), "--json").stdout)
    assert list((host.state / "work").rglob("*")) == [host.state / "work" / "sets"]
    archive.write_bytes(b"another")
    asked = host.run("inspect", "karmic")
    assert (asked.returncode, "Traceback" in asked.stderr) == (EX_DATAERR, False)
    assert "karmic.tar.gz: " in asked.stderr


def test_the_partition_that_is_registered_is_inspected_and_not_its_disk(host: Host) -> None:
    inside = root(host, SYSTEM | BOOT)
    drop(host, disk(host.folder / "disk", MBR, (1, inside), size=80 * MIB), sidecar='layout = "partition"')
    assert host.run("once").returncode == 0
    told = json.loads(host.run("inspect", "karmic", "--json").stdout)
    assert (told["layout"], told["partition_table"]) == ("partition", None)
    of_file = json.loads(host.run("inspect", str(host.spool / "karmic.img"), "--json").stdout)
    assert (of_file["layout"], of_file["partition_table"]) == ("disk", "mbr")


def test_a_file_that_has_changed_is_inspected_with_a_remark(host: Host) -> None:
    dropped = drop(host, root(host, SYSTEM | BOOT))
    assert host.run("once").returncode == 0
    os.utime(dropped)
    told = json.loads(host.run("inspect", "karmic", "--json").stdout)
    assert told["remarks"] == ["the file has changed since its set was worked on"]


def test_a_kernel_far_into_a_gzip_is_taken_out_and_the_disk_is_uploaded_whole(host: Host) -> None:
    """Nothing is between 1 and 160 MiB, so that reading begins at a place that was kept."""
    table = MBR.replace("2048", str(160 * MIB // 512))
    made = disk(host.folder / "disk", table, (160, root(host, SYSTEM | BOOT)), size=320 * MIB)
    with made.open("r+b") as file:
        file.seek(310 * MIB)
        file.write(hashlib.shake_128(b"end").digest(MIB))
    subprocess.run(["gzip", "-1", made], check=True)
    drop(host, made.with_suffix(".gz"), "karmic.img.gz")
    (host.spool / "karmic.toml").write_text('kernel = "from-image"\n')
    assert host.run("once").returncode == 0, host.report("karmic")["error"]
    content = gzip.decompress((host.spool / "karmic.img.gz").read_bytes())
    sums = {member["role"]: member["sha256"] for member in host.report("karmic")["members"]}
    assert sums == {"kernel": sha256(KERNEL), "ramdisk": sha256(RAMDISK), "machine": sha256(content)}
    assert host.run("verify", "karmic").returncode == 0


# --- a whole disk with a kernel ---------------------------------------------------------------------------

TAKES_PARTITIONS = "karmic.img is a whole disk, and cloud default starts an image that has a kernel beside it"


@pytest.mark.parametrize(
    ("host", "sidecar", "is_told"),
    [
        ("uec", "", True),
        ("euca3", "", True),
        ("euca4", 'virtualization = "paravirtual"', False),
        ("uec", 'layout = "partition"', False),
        ("uec", 'convert = "keep"\nkernel = "none"', False),
    ],
    indirect=["host"],
)
def test_a_whole_disk_for_a_cloud_that_starts_partitions_is_shown_with_its_remedy(
    host: Host, sidecar: str, *, is_told: bool
) -> None:
    image = disk(host.folder / "disk", MBR, (1, root(host, SYSTEM | BOOT)), size=80 * MIB)
    drop(host, image, sidecar=sidecar)
    assert host.run("once").returncode == 0
    findings = {one["key"]: one for one in (host.report("karmic")["image"] or {"findings": []})["findings"]}
    assert ("whole-disk" in findings) == is_told
    assert (TAKES_PARTITIONS in (host.spool / "karmic.uec.log").read_text()) == is_told
    if is_told:
        assert findings["whole-disk"]["sentence"].startswith(TAKES_PARTITIONS)
        assert findings["whole-disk"]["remedy"].startswith('Say layout = "partition" in the sidecar')


def test_no_partition_is_to_be_taken_from_a_whole_disk_without_a_system(host: Host) -> None:
    image = disk(host.folder / "disk", MBR, (1, root(host, {"data": "x"})), size=80 * MIB)
    drop(host, image)
    (host.spool / "karmic.vmlinuz").write_bytes(KERNEL)
    (host.spool / "karmic.initrd").write_bytes(RAMDISK)
    assert host.run("once").returncode == 0
    (finding,) = (f for f in host.report("karmic")["image"]["findings"] if f["key"] == "whole-disk")
    assert finding["remedy"].startswith("Drop its root partition instead")
    log = (host.spool / "karmic.uec.log").read_text()
    assert finding["remedy"] in log
    assert "layout =" not in log


# --- a kernel beside it -----------------------------------------------------------------------------------


def test_a_kernel_beside_an_image_makes_up_for_the_one_that_it_lacks(host: Host) -> None:
    drop(host, root(host, SYSTEM | REACHABLE), sidecar='require = "ready"')
    (host.spool / "karmic.vmlinuz").write_bytes(KERNEL)
    (host.spool / "karmic.initrd").write_bytes(RAMDISK)
    assert host.run("once").returncode == 0, host.report("karmic")["error"]
    assert host.report("karmic")["image"]["ready"]
    asked = host.run("inspect", "karmic", "--json")
    assert (asked.returncode, json.loads(asked.stdout)["ready"]) == (0, True)
    of_file = json.loads(host.run("inspect", str(host.spool / "karmic.img"), "--json").stdout)
    assert not of_file["ready"], "it has no kernel"


def test_a_registered_kernel_makes_up_for_the_one_that_an_image_lacks(host: Host) -> None:
    drop(host, root(host, SYSTEM | BOOT))
    assert host.run("once").returncode == 0
    ids = {role: (host.spool / f"karmic.{role}").read_text().strip() for role in ("eki", "eri")}
    run("rm", "-r", host.folder / "root")
    sidecar = f'kernel = "{ids["eki"]}"\nramdisk = "{ids["eri"]}"\n'
    dropped = drop(host, root(host, SYSTEM | REACHABLE), "lucid.img", sidecar)
    assert host.run("once").returncode == 0
    assert host.run("inspect", "lucid").returncode == 0
    os.utime(dropped)
    assert "the image has no kernel" in host.run("inspect", "lucid").stdout, "it may have one since"


def test_a_kernel_beside_an_image_that_cannot_start_its_programs_is_an_error(host: Host) -> None:
    arm = b"\x7fELF\x02\x01\x01" + bytes(9) + (2).to_bytes(2, "little") + (183).to_bytes(2, "little")
    drop(host, root(host, SYSTEM | {"bin/sh": arm + bytes(4096)}))
    (host.spool / "karmic.vmlinuz").write_bytes(KERNEL)
    (host.spool / "karmic.initrd").write_bytes(RAMDISK)
    assert host.run("once").returncode == 0
    sentence = "karmic.vmlinuz is for x86_64, and the programs in the image are for arm64."
    first = host.report("karmic")["image"]["findings"][0]
    assert (first["key"], first["severity"], first["sentence"]) == ("kernel", "error", sentence)
    assert f"not ready: {sentence}" in (host.spool / "karmic.uec.log").read_text()
    asked = host.run("inspect", "karmic")
    assert (asked.returncode, sentence in asked.stdout) == (EX_DATAERR, True)


@pytest.mark.parametrize("sidecar", ["", 'kernel = "none"\nprepare = true'], ids=["its kernel", "prepared"])
def test_an_encrypted_partition_is_named_where_a_system_is_looked_for(host: Host, sidecar: str) -> None:
    encrypted = host.folder / "luks"
    encrypted.write_bytes(b"LUKS\xba\xbe\0\x02".ljust(64 * MIB, b"\0"))
    drop(host, disk(host.folder / "disk", MBR, (1, encrypted), size=80 * MIB), sidecar=sidecar)
    host.run("once")
    report = host.report("karmic")
    said = report["waiting_for"] or report["error"]["why"]
    assert "partition 1 (luks) could not be read: it is encrypted (LUKS)" in said


# --- modules ----------------------------------------------------------------------------------------------

OTHER = "5.10.0-8-amd64"


def modules_for(version: str) -> bytes:
    files = [(f"usr/lib/modules/{version}/kernel/ext4.ko", 0o100644, b"x" * 5000)]
    return gzip.compress(b"".join(cpio([("init", 0o100755, b"#!/bin/sh"), *files])))


@pytest.mark.parametrize(
    ("in_image", "in_ramdisk", "sentences"),
    [
        (VERSION, VERSION, []),
        (OTHER, VERSION, [f"the modules in /lib/modules are for {OTHER}: drivers that are modules"]),
        (VERSION, OTHER, [f"the modules in its ramdisk are for {OTHER}: it may not find its root"]),
    ],
    ids=["they fit", "those of another kernel", "a ramdisk of another kernel"],
)
def test_the_kernel_beside_an_image_is_compared_with_the_modules(
    host: Host, in_image: str, in_ramdisk: str, sentences: list[str]
) -> None:
    other: dict[str, Content] = {  # a kernel of its own, which is not booted
        "boot/vmlinuz-1.0": bzimage("1.0"),
        f"lib/modules/{in_image}/modules.dep": "",
    }
    drop(host, root(host, SYSTEM | other))
    (host.spool / "karmic.vmlinuz").write_bytes(KERNEL)
    (host.spool / "karmic.initrd").write_bytes(modules_for(in_ramdisk))
    assert host.run("once").returncode == 0
    told = [one for one in host.report("karmic")["image"]["findings"] if one["key"] == "modules"]
    assert [one["severity"] for one in told] == ["warning"] * len(sentences)
    for one, sentence in zip(told, sentences, strict=True):
        assert one["sentence"].startswith(f"Kernel {VERSION} is to be booted, and {sentence}")
        assert one["sentence"] in (host.spool / "karmic.uec.log").read_text()


def test_an_image_that_cannot_be_prepared_is_rejected_and_waits_for_no_kernel(host: Host) -> None:
    rules: dict[str, Content] = {"etc/udev/rules.d/70-persistent-net.rules": 'NAME="eth0"\n'}
    image = root(host, SYSTEM | BOOT | rules)
    run("debugfs", "-w", "-R", "feature needs_recovery", image)
    drop(host, image, sidecar="prepare = true")
    assert host.run("once").returncode == EX_DATAERR
    assert "journal" in host.report("karmic")["error"]["why"]


def test_an_image_that_cannot_be_looked_into_is_registered_all_the_same(host: Host) -> None:
    image = root(host, SYSTEM)
    with image.open("r+b") as file:
        file.seek(2048)  # the table of its block groups, whatever the size of a block is
        file.write(b"\xff" * 4096)
    drop(host, image, sidecar='kernel = "none"')
    assert host.run("once").returncode == 0
    assert host.report("karmic")["image"]["system"] is None
