"""The service with a cloud in trouble: nothing is lost, and nothing is registered twice."""

import logging
import os
import random
import struct
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.cloud_keys import with_keys
from tests.support.daemon import daemon_thread
from tests.support.host import Host, cloud_host
from tests.support.listener import Recorder
from tests.support.waiting import until
from uecwatchd.clouds.request_retry import RetryPolicy
from uecwatchd.config.load import load
from uecwatchd.demo.material import RealSet
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.sandbox.server import Sandbox
from uecwatchd.service.daemon import Service
from uecwatchd.system.clocks import Clocks

pytestmark = pytest.mark.exhaustive

HOUR = 3600.0
DISK_BYTES = 25 << 20  # three parts: it is noise

Turn = Callable[..., SetRecord]


@pytest.fixture
def noise() -> bytes:
    return random.Random(7).randbytes(DISK_BYTES)  # noqa: S311 (only not to be compressible)


@pytest.fixture
def turn(host: Host, listener: Recorder, noise: bytes) -> Turn:
    """Drops one disk; each call is a run of `once` as many hours later, and gives the set's record.

    It tries again in place only as often as `tries` says.
    """
    (host.spool / "karmic.toml").write_text('kernel = "none"\nconvert = "keep"\n')
    (host.spool / "karmic.img").write_bytes(noise)

    def once(hours: float = 0.0, *, tries: tuple[float, ...] = ()) -> SetRecord:
        settings = load(host.config, environ={})
        with closing(open_ledger(settings.state.dir)) as book:
            now = time.time() + hours * HOUR
            patience = RetryPolicy(tries=tries)
            (record,) = Service(
                settings, listener=listener, ledger=book, clocks=Clocks(now=lambda: now), patience=patience
            ).once()
            return record

    return once


def puts(cloud: Sandbox) -> list[str]:
    """The parts that were sent, in the order of their answers."""
    paths = (seen.path.rsplit("/", 1)[-1] for seen in cloud.calls("PutObject"))
    return [path.partition(".part.")[2] for path in paths if ".part." in path]


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("put-503", "it is too busy just now"),
        ("put-500", "it failed"),
        ("wrong-etag", "it has stored other bytes than were sent"),
    ],
)
def test_a_part_that_does_not_arrive_is_sent_again_with_those_that_are_missing(
    host: Host, turn: Turn, fault: str, why: str
) -> None:
    host.cloud.faults.arm(fault, 2, spare=1)
    deferred = turn()
    assert deferred.state == "deferred"
    assert deferred.error
    assert why in deferred.error.why
    host.cloud.faults.clear()
    sent = len(puts(host.cloud))
    done = turn(1)
    assert done.state == "done"
    assert len(puts(host.cloud)) - sent < 3, "what had arrived is not sent again"
    assert [image.id for image in host.cloud.images] == [done.image_id("machine")]


def test_a_connection_that_breaks_in_the_middle_of_a_part_is_made_again(host: Host, turn: Turn) -> None:
    host.cloud.faults.arm("reset-in-body", 1, spare=1)
    assert turn().state == "done"
    tried = [(seen.path, seen.fault) for seen in host.cloud.calls("PutObject")]
    (broken,) = [path for path, fault in tried if fault == "reset-in-body"]
    assert tried.count((broken, "")) == 1


def test_a_lost_answer_to_a_registration_is_looked_for(host: Host, turn: Turn) -> None:
    host.cloud.faults.arm("lost-answer")
    assert turn().state == "deferred"
    (image,) = host.cloud.images
    done = turn(1)
    assert (done.state, done.image_id("machine")) == ("done", image.id)
    assert len(host.cloud.calls("RegisterImage")) == 1


def test_a_cloud_that_is_down_defers_and_is_tried_again(host: Host, turn: Turn) -> None:
    host.cloud.faults.arm("down")
    down = turn()
    assert (down.state, down.next_retry) == ("deferred", None)
    assert "as soon as the cloud answers" in (host.spool / "karmic.uec.error").read_text()
    host.cloud.faults.clear()
    assert turn().state == "done", "a cloud that is back is not kept waiting"


def test_our_clock_ten_minutes_ahead_halts(host: Host, turn: Turn) -> None:
    host.cloud.faults.arm("skew", -600)
    halted = turn()
    assert halted.state == "halted"
    assert halted.error
    assert "clock" in halted.error.why
    host.cloud.faults.clear()
    assert turn().state == "done"


