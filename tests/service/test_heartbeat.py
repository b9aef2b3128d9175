"""Messages to systemd, at a real socket."""

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.clock import Clock
from tests.support.listener import Recorder
from uecwatchd.events import Kind
from uecwatchd.outputs.systemd import Notifier
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.heartbeat import BEAT_SECONDS, IDLE_STATUS_SECONDS, Heartbeat

Messages = Callable[[], list[str]]


@pytest.fixture
def notifier(tmp_path: Path) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})


@pytest.fixture
def messages(tmp_path: Path) -> Iterator[Messages]:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(0)

        def take() -> list[str]:
            taken = []
            while True:
                try:
                    taken.append(systemd.recv(4096).decode())
                except BlockingIOError:
                    return taken

        yield take


def test_a_long_scan_asks_for_time_to_start_and_later_says_that_it_is_alive(
    notifier: Notifier, messages: Messages, listener: Recorder
) -> None:
    clock = Clock(100.0)
    heartbeat = Heartbeat(Conditions(listener), monotonic=clock)
    heartbeat.progressed()
    assert messages() == [], "`once` tells systemd nothing"
    heartbeat.begin(notifier)
    clock.now += BEAT_SECONDS
    heartbeat.progressed()
    heartbeat.progressed()
    assert [message.partition("=")[0] for message in messages()] == ["EXTEND_TIMEOUT_USEC"], "not too often"
    heartbeat.ready("Watching 1 folder")
    clock.now += BEAT_SECONDS
    heartbeat.progressed()
    assert messages() == ["READY=1\nSTATUS=Watching 1 folder", "WATCHDOG=1"]


def test_a_service_whose_scans_are_late_is_not_alive_and_says_so_once(
    notifier: Notifier, messages: Messages, listener: Recorder
) -> None:
    heartbeat = Heartbeat(Conditions(listener), monotonic=Clock())
    heartbeat.begin(notifier)
    heartbeat.alive(late="nobody has looked")
    heartbeat.alive(late="nobody has looked for longer")
    assert messages() == []
    assert len(listener.sentences(Kind.FAULT)) == 1
    heartbeat.alive(late="")
    assert messages() == ["WATCHDOG=1"]


def test_a_status_is_due_now_and_then(notifier: Notifier, listener: Recorder) -> None:
    clock = Clock(100.0)
    heartbeat = Heartbeat(Conditions(listener), monotonic=clock)
    assert heartbeat.status_due()
    heartbeat.status("1 waiting")
    assert not heartbeat.status_due()
    clock.now += IDLE_STATUS_SECONDS
    assert heartbeat.status_due()


def test_the_loop_waits_no_longer_than_systemd_does(listener: Recorder) -> None:
    heartbeat = Heartbeat(Conditions(listener), monotonic=Clock())
    assert heartbeat.limit(10.0) == 10.0
    heartbeat.begin(Notifier({"WATCHDOG_USEC": "4000000"}))
    assert heartbeat.limit(10.0) < 4.0
    assert heartbeat.limit(1.0) == 1.0
