"""A cloud that goes away and comes back, many sets at once, a clock that is set: real scans, small disks."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from tests.support.daemon import daemon_thread
from tests.support.host import Host
from tests.support.listener import Recorder
from tests.support.waiting import until
from uecwatchd.bundle.upload_slots import UploadSlots
from uecwatchd.clouds.access import CloudAccess
from uecwatchd.clouds.request_retry import RetryPolicy
from uecwatchd.config.load import load
from uecwatchd.config.records import WorkSettings
from uecwatchd.demo.material import RealSet
from uecwatchd.events import Kind
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.service.attempt.context import AttemptTools
from uecwatchd.service.daemon import Service
from uecwatchd.service.reporting import Reporting
from uecwatchd.service.retry import GIVE_UP_SECONDS
from uecwatchd.service.set_states import SetStates
from uecwatchd.service.spooler import Spooler
from uecwatchd.system.clocks import Clocks

SETS = 12


def drop_disks(host: Host, number: int = SETS) -> None:
    for i in range(number):
        (host.spool / f"d{i:02}.toml").write_text('kernel = "none"\nconvert = "keep"\n')
        noise = random.Random(i).randbytes(4096)  # noqa: S311 (only not to be all alike)
        (host.spool / f"d{i:02}.img").write_bytes(noise)


def once(host: Host, listener: Recorder, *, now: Callable[[], float] = time.time) -> list[str]:
    """A run of the service; the states of the sets."""
    settings = load(host.config, environ={})
    with closing(open_ledger(settings.state.dir)) as book:
        records = Service(settings, listener=listener, ledger=book, clocks=Clocks(now=now)).once()
    return [record.state for record in records]


def alerts(listener: Recorder) -> list[str]:
    return [event.sentence for event in listener.events if event.level in ("warning", "error")]


@contextmanager
def spooler(
    host: Host,
    listener: Recorder,
    *,
    now: Callable[[], float],
    monotonic: Callable[[], float] | None = None,
) -> Iterator[Spooler]:
    """A spooler with made-up clocks: one for both if `monotonic` is not given."""
    settings = load(host.config, environ={})
    with closing(open_ledger(settings.state.dir)) as book:
        clouds = CloudAccess(settings.clouds, uploads=1, bucket="images", clock=monotonic or now)
        stopping = threading.Event()
        tools = AttemptTools(
            book,
            settings.state.dir,
            clouds,
            Reporting(listener),
            stopping,
            work=WorkSettings(),
            slots=UploadSlots(1),
            configured_bucket="images",
            clocks=Clocks(now=now, monotonic=monotonic or now),
            patience=RetryPolicy(tries=()),
        )
        made = Spooler(settings, states=SetStates(book), tools=tools, ended=lambda: None)
        try:
            yield made
        finally:
            made.close()


def test_an_outage_is_reported_once_and_its_sets_are_taken_when_it_is_over(
    host: Host, listener: Recorder
) -> None:
    host.cloud.stop()
    drop_disks(host)
    settings = load(host.config, environ={})
    with (
        closing(open_ledger(settings.state.dir)) as book,
        daemon_thread(Service(settings, listener=listener, ledger=book)),
    ):
        until(lambda: len(list(host.spool.glob("*.uec.error"))) == SETS, "each set to say why")
        assert "as soon as the cloud answers" in (host.spool / "d07.uec.error").read_text()
        host.cloud.start()
        until(lambda: len(list(host.spool.glob("*.emi"))) == SETS, "the images")
    (alert,) = alerts(listener)
    assert alert.startswith("Cloud default is away: ")
    assert alert.endswith(f"; {SETS} sets wait for it")
    assert [s for s in listener.sentences(Kind.READY) if "again" in s] == ["Cloud default can be used again"]


def test_while_a_cloud_is_away_each_set_does_not_ask_it(host: Host, listener: Recorder) -> None:
    host.cloud.faults.arm("down")
    drop_disks(host)
    assert once(host, listener) == ["deferred"] * SETS
    # Two at work when it is met, and the probe of the one that comes first.
    assert len(host.cloud.requests) <= 8
    assert host.report("d11")["error"]["what"].startswith("cloud default")


def test_a_cloud_away_before_and_after_two_days_without_a_service_rejects_nothing(
    host: Host, listener: Recorder
) -> None:
    drop_disks(host, 3)
    host.cloud.stop()
    assert once(host, listener, now=lambda: 1000.0) == ["deferred"] * 3
    late = 1001.0 + GIVE_UP_SECONDS
    assert once(host, listener, now=lambda: late) == ["deferred"] * 3
    host.cloud.start()
    assert once(host, listener, now=lambda: late + 120) == ["done"] * 3


def test_the_cap_is_kept_for_sets_that_only_wait(host: Host, listener: Recorder) -> None:
    moment = [1000.0]
    drop_disks(host, 3)
    host.cloud.stop()
    with spooler(host, listener, now=lambda: moment[0]) as made:
        for moment[0], state in ((1000.0, "waiting"), (1010.0, "deferred"), (9000.0, "deferred")):
            made.scan()
            made.drain()
            assert [record.state for record in made.schedule.present()] == [state] * 3
        assert {record.attempt for record in made.schedule.present()} == {1}, "waiting is no attempt"
        moment[0] = 1020.0 + GIVE_UP_SECONDS
        made.scan()
        made.drain()
        assert [record.state for record in made.schedule.present()] == ["rejected"] * 3
    assert "for two days" in (host.spool / "d02.uec.error").read_text()
    (host.spool / "d01.img").touch()
    late = moment[0] + 60
    assert once(host, listener, now=lambda: late) == ["rejected", "deferred", "rejected"]
    host.cloud.start()
    assert once(host, listener, now=lambda: late + 60) == ["rejected", "done", "rejected"]


@pytest.mark.parametrize("jump", [-30 * 86400.0, 30 * 86400.0], ids=["back", "ahead"])
def test_a_clock_that_is_set_changes_no_waiting_time(host: Host, listener: Recorder, jump: float) -> None:
    wall, count = [1e9], [0.0]
    drop_disks(host, 1)
    host.cloud.faults.arm("put-503", 1e6)
    attempts = []
    with spooler(host, listener, now=lambda: wall[0], monotonic=lambda: count[0]) as made:
        for seconds, by in ((0, 0.0), (10, 0.0), (5, jump), (10, 0.0), (10, 0.0), (10, 0.0)):
            count[0] += seconds
            wall[0] += seconds + by
            made.scan()
            made.drain()
            attempts += [record.attempt for record in made.schedule.present()]
    assert attempts == [0, 1, 1, 1, 1, 2]


def test_a_rejected_set_is_not_tried_again_at_a_restart_or_by_any_number_of_scans(
    host: Host, listener: Recorder
) -> None:
    drop_disks(host, 2)
    (host.spool / "d00.toml").write_text('kernel = "eki-00000000"\nconvert = "keep"\n')
    assert once(host, listener)[1] == "done"
    reported = len(listener.events)
    asked = len(host.cloud.requests)
    with spooler(host, listener, now=time.time) as made:
        for _ in range(100):
            made.scan()
            made.drain()
    assert once(host, listener) == ["rejected", "done"]
    assert len(host.cloud.requests) == asked
    assert [e.sentence for e in listener.events[reported:] if e.kind in (Kind.WORKING, Kind.REJECTED)] == []


def test_many_sets_that_share_kernel_and_ramdisk_register_them_once(
    host: Host, listener: Recorder, small_set: RealSet
) -> None:
    host.configure(host.config.read_text() + "\n[work]\nsets = 8\n")
    drop_disks(host, 24)
    host.drop(small_set.kernel, small_set.ramdisk, names=["vmlinuz", "initrd"])
    for sidecar in host.spool.glob("*.toml"):
        sidecar.write_text('kernel = "vmlinuz"\nramdisk = "initrd"\nconvert = "keep"\n')
    assert once(host, listener) == ["done"] * 24
    assert len(host.cloud.calls("RegisterImage")) == 26
    puts = [seen.path for seen in host.cloud.calls("PutObject")]
    assert len(puts) == len(set(puts))
    assert len({host.report(f"d{i:02}")["ids"]["kernel"] for i in range(24)}) == 1