def test_a_server_that_closes_each_connection_is_worked_with(
    host: Host, turn: Turn, caplog: pytest.LogCaptureFixture
) -> None:
    host.cloud.faults.arm("requests", 1)
    with caplog.at_level(logging.DEBUG, logger="urllib3.connectionpool"):
        assert turn().state == "done"
    made = [line for line in caplog.messages if line.startswith(("Starting new", "Resetting dropped"))]
    assert len(made) == len(host.cloud.requests) > 10


def test_lost_tags_are_a_remark(host: Host, turn: Turn) -> None:
    host.cloud.faults.arm("lost-tags", 10)
    done = turn()
    assert done.state == "done"
    assert done.target.remarks == (
        f"cloud default, tagging {done.image_id('machine')}: it has not kept host, owner, sha256, source."
        " Ask its administrator; the image itself is registered.",
    )


def test_a_part_that_is_gone_before_the_registration_is_noticed_and_sent_again(
    host: Host, turn: Turn
) -> None:
    host.cloud.faults.arm("lost-answer")
    assert turn().state == "deferred"
    (image,) = host.cloud.images
    host.cloud.backend.registry.remove_image(image.id)
    key = next(one.key for one in host.cloud.objects("uec-images") if one.key.endswith(".part.1"))
    host.cloud.backend.store.remove("uec-images", key)
    noticed = turn(1)
    assert noticed.state == "deferred"
    assert noticed.error
    assert noticed.error.what == f"cloud default, looking over uec-images/{key}"
    assert noticed.error.why.startswith("it is not there any more")
    assert len(host.cloud.calls("RegisterImage")) == 1
    sent = len(puts(host.cloud))
    assert turn(3).state == "done"
    assert puts(host.cloud)[sent:] == ["1"]


@pytest.mark.parametrize(("full", "noticed"), [(True, True), (False, False)], ids=["full", "sizes"])
def test_full_verification_opens_the_bundle_before_it_is_registered(
    host: Host, turn: Turn, *, full: bool, noticed: bool
) -> None:
    if full:
        host.configure(f'{host.config.read_text()}\n[work]\nverify = "full"\n')
    assert turn().state == "done"
    fetched = [seen.path for seen in host.cloud.calls("GetObject")]
    assert bool(fetched) is noticed
    assert ("opened uec-images/" in (host.spool / "karmic.uec.log").read_text()) is noticed


@pytest.mark.parametrize("generation", ["uec", "euca3", "euca4", "euca5"])
def test_missing_rights_for_kernels_are_reported_before_the_machine_is_uploaded(
    small_set: RealSet, tmp_path: Path, generation: str
) -> None:
    with cloud_host(tmp_path, generation, administrator=False) as host:
        cloud = host.cloud
        host.drop_set(small_set, "k")
        assert host.run("once").returncode == 65
        error = (host.spool / "k.uec.error").read_text()
        assert "only its administrators may register kernels and ramdisks" in error
        assert 'kernel = "eki-…"' in error
        assert {stored.key.split("-")[0] for stored in cloud.objects("uec-images")} == {"vmlinuz"}


def test_a_part_that_is_damaged_under_the_right_etag_is_made_again(host: Host, turn: Turn) -> None:
    host.configure(f'{host.config.read_text()}\n[work]\nverify = "full"\n')
    host.cloud.faults.arm("put-503", 1, spare=3)  # the manifest
    assert turn().state == "deferred"
    part = next(one for one in host.cloud.objects("uec-images") if one.key.endswith(".part.1"))
    damaged = bytearray(part.path.read_bytes())
    damaged[4096] ^= 1
    part.path.write_bytes(damaged)
    noticed = turn(1)
    assert (noticed.state, noticed.error and noticed.error.kind) == ("deferred", "deferred")
    assert not host.cloud.calls("RegisterImage")
    assert turn(3).state == "done"


def test_an_image_that_failed_makes_room_for_the_next_attempt(tmp_path: Path, listener: Recorder) -> None:
    with cloud_host(tmp_path, "openstack") as host:
        cloud = host.cloud
        (host.spool / "karmic.toml").write_text('kernel = "none"\nconvert = "keep"\n')
        (host.spool / "karmic.img").write_bytes(bytes(1 << 20))
        cloud.faults.arm("image-fails")
        assert host.run("once").returncode == 65
        (failed,) = cloud.images
        os.utime(host.spool / "karmic.img")
        assert host.run("once").returncode == 0
        (image,) = cloud.images
        assert image.id != failed.id
        assert (host.spool / "karmic.emi").read_text() == f"{image.id}\n"
        assert f"deregistered {failed.id}, which is failed" in (host.spool / "karmic.uec.log").read_text()


