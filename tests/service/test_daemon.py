"""Scans of the service in this process: real spools, a real cloud, made-up clocks."""

import contextlib
import hashlib
import math
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.daemon import daemon_thread, opened_service
from tests.support.guest_images import ext, fill
from tests.support.host import Host
from tests.support.image_set import FOUND
from tests.support.listener import Recorder
from tests.support.sizes import MIB
from tests.support.spool_files import KEEP, drop_image
from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.bundle.upload_slots import UploadSlots
from uecwatchd.clouds.access import CloudAccess
from uecwatchd.clouds.request_retry import RetryPolicy
from uecwatchd.config.load import load
from uecwatchd.config.records import Settings, WorkSettings
from uecwatchd.demo.material import RealSet
from uecwatchd.errors import Deferred, Halted
from uecwatchd.events import Kind
from uecwatchd.intake.spool import output_files
from uecwatchd.ledger.api import Ledger, LedgerDamaged
from uecwatchd.ledger.records import SetRecord, TargetRecord
from uecwatchd.ledger.schema import FILE_NAME
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.outputs.systemd import Notifier
from uecwatchd.service.attempt.context import AttemptTools
from uecwatchd.service.daemon import Service
from uecwatchd.service.policy import due_clouds
from uecwatchd.service.reporting import Reporting
from uecwatchd.service.set_states import SetStates
from uecwatchd.service.spooler import Spooler
from uecwatchd.system.clocks import Clocks
from uecwatchd.types import SetId

RECORD = SetRecord(
    SetId("/s", "karmic"), "stamp", "done", 0.0, cloud="default", targets=(TargetRecord("default"),)
)
CLOSED = {"default": Halted("a", "b", "c")}


@pytest.mark.parametrize(
    ("record", "suspended", "expected"),
    [
        (None, {}, True),
        (RECORD, {}, False),
        (replace(RECORD, stamp="other"), {}, True),
        (replace(RECORD, state="rejected"), {}, False),
        (replace(RECORD, state="rejected", stamp="other"), {}, True),
        (replace(RECORD, state="deferred", next_retry=101.0), {}, False),
        (replace(RECORD, state="deferred", next_retry=100.0), {}, True),
        (replace(RECORD, state="halted"), CLOSED, False),
        (replace(RECORD, state="halted"), {}, True),
        (replace(RECORD, state="working"), {}, True),
        (replace(RECORD, state="queued"), {}, True),
    ],
    ids=[
        *("new", "done", "done, changed", "rejected", "rejected, changed", "too early", "in time"),
        *("cloud suspended", "cloud available", "broken off", "stopped"),
    ],
)
def test_which_sets_are_due(record: SetRecord | None, suspended: dict[str, Halted], expected: bool) -> None:  # noqa: FBT001
    assert bool(due_clouds(record, FOUND, now=100.0, suspended=suspended)) is expected


@contextmanager
def running(host: Host, listener: Recorder) -> Iterator[Service]:
    """The daemon's loop in a thread of this process, stopped in the end."""
    with (
        opened_service(host, listener) as made,
        daemon_thread(made, reloaded=lambda: load(host.config, environ={})),
    ):
        until(lambda: bool(listener.sentences(Kind.READY)), "the first round")
        yield made


def test_an_upload_that_fails_defers_and_the_time_of_the_retry_survives_a_restart(
    host: Host, small_set: RealSet, listener: Recorder
) -> None:
    host.drop_set(small_set)
    host.cloud.faults.arm("put-503", math.inf)
    with opened_service(host, listener, patience=RetryPolicy(tries=())) as first:
        (record,) = first.once()
    assert (record.state, record.next_retry) == ("deferred", record.since + 30.0)
    assert not any("is away" in sentence for sentence in listener.sentences(Kind.DEFERRED)), (
        "others get through"
    )
    host.cloud.faults.clear()
    due_at = record.next_retry or 0.0
    with opened_service(host, listener, now=lambda: due_at - 1.0) as early:
        (record,) = early.once()
    assert (record.state, record.attempt) == ("deferred", 1)
    with opened_service(host, listener, now=lambda: due_at) as again:
        (record,) = again.once()
    assert (record.state, record.attempt) == ("done", 2)
    assert not (host.spool / "karmic.uec.error").exists()
    assert "attempt 2" in (host.spool / "karmic.uec.log").read_text()


