"""A folder that holds as much as there is space for: the daemon keeps its time, its memory and its log."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.host import Host
from tests.support.limited_memory import limited_memory
from tests.support.metadata import WORST
from tests.support.sizes import MIB
from tests.support.spool_files import flood, image
from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.intake.spool.name_limit import MOST_NAMES_IN_A_SET
from uecwatchd.ledger.sqlite import open_ledger

pytestmark = pytest.mark.exhaustive


def test_ten_thousand_worst_sidecars_in_256_mib_keep_nobody_from_an_image(host: Host) -> None:
    for number, (suffix, data) in zip(range(10_000), itertools.cycle(WORST.values()), strict=False):
        (host.spool / f"{number}{suffix}").write_bytes(data)
    log = host.folder / "log"
    command = [sys.executable, "-m", "uecwatchd", "run"]
    with limited_memory(256 * MIB) as limit:
        environ = {**os.environ, "UECWATCHD_CONFIG": str(host.config)}
        daemon = limit.popen(command, environ=environ, talk=log)
        try:
            until_come(lambda: "Watching" in log.read_text(), daemon)
            image(host.spool, "good")
            until_come((host.spool / "good.emi").exists, daemon)
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(PATIENCE_SECONDS) == 0
        finally:
            daemon.kill()
            daemon.wait()
        assert limit.kills() == 0


def until_come(come: Callable[[], bool], daemon: Any) -> None:
    """Wait for what a daemon that goes on is to do."""
    until(lambda: come() or daemon.poll() is not None)
    assert daemon.poll() is None, "it has ended"


@contextmanager
def served(host: Host, **environ: str) -> Iterator["subprocess.Popen[bytes]"]:
    """The daemon on a host, from its first word on; its log in `host.folder / "log"`."""
    with (host.folder / "log").open("wb") as out:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "uecwatchd", "run"],
            env={**os.environ, "UECWATCHD_CONFIG": str(host.config), **environ},
            stderr=out,
        )
    try:
        until_come(lambda: "Watching" in (host.folder / "log").read_text(), daemon)
        yield daemon
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(PATIENCE_SECONDS) == 0
    finally:
        daemon.kill()
        daemon.wait()


@pytest.fixture
def sent_to_systemd(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """The address for `$NOTIFY_SOCKET`, and what comes there."""
    notices: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.bind(str(tmp_path / "notify"))

        def listen() -> None:
            with contextlib.suppress(OSError):
                while data := ours.recv(65536):
                    notices.append(data.decode())

        thread = threading.Thread(target=listen)
        thread.start()
        yield str(tmp_path / "notify"), notices
        ours.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_set_that_can_be_begun_does_not_wait_for_what_is_said_of_thousands(
    host: Host, sent_to_systemd: tuple[str, list[str]]
) -> None:
    address, notices = sent_to_systemd
    flood(host.spool, 1500)
    image(host.spool, "good")
    with served(host, NOTIFY_SOCKET=address, WATCHDOG_USEC="1000000") as daemon:
        until_come((host.spool / "good.uec.log").exists, daemon)
        assert len(list(host.spool.glob("bad*.uec.error"))) < 1500, "some are still to be reported"
        before = len(notices)
        until_come((host.spool / "good.emi").exists, daemon)
        until_come(lambda: any("WATCHDOG=1" in each for each in notices[before:]), daemon)
        until_come(lambda: any("rejected" in each for each in notices[before:]), daemon)


def test_systemd_hears_of_a_first_look_that_goes_on(
    host: Host, sent_to_systemd: tuple[str, list[str]]
) -> None:
    address, notices = sent_to_systemd
    flood(host.spool, 20)
    with served(host, NOTIFY_SOCKET=address, WATCHDOG_USEC="1000000"):
        pass
    first = [each.split("=")[0] for each in notices]
    assert first.index("EXTEND_TIMEOUT_USEC") < first.index("READY")


def test_once_says_all_there_is_to_say(host: Host) -> None:
    flood(host.spool, 60)
    ended = host.run("once")
    assert ended.returncode == 65
    assert len(list(host.spool.glob("bad*.uec.error"))) == 60
    assert len(list(host.spool.glob("folder*.uec.json"))) == 15


def test_the_wait_for_unchanged_files_is_written_down_at_the_end_alone(host: Host) -> None:
    host.configure(host.config.read_text().replace("settle = 0.3", "settle = 3600"))
    image(host.spool, "karmic")
    with served(host) as daemon:
        until_come(lambda: "Watching" in (host.folder / "log").read_text(), daemon)
        with closing(open_ledger(host.state)) as book:
            assert not book.sets()
    with closing(open_ledger(host.state)) as book:
        assert [(record.name, record.state) for record in book.sets()] == [("karmic", "waiting")]


def test_what_is_left_out_is_reported_once(host: Host) -> None:
    with served(host, UECWATCHD_SPOOL__SCAN_EVERY="0.2") as daemon:
        for number in range(MOST_NAMES_IN_A_SET + 1):
            (host.spool / "new").mkdir(exist_ok=True)
            (host.spool / "new" / f"{number}").touch()
        image(host.spool, "good")
        until_come((host.spool / "good.emi").exists, daemon)
        until_come((host.spool / "new.uec.error").exists, daemon)
    assert "it has more than the 1000 files" in (host.spool / "new.uec.error").read_text()
    assert (host.folder / "log").read_text().count("new is rejected") == 1
