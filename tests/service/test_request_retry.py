"""A cloud that fails now and then: what is asked again in place, and what it does not cost."""

import math
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import opened_service
from tests.support.host import Host, cloud_host
from tests.support.listener import Recorder
from tests.support.sizes import MIB
from tests.support.spool_files import drop_image
from tests.support.waiting import until
from uecwatchd.clouds.request_retry import RetryPolicy, retry
from uecwatchd.errors import CloudAway, Deferred, Rejected, StillAway, Stopped
from uecwatchd.ledger.records import SetRecord

# As many tries as there are, with pauses that nobody notices.
QUICK = RetryPolicy(tries=(0.01, 0.02, 0.04))
LONG = RetryPolicy(tries=(600.0,))
NO_TRIES = RetryPolicy(tries=())
STOP_SECONDS = 5.0


def drop(host: Host, *, mib: int = 25) -> None:
    """A disk of noise: a part for each ten MiB, and one more."""
    drop_image(host.spool, "karmic", random.Random(7).randbytes(mib * MIB))  # noqa: S311


def once(
    host: Host,
    listener: Recorder,
    patience: RetryPolicy = QUICK,
    now: Callable[[], float] = time.time,
) -> SetRecord:
    with opened_service(host, listener, patience=patience, now=now) as made:
        (record,) = made.once()
    return record


def parts_put(host: Host) -> int:
    return len([seen for seen in host.cloud.calls("PutObject") if ".part." in seen.path and not seen.code])


@pytest.mark.parametrize(
    ("fault", "value"),
    [("put-503-every", 2), ("put-503", 3), ("put-500", 3), ("reset-in-body", 4), ("wrong-etag", 2)],
)
def test_a_part_that_gets_no_good_answer_is_sent_again_in_place(
    host: Host, listener: Recorder, fault: str, value: float
) -> None:
    drop(host)
    host.cloud.faults.arm(fault, value)
    record = once(host, listener)
    assert (record.state, record.attempt) == ("done", 1), record.error
    assert host.cloud.faults.struck()[fault] >= 2


def test_each_try_is_signed_again(listener: Recorder, tmp_path: Path) -> None:
    with cloud_host(tmp_path, "euca3") as host:
        cloud = host.cloud
        drop(host, mib=15)
        cloud.faults.arm("put-503", 2)
        assert once(host, listener).attempt == 1
        assert "SignatureReplayed" not in {seen.code for seen in cloud.refusals}


@pytest.mark.parametrize("spare", range(2, 14, 3))
def test_a_request_to_ec2_or_s3_that_fails_once_defers_no_set(
    host: Host, listener: Recorder, spare: int
) -> None:
    drop(host, mib=1)
    host.cloud.faults.arm("down", 1, spare=spare)
    record = once(host, listener)
    assert (record.state, record.attempt, record.target.remarks) == ("done", 1, ()), record.error
    assert len(host.cloud.images) == len(host.cloud.calls("RegisterImage")) == 1


def test_a_registration_whose_answer_is_lost_is_looked_for_in_place(host: Host, listener: Recorder) -> None:
    drop(host, mib=1)
    host.cloud.faults.arm("lost-answer")
    record = once(host, listener)
    assert (record.state, record.attempt) == ("done", 1)
    assert len(host.cloud.calls("RegisterImage")) == len(host.cloud.images) == 1


def test_a_cloud_that_is_away_is_not_asked_again_in_place(host: Host, listener: Recorder) -> None:
    drop(host, mib=1)
    host.cloud.faults.arm("down")
    record = once(host, listener, LONG)
    assert (record.state, record.next_retry) == ("deferred", None)