@pytest.mark.parametrize(
    ("trouble", "why", "code"),
    [("wrong key", "the secret key is not that of the access key", 78), ("away", "the connection broke", 69)],
)
def test_a_disk_that_waits_for_detection_of_its_cloud_has_a_reason(
    host_class: type[Host], tmp_path: Path, trouble: str, why: str, code: int
) -> None:
    with Sandbox(with_keys(tmp_path / "cloud"), dialect="euca4") as cloud:
        host = host_class.made(tmp_path / "builder", cloud)
        extra = 'secret_key = "wrong"\n' if trouble == "wrong key" else ""
        host.configure(host.config.read_text().replace('dialect = "sandbox"\n', extra))
        if trouble == "away":
            cloud.faults.arm("away")
        disk = bytearray(1 << 20)
        disk[446:462] = struct.pack("<B3sB3sII", 0x80, b"\0" * 3, 0x83, b"\0" * 3, 1024, 1024)
        disk[510:512] = b"\x55\xaa"
        (host.spool / "karmic.img").write_bytes(disk)
        ended = host.run("once")
        assert ended.returncode == code
        assert f"karmic: waiting for cloud default to tell what it wants ({'cloud default, '}" in ended.stderr
        assert why in ended.stderr
        assert "a kernel" not in ended.stderr
        assert why in host.run("status", "karmic").stdout


def test_a_platform_that_is_named_later_makes_another_image(tmp_path: Path) -> None:
    with cloud_host(tmp_path, "euca4") as host:
        cloud = host.cloud
        disk = bytearray(1 << 20)
        disk[446:462] = struct.pack("<B3sB3sII", 0x80, b"\0" * 3, 0x07, b"\0" * 3, 1024, 1024)
        disk[510:512] = b"\x55\xaa"
        (host.spool / "win.img").write_bytes(disk)
        assert host.run("once").returncode == 0
        (host.spool / "win.toml").write_text('platform = "windows"\n')
        assert host.run("once").returncode == 0
        assert sorted(image.platform for image in cloud.images) == ["", "windows"]


def test_an_upload_moves_to_another_bucket_after_a_change_of_the_configuration(
    host: Host, listener: Recorder, small_set: RealSet
) -> None:
    host.drop(small_set.kernel, names=["linux.vmlinuz"])
    (host.spool / "linux.toml").write_text('kernel = "linux.vmlinuz"\n')
    host.cloud.faults.arm("put-503", 1, spare=1)
    settings = load(host.config, environ={})
    with closing(open_ledger(settings.state.dir)) as book:
        (record,) = Service(settings, listener=listener, ledger=book, patience=RetryPolicy(tries=())).once()
    assert record.state == "deferred"
    host.configure(host.config.read_text().replace("uec-images", "other-images"))
    os.utime(host.spool / "linux.vmlinuz")
    assert host.run("once").returncode == 0
    (image,) = host.cloud.images
    assert image.location.startswith("other-images/")


def test_requirements_of_a_cloud_are_checked_before_the_upload(small_set: RealSet, tmp_path: Path) -> None:
    with cloud_host(tmp_path, "euca4") as host:
        cloud = host.cloud
        host.drop(small_set.machine, small_set.kernel, names=["k.img", "k.vmlinuz"])
        (host.spool / "k.toml").write_text('ramdisk = "none"\n')
        assert host.run("once").returncode == 65
        error = (host.spool / "k.uec.error").read_text()
        assert "k: cloud default takes no such image without a ramdisk" in error
        assert not cloud.calls("PutObject")


@pytest.mark.parametrize("times", [1, 2])
def test_a_set_that_is_tried_again_at_once_after_its_image_has_failed_is_registered(
    host: Host, listener: Recorder, times: int
) -> None:
    """The failed image keeps the name, and a list of a moment ago does not have it."""
    settings = load(host.config, environ={})
    with (
        closing(open_ledger(settings.state.dir)) as book,
        daemon_thread(Service(settings, listener=listener, ledger=book)),
    ):
        (host.spool / "karmic.toml").write_text('kernel = "none"\nconvert = "keep"\n')
        (host.spool / "karmic.img").write_bytes(bytes(4096))
        host.cloud.faults.arm("image-fails", times)
        for attempt in range(1, times + 1):
            until(lambda attempt=attempt: has_failed(book, attempt), "the image to have failed")
            host.ask("retry", "karmic")
        until(
            (host.spool / "karmic.emi").exists, "the image", detail=(host.spool / "karmic.uec.log").read_text
        )
    assert [image.state for image in host.cloud.images] == ["available"]


def has_failed(book: Ledger, attempt: int) -> bool:
    """Ask the ledger, as `retry` does: the log is written a moment before."""
    return [(record.state, record.attempt) for record in book.sets()] == [("rejected", attempt)]