def test_once_waits_for_what_is_written_while_it_works(
    host: Host, small_set: RealSet, listener: Recorder
) -> None:
    host.drop_set(small_set)
    (host.spool / "late.toml").write_text('kernel = "none"\nconvert = "keep"\n')

    def registered() -> bool:
        return bool(host.cloud.calls("RegisterImage"))

    def write() -> None:
        with (host.spool / "late.img").open("wb", buffering=0) as late:
            until(lambda: late.write(os.urandom(512)) and registered(), "the other set")

    def clock() -> float:  # the first set takes longer than one waits for files
        return time.monotonic() + 1000.0 * registered()

    writer = threading.Thread(target=write)
    writer.start()
    settings = load(host.config, environ={})
    with closing(open_ledger(settings.state.dir)) as book:
        records = Service(settings, listener=listener, ledger=book, clocks=Clocks(monotonic=clock)).once()
    writer.join()
    assert {record.name: record.state for record in records} == {"karmic": "done", "late": "done"}


def test_a_waiting_reason_is_reported_once_for_each_change(
    host: Host, small_set: RealSet, listener: Recorder
) -> None:
    ext("-t", "ext4", size=8 * MIB)(host.spool / "karmic.img", fill(host.folder / "root", {"etc/fstab": ""}))
    for _ in range(3):
        with opened_service(host, listener) as again:
            again.once()
    host.drop(small_set.kernel, names=["karmic.vmlinuz"])
    with opened_service(host, listener) as again:
        again.once()
    reasons = [sentence.split(" (")[0] for sentence in listener.sentences(Kind.WAITING)]
    assert reasons == [
        "karmic: waiting for a kernel: a paravirtual image boots only with one",
        "karmic: waiting for a ramdisk to go with karmic.vmlinuz",
    ]


def test_a_finished_set_is_not_undone_when_a_member_is_taken_away(
    host: Host, small_set: RealSet, listener: Recorder
) -> None:
    host.drop_set(small_set)
    with opened_service(host, listener) as first:
        first.once()
    (host.spool / "karmic.initrd").unlink()
    with opened_service(host, listener) as again:
        (record,) = again.once()
    assert record.state == "done"
    assert (host.spool / "karmic.emi").exists()


def test_a_loose_kernel_that_is_done_stays_with_its_image_when_another_arrives(
    host: Host, small_set: RealSet, listener: Recorder
) -> None:
    host.drop(small_set.machine, names=["karmic.img"])
    for version in ("1", "2"):
        host.drop(small_set.kernel, small_set.ramdisk, names=[f"vmlinuz-{version}", f"initrd.img-{version}"])
        with opened_service(host, listener) as again:
            records = again.once()
        assert [record.state for record in records] == ["done"]


def test_a_folder_that_is_removed_and_made_again_is_watched_again(
    host: Host, small_set: RealSet, listener: Recorder
) -> None:
    with running(host, listener):
        shutil.rmtree(host.spool)
        until(lambda: bool(listener.sentences(Kind.WATCH_LOST)), "the loss to be noticed")
        host.spool.mkdir()
        host.drop_set(small_set)
        until((host.spool / "karmic.emi").exists, "the EMI")
        with pytest.raises(Deferred, match="another uecwatchd"):
            output_files.lock_spool(host.spool)


