import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.intake.watch import Watch, WatchMode, reason_late, seconds_overdue


class CountedEvent(threading.Event):
    """An event that counts how often it is set."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def set(self) -> None:
        self.count += 1
        super().set()


@pytest.fixture
def wake() -> CountedEvent:
    return CountedEvent()


# A writer causes a few events at most: a file is created, changed, closed, renamed.
MOST_EVENTS = 8


def make_folders(folder: Path, wake: CountedEvent) -> list[int]:
    """Make folders, each one event, and await each. Returns how often the daemon was woken until then.

    The events arrive in order, so the first figure is 1 if nothing before has woken the daemon, and more
    than MOST_EVENTS in the end show that later events arrive, whatever came before.
    """
    counts = []
    for number in range(MOST_EVENTS + 1):
        (folder / f"folder-{number}").mkdir()
        until(lambda: wake.count > len(counts), "the event of a new folder", pause=0.001)
        counts.append(wake.count)
    return counts


ALONE = list(range(1, MOST_EVENTS + 2))  # the counts if only the folders have woken the daemon


@pytest.fixture
def old_image(tmp_path: Path) -> Path:
    """A file that was there before the watch, so that no event of its writing is under way."""
    (tmp_path / "s").mkdir()
    image = tmp_path / "s" / "a.img"
    image.write_bytes(b"x")
    image.chmod(0o600)
    return image


@pytest.fixture
def watch(tmp_path: Path, wake: threading.Event) -> Iterator[Watch]:
    (tmp_path / "s").mkdir(exist_ok=True)
    made = Watch([tmp_path / "s"], wake, scan_every=60)
    made.start()
    yield made
    made.stop()


def _copy(folder: Path) -> None:
    (folder / "a.img").write_bytes(b"x")


def _move_in(folder: Path) -> None:
    (folder.parent / "b.img").write_bytes(b"x")
    (folder.parent / "b.img").rename(folder / "b.img")


def _move_folder_in(folder: Path) -> None:
    (folder.parent / "set").mkdir()
    (folder.parent / "set").rename(folder / "set")


@pytest.mark.parametrize("act", [_copy, _move_in, _move_folder_in], ids=["copy", "move", "move of a folder"])
@pytest.mark.usefixtures("watch")
def test_what_arrives_wakes_the_daemon(
    act: Callable[[Path], None], tmp_path: Path, wake: threading.Event
) -> None:
    act(tmp_path / "s")
    assert wake.wait(PATIENCE_SECONDS)


def test_reading_does_not_wake_the_daemon(old_image: Path, watch: Watch, wake: CountedEvent) -> None:
    assert watch.lost() == ""
    for _ in range(MOST_EVENTS):
        old_image.read_bytes()
    assert make_folders(old_image.parent, wake) == ALONE


@pytest.mark.usefixtures("watch")
def test_what_is_written_beside_the_images_does_not_wake_the_daemon(
    tmp_path: Path, wake: CountedEvent
) -> None:
    (tmp_path / "s" / ".a.uec.json.uec.0123abcd").write_bytes(b"x")
    (tmp_path / "s" / ".a.uec.json.uec.0123abcd").rename(tmp_path / "s" / "a.uec.json")
    (tmp_path / "s" / "a.uec.json").unlink()
    assert make_folders(tmp_path / "s", wake) == ALONE
    (tmp_path / "s" / "a.uec.json").write_bytes(b"x")
    wake.clear()
    (tmp_path / "s" / "a.uec.json").rename(tmp_path / "s" / "a.img")
    assert wake.wait(PATIENCE_SECONDS), "what is renamed to an image is one"


def test_a_file_that_is_made_readable_wakes_the_daemon(
    old_image: Path, watch: Watch, wake: threading.Event
) -> None:
    assert watch.lost() == ""
    old_image.chmod(0o640)
    assert wake.wait(PATIENCE_SECONDS)


HOSTILE = (b"\xff\xfe.img", b"a\nb\x1b[31m%s{0}.img", b"-" * 255, b".uec.", b"'\"\\.img")


@pytest.mark.parametrize("name", HOSTILE, ids=["no text", "escapes", "longest", "almost ours", "quotes"])
def test_no_name_silences_the_events(name: bytes, watch: Watch, tmp_path: Path, wake: CountedEvent) -> None:
    Path(os.fsdecode(bytes(tmp_path / "s") + b"/" + name)).write_bytes(b"x")
    assert name == b".uec." or wake.wait(PATIENCE_SECONDS)
    make_folders(tmp_path / "s", wake)
    until(lambda: wake.count > MOST_EVENTS, "an event after those of the file")
    assert watch.lost() == ""


# More events than the kernel keeps for a reader that does not come: at least three for each new file.
FLOOD_FILES = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text()) // 2
STOPPED = """
import sys, threading
from pathlib import Path
from uecwatchd.intake.watch import Watch
wake = threading.Event()
watch = Watch([Path(sys.argv[1])], wake, scan_every=60)
watch.start()
print("watching", flush=True)
print(wake.wait(10), flush=True)
while wake.wait(1):
    wake.clear()
