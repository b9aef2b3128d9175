"""The main job on real sets: files into a folder, an EMI beside them, the same bytes out of the cloud."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable

import pytest

from tests.support.daemon import daemon_process, stop_daemon
from tests.support.host import Host
from tests.support.waiting import until
from uecwatchd.demo.material import RealSet
from uecwatchd.intake.spool.output_files import SPOOL_LOCK

# Of each answer of the cloud, so that a set takes longer than one looks away.
SLOW_SECONDS = 0.3


def sidecar_set(host: Host, made: RealSet) -> str:
    assert made.sidecar
    host.drop(made.machine, made.kernel, made.ramdisk, made.sidecar)
    return "tiny"


def stem_set(host: Host, made: RealSet) -> str:
    names = ["karmic.img", "karmic.vmlinuz", "karmic.initrd"]
    host.drop(made.machine, made.kernel, made.ramdisk, names=names)
    return "karmic"


def folder_set(host: Host, made: RealSet) -> str:
    (host.spool / "lucid").mkdir()
    host.drop(made.machine, made.kernel, made.ramdisk, names=["lucid/disk", "lucid/linux", "lucid/early"])
    return "lucid"


def loose_set(host: Host, made: RealSet) -> str:
    host.drop(
        made.machine, made.kernel, made.ramdisk, names=["jaunty.img", made.kernel.name, made.ramdisk.name]
    )
    return "jaunty"


@pytest.mark.parametrize("drop", [sidecar_set, stem_set, folder_set, loose_set])
def test_a_set_in_each_of_its_forms_becomes_an_emi(
    drop: Callable[[Host, RealSet], str], host: Host, real_set: RealSet
) -> None:
    name = drop(host, real_set)
    ended = host.run("once")
    assert ended.returncode == 0, ended.stderr
    report = host.report(name)
    assert host.outputs() == [f"{name}.{end}" for end in ("eki", "emi", "eri", "uec.json", "uec.log")]
    for role, suffix in (("machine", "emi"), ("kernel", "eki"), ("ramdisk", "eri")):
        image_id = (host.spool / f"{name}.{suffix}").read_text()
        assert image_id == f"{report['ids'][role]}\n"
        assert image_id.startswith(f"{suffix}-")
    sums = {member["role"]: member["sha256"] for member in report["members"]}
    assert sums["machine"] == hashlib.sha256(real_set.machine.read_bytes()).hexdigest()
    verified = host.run("verify", name)
    assert verified.returncode == 0, verified.stderr
    assert all(f"{role} " in verified.stdout for role in sums)


@pytest.fixture
def done(host: Host, small_set: RealSet) -> Host:
    """A host on which the set `tiny` has been registered."""
    sidecar_set(host, small_set)
    assert host.run("once").returncode == 0
    return host


def test_a_second_run_does_nothing_and_says_so(done: Host) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.spool.iterdir()}
    asked = len(done.cloud.requests)
    again = done.run("once")
    assert again.returncode == 0
    assert "Nothing to do: 1 done." in again.stderr
    assert len(done.cloud.requests) == asked
    assert {path: path.stat().st_mtime_ns for path in done.spool.iterdir()} == before


def test_kernel_and_ramdisk_of_two_sets_are_bundled_and_registered_once(
    host: Host, small_set: RealSet
) -> None:
    for name in ("one", "two"):
        host.drop(
            small_set.machine,
            small_set.kernel,
            small_set.ramdisk,
            names=[f"{name}.img", f"{name}.vmlinuz", f"{name}.initrd"],
        )
    with (host.spool / "two.img").open("ab") as image:
        image.write(bytes(512))
    assert host.run("once").returncode == 0
    assert host.report("one")["ids"]["kernel"] == host.report("two")["ids"]["kernel"]
    assert host.report("one")["ids"]["machine"] != host.report("two")["ids"]["machine"]
    assert len(host.cloud.calls("RegisterImage")) == 4
    puts = [seen.path for seen in host.cloud.calls("PutObject")]
    assert len(puts) == len(set(puts))


def test_replacing_a_member_makes_another_image_and_takes_the_old_id_away_first(
    done: Host, small_set: RealSet
) -> None:
    old = (done.spool / "tiny.emi").read_text()
    with (done.spool / "tiny.img").open("ab") as image:
        image.write(bytes(512))
    assert done.run("once").returncode == 0
    assert (done.spool / "tiny.emi").read_text() != old
    assert len(done.cloud.calls("RegisterImage")) == 4


def test_touching_a_file_makes_no_other_image(done: Host) -> None:
    old = (done.spool / "tiny.emi").read_text()
    (done.spool / "tiny.img").touch()
    assert done.run("once").returncode == 0
    assert (done.spool / "tiny.emi").read_text() == old
    assert len(done.cloud.calls("RegisterImage")) == 3


def test_a_finished_set_that_waits_for_another_sum_has_no_ids_until_it_has_that(done: Host) -> None:
    ids = {path.name: path.read_text() for path in done.spool.glob("tiny.e*")}
    (done.spool / "tiny.sha256").write_text(f"{'0' * 64}  tiny.img\n")
    assert done.run("once").returncode == 75
    assert done.report("tiny")["state"] == "waiting"
    assert not list(done.spool.glob("tiny.e*"))
    assert "declared SHA-256" in done.run("status").stdout
    (done.spool / "tiny.sha256").unlink()
    assert done.run("once").returncode == 0
    assert {path.name: path.read_text() for path in done.spool.glob("tiny.e*")} == ids
    assert len(done.cloud.calls("RegisterImage")) == 3


def test_a_finished_set_stays_finished_when_its_cloud_is_taken_out_of_the_configuration(done: Host) -> None:
    before = {path.name: path.read_bytes() for path in done.spool.iterdir()}
    done.configure(done.config.read_text().replace("[cloud.default]", "[cloud.other]"))
    assert done.run("once").returncode == 0
    assert {path.name: path.read_bytes() for path in done.spool.iterdir()} == before


def test_touched_files_keep_their_ids_also_while_the_cloud_is_away(done: Host) -> None:
    done.cloud.stop()
    (done.spool / "tiny.img").touch()
    assert done.run("once").returncode == 69
    assert (done.spool / "tiny.emi").exists()
    done.cloud.start()


def test_new_content_takes_the_old_ids_away_also_when_the_cloud_is_away(done: Host) -> None:
    done.cloud.stop()
    with (done.spool / "tiny.img").open("ab") as image:
        image.write(bytes(512))
    assert done.run("once").returncode == 69
    assert not list(done.spool.glob("tiny.e?i"))
    done.cloud.start()


def test_another_name_for_known_content_is_another_image(done: Host) -> None:
    text = (done.spool / "tiny.toml").read_text()
    old = (done.spool / "tiny.emi").read_text()
    (done.spool / "tiny.toml").write_text(f'name = "my-own-{{sha8}}"\n{text}')
    assert done.run("once").returncode == 0
    assert (done.spool / "tiny.emi").read_text() != old
    names = [image.name for image in done.cloud.images]
    assert len(names) == 4
    assert any(name.startswith("my-own-") for name in names)


@pytest.mark.parametrize("more", ['bucket = "other"', 'virtualization = "paravirtual"'])
def test_other_metadata_for_known_content_is_another_image_with_a_name_of_its_own(
    done: Host, more: str
) -> None:
    key = more.split()[0]
    lines = (done.spool / "tiny.toml").read_text().splitlines()
    kept = [line for line in lines if not line.startswith(key)]
    (done.spool / "tiny.toml").write_text("\n".join([more, *kept]))
    ended = done.run("once")
    assert ended.returncode == 0, ended.stderr
    assert len(done.cloud.calls("RegisterImage")) == 4, "a machine, and no second kernel or ramdisk"


def test_another_description_is_given_to_the_image_that_is_there(done: Host) -> None:
    lines = (done.spool / "tiny.toml").read_text().splitlines()
    kept = [line for line in lines if not line.startswith("description")]
    (done.spool / "tiny.toml").write_text("\n".join(['description = "another one"', *kept]))
    ended = done.run("once")
    assert ended.returncode == 0, ended.stderr
    machine = (done.spool / "tiny.emi").read_text().strip()
    assert len(done.cloud.calls("RegisterImage")) == 3
    assert {i.id: i.description for i in done.cloud.images}[machine] == "another one"


def test_the_same_content_under_another_stem_is_the_image_that_is_known(
    host: Host, small_set: RealSet
) -> None:
    for name in ("one", "two"):
        names = [f"{name}.img", f"{name}.vmlinuz", f"{name}.initrd"]
        host.drop(small_set.machine, small_set.kernel, small_set.ramdisk, names=names)
        assert host.run("once").returncode == 0
    assert (host.spool / "one.emi").read_text() == (host.spool / "two.emi").read_text()
    assert len(host.cloud.calls("RegisterImage")) == 3


def test_a_lost_ledger_leads_to_no_second_registration(done: Host) -> None:
    old = (done.spool / "tiny.emi").read_text()
    shutil.rmtree(done.state)
    ended = done.run("once")
    assert ended.returncode == 0
    assert "already" in ended.stderr
    assert (done.spool / "tiny.emi").read_text() == old
    assert len(done.cloud.calls("RegisterImage")) == 3


def test_a_deleted_or_forged_output_causes_no_registration(done: Host) -> None:
    (done.spool / "tiny.emi").unlink()
    (done.spool / "tiny.uec.json").write_text('{"state": "queued"}')
    assert done.run("once").returncode == 0
    assert len(done.cloud.calls("RegisterImage")) == 3


def test_verify_notices_a_part_that_was_damaged_in_the_cloud(done: Host) -> None:
    bucket, manifest = done.report("tiny")["manifests"][-1].split("/")
    key = manifest.removesuffix(".manifest.xml") + ".part.0"
    (path,) = (stored.path for stored in done.cloud.objects(bucket) if stored.key == key)
    with path.open("r+b") as part:
        part.seek(path.stat().st_size // 2)
        byte = part.read(1)
        part.seek(-1, os.SEEK_CUR)
        part.write(bytes([byte[0] ^ 1]))
    ended = done.run("verify", "tiny")
    assert ended.returncode == 65
    assert key in ended.stderr


def test_the_files_dropped_are_not_changed(done: Host, small_set: RealSet) -> None:
    for made in (small_set.machine, small_set.kernel, small_set.ramdisk, small_set.sidecar):
        assert made
        assert (done.spool / made.name).read_bytes() == made.read_bytes()


def test_a_kernel_named_alone_in_a_sidecar_is_registered_alone(host: Host, small_set: RealSet) -> None:
    host.drop(small_set.kernel, names=["vmlinuz-1"])
    (host.spool / "linux.toml").write_text('kernel = "vmlinuz-1"')
    assert host.run("once").returncode == 0
    assert host.outputs() == ["linux.eki", "linux.uec.json", "linux.uec.log"]


def test_the_daemon_takes_what_is_dropped_and_puts_it_down_when_asked(host: Host, small_set: RealSet) -> None:
    with daemon_process(host) as daemon:
        stem_set(host, small_set)
        emi = host.spool / "karmic.emi"
        until(lambda: emi.exists() and emi.stat().st_size > 0, "the EMI")
        assert host.outputs() == [f"karmic.{end}" for end in ("eki", "emi", "eri", "uec.json", "uec.log")]
        assert "done" in host.run("status").stdout
        second = host.run("once")
        assert second.returncode == 75
        assert f"process {daemon.pid}" in second.stderr
        assert "Watching" in stop_daemon(daemon)


def test_a_folder_moved_in_whole_is_taken(host: Host, small_set: RealSet) -> None:
    with daemon_process(host):
        outside = host.folder / "intrepid"
        outside.mkdir()
        for made, name in ((small_set.machine, "a"), (small_set.kernel, "b"), (small_set.ramdisk, "c")):
            shutil.copy(made, outside / name)
        outside.rename(host.spool / "intrepid")
        until((host.spool / "intrepid.emi").exists, "the EMI")


def test_a_daemon_stopped_in_the_middle_goes_on_where_it_was(host: Host, small_set: RealSet) -> None:
    stem_set(host, small_set)
    # Nothing that deflate could shorten: the machine image goes up in parts of 10 MiB, one after the other.
    with (host.spool / "karmic.img").open("ab") as image:
        image.write(os.urandom(30 << 20))
    host.configure(host.config.read_text() + "[work]\nuploads = 1\n")
    host.cloud.faults.arm("slow", SLOW_SECONDS)
    with daemon_process(host) as daemon:
        until(lambda: any("karmic" in seen.path for seen in host.cloud.calls("PutObject")), "the first part")
        stop_daemon(daemon)
    host.cloud.faults.clear()
    assert not (host.spool / "karmic.emi").exists()
    ended = host.run("once")
    assert ended.returncode == 0, ended.stderr
    assert "Resuming karmic at: deliver the machine image" in ended.stderr
    puts = [seen.path for seen in host.cloud.calls("PutObject")]
    assert len(puts) == len(set(puts)), "no part that was there already is sent again"
    assert len(host.cloud.calls("RegisterImage")) == 3


def test_a_killed_daemon_loses_nothing_and_registers_nothing_twice(host: Host, small_set: RealSet) -> None:
    stem_set(host, small_set)
    host.cloud.faults.arm("slow", SLOW_SECONDS)
    with daemon_process(host) as daemon:
        until(lambda: host.cloud.calls("RegisterImage"), "the first registration")
        daemon.kill()
        daemon.wait()
    host.cloud.faults.clear()
    assert host.run("once").returncode == 0
    assert len(host.cloud.calls("RegisterImage")) == 3
    images = [member["id"] for member in host.report("karmic")["members"]]
    assert len(set(images)) == 3


def test_finished_files_are_archived_where_the_configuration_says_so(
    make_host: Callable[..., Host], small_set: RealSet
) -> None:
    host = make_host()
    host.configure(host.config.read_text().replace("settle =", 'after = "archive"\nsettle ='))
    sidecar_set(host, small_set)
    assert host.run("once").returncode == 0
    assert host.run("once").returncode == 0
    names = sorted(path.name for path in (host.spool / "done").rglob("*") if path.is_file())
    assert small_set.sidecar
    assert names == sorted(
        p.name for p in (small_set.machine, small_set.kernel, small_set.ramdisk, small_set.sidecar)
    )
    assert (host.spool / "tiny.emi").exists()


def test_outputs_follow_their_files_after_a_while(make_host: Callable[..., Host], small_set: RealSet) -> None:
    host = make_host()
    host.configure(host.config.read_text().replace("settle =", "linger = 0\nsettle ="))
    sidecar_set(host, small_set)
    assert host.run("once").returncode == 0
    for made in (small_set.machine, small_set.kernel, small_set.ramdisk, small_set.sidecar):
        assert made
        (host.spool / made.name).unlink()
    for _ in range(2):
        assert host.run("once").returncode == 0
    assert [path.name for path in host.spool.iterdir()] == [SPOOL_LOCK.name]
    assert "empty" in host.run("status").stderr


def test_status_tells_about_every_name(done: Host) -> None:
    (done.spool / "notes.txt").write_text("hello")
    (done.spool / "half.img.part").write_bytes(b"x")
    rows = {row["name"]: row for row in json.loads(done.run("status", "--json").stdout)}
    assert {name: row["state"] for name, row in rows.items()} == {
        "tiny": "done",
        "notes.txt": "misfit",
        "half.img.part": "ignored",
    }
    assert rows["tiny"]["report"]["ids"] == done.report("tiny")["ids"]
    assert "eki-" in done.run("status", "tiny").stdout
    assert done.run("status", "nonesuch").returncode == 66


def test_a_dry_run_says_what_would_be_done_and_does_nothing(host: Host, small_set: RealSet) -> None:
    stem_set(host, small_set)
    ended = host.run("once", "--dry-run")
    assert ended.returncode == 0
    assert "karmic  new       complete: to be registered on cloud default" in ended.stdout
    assert "1 to be worked on, nothing to be done with 0" in ended.stderr
    (host.spool / "lucid.toml").write_text('machine = "lucid.img"')
    (row,) = json.loads(host.run("once", "--dry-run", "--json").stdout)
    assert (row["name"], row["state"]) == ("karmic", "new")
    assert host.outputs() == []
    assert not host.state.exists()


def test_the_manifest_is_where_servers_look_and_under_a_name_they_understand(done: Host) -> None:
    prefixes = {"kernel": "vmlinuz-", "ramdisk": "initrd-", "machine": "tiny-"}
    for member in done.report("tiny")["members"]:
        bucket, key = member["manifest"].split("/")
        assert bucket == "uec-images"
        assert key.startswith(prefixes[member["role"]])


def test_no_secret_is_in_a_file_that_others_may_read_or_in_any_log(done: Host) -> None:
    eucarc = done.cloud.eucarc.read_text()
    secret = next(line for line in eucarc.splitlines() if "SECRET_KEY" in line).split("=", 1)[1].strip("'\"")
    assert len(secret) > 20
    for path in (*done.spool.iterdir(), *done.state.iterdir()):
        if path.name.startswith("tiny.uec") or path.parent == done.state:
            assert secret.encode() not in path.read_bytes()
    for path in done.state.iterdir():
        assert path.stat().st_mode & 0o077 == 0
    assert secret not in done.run("check").stdout + done.run("status", "--json").stdout


def test_check_finds_nothing_wrong_on_a_good_host_and_changes_nothing(host: Host) -> None:
    ended = host.run("check")
    assert ended.returncode == 0, ended.stdout
    assert {line.split()[0] for line in ended.stdout.splitlines()} == {"ok"}
    assert not host.state.exists()
    assert not host.cloud.calls("CreateBucket")