def test_a_cloud_that_takes_a_call_and_never_answers_does_not_keep_the_others_waiting(
    host: Host, small_set: RealSet, listener: Recorder
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/services/Walrus"
        host.configure(f'{host.config.read_text()}s3_url = "{url}"\n')
        host.drop_set(small_set)
        with running(host, listener):
            until(lambda: bool(listener.sentences(Kind.WORKING)), "the work to begin")
            (host.spool / "notes.toml").write_text("nonsense")
            until((host.spool / "notes.uec.error").exists, "another set's turn")
            silent.close()  # or the stop would wait for an answer until the time is up


def test_sets_of_one_name_in_two_folders_are_distinct(host: Host, listener: Recorder) -> None:
    other = host.folder / "other"
    other.mkdir()
    host.configure(host.config.read_text().replace("folders = [", f'folders = ["{other}", '))
    for folder in (host.spool, other):
        (folder / "karmic.toml").write_text('kernel = "none"\nconvert = "keep"\n')
        (folder / "karmic.img").write_bytes(bytes(str(folder), "ascii").ljust(4096))
    with opened_service(host, listener) as daemon:
        assert [record.state for record in daemon.once()] == ["done", "done"]
    both = {SetId(str(folder), "karmic") for folder in (host.spool, other)}
    assert {progress.set for progress in listener.progresses} == both
    assert {event.set for event in listener.events if event.set} == both


def tools_of(settings: Settings, book: Ledger, listener: Recorder) -> AttemptTools:
    clouds = CloudAccess(settings.clouds, uploads=1, bucket="images")
    work, slots = WorkSettings(), UploadSlots(1)
    return AttemptTools(
        book,
        settings.state.dir,
        clouds,
        Reporting(listener),
        threading.Event(),
        work=work,
        slots=slots,
        configured_bucket="images",
    )


def test_a_folder_in_trouble_does_not_keep_the_loop_busy(
    host: Host, small_set: RealSet, listener: Recorder
) -> None:
    host.drop_set(small_set)
    settings = load(host.config, environ={})
    with closing(open_ledger(settings.state.dir)) as book:
        tools = tools_of(settings, book, listener)
        states = SetStates(book)
        spooler = Spooler(settings, states=states, tools=tools, ended=lambda: None)
        spooler.scan()
        assert spooler.schedule.settle_times()
        shutil.rmtree(host.spool)
        spooler.scan()
        assert spooler.schedule.settle_times() == []
        assert list(spooler.troubles) == [host.spool]
        spooler.close()


def test_what_a_failing_disk_kept_from_us_is_read_again_in_time(host: Host, listener: Recorder) -> None:
    image = host.spool / "x.img"
    image.touch()
    (host.spool / "x.toml").write_text('kernel = "none"')
    subprocess.run(["mount", "--bind", "/proc/self/mem", image], check=True)  # whose first byte is an EIO
    try:
        states = []
        for moment in (1000.0, 1001.0, 1040.0):
            with opened_service(host, listener, now=lambda moment=moment: moment) as again:
                (record,) = again.once()
            states.append((record.state, record.attempt))
    finally:
        subprocess.run(["umount", "--lazy", image], check=True)
    assert states == [("deferred", 1), ("deferred", 1), ("deferred", 2)]


def test_a_planted_output_is_found_before_anything_is_registered(
    host: Host, small_set: RealSet, listener: Recorder
) -> None:
    host.drop_set(small_set)
    (host.spool / "karmic.emi").symlink_to("/etc/motd")
    with opened_service(host, listener) as first:
        (record,) = first.once()
    assert record.state == "rejected"
    assert not host.cloud.images
    assert "karmic.emi: cannot write it" in (host.spool / "karmic.uec.error").read_text()
    (host.spool / "karmic.emi").unlink()
    (host.spool / "karmic.img").touch()
    with opened_service(host, listener) as again:
        (record,) = again.once()
    assert record.state == "done"


def test_a_reload_takes_a_good_configuration_and_refuses_a_bad_one(
    host: Host, small_set: RealSet, listener: Recorder
) -> None:
    good = host.config.read_text()
    with running(host, listener) as daemon:
        host.configure("[spool]\nsetle = 1")
        daemon.ask_reload()
        until(
            lambda: any("did you mean settle" in s for s in listener.sentences(Kind.RELOAD)), "the complaint"
        )
        second = host.folder / "second"
        second.mkdir()
        host.configure(good.replace(str(host.spool), str(second)))
        daemon.ask_reload()
        until(lambda: "Read the configuration again" in listener.sentences(Kind.RELOAD), "the reload")
        replace(host, spool=second).drop_set(small_set)
        until((second / "karmic.emi").exists, "the EMI in the other folder")


def test_a_halted_cloud_is_used_again_after_a_reload(
    host: Host, small_set: RealSet, listener: Recorder
) -> None:
    good = host.config.read_text()
    host.configure(good + 'secret_key = "wrong"\n')
    host.drop_set(small_set)
    with running(host, listener) as daemon:
        until((host.spool / "karmic.uec.error").exists, "the error")
        until(lambda: host.report("karmic")["state"] == "halted", "the report, which comes after it")
        host.configure(good)
        daemon.ask_reload()
        until((host.spool / "karmic.emi").exists, "the EMI")
    assert not (host.spool / "karmic.uec.error").exists()


def test_two_sets_of_one_kernel_that_start_at_the_same_moment_register_it_once(
    host: Host, small_set: RealSet, listener: Recorder
) -> None:
    for name in ("one", "two"):
        host.drop_set(small_set, name)
        os.truncate(host.spool / f"{name}.img", small_set.machine.stat().st_size + 512 * len(name + name[:1]))
    with (host.spool / "two.img").open("r+b") as image:
        image.seek(-512, os.SEEK_END)
        image.write(b"x")
    with opened_service(host, listener) as both:
        records = both.once()
    assert [record.state for record in records] == ["done", "done"]
    assert len(host.cloud.calls("RegisterImage")) == 4


def drop_small(host: Host, count: int, *, more: str = "") -> None:
    for index in range(count):
        drop_image(host.spool, f"small{index:02}", os.urandom(65536), sidecar=KEEP + more)


def test_not_every_set_asks_for_the_list_of_all_images(host: Host, listener: Recorder) -> None:
    drop_small(host, 12)
    with opened_service(host, listener) as made:
        records = made.once()
    assert [record.state for record in records] == ["done"] * 12
    # Each asks for its own image three times, whether it is there, which tags it has, and whether it has them
    # all then; and hardly one for all.
    assert len(host.cloud.calls("DescribeImages")) < 42


def test_two_sets_of_one_name_that_come_together_have_one_upload(host: Host, listener: Recorder) -> None:
    """The list that the second set looks at was asked for before the first one was registered."""
    drop_small(host, 2, more='name = "small"\n')
    settings = load(host.config, environ={"UECWATCHD_WORK__SETS": "1"})
    with closing(open_ledger(settings.state.dir)) as book:
        records = Service(settings, listener=listener, ledger=book).once()
    states = {record.name: record.state for record in records}
    assert states == {"small00": "done", "small01": "rejected"}
    assert "the name small is taken" in (host.spool / "small01.uec.error").read_text()
    assert not any("small01" in seen.path for seen in host.cloud.calls("PutObject"))


def test_an_image_taken_off_the_list_a_moment_ago_is_not_taken_for_ours(
    host: Host, listener: Recorder
) -> None:
    drop_small(host, 1)
    output = host.spool / "small00.emi"
    with running(host, listener):
        until(output.exists, "the first image")
        (image,) = host.cloud.images
        host.cloud.backend.registry.remove_image(image.id)
        host.ask("forget", "small00")
        until(lambda: len(host.cloud.calls("RegisterImage")) == 2, "the second image")
        until(lambda: output.exists() and output.read_text().strip() != image.id, "its id")
    (new,) = host.cloud.images
    assert output.read_text().strip() == new.id


def test_a_member_replaced_while_it_is_read_is_not_registered(
    host: Host, small_set: RealSet, listener: Recorder
) -> None:
    host.drop_set(small_set)
    with opened_service(host, listener) as first:
        swap = threading.Thread(target=_replace_when_first_part_is_up, args=(host,))
        swap.start()
        (record,) = first.once()
        swap.join(PATIENCE_SECONDS)
    if record.state == "deferred":
        assert record.error
        assert "changed" in record.error.what
        assert not [i for i in host.cloud.images if i.id.startswith("emi-")], "of half old, half new bytes"
    else:
        assert record.members[-1].digest == _sha256(host.spool / "karmic.img")


def _replace_when_first_part_is_up(host: Host) -> None:
    until(lambda: bool(host.cloud.calls("PutObject")), "the first part")
    with (host.spool / "karmic.img").open("r+b") as image:
        image.seek(1 << 20)
        image.write(b"changed")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_loop_that_hangs_is_no_longer_vouched_for(host: Host, listener: Recorder) -> None:
    goes = threading.Event()
    goes.set()

    def monotonic() -> float:
        goes.wait(PATIENCE_SECONDS)
        return time.monotonic()

    settings = load(host.config, environ={})
    address = str(host.folder / "notify")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
        closing(open_ledger(settings.state.dir)) as book,
    ):
        systemd.bind(address)
        made = Service(settings, listener=listener, ledger=book, clocks=Clocks(monotonic=monotonic))
        notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"})
        loop = threading.Thread(target=made.run, args=(notifier,))
        loop.start()
        try:
            until(lambda: b"WATCHDOG=1" in systemd.recv(4096), "the first feed")
            goes.clear()
            systemd.settimeout(1.0)
            with contextlib.suppress(TimeoutError):
                for _ in range(5):  # no more than what was under way when it began to hang
                    systemd.recv(4096)
                pytest.fail("fed though it hangs")
            goes.set()
            systemd.settimeout(PATIENCE_SECONDS)
            until(lambda: b"WATCHDOG=1" in systemd.recv(4096), "the feed after it")
        finally:
            goes.set()
            made.stop()
            loop.join(PATIENCE_SECONDS)