@pytest.mark.parametrize("order", ["stop", "hold"])
def test_a_stop_and_a_hold_are_heard_in_the_pause_between_two_tries(
    host: Host, listener: Recorder, order: str
) -> None:
    drop(host, mib=15)
    host.cloud.faults.arm("put-503", math.inf)
    with opened_service(host, listener, patience=LONG) as made:
        loop = threading.Thread(target=made.run, args=(QuietNotifier(),))
        loop.start()
        until(lambda: host.cloud.faults.struck().get("put-503", 0) >= 1)
        began = time.monotonic()
        if order == "hold":
            host.ask("hold", "karmic")
            until(lambda: any("stopped at" in event.sentence for event in listener.events))
            assert time.monotonic() - began < STOP_SECONDS
        made.stop()
        loop.join(STOP_SECONDS)
        assert not loop.is_alive()
    assert host.report("karmic")["state"] == "queued"


class QuietNotifier:
    """Nothing is reported."""

    watchdog_seconds = None

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_: None


def test_an_upload_with_progress_waits_no_longer_each_time(host: Host, listener: Recorder) -> None:
    host.configure(f"{host.config.read_text()}\n[work]\nuploads = 1\n")
    drop(host, mib=25)
    host.cloud.faults.arm("put-503-every", 2)
    moment = [1e9]
    waits = []
    while (record := once(host, listener, NO_TRIES, lambda: moment[0])).state == "deferred":
        assert record.next_retry
        assert record.first_failure == moment[0], "its two days begin again"
        waits.append(record.next_retry - moment[0])
        moment[0] = record.next_retry
    assert record.state == "done"
    assert waits == [30.0] * len(waits)
    assert len(waits) >= 2


def test_an_upload_without_progress_has_longer_pauses(host: Host, listener: Recorder) -> None:
    host.configure(f"{host.config.read_text()}\n[work]\nuploads = 1\n")
    drop(host)
    host.cloud.faults.arm("put-503", math.inf, spare=2)
    moment = [1e9]
    first = once(host, listener, NO_TRIES, lambda: moment[0])
    assert (first.deferrals, first.target.images[0].parts) == (1, 2)
    for deferrals in (2, 3):
        moment[0] += 3600
        (one, _) = host.cloud.objects("uec-images")
        host.cloud.backend.store.remove("uec-images", one.key)
        host.cloud.faults.arm("put-503", math.inf, spare=1)
        again_deferred = once(host, listener, NO_TRIES, lambda: moment[0])
        assert again_deferred.deferrals == deferrals


class Script:
    """Answers in turn, and the pauses in between."""

    def __init__(self, *answers: str | Exception) -> None:
        self._answers = iter(answers)
        self.slept: list[float] = []

    def ask(self) -> str:
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def again(self) -> str:
        return retry(self.ask, patience=RetryPolicy(), sleep=self.slept.append, spread=lambda: 0.5)


AWAY = CloudAway("the cloud", "it is busy", "Wait.", request_id="r-1")


@pytest.mark.parametrize("times", [0, 1, 2, 3])
def test_a_request_is_repeated_until_the_answer_is_good(times: int) -> None:
    script = Script(*[AWAY] * times, "good")
    assert script.again() == "good"
    assert script.slept == [1.5, 3.0, 6.0][:times]


def test_pauses_are_from_one_to_eight_seconds() -> None:
    for chance in (0.0, 1.0):
        assert all(1.0 <= pause * (1 + chance) <= 8.0 for pause in RetryPolicy().tries)


def test_a_request_without_a_good_answer_fails_with_the_last_reason() -> None:
    with pytest.raises(StillAway, match="it is busy") as raised:
        Script(*[AWAY] * 4).again()
    assert raised.value.request_id == "r-1"


def test_a_deferral_is_not_reported_as_a_cloud_that_is_away() -> None:
    with pytest.raises(Deferred) as raised:
        Script(*[Deferred("part 1", "other bytes", "Wait.")] * 4).again()
    assert not isinstance(raised.value, CloudAway)


@pytest.mark.parametrize("error", [Rejected("a", "b", "c"), Stopped("a", "b", "c")])
def test_a_permanent_refusal_is_not_repeated(error: Exception) -> None:
    script = Script(error)
    with pytest.raises(type(error)):
        script.again()
    assert script.slept == []
