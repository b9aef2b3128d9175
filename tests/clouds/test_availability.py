"""Real gates before the embedded cloud; only the clock is made up."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError
from pydantic import SecretStr

from tests.support.clock import Clock
from uecwatchd.clouds.availability import (
    FIRST_DELAY_SECONDS,
    FIRST_OUTAGE_DELAY_SECONDS,
    LONGEST_DELAY_SECONDS,
    LONGEST_OUTAGE_DELAY_SECONDS,
    STEADY_SECONDS,
    Closed,
    Gates,
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
    with Sandbox(tmp_path / "cloud") as cloud:
        yield cloud


def settings(server: Sandbox) -> CloudSettings:
    return CloudSettings(name="default", dialect="sandbox", eucarc=server.eucarc)


def gates(server: Sandbox, clock: Clock, bucket: str = "images") -> Gates:
    return Gates({"default": settings(server)}, uploads=1, bucket=bucket, clock=clock)


def test_an_open_gate_gives_the_same_clients_to_all(server: Sandbox, clock: Clock) -> None:
    gate = gates(server, clock)
    assert gate.enter("default") is gate.enter("default")
    assert not gate.closed()


def test_a_closed_gate_raises_what_closed_it_without_asking_the_cloud(server: Sandbox, clock: Clock) -> None:
    gate = gates(server, clock)
    gate.close("default", REASON)
    asked = len(server.requests)
    with pytest.raises(Halted) as caught:
        gate.enter("default")
    assert caught.value is REASON
    assert len(server.requests) == asked


def test_a_probe_opens_a_gate_once_its_time_has_come(server: Sandbox, clock: Clock) -> None:
    gate = gates(server, clock)
    gate.close("default", REASON)
    clock.now = FIRST_DELAY_SECONDS - 1
    assert gate.probe() == ()
    clock.now = FIRST_DELAY_SECONDS
    assert gate.probe() == ("default",)
    assert gate.enter("default").name == "default"


def test_credentials_are_read_anew_for_a_probe(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    eucarc = tmp_path / "eucarc"
    good = server.eucarc.read_text()
    eucarc.write_text(good.replace("EUCALYPTUS_CERT=", "NOTHING="))
    wrong = replace(settings(server), eucarc=eucarc)
    gate = Gates({"default": wrong}, uploads=1, bucket="images", clock=clock)
    with pytest.raises(Halted) as caught:
        gate.enter("default")
    gate.close("default", caught.value)
    clock.now += FIRST_DELAY_SECONDS
    assert gate.probe() == ()
    for file in server.eucarc.parent.iterdir():
        if file.suffix == ".pem":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    eucarc.write_text(good)
    clock.now += 3 * FIRST_DELAY_SECONDS
    assert gate.probe() == ("default",)


def test_a_gate_stays_closed_while_the_bucket_is_somebody_elses(server: Sandbox, clock: Clock) -> None:
    server.grant_bucket_to_other("theirs")
    gate = gates(server, clock, bucket="theirs")
    gate.close("default", REASON)
    clock.now += FIRST_DELAY_SECONDS
    assert gate.probe() == ()
    assert "another account" in gate.closed()["default"].why, "the newer reason is the one to act on"


def test_a_cloud_that_is_away_leaves_the_reason_as_it_was(server: Sandbox, clock: Clock) -> None:
    gate = gates(server, clock)
    gate.close("default", REASON)
    server.stop()
    clock.now += FIRST_DELAY_SECONDS
    assert gate.probe() == ()
    assert gate.closed()["default"] is REASON
    server.start()
    clock.now += 3 * FIRST_DELAY_SECONDS
    assert gate.probe() == ("default",)


def test_a_halt_that_lasts_is_probed_less_and_less(server: Sandbox, clock: Clock) -> None:
    server.grant_bucket_to_other("theirs")
    clouds = {"default": settings(server)}
    gate = Gates(clouds, uploads=1, bucket="theirs", clock=clock, spread=lambda: 0.5)
    gate.close("default", REASON)
    waits = []
    for _ in range(6):
        due = gate.next_probe()
        assert due is not None
        waits.append(due - clock.now)
        clock.now = due
        assert gate.probe() == ()
    assert waits == [30.0, 60.0, 120.0, 240.0, 300.0, 300.0]


def test_what_is_closed_stays_closed_when_the_configuration_is_read_again(
    server: Sandbox, clock: Clock
) -> None:
    before, after = gates(server, clock), gates(server, clock)
    before.close("default", REASON)
    after.go_on_from(before)
    assert after.closed() == {"default": REASON}
    assert after.next_probe() == clock.now, "but it may have been mended"
    other = Gates(
        {"default": replace(settings(server), region="elsewhere")}, uploads=1, bucket="images", clock=clock
    )
    other.go_on_from(before)
    assert not other.closed()


def test_a_gate_that_closes_again_and_again_is_probed_less_and_less(server: Sandbox, clock: Clock) -> None:
    gate = gates(server, clock)
    delays = []
    for _ in range(9):
        gate.close("default", REASON)
        began = clock.now
        while not gate.probe():
            clock.now += FIRST_DELAY_SECONDS
        delays.append(clock.now - began)
    assert delays[:3] == [30.0, 60.0, 120.0]
    assert delays[-1] == LONGEST_DELAY_SECONDS
    gate.came_through("default")
    gate.close("default", REASON)
    clock.now += FIRST_DELAY_SECONDS
    assert gate.probe() == ("default",)


def test_a_wrong_secret_keeps_the_gate_closed(server: Sandbox, clock: Clock) -> None:
    wrong = replace(settings(server), secret_key=SecretStr("wrong"))
    gate = Gates({"default": wrong}, uploads=1, bucket="images", clock=clock)
    gate.close("default", REASON)
    clock.now += FIRST_DELAY_SECONDS
    assert gate.probe() == ()
    assert "secret" in gate.closed()["default"].why


class Met:
    """Whom a gate has met, and why it took them for what they are."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str, str]] = []

    def __call__(self, cloud: Cloud, found: DetectedDialect) -> None:
        self.found.append((cloud.name, found.dialect.name, found.why))


