"""Access to the embedded cloud over HTTP; only the clock is made up."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError
from pydantic import SecretStr

from tests.support.clock import Clock
from tests.support.cloud_keys import with_keys
from uecwatchd.clouds.access import CloudAccess
from uecwatchd.clouds.availability import (
    FIRST_DELAY_SECONDS,
    FIRST_OUTAGE_DELAY_SECONDS,
    LONGEST_DELAY_SECONDS,
    LONGEST_OUTAGE_DELAY_SECONDS,
    STEADY_SECONDS,
)
from uecwatchd.clouds.client import MOST_REQUESTS, Cloud
from uecwatchd.clouds.detect import DetectedDialect
from uecwatchd.clouds.dialects import EUCA3, SANDBOX, UEC
from uecwatchd.config.records import CloudSettings
from uecwatchd.errors import CloudAway, Halted, UecError, Unforeseen
from uecwatchd.sandbox.server import Sandbox
from uecwatchd.types import DetectedCloud

REASON = Halted("cloud default", "the clock is wrong", "Set it.")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sandbox]:
    with Sandbox(with_keys(tmp_path / "cloud")) as cloud:
        yield cloud


def settings(server: Sandbox) -> CloudSettings:
    return CloudSettings(name="default", dialect="sandbox", eucarc=server.eucarc)


def clouds(server: Sandbox, clock: Clock, bucket: str = "images") -> CloudAccess:
    return CloudAccess({"default": settings(server)}, uploads=1, bucket=bucket, clock=clock)


def test_all_threads_share_the_clients(server: Sandbox, clock: Clock) -> None:
    access = clouds(server, clock)
    assert access.enter("default") is access.enter("default")
    assert not access.availability.suspended()


def test_a_suspended_cloud_raises_the_reason_and_is_not_asked(server: Sandbox, clock: Clock) -> None:
    access = clouds(server, clock)
    access.suspend("default", REASON)
    asked = len(server.requests)
    with pytest.raises(Halted) as caught:
        access.enter("default")
    assert caught.value is REASON
    assert len(server.requests) == asked


def test_a_probe_that_is_due_resumes_a_cloud(server: Sandbox, clock: Clock) -> None:
    access = clouds(server, clock)
    access.suspend("default", REASON)
    clock.now = FIRST_DELAY_SECONDS - 1
    assert access.probe() == ()
    clock.now = FIRST_DELAY_SECONDS
    assert access.probe() == ("default",)
    assert access.enter("default").name == "default"


def test_credentials_are_read_again_for_a_probe(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    eucarc = tmp_path / "eucarc"
    good = server.eucarc.read_text()
    eucarc.write_text(good.replace("EUCALYPTUS_CERT=", "NOTHING="))
    wrong = replace(settings(server), eucarc=eucarc)
    access = CloudAccess({"default": wrong}, uploads=1, bucket="images", clock=clock)
    with pytest.raises(Halted) as caught:
        access.enter("default")
    access.suspend("default", caught.value)
    clock.now += FIRST_DELAY_SECONDS
    assert access.probe() == ()
    for file in server.eucarc.parent.iterdir():
        if file.suffix == ".pem":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    eucarc.write_text(good)
    clock.now += 3 * FIRST_DELAY_SECONDS
    assert access.probe() == ("default",)


def test_a_cloud_stays_suspended_while_the_bucket_is_somebody_elses(server: Sandbox, clock: Clock) -> None:
    server.grant_bucket_to_other("theirs")
    access = clouds(server, clock, bucket="theirs")
    access.suspend("default", REASON)
    clock.now += FIRST_DELAY_SECONDS
    assert access.probe() == ()
    assert "another account" in access.availability.suspended()["default"].why, (
        "the newer reason is the one to act on"
    )


def test_a_cloud_that_is_away_leaves_the_reason_as_it_was(server: Sandbox, clock: Clock) -> None:
    access = clouds(server, clock)
    access.suspend("default", REASON)
    server.stop()
    clock.now += FIRST_DELAY_SECONDS
    assert access.probe() == ()
    assert access.availability.suspended()["default"] is REASON
    server.start()
    clock.now += 3 * FIRST_DELAY_SECONDS
    assert access.probe() == ("default",)


def test_a_lasting_halt_is_probed_less_and_less(server: Sandbox, clock: Clock) -> None:
    server.grant_bucket_to_other("theirs")
    one = {"default": settings(server)}
    access = CloudAccess(one, uploads=1, bucket="theirs", clock=clock, random=lambda: 0.5)
    access.suspend("default", REASON)
    waits = []
    for _ in range(6):
        due = access.availability.next_probe()
        assert due is not None
        waits.append(due - clock.now)
        clock.now = due
        assert access.probe() == ()
    assert waits == [30.0, 60.0, 120.0, 240.0, 300.0, 300.0]


def test_a_cloud_stays_suspended_when_the_configuration_is_read_again(server: Sandbox, clock: Clock) -> None:
    before, after = clouds(server, clock), clouds(server, clock)
    before.suspend("default", REASON)
    after.take_over(before)
    assert after.availability.suspended() == {"default": REASON}
    assert after.availability.next_probe() == clock.now, "but it may have been repaired"
    other = CloudAccess(
        {"default": replace(settings(server), region="elsewhere")}, uploads=1, bucket="images", clock=clock
    )
    other.take_over(before)
    assert not other.availability.suspended()


def test_a_cloud_that_is_suspended_again_and_again_is_probed_less_and_less(
    server: Sandbox, clock: Clock
) -> None:
    access = clouds(server, clock)
    delays = []
    for _ in range(9):
        access.suspend("default", REASON)
        began = clock.now
        while not access.probe():
            clock.now += FIRST_DELAY_SECONDS
        delays.append(clock.now - began)
    assert delays[:3] == [30.0, 60.0, 120.0]
    assert delays[-1] == LONGEST_DELAY_SECONDS
    access.availability.note_success("default")
    access.suspend("default", REASON)
    clock.now += FIRST_DELAY_SECONDS
    assert access.probe() == ("default",)


def test_a_wrong_secret_keeps_a_cloud_suspended(server: Sandbox, clock: Clock) -> None:
    wrong = replace(settings(server), secret_key=SecretStr("wrong"))
    access = CloudAccess({"default": wrong}, uploads=1, bucket="images", clock=clock)
    access.suspend("default", REASON)
    clock.now += FIRST_DELAY_SECONDS
    assert access.probe() == ()
    assert "secret" in access.availability.suspended()["default"].why


class Detections:
    """Record the clouds that were detected, each with its generation and the reason."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str, str]] = []

    def __call__(self, cloud: Cloud, found: DetectedDialect) -> None:
        self.found.append((cloud.name, found.dialect.name, found.why))


