"""An hour of the service in each kind of trouble: how many lines the journal gets, and the cloud requests.

The hour is made up; everything else is real: the loop, its threads, folders, ledger, HTTP. With
`pytest -s tests/program/test_flood.py` the numbers are printed as a table.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.host import Host
from tests.support.spool_files import drop_image
from uecwatchd.clouds.request_retry import RetryPolicy
from uecwatchd.config.load import load
from uecwatchd.events import Event, Kind, Progress
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.outputs.systemd import Notifier
from uecwatchd.service.daemon import Service
from uecwatchd.service.loop import LEAST_PAUSE_SECONDS
from uecwatchd.system.clocks import Clocks

pytestmark = pytest.mark.exhaustive

HOUR = 3600.0
LINES_AN_HOUR = 20
# Every 5 s for three minutes, then less and less up to 5 minutes; and one that begins before the first.
PROBES_AN_HOUR = 60
THREE_MINUTES_OF_PROBES = 30
# Buckets, images and the bucket; or, while the generation is not known, at most the three questions before.
REQUESTS_A_PROBE = 6
REAL_SECONDS = 120.0
MANY_SETS = 40
CLONE_NEWNET = 0x40000000  # of <linux/sched.h>
CAPABILITY_VERSION = 0x20080522  # of <linux/capability.h>, as are these
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1 << 1, 1 << 2


@dataclass
class Hour:
    """The clocks, which go on only while nothing is under way; they end the service after an hour."""

    service: Service | None = None
    count: float = 0.0
    real_end: float = field(default_factory=lambda: time.monotonic() + REAL_SECONDS)
    at: dict[float, Callable[[], object]] = field(default_factory=dict)

    def monotonic(self) -> float:
        return self.count

    def now(self) -> float:
        return 1.8e9 + self.count

    def wait(self, event: threading.Event, seconds: float) -> bool:
        assert self.service
        while seconds > LEAST_PAUSE_SECONDS and self.service.busy and not event.is_set():
            assert time.monotonic() < self.real_end, "the service hangs"
            event.wait(0.002)
        if not event.is_set():
            self._go_on(seconds)
        return event.is_set()

    def _go_on(self, seconds: float) -> None:
        assert self.service
        self.count += seconds
        for moment in [moment for moment in self.at if moment <= self.count]:
            self.at.pop(moment)()
        if self.count >= HOUR:
            self.service.stop()


@dataclass
class Lines:
    """A listener that counts; one that fails, if it is to, at each sentence with certain words."""

    failing: str = ""
    events: list[Event] = field(default_factory=list)

    def tell(self, event: Event) -> None:
        if self.failing and self.failing in event.sentence:
            raise RuntimeError("a listener fails")
        if event.level != "debug":
            self.events.append(event)

    def progress(self, progress: Progress) -> None:
        pass


def one_hour(host: Host, lines: Lines, *, at: Mapping[float, Callable[[], object]] | None = None) -> None:
    hour = Hour(at=dict(at or {}))
    host.configure(host.config.read_text().replace("scan_every = 5", "scan_every = 60"))
    settings = load(host.config, environ={})
    with closing(open_ledger(settings.state.dir)) as book:
        hour.service = Service(
            settings,
            listener=lines,
            ledger=book,
            clocks=Clocks(now=hour.now, monotonic=hour.monotonic, wait=hour.wait),
            patience=RetryPolicy(tries=()),
        )
        hour.service.run(Notifier({}))


def drop_disk(host: Host, name: str = "karmic") -> None:
    drop_image(host.spool, name, name.encode() * 1024)


TABLE: list[tuple[str, int, int]] = []


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    yield
    rows = [("in an hour of", "lines", "requests"), *TABLE]
    sys.stdout.write("\n\n" + "".join(f"{row[0]:45} {row[1]:>5} {row[2]:>9}\n" for row in rows))


def judge(kind: str, lines: Lines, requests: int) -> None:
    TABLE.append((kind, len(lines.events), requests))
    sentences = [event.sentence for event in lines.events]
    assert len(sentences) <= LINES_AN_HOUR, "\n".join(sentences)
    assert requests <= PROBES_AN_HOUR * REQUESTS_A_PROBE
    assert not [sentence for sentence in sentences if "a fault of uecwatchd itself" in sentence]


# --- clouds and what is in front of them -------------------------------------------------------------------


@contextmanager
def answering(status: int, body: str, headers: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """A server that has one answer for everything: its host and port, and what it was asked. In the answer
    `{n}` is another number each time."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append(self.path)
            said = body.replace("{n}", str(len(asked))).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(said)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST = do_PUT = do_HEAD = do_CONNECT = answer  # noqa: N815 (http.server's names)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 50

        def handle_error(self, *_: object) -> None:
            asked.append("something else")

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", asked
        server.shutdown()


