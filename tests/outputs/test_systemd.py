import select
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.clock import Clock
from uecwatchd.events import Event, Kind, Progress
from uecwatchd.outputs.progress import ProgressTracker
from uecwatchd.outputs.systemd import Notifier, show_work
from uecwatchd.types import SetId

PID = 42
KARMIC, LUCID = SetId("/spool", "karmic"), SetId("/spool", "lucid")


class Systemd:
    """The other end of `$NOTIFY_SOCKET`."""

    def __init__(self, address: str) -> None:
        self.environ = {"NOTIFY_SOCKET": address.replace("\0", "@")}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(5)

    def heard(self) -> str:
        return self._socket.recv(65536).decode()

    def full(self) -> int:
        """Send, as somebody else would, until nothing more fits; how many messages that takes."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.settimeout(0)
            other.connect(self._socket.getsockname())
            for count in range(1 << 20):
                try:
                    other.send(b"X=1")
                except BlockingIOError:
                    return count
        raise AssertionError("there is always space")

    def silent(self) -> bool:
        return not select.select([self._socket], [], [], 0)[0]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    path = str(tmp_path / "notify")
    listening = Systemd(path if request.param == "path" else f"\0{path}")
    yield listening
    listening.close()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda n: n.ready("Watching 2 folders"), "READY=1\nSTATUS=Watching 2 folders"),
        (lambda n: n.status("Watching 2 folders"), "STATUS=Watching 2 folders"),
        (lambda n: n.watchdog(), "WATCHDOG=1"),
        (lambda n: n.stopping(), "STOPPING=1"),
        (lambda n: n.reloading(), "RELOADING=1\nMONOTONIC_USEC=100000000"),
        (lambda n: n.extend(2.5), "EXTEND_TIMEOUT_USEC=2500000"),
    ],
    ids=["ready", "status", "watchdog", "stopping", "reloading", "extend"],
)
def test_each_message_is_one_datagram(
    systemd: Systemd, act: Callable[[Notifier], None], message: str
) -> None:
    act(Notifier(systemd.environ, PID, clock=Clock(100.0)))
    assert systemd.heard() == message


def test_a_status_is_one_line_whatever_a_set_is_called(systemd: Systemd) -> None:
    Notifier(systemd.environ, PID).status("karmic\nSTOPPING=1 \udcff")
    assert systemd.heard() == r"STATUS=karmic\nSTOPPING=1 \udcff"


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "/nowhere/notify"], ids=["none", "vsock", "gone"])
def test_without_a_socket_nothing_is_sent(address: str) -> None:
    Notifier({"NOTIFY_SOCKET": address} if address else {}, PID).ready("x")


def test_an_unsent_status_is_sent_with_the_next_watchdog_message(systemd: Systemd) -> None:
    notifier = Notifier(systemd.environ, PID)
    count = systemd.full()
    for done in range(1000):
        notifier.work(f"karmic: part {done}")
    assert [systemd.heard() for _ in range(count)] == ["X=1"] * count
    assert systemd.silent(), "nothing waited for space"
    notifier.watchdog()
    assert systemd.heard() == "WATCHDOG=1\nSTATUS=karmic: part 999"
    notifier.watchdog()
    assert systemd.heard() == "WATCHDOG=1"


def test_a_status_that_is_shown_already_is_not_reported_again(systemd: Systemd) -> None:
    notifier = Notifier(systemd.environ, PID)
    for _ in range(3):
        notifier.status("2 waiting")
        notifier.work("")
    notifier.ready("2 waiting")
    notifier.status("1 waiting")
    notices = [systemd.heard() for _ in range(3)]
    assert notices == ["STATUS=2 waiting", "READY=1\nSTATUS=2 waiting", "STATUS=1 waiting"]
    assert systemd.silent()


def test_important_messages_wait_for_space_in_the_socket(systemd: Systemd) -> None:
    count = systemd.full()
    reader = threading.Timer(0.2, lambda: [systemd.heard() for _ in range(count)])
    reader.start()
    Notifier(systemd.environ, PID).ready("Watching 2 folders")
    reader.join()
    assert systemd.heard() == "READY=1\nSTATUS=Watching 2 folders"


def open_files() -> set[str]:
    return {str(one) for one in Path("/proc/self/fd").iterdir()}


def test_the_socket_is_the_programs_own_and_closed_again(systemd: Systemd) -> None:
    notifier = Notifier(systemd.environ, PID)
    before = open_files()
    notifier.watchdog()
    assert open_files() == before


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(PID)}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
    ids=["off", "on", "ours", "another's", "zero", "junk"],
)
def test_the_watchdog_is_fed_twice_in_its_time(environ: dict[str, str], seconds: float | None) -> None:
    assert Notifier(environ, PID).watchdog_seconds == seconds


def test_running_work_precedes_the_summary_in_the_status(systemd: Systemd) -> None:
    notifier = Notifier(systemd.environ, PID)
    notifier.ready("2 waiting")
    notifier.work("karmic: upload")
    notifier.status("1 waiting")
    notifier.work("")
    assert [systemd.heard() for _ in range(4)] == [
        "READY=1\nSTATUS=2 waiting",
        "STATUS=karmic: upload; 2 waiting",
        "STATUS=karmic: upload; 1 waiting",
        "STATUS=1 waiting",
    ]


def test_progress_is_reported_once_a_second_and_an_end_at_once(systemd: Systemd) -> None:
    clock = Clock(100.0)
    tracker = ProgressTracker(clock=clock)
    show_work(Notifier(systemd.environ, PID), tracker)
    for step in range(31):  # three seconds in tenths
        clock.now = 100 + step / 10
        tracker.progress(Progress(KARMIC, "upload", "karmic.img", step * 10_000_000, 300_000_000, step))
    notices = [systemd.heard() for _ in range(4)]
    assert notices[0] == "STATUS=karmic: upload, 0 %"
    assert notices[3] == "STATUS=karmic: upload, part 30, 100 %, 100.0 MB/s"
    assert systemd.silent()
    tracker.tell(Event(Kind.DONE, "karmic is registered", KARMIC))
    assert systemd.heard() == "STATUS="


def test_sets_at_work_together_are_reported_together(systemd: Systemd) -> None:
    clock = Clock(100.0)
    tracker = ProgressTracker(clock=clock)
    show_work(Notifier(systemd.environ, PID), tracker)
    tracker.progress(Progress(KARMIC, "upload", "karmic.img", 1, 2))
    clock.now += 1
    tracker.progress(Progress(LUCID, "register", "", 0, 0))
    systemd.heard()
    assert systemd.heard() == "STATUS=karmic: upload, 50 %; lucid: register"
    tracker.tell(Event(Kind.REJECTED, "karmic is rejected", KARMIC))
    assert systemd.heard() == "STATUS=lucid: register"


def test_the_speed_is_that_of_the_current_file(systemd: Systemd) -> None:
    clock = Clock(100.0)
    tracker = ProgressTracker(clock=clock)
    show_work(Notifier(systemd.environ, PID), tracker)
    for file, done in (("vmlinuz", 0), ("vmlinuz", 5_000_000), ("karmic.img", 0), ("karmic.img", 40_000_000)):
        tracker.progress(Progress(KARMIC, "upload", file, done, 100_000_000))
        clock.now += 2
    notices = [systemd.heard() for _ in range(4)]
    assert [text.rpartition(", ")[2] for text in notices] == ["0 %", "2.5 MB/s", "0 %", "20.0 MB/s"]


def test_listeners_are_safe_for_many_threads(systemd: Systemd) -> None:
    tracker = ProgressTracker()
    show_work(Notifier({}, PID), tracker)

    def work(name: str) -> None:
        key = SetId("/spool", name)
        for done in range(500):
            tracker.progress(Progress(key, "upload", "f", done, 500))
        tracker.tell(Event(Kind.DONE, "done", key))

    threads = [threading.Thread(target=work, args=(f"set{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = Notifier(systemd.environ, PID)
    last.status("still here")
    assert systemd.heard() == "STATUS=still here"