print("quiet", flush=True)
print(wake.wait(10), repr(watch.lost()), flush=True)
watch.stop()
"""


@pytest.mark.skipif(FLOOD_FILES > 20_000, reason="the kernel's queue is too long to be filled here")
def test_more_events_than_the_kernel_keeps_do_not_silence_those_that_follow(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", STOPPED, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        try:
            assert child.stdout.readline() == "watching\n"
            child.send_signal(signal.SIGSTOP)
            for number in range(FLOOD_FILES):
                (tmp_path / f"{number}.img").touch()
            child.send_signal(signal.SIGCONT)
            assert [child.stdout.readline() for _ in range(2)] == ["True\n", "quiet\n"]
            (tmp_path / "after.img").touch()
            assert child.stdout.readline() == "True ''\n"
        finally:
            child.kill()


def test_behind_fuse_there_are_no_events_and_more_scans(fuse: Path, wake: threading.Event) -> None:
    watch = Watch([fuse], wake, scan_every=60)
    watch.start()
    try:
        (mode,) = watch.modes
        assert (mode.events, mode.scan_every, mode.passing) == (False, 15.0, False)
        assert re.fullmatch(rf"{fuse} \(fuse[a-z0-9.-]*: scan every 15 s\)", str(mode))
    finally:
        watch.stop()


def _delete(folder: Path) -> None:
    shutil.rmtree(folder)


def _replace(folder: Path) -> None:
    folder.rename(folder.with_name("old"))
    folder.mkdir()


@pytest.mark.parametrize("act", [_delete, _replace])
def test_a_folder_that_is_deleted_or_replaced_is_noticed(
    act: Callable[[Path], None], watch: Watch, tmp_path: Path, wake: threading.Event
) -> None:
    assert watch.lost() == ""
    act(tmp_path / "s")
    assert "was replaced" in watch.lost()
    (tmp_path / "s").mkdir(exist_ok=True)
    watch.restart()
    assert watch.lost() == ""
    wake.clear()  # the old watch has ended, and the new folder was there before the new one
    _copy(tmp_path / "s")
    assert wake.wait(PATIENCE_SECONDS)


def test_a_folder_that_is_not_there_is_scanned_for(tmp_path: Path, wake: threading.Event) -> None:
    watch = Watch([tmp_path / "none"], wake, scan_every=60)
    watch.start()
    try:
        assert [mode.events for mode in watch.modes] == [False]
        assert str(watch.modes[0]) == f"{tmp_path}/none (not there: scan every 15 s)"
    finally:
        watch.stop()


def test_it_says_which_way_of_watching_is_on(watch: Watch, tmp_path: Path) -> None:
    assert str(watch.modes[0]) == f"{tmp_path}/s (inotify, full scan every 60 s)"


LIMITED = """
import sys, threading
from pathlib import Path
from uecwatchd.intake.watch import Watch
limit, folder = Path("/proc/sys/user/" + sys.argv[1]), Path(sys.argv[2])
limit.write_text("0")
wake = threading.Event()
watch = Watch([folder], wake, scan_every=60)
watch.start()
print(watch.modes[0])
print(watch.improve(), repr(watch.lost()))
limit.write_text("100")
print(watch.improve(), watch.modes[0].events, repr(watch.lost()))
(folder / "a.img").write_bytes(b"x")
print(wake.wait(10))
watch.stop()
"""


@pytest.mark.parametrize("limit", ["max_inotify_instances", "max_inotify_watches"])
def test_a_limit_of_inotify_is_named_and_events_come_back_when_it_is_raised(
    limit: str, tmp_path: Path
) -> None:
    argv = ["unshare", "-U", "-r", sys.executable, "-c", LIMITED, limit, str(tmp_path)]
    ended = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS * 3)
    first, *rest = ended.stdout.splitlines()
    assert f"raise fs.inotify.{limit.replace('inotify', 'user')}: scan every 15 s" in first
    assert rest == ["False ''", "True True ''", "True"]


@pytest.mark.usefixtures("as_nobody")
def test_a_folder_that_becomes_readable_is_watched_by_events_again(
    tmp_path: Path, wake: threading.Event
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0)
        watch = Watch([folder], wake, scan_every=60)
        watch.start()
        try:
            assert [mode.why for mode in watch.modes] == ["not readable"]
            folder.chmod(0o700)
            assert watch.improve()
            assert [mode.events for mode in watch.modes] == [True]
        finally:
            watch.stop()


def test_a_folder_that_is_mounted_over_is_noticed(watch: Watch, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True)
    try:
        assert "mounted over" in watch.lost()
        watch.restart()
        assert watch.lost() == ""
        watch.stop()
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    assert "mounted over" in watch.lost()


LOCAL = WatchMode(Path("/local"), events=True, scan_every=60.0)
REMOTE = WatchMode(Path("/remote"), events=False, scan_every=15.0, why="nfs4")


def test_each_folder_is_scanned_by_its_own_timer() -> None:
    scanned_at = {LOCAL.folder: 100.0, REMOTE.folder: 100.0}
    late = seconds_overdue(scanned_at, [LOCAL, REMOTE], now=115.0)
    assert late == {LOCAL.folder: -45.0, REMOTE.folder: 0.0}


@pytest.mark.parametrize(
    ("scanned_at", "now", "expected"),
    [
        ({LOCAL.folder: 0.0, REMOTE.folder: 0.0}, 45.0, ""),
        ({LOCAL.folder: 0.0, REMOTE.folder: 0.0}, 46.0, "/remote was not scanned for 31 s"),
        ({LOCAL.folder: 0.0, REMOTE.folder: 90.0}, 91.0, "/local was not scanned for 31 s"),
        ({LOCAL.folder: 0.0}, 1.0, "/remote was not scanned for inf s"),
    ],
    ids=["within the grace", "the remote one", "the local one", "never scanned"],
)
def test_a_folder_that_is_not_scanned_for_longer_than_its_period_is_reported(
    scanned_at: dict[Path, float], now: float, expected: str
) -> None:
    why = reason_late(scanned_at, [LOCAL, REMOTE], now=now)
    assert expected in why
    assert bool(expected) is bool(why)