PAGE = "<html><head><title>Sorry {n}</title></head></html>"
ERROR = "<Error><Code>InternalError</Code><Message>We failed, see {n}.</Message></Error>"
CLOUDS: Mapping[str, tuple[int, str, Mapping[str, str]]] = {
    "500 and another sentence each time": (500, ERROR, {}),
    "503": (503, "Service Unavailable", {}),
    "a gateway's page": (502, PAGE, {"Server": "nginx"}),
    "garbage": (200, "\x00\x01 garbage {n}", {}),
    "a log-in page": (200, PAGE, {}),
    "a page that forbids": (403, PAGE, {}),
    "403": (403, "<Error><Code>InvalidAccessKeyId</Code><Message>{n}</Message></Error>", {}),
    "400 and another sentence each time": (400, "<Error><Code>Odd</Code><Message>{n}</Message></Error>", {}),
    "half an answer": (200, "<DescribeRegionsResponse>", {"Content-Length": "1000"}),
    "a redirect": (302, "", {"Location": "http://login.example/"}),
}


def at(host: Host, place: str, *, scheme: str = "http", dialect: str = "auto") -> None:
    """Have the host's cloud be elsewhere, and of a generation that is not named."""
    eucarc = host.cloud.folder / "eucarc-elsewhere"
    text = host.cloud.eucarc.read_text().replace(f"http://127.0.0.1:{host.cloud.port}", f"{scheme}://{place}")
    eucarc.write_text(text)
    lines = host.config.read_text().replace(str(host.cloud.eucarc), str(eucarc)).splitlines()
    host.configure(
        "\n".join(line for line in lines if not line.startswith("dialect")) + f'\ndialect = "{dialect}"\n'
    )


@pytest.mark.parametrize("kind", CLOUDS)
def test_a_cloud_that_fails_floods_nobody(kind: str, host: Host) -> None:
    drop_disk(host)
    lines = Lines()
    with answering(*CLOUDS[kind]) as (place, asked):
        at(host, place)
        one_hour(host, lines)
    judge(kind, lines, len(asked))
    assert len(asked) >= (THREE_MINUTES_OF_PROBES if CLOUDS[kind][0] in (500, 502, 503) else 10)


@pytest.mark.parametrize(
    ("kind", "place", "scheme"),
    [
        ("nobody listens", "127.0.0.1:1", "http"),
        ("http instead of TLS", "", "https"),
    ],
)
def test_a_cloud_that_is_not_there_floods_nobody(kind: str, place: str, scheme: str, host: Host) -> None:
    drop_disk(host)
    lines = Lines()
    with answering(200, "", {}) as (there, asked):
        at(host, place or there, scheme=scheme)
        one_hour(host, lines)
    judge(kind, lines, len(asked))


LIBC = ctypes.CDLL(None, use_errno=True)


def see_no_network() -> None:
    assert LIBC.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


def have_no_more_rights_than_others() -> None:
    """From now on modes of files count, as for a user other than root."""
    header, rights = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    assert LIBC.capget(header, rights) == 0, os.strerror(ctypes.get_errno())
    rights[0] &= ~(CAP_DAC_OVERRIDE | CAP_DAC_READ_SEARCH)
    assert LIBC.capset(header, rights) == 0, os.strerror(ctypes.get_errno())


def in_a_thread_that(first: Callable[[], object], act: Callable[[], object]) -> None:
    """Do something in a thread with less than this one has; so have those that it begins. Needs root."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: (first(), act())).result()


@pytest.mark.parametrize(
    ("kind", "place"),
    [("no name server", "cloud.example:8773"), ("no way to an address", "192.0.2.1:8773")],
)
def test_a_network_that_fails_floods_nobody(kind: str, place: str, host: Host) -> None:
    drop_disk(host)
    lines = Lines()
    at(host, place)
    in_a_thread_that(see_no_network, lambda: one_hour(host, lines))
    judge(kind, lines, 0)
    assert any(place.split(":")[0] in event.sentence for event in lines.events)


@pytest.mark.parametrize(
    ("kind", "status", "scheme"),
    [
        ("a proxy that wants a password", 407, "http"),
        ("the same before TLS", 407, "https"),
        ("no way on", 503, "http"),
    ],
)
def test_a_proxy_that_fails_floods_nobody(
    kind: str, status: int, scheme: str, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_disk(host)
    lines = Lines()
    at(host, "cloud.example", scheme=scheme)
    with answering(status, PAGE, {"Proxy-Authenticate": "Basic"}) as (place, asked):
        monkeypatch.setenv(f"{scheme}_proxy", f"http://{place}")
        one_hour(host, lines)
    judge(kind, lines, len(asked))
    assert asked


def test_unexpected_errors_flood_nobody(host: Host) -> None:
    drop_disk(host)
    host.configure(host.config.read_text().replace('dialect = "sandbox"', 'dialect = "auto"'))
    lines = Lines(failing="(dialect sandbox)")
    one_hour(host, lines)
    judge("a fault of our own", lines, len(host.cloud.requests))


@pytest.mark.parametrize("fault", ["put-503", "put-500", "wrong-etag", "lost-answer"])
def test_uploads_that_fail_flood_nobody(fault: str, host: Host) -> None:
    drop_disk(host)
    host.cloud.faults.arm(fault, 1e6)
    lines = Lines()
    one_hour(host, lines)
    judge(f"uploads: {fault}", lines, len(host.cloud.requests))


@pytest.mark.parametrize("fault", ["put-503", "down"])
def test_a_trouble_that_many_sets_meet_is_reported_once_and_not_by_each(fault: str, host: Host) -> None:
    for number in range(MANY_SETS):
        drop_disk(host, f"disk{number:02}")
    host.cloud.faults.arm(fault, 1e6)
    lines = Lines()
    one_hour(host, lines)
    # That a set was found and is worked on is no word of the trouble.
    lines.events[:] = [event for event in lines.events if event.kind not in (Kind.FOUND, Kind.WORKING)]
    judge(f"{MANY_SETS} sets: {fault}", lines, len(host.cloud.requests))


def test_a_cloud_that_comes_and_goes_floods_nobody(host: Host) -> None:
    drop_disk(host)
    lines = Lines()
    moments: dict[float, Callable[[], object]] = {}
    for minute in range(60):
        moments[60.0 * minute + 1] = lambda: host.cloud.faults.arm("put-503", 1e6)
        moments[60.0 * minute + 20] = lambda: host.cloud.faults.arm("down")
        moments[60.0 * minute + 50] = host.cloud.faults.clear
    host.cloud.faults.arm("put-503", 1e6)
    one_hour(host, lines, at=moments)
    judge("coming and going each minute", lines, len(host.cloud.requests))


# --- disks -------------------------------------------------------------------------------------------------


def mount_disk(folder: Path) -> None:
    """A small file system of its own. Needs root."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)