def unnamed(
    server: Sandbox, clock: Clock, met: Met, *, before: dict[str, DetectedCloud] | None = None
) -> Gates:
    clouds = {"default": replace(settings(server), dialect="auto")}
    return Gates(clouds, uploads=1, bucket="images", before=before, met=met, clock=clock)


def test_a_cloud_that_has_no_name_for_its_generation_is_asked_what_it_is(
    server: Sandbox, clock: Clock
) -> None:
    met = Met()
    gate = unnamed(server, clock, met)
    assert gate.dialects() == {"default": UEC}, "the one that wants the most of a set"
    assert gate.probe_due()
    gate.recognise()
    assert gate.dialects() == {"default": SANDBOX}
    assert met.found == [("default", "sandbox", "its answers come from uecwatchd-sandbox")]
    assert not gate.probe_due()
    asked = len(server.requests)
    assert gate.enter("default").dialect == SANDBOX
    assert len(server.requests) == asked


def test_a_cloud_is_taken_for_what_it_was_until_it_can_be_asked(server: Sandbox, clock: Clock) -> None:
    met = Met()
    server.stop()
    gate = unnamed(server, clock, met, before={"default": DetectedCloud("euca3", "")})
    gate.recognise()
    assert gate.dialects() == {"default": EUCA3}
    assert gate.strange() == {}
    assert met.found == []
    assert not gate.probe_due(), "not again at once"
    server.start()
    clock.now += FIRST_DELAY_SECONDS
    assert gate.probe_due()
    gate.probe()
    assert gate.dialects() == {"default": SANDBOX}


def test_a_configured_generation_is_not_asked_for(server: Sandbox, clock: Clock) -> None:
    gate = gates(server, clock)
    gate.recognise()
    assert not server.requests
    assert gate.dialects() == {"default": SANDBOX}


def test_why_a_cloud_is_not_known_is_told_once(tmp_path: Path, clock: Clock) -> None:
    missed: list[UecError] = []
    with Sandbox(tmp_path, dialect="euca4") as server:
        wrong = replace(settings(server), dialect="auto", secret_key=SecretStr("wrong"))
        gate = Gates({"default": wrong}, uploads=1, bucket="images", missed=missed.append, clock=clock)
        assert gate.strange() == {"default": None}
        gate.recognise()
        gate.recognise()
    (told,) = map(str, missed)
    assert "secret key" in told
    assert str(gate.strange()["default"]) == told
    assert gate.closed(), "it is our side that is wrong"


def test_a_request_that_failed_alone_closes_no_gate(server: Sandbox, clock: Clock) -> None:
    gate = gates(server, clock)
    assert not gate.away("default")
    assert not gate.closed()


def test_a_cloud_that_is_away_is_asked_less_and_less_and_lets_in_when_it_answers(
    server: Sandbox, clock: Clock
) -> None:
    clouds = {"default": settings(server)}
    gate = Gates(clouds, uploads=1, bucket="images", clock=clock, spread=lambda: 0.5)
    server.faults.arm("down")
    assert gate.away("default")
    asked = len(server.requests)
    with pytest.raises(CloudAway):
        gate.enter("default")
    assert gate.away("default")
    assert len(server.requests) == asked, "a closed gate answers for the cloud"
    for _ in range(3):
        probe_at = gate.next_probe()
        assert probe_at is not None
        assert probe_at - clock.now == FIRST_OUTAGE_DELAY_SECONDS
        clock.now = probe_at
        assert gate.probe() == ()
    server.faults.clear()
    clock.now += LONGEST_OUTAGE_DELAY_SECONDS
    assert gate.probe() == ("default",)
    assert gate.enter("default").name == "default"