def test_a_look_that_takes_long_is_reported_once(host: Host, listener: Recorder) -> None:
    ticks = iter(range(0, 100_000, 7))
    settings = load(host.config, environ={})
    with closing(open_ledger(settings.state.dir)) as book:
        clocks = Clocks(monotonic=lambda: float(next(ticks)))
        tools = replace(tools_of(settings, book, listener), clocks=clocks)
        spooler = Spooler(settings, states=SetStates(book), tools=tools, ended=lambda: None)
        spooler.scan()
        spooler.scan()
        spooler.close()
    assert len([s for s in listener.sentences(Kind.FAULT) if "to scan it once" in s]) == 1


def test_a_ledger_that_is_damaged_at_run_time_ends_the_daemon_so_that_it_is_started_again(
    host: Host, listener: Recorder
) -> None:
    (host.spool / "d.toml").write_text('kernel = "none"\nconvert = "keep"\n')
    (host.spool / "d.img").write_bytes(bytes(4096))
    with opened_service(host, listener) as daemon:
        path = host.state / FILE_NAME
        with path.open("r+b") as file:
            file.truncate(0)
            file.write(b"\xff" * 65536)
        for log in host.state.glob(f"{FILE_NAME}-*"):
            log.write_bytes(b"\xff" * 65536)
        with pytest.raises(LedgerDamaged) as ended:
            daemon.once()
    assert ended.value.exit_code not in (64, 77, 78), "those that systemd does not start again"