def unnamed(
    server: Sandbox, clock: Clock, met: Detections, *, before: dict[str, DetectedCloud] | None = None
) -> CloudAccess:
    one = {"default": replace(settings(server), dialect="auto")}
    return CloudAccess(one, uploads=1, bucket="images", before=before, on_detected=met, clock=clock)


def test_a_cloud_that_has_no_name_for_its_generation_is_asked_what_it_is(
    server: Sandbox, clock: Clock
) -> None:
    met = Detections()
    access = unnamed(server, clock, met)
    assert access.dialects() == {"default": UEC}, "the one that wants the most of a set"
    assert access.probe_due()
    access.detect()
    assert access.dialects() == {"default": SANDBOX}
    assert met.found == [("default", "sandbox", "its answers come from uecwatchd-sandbox")]
    assert not access.probe_due()
    asked = len(server.requests)
    assert access.enter("default").dialect == SANDBOX
    assert len(server.requests) == asked


def test_the_known_generation_is_used_until_the_cloud_can_be_asked(server: Sandbox, clock: Clock) -> None:
    met = Detections()
    server.stop()
    access = unnamed(server, clock, met, before={"default": DetectedCloud("euca3", "")})
    access.detect()
    assert access.dialects() == {"default": EUCA3}
    assert access.unidentified() == {}
    assert met.found == []
    assert not access.probe_due(), "not again at once"
    server.start()
    clock.now += FIRST_DELAY_SECONDS
    assert access.probe_due()
    access.probe()
    assert access.dialects() == {"default": SANDBOX}


def test_a_configured_generation_is_not_asked_for(server: Sandbox, clock: Clock) -> None:
    access = clouds(server, clock)
    access.detect()
    assert not server.requests
    assert access.dialects() == {"default": SANDBOX}


def test_why_a_cloud_is_not_known_is_reported_once(tmp_path: Path, clock: Clock) -> None:
    missed: list[UecError] = []
    with Sandbox(with_keys(tmp_path), dialect="euca4") as server:
        wrong = replace(settings(server), dialect="auto", secret_key=SecretStr("wrong"))
        access = CloudAccess(
            {"default": wrong},
            uploads=1,
            bucket="images",
            on_halt=lambda _, error: missed.append(error),
            clock=clock,
        )
        assert access.unidentified() == {"default": None}
        access.detect()
        access.detect()
    (error,) = map(str, missed)
    assert "secret key" in error
    assert str(access.unidentified()["default"]) == error
    assert access.availability.suspended(), "it is our side that is wrong"


def test_one_request_that_failed_suspends_no_cloud(server: Sandbox, clock: Clock) -> None:
    access = clouds(server, clock)
    assert not access.is_away("default")
    assert not access.availability.suspended()


def test_a_cloud_that_is_away_is_probed_less_often_and_resumes_when_it_answers(
    server: Sandbox, clock: Clock
) -> None:
    one = {"default": settings(server)}
    access = CloudAccess(one, uploads=1, bucket="images", clock=clock, random=lambda: 0.5)
    server.faults.arm("down")
    assert access.is_away("default")
    asked = len(server.requests)
    with pytest.raises(CloudAway):
        access.enter("default")
    assert access.is_away("default")
    assert len(server.requests) == asked, "no request while it is suspended"
    for _ in range(3):
        probe_at = access.availability.next_probe()
        assert probe_at is not None
        assert probe_at - clock.now == FIRST_OUTAGE_DELAY_SECONDS
        clock.now = probe_at
        assert access.probe() == ()
    server.faults.clear()
    clock.now += LONGEST_OUTAGE_DELAY_SECONDS
    assert access.probe() == ("default",)
    assert access.enter("default").name == "default"