def test_an_outage_is_probed_at_one_pace_for_three_minutes_and_then_less_and_less() -> None:
    closed, now, waits = Closed(CloudAway("cloud", "away", "Wait."), 0.0, 5.0, 5.0), 0.0, []
    while now < 3600:
        now = closed.probe_at
        delay = closed.next_delay(now)
        waits.append(delay)
        closed = replace(closed, probe_at=now + delay, delay=delay)
    assert waits[:35] == [FIRST_OUTAGE_DELAY_SECONDS] * 35
    assert waits[35:40] == [10.0, 20.0, 40.0, 80.0, 160.0]
    assert set(waits[40:]) == {LONGEST_OUTAGE_DELAY_SECONDS}
    assert len(waits) < 60, "in an hour"


@pytest.mark.parametrize("lasted", [1.0, 45.0])
def test_a_server_that_was_started_again_is_noticed_within_seconds(
    lasted: float, server: Sandbox, clock: Clock
) -> None:
    gate = gates(server, clock)
    server.stop()
    assert gate.away("default")
    began = clock.now
    while clock.now - began < lasted:
        probe_at = gate.next_probe()
        assert probe_at is not None
        clock.now = max(clock.now, probe_at)
        assert gate.probe() == ()
    server.start()
    back = clock.now
    while not gate.probe():
        clock.now += 0.5
    assert clock.now - back <= 1.1 * FIRST_OUTAGE_DELAY_SECONDS + 1e-6


def test_a_request_that_fails_makes_room_for_the_next(server: Sandbox, clock: Clock) -> None:
    cloud = gates(server, clock).enter("default")
    server.stop()
    for _ in range(MOST_REQUESTS + 1):
        with pytest.raises(EndpointConnectionError):
            cloud.s3.list_buckets()


def test_requests_beyond_the_limit_wait_for_their_turn(server: Sandbox, clock: Clock) -> None:
    cloud = gates(server, clock).enter("default")
    server.faults.arm("slow", 0.5)
    began = time.monotonic()
    with ThreadPoolExecutor(MOST_REQUESTS + 1) as pool:
        list(pool.map(lambda _: cloud.s3.list_buckets(), range(MOST_REQUESTS + 1)))
    assert time.monotonic() - began >= 1.0


def test_what_nobody_foresaw_is_probed_like_an_outage(server: Sandbox, clock: Clock) -> None:
    odd = replace(settings(server), user_cert=Path("/etc\0/cert.pem"))
    gate = Gates({"default": odd}, uploads=1, bucket="images", clock=clock, spread=lambda: 0.5)
    assert gate.away("default"), "whatever it was, all sets would meet it"
    error = gate.closed()["default"]
    assert isinstance(error, Unforeseen)
    assert "ValueError: embedded null byte" in error.why
    assert "Traceback" in error.trace
    with pytest.raises(CloudAway):
        gate.enter("default")
    for _ in range(3):
        assert not gate.probe_due(), "not again at once"
        clock.now += FIRST_OUTAGE_DELAY_SECONDS
        assert gate.probe() == ()


def test_what_nobody_foresaw_and_is_over_lets_in(server: Sandbox, clock: Clock) -> None:
    def met(cloud: Cloud, found: DetectedDialect) -> None:
        raise KeyError(cloud.name)

    clouds = {"default": replace(settings(server), dialect="auto")}
    gate = Gates(clouds, uploads=1, bucket="images", met=met, clock=clock, spread=lambda: 0.5)
    gate.recognise()
    assert "KeyError: 'default'" in str(gate.closed()["default"])
    clock.now += FIRST_OUTAGE_DELAY_SECONDS
    assert gate.probe() == ("default",)


def test_a_halt_that_an_outage_turns_into_is_told_once(tmp_path: Path, clock: Clock) -> None:
    missed: list[UecError] = []
    with Sandbox(tmp_path, dialect="euca4") as server:
        wrong = replace(settings(server), dialect="auto", secret_key=SecretStr("wrong"))
        gate = Gates({"default": wrong}, uploads=1, bucket="images", missed=missed.append, clock=clock)
        server.stop()
        gate.recognise()
        assert missed == [], "an outage is told with the sets that wait"
        server.start()
        for _ in range(4):
            clock.now += 2 * FIRST_DELAY_SECONDS
            assert gate.probe() == ()
    (told,) = map(str, missed)
    assert "secret key" in told


def test_a_cloud_that_comes_and_goes_is_asked_less_and_less(server: Sandbox, clock: Clock) -> None:
    gate = Gates({"default": settings(server)}, uploads=1, bucket="images", clock=clock, spread=lambda: 0.5)
    waits = []
    for _ in range(4):
        server.faults.arm("down")
        assert gate.away("default")
        server.faults.clear()
        probe_at = gate.next_probe()
        assert probe_at is not None
        waits.append(probe_at - clock.now)
        clock.now = probe_at
        assert gate.probe() == ("default",)
    assert waits == [5.0, 15.0, 45.0, 135.0]
    assert gate.closings("default") == 4
    gate.came_through("default")
    assert gate.closings("default") == 0


def test_a_gate_that_was_open_for_long_closes_as_for_the_first_time(server: Sandbox, clock: Clock) -> None:
    gate = gates(server, clock)
    for _ in range(3):
        gate.close("default", REASON)
        clock.now += FIRST_DELAY_SECONDS
        assert gate.probe() == ("default",)
        clock.now += STEADY_SECONDS + 1