@contextmanager
def disk_in_place_of(folder: Path) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    mount_disk(folder)
    try:
        yield
    finally:
        while folder.is_mount():  # perhaps another one over it
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    with suppress(OSError), (folder / ".full").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def write_protect(folder: Path) -> None:
    """Put the same files on a disk in its place that is read-only, as after an error."""
    copy = folder.with_name(f"{folder.name}-copy")
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("wakeup"))  # a pipe, which cannot be copied
    mount_disk(folder)
    shutil.copytree(copy, folder, dirs_exist_ok=True)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def take_away(folder: Path) -> None:
    for each in folder.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    folder.rmdir()


def put_a_file_there(folder: Path) -> None:
    take_away(folder)
    folder.write_text("no folder")


DISKS: Mapping[str, tuple[str, bool, Callable[[Path], object]]] = {
    "a full spool": ("spool", True, fill),
    "a spool that is read-only": ("spool", True, write_protect),
    "a full state directory": ("state", True, fill),
    "a state directory that is read-only": ("state", True, write_protect),
    "a spool that is gone": ("spool", False, take_away),
    "a spool that is a file": ("spool", False, put_a_file_there),
}


@pytest.mark.parametrize("moment", [0.001, 300.0], ids=["from the start", "later"])
@pytest.mark.parametrize("kind", DISKS)
def test_a_disk_that_fails_floods_nobody(kind: str, moment: float, host: Host) -> None:
    which, mounted, spoil = DISKS[kind]
    folder = host.spool if which == "spool" else host.state
    lines = Lines()
    with ExitStack() as stack:
        if mounted:
            stack.enter_context(disk_in_place_of(folder))
        drop_disk(host)

        def trouble() -> None:
            drop_disk(host, "jaunty")
            spoil(folder)

        one_hour(host, lines, at={moment: trouble})
        judge(f"{kind}, {'at once' if moment < 1 else 'later'}", lines, len(host.cloud.requests))


def cut_its_disk(image: Path) -> None:
    """From now on what is read or written beyond the first sectors is an input/output error."""
    os.truncate(image, 64 << 10)


def end_its_process(image: Path) -> None:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(image).encode() in (process / "cmdline").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)


@pytest.mark.parametrize("spoil", [cut_its_disk, end_its_process])
def test_a_file_system_that_fails_floods_nobody(
    spoil: Callable[[Path], None], host: Host, fuse: Path
) -> None:
    lines = Lines()
    host.configure(host.config.read_text().replace("[spool]", '[spool]\nmembers = "trusted"'))
    subprocess.run(["mount", "--bind", str(fuse), str(host.spool)], check=True)
    try:
        drop_disk(host)
        one_hour(host, lines, at={300.0: lambda: spoil(fuse.with_name("ntfs"))})
    finally:
        subprocess.run(["umount", "--lazy", str(host.spool)], check=True)
    judge(f"a spool on FUSE: {spoil.__name__}", lines, len(host.cloud.requests))
    assert any("error" in event.sentence or "not connected" in event.sentence for event in lines.events)


@pytest.mark.parametrize("which", ["spool", "state"])
@pytest.mark.parametrize("mode", [0o000, 0o400, 0o500])
def test_a_folder_that_is_closed_floods_nobody(which: str, mode: int, host: Host) -> None:
    folder = host.spool if which == "spool" else host.state
    lines = Lines()
    drop_disk(host)

    def close() -> None:
        drop_disk(host, "jaunty")
        folder.chmod(mode)

    in_a_thread_that(have_no_more_rights_than_others, lambda: one_hour(host, lines, at={300.0: close}))
    judge(f"a {which} of mode {mode:04o}", lines, len(host.cloud.requests))
    assert lines.events