@pytest.mark.parametrize("lasted", [1.0, 45.0])
def test_a_server_that_was_started_again_is_noticed_within_seconds(
    lasted: float, server: Sandbox, clock: Clock
) -> None:
    access = clouds(server, clock)
    server.stop()
    assert access.is_away("default")
    began = clock.now
    while clock.now - began < lasted:
        probe_at = access.availability.next_probe()
        assert probe_at is not None
        clock.now = max(clock.now, probe_at)
        assert access.probe() == ()
    server.start()
    back = clock.now
    while not access.probe():
        clock.now += 0.5
    assert clock.now - back <= 1.1 * FIRST_OUTAGE_DELAY_SECONDS + 1e-6


def test_a_request_that_fails_makes_room_for_the_next(server: Sandbox, clock: Clock) -> None:
    cloud = clouds(server, clock).enter("default")
    server.stop()
    for _ in range(MOST_REQUESTS + 1):
        with pytest.raises(EndpointConnectionError):
            cloud.s3.list_buckets()


def test_requests_beyond_the_limit_wait_for_their_turn(server: Sandbox, clock: Clock) -> None:
    cloud = clouds(server, clock).enter("default")
    server.faults.arm("slow", 0.5)
    began = time.monotonic()
    with ThreadPoolExecutor(MOST_REQUESTS + 1) as pool:
        list(pool.map(lambda _: cloud.s3.list_buckets(), range(MOST_REQUESTS + 1)))
    assert time.monotonic() - began >= 1.0


def test_an_unexpected_error_is_probed_like_an_outage(server: Sandbox, clock: Clock) -> None:
    odd = replace(settings(server), user_cert=Path("/etc\0/cert.pem"))
    access = CloudAccess({"default": odd}, uploads=1, bucket="images", clock=clock, random=lambda: 0.5)
    assert access.is_away("default"), "whatever it was, all sets would meet it"
    error = access.availability.suspended()["default"]
    assert isinstance(error, Unforeseen)
    assert "ValueError: embedded null byte" in error.why
    assert "Traceback" in error.trace
    with pytest.raises(CloudAway):
        access.enter("default")
    for _ in range(3):
        assert not access.probe_due(), "not again at once"
        clock.now += FIRST_OUTAGE_DELAY_SECONDS
        assert access.probe() == ()


def test_a_cloud_resumes_after_an_unexpected_error(server: Sandbox, clock: Clock) -> None:
    def met(cloud: Cloud, found: DetectedDialect) -> None:
        raise KeyError(cloud.name)

    one = {"default": replace(settings(server), dialect="auto")}
    access = CloudAccess(one, uploads=1, bucket="images", on_detected=met, clock=clock, random=lambda: 0.5)
    access.detect()
    assert "KeyError: 'default'" in str(access.availability.suspended()["default"])
    clock.now += FIRST_OUTAGE_DELAY_SECONDS
    assert access.probe() == ("default",)


def test_a_halt_after_an_outage_is_passed_on_by_each_probe(tmp_path: Path, clock: Clock) -> None:
    missed: list[UecError] = []
    with Sandbox(with_keys(tmp_path), dialect="euca4") as server:
        wrong = replace(settings(server), dialect="auto", secret_key=SecretStr("wrong"))
        access = CloudAccess(
            {"default": wrong},
            uploads=1,
            bucket="images",
            on_halt=lambda _, error: missed.append(error),
            clock=clock,
        )
        server.stop()
        access.detect()
        assert missed == [], "an outage is reported with the sets that wait"
        server.start()
        for _ in range(4):
            clock.now += 2 * FIRST_DELAY_SECONDS
            assert access.probe() == ()
    assert len(missed) == 4
    assert all("secret key" in str(error) for error in missed)


def test_a_cloud_that_comes_and_goes_is_asked_less_and_less(server: Sandbox, clock: Clock) -> None:
    access = CloudAccess(
        {"default": settings(server)}, uploads=1, bucket="images", clock=clock, random=lambda: 0.5
    )
    waits = []
    for _ in range(4):
        server.faults.arm("down")
        assert access.is_away("default")
        server.faults.clear()
        probe_at = access.availability.next_probe()
        assert probe_at is not None
        waits.append(probe_at - clock.now)
        clock.now = probe_at
        assert access.probe() == ("default",)
    assert waits == [5.0, 15.0, 45.0, 135.0]
    assert access.availability.suspensions("default") == 4
    access.availability.note_success("default")
    assert access.availability.suspensions("default") == 0


def test_a_suspension_after_a_long_time_in_service_counts_as_the_first(server: Sandbox, clock: Clock) -> None:
    access = clouds(server, clock)
    for _ in range(3):
        access.suspend("default", REASON)
        clock.now += FIRST_DELAY_SECONDS
        assert access.probe() == ("default",)
        clock.now += STEADY_SECONDS + 1
