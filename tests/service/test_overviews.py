"""The page and the metrics are written while the service runs, and no trouble with them stops it."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.clock import Clock
from tests.support.daemon import daemon_thread, opened_service
from tests.support.host import NOBODY, Host
from tests.support.listener import Recorder
from tests.support.overviews import NOW, a_set, an_attempt
from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.config.load import load
from uecwatchd.config.records import OutputSettings
from uecwatchd.events import Kind
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.ledger.state_folder import lock_state
from uecwatchd.outputs.fleet_overview import FleetReader
from uecwatchd.outputs.overview import Overview
from uecwatchd.outputs.progress import ProgressTracker
from uecwatchd.outputs.situation import Situation
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.overviews import (
    FILES,
    HANGING_SECONDS,
    LEAST_PAUSE_SECONDS,
    RENEW_AFTER_SECONDS,
    Overviews,
    OverviewSources,
)
from uecwatchd.service.policy import is_shown
from uecwatchd.system import lockfile
from uecwatchd.system.clocks import Clocks

PAGE = ("status.html", "status.json")


def alive(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


class Writing:
    """Overviews of a situation that a test sets, by a clock that it sets."""

    def __init__(self, folder: Path, listener: Recorder) -> None:
        self.page, self.metrics, self.listener = folder / "page", folder / "metrics", listener
        self.clock, self.situation = Clock(1000.0), Situation((a_set("karmic"),))
        self.ledger = open_ledger(folder / "state")
        self.files = dict(FILES)
        self.overviews = self.made()

    def made(self) -> Overviews:
        tracker = ProgressTracker(clock=self.clock, now=lambda: NOW)
        clocks = Clocks(now=lambda: NOW + self.clock.now, monotonic=self.clock)
        made = Overviews(
            OutputSettings(self.page, self.metrics),
            sources=OverviewSources(
                self.ledger.history,
                self.ledger.versions,
                tracker,
                self.listener,
                Conditions(self.listener),
                clocks,
                FleetReader(
                    self.ledger.sessions, self.ledger.others, is_shown=is_shown, monotonic=self.clock
                ),
            ),
            situation=lambda: self.situation,
            files=self.files,
        )
        made.begin()
        return made

    def write(self, *, after: float = 0.0) -> None:
        """Let the loop pass by after some seconds, and wait for what it began."""
        self.clock.now += after
        self.overviews.write_if_due()
        for thread in (*alive("outputs.page"), *alive("outputs.metrics")):
            thread.join(PATIENCE_SECONDS)

    @property
    def faults(self) -> list[str]:
        return self.listener.sentences(Kind.FAULT)


@pytest.fixture
def writing(tmp_path: Path, listener: Recorder) -> Iterator[Writing]:
    made = Writing(tmp_path, listener)
    with closing(made.ledger):
        yield made


@pytest.fixture
def ready(writing: Writing) -> Writing:
    writing.page.mkdir()
    writing.metrics.mkdir()
    return writing


def written(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def test_files_are_complete_readable_for_others_and_alone(ready: Writing) -> None:
    (ready.page / ".status.html.uec.part").write_text("left by a crash")
    before = os.umask(0o077)
    ready.write()
    os.umask(before)
    assert sorted(path.name for path in ready.page.iterdir()) == list(PAGE)
    assert [path.name for path in ready.metrics.iterdir()] == ["uecwatchd.prom"]
    assert {path.stat().st_mode & 0o777 for path in ready.page.iterdir()} == {0o644}
    assert "karmic" in (ready.page / "status.html").read_text()
    assert ready.listener.events == []


def test_they_are_written_when_something_has_changed_and_not_too_often(ready: Writing) -> None:
    ready.write()
    first = written(ready.page / "status.html")
    ready.write(after=LEAST_PAUSE_SECONDS + 1)
    assert written(ready.page / "status.html") == first, "nothing has changed"
    ready.situation = Situation((a_set("lucid"),))
    ready.write(after=LEAST_PAUSE_SECONDS + 1)
    second = written(ready.page / "status.html")
    assert second != first
    ready.situation = Situation((a_set("maverick"),))
    ready.write(after=LEAST_PAUSE_SECONDS - 1)
    assert written(ready.page / "status.html") == second, "too soon"
    ready.write(after=2)
    assert "maverick" in (ready.page / "status.html").read_text()


def test_they_are_renewed_although_nothing_has_changed(ready: Writing) -> None:
    ready.write()
    ready.write(after=RENEW_AFTER_SECONDS + 1)
    report = json.loads((ready.page / "status.json").read_text())
    assert report["written"] == "2026-11-29T11:17:26Z"


def test_while_a_set_is_worked_on_its_progress_is_written(ready: Writing) -> None:
    ready.situation = replace(ready.situation, running=frozenset({a_set("karmic").id}))
    ready.write()
    first = written(ready.page / "status.html")
    ready.write(after=LEAST_PAUSE_SECONDS + 1)
    assert written(ready.page / "status.html") != first


def test_the_history_of_the_ledger_is_in_them(ready: Writing) -> None:
    ready.ledger.history.add_attempt(an_attempt("karmic"))
    ready.write()
    assert [one["name"] for one in json.loads((ready.page / "status.json").read_text())["attempts"]] == [
        "karmic"
    ]
    text = (ready.metrics / "uecwatchd.prom").read_text()
    assert 'uecwatchd_uploaded_bytes_total{cloud="default"} 1.48e+09' in text


def missing(writing: Writing) -> None:
    writing.page.rmdir()


def no_folder(writing: Writing) -> None:
    writing.page.rmdir()
    writing.page.write_text("")


def taken(writing: Writing) -> None:
    (writing.page / "status.json").write_text("{}")
    os.chown(writing.page / "status.json", NOBODY, NOBODY)


def taken_by_a_link(writing: Writing) -> None:
    (writing.page / "status.json").symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (missing, "there is no such folder. Make it: install -d -o root -m 0755"),
        (no_folder, "Not a directory"),
        (taken, "the name is taken by a file of nobody. Move it away: mv"),
        (taken_by_a_link, "the name is taken by something that is no regular file"),
    ],
)
def test_a_folder_that_cannot_be_written_is_reported_once_and_again_when_it_is_well(
    ready: Writing, break_it: Callable[[Writing], None], words: str
) -> None:
    break_it(ready)
    for _ in range(3):
        ready.write(after=RENEW_AFTER_SECONDS + 1)
    (sentence,) = ready.faults
    assert words in sentence
    assert (ready.metrics / "uecwatchd.prom").exists(), "the other one is written"
    subprocess.run(["rm", "-rf", str(ready.page)], check=True)
    ready.page.mkdir()
    for _ in range(2):
        ready.write(after=RENEW_AFTER_SECONDS + 1)
    assert ready.listener.sentences(Kind.READY) == [f"outputs.page: {ready.page} can be written again"]
    assert (ready.page / "status.html").exists()


def test_a_full_disk_leaves_the_older_page_and_is_reported_once(
    writing: Writing, small_disk: Path, listener: Recorder
) -> None:
    writing.metrics.mkdir()
    writing.page = small_disk
    writing.overviews = writing.made()
    writing.write()
    text = (small_disk / "status.html").read_text()
    fill(small_disk / "filler")
    writing.situation = Situation((a_set("lucid"),))
    for _ in range(3):
        writing.write(after=RENEW_AFTER_SECONDS + 1)
    (sentence,) = writing.faults
    assert "No space left on device. Free some space there" in sentence
    assert (small_disk / "status.html").read_text() == text
    assert sorted(path.name for path in small_disk.iterdir()) == ["filler", *PAGE]


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def test_a_folder_that_the_user_may_not_write_names_the_command(ready: Writing, as_nobody: None) -> None:
    ready.write()
    words = f"Permission denied. Let the service's user write there: setfacl -m u:nobody:rwx {ready.page}"
    assert words in " ".join(ready.faults)


def test_a_read_only_disk_is_reported(writing: Writing, small_disk: Path) -> None:
    writing.metrics.mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    writing.page = small_disk
    writing.overviews = writing.made()
    writing.write()
    (sentence,) = writing.faults
    assert "it is read-only for the service" in sentence


def test_a_write_that_hangs_is_reported_once_and_holds_nothing_up(ready: Writing) -> None:
    end, begun = threading.Event(), threading.Event()

    def hang(_: Overview) -> bytes:
        begun.set()
        end.wait(PATIENCE_SECONDS)
        return b"late"

    ready.files["outputs.page"] = {"status.html": hang}
    ready.overviews = ready.made()
    ready.overviews.write_if_due()
    assert begun.wait(PATIENCE_SECONDS)
    for _ in range(3):
        until(lambda: not alive("outputs.metrics"), "the other one")
        ready.clock.now += HANGING_SECONDS + 1
        ready.overviews.write_if_due()
    end.set()
    assert ready.faults == [f"outputs.page: {ready.page} hangs: a write there does not end"]
    assert (ready.metrics / "uecwatchd.prom").exists()
    ready.write(after=1)
    assert (ready.page / "status.html").read_text() == "late"


def test_a_fault_of_a_writer_is_reported_with_its_traceback(ready: Writing) -> None:
    ready.files["outputs.page"] = {"status.html": lambda _: bytes(1 // 0)}
    ready.overviews = ready.made()
    ready.write()
    (event,) = ready.listener.events
    assert "ZeroDivisionError" in str(event.fields["traceback"])


def configure(host: Host, *lines: str) -> None:
    for name in ("page", "metrics"):
        (host.folder / name).mkdir(exist_ok=True)
    host.configure("\n".join([host.config.read_text(), "[outputs]", *lines, ""]))


def test_once_writes_them_at_its_end_and_tells_no_secret(host: Host) -> None:
    configure(host, 'page = "page"', 'metrics = "metrics"')
    (host.spool / "broken.img").write_text("no disk")
    host.run("once")
    files = [*(host.folder / "page").iterdir(), *(host.folder / "metrics").iterdir()]
    texts = {path.name: path.read_text() for path in files}
    assert sorted(texts) == [*PAGE, "uecwatchd.prom"]
    assert "The service ended then" in texts["status.html"]
    assert "broken.img: it cannot be" in texts["status.html"]
    assert 'uecwatchd_sets{state="rejected"} 1.0' in texts["uecwatchd.prom"]
    secrets = {host.cloud.identity.secret_key, host.cloud.identity.access_key}
    assert [name for name, text in texts.items() if any(secret in text for secret in secrets)] == []


def test_a_process_that_does_not_own_the_folders_writes_nothing(host: Host) -> None:
    configure(host, 'page = "page"')
    open_ledger(host.state).close()
    lock = lock_state(host.state)
    assert host.run("once").returncode == 75
    lockfile.release(lock)
    assert list((host.folder / "page").iterdir()) == []


def test_a_daemon_writes_the_page_follows_its_folder_and_says_when_it_ends(
    host: Host, listener: Recorder
) -> None:
    configure(host, 'page = "page"')
    first, second = host.folder / "page", host.folder / "other"
    second.mkdir()

    def reloaded() -> object:
        return load(host.config, environ={})

    with opened_service(host, listener) as service, daemon_thread(service, reloaded=reloaded):  # type: ignore[arg-type]
        until(lambda: (first / "status.html").exists(), "the page")
        report = json.loads((first / "status.json").read_text())
        assert report["running"]
        assert [one["usable"] for one in report["clouds"]] == [True]
        host.configure(host.config.read_text().replace('page = "page"', 'page = "other"'))
        service.ask_reload()
        until(lambda: (second / "status.html").exists(), "the page in the other folder")
    assert not json.loads((second / "status.json").read_text())["running"]


def test_a_missing_library_is_named_with_its_extra_and_stops_no_work(host: Host) -> None:
    configure(host, 'page = "page"', 'metrics = "metrics"')
    without = "sys.modules['jinja2'] = sys.modules['prometheus_client'] = None"
    verbs = f"[main([verb, '--config', '{host.config}']) for verb in ('once', 'check')]"
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys; {without}; from uecwatchd.cli.main import main; print({verbs})"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.endswith("[0, 78]\n"), ended.stderr
    for extra, library in (("page", "jinja2"), ("metrics", "prometheus_client")):
        words = f"it needs the extra {extra}, and {library} is not installed"
        assert (ended.stderr.count(words), ended.stdout.count(words)) == (1, 1)
        assert f"-m pip install 'uecwatchd[{extra}]'" in ended.stderr
