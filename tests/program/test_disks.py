"""Disks that fill up, turn read-only or fail under the real program: nothing lost, nothing done twice."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.clock import Clocks
from tests.support.daemon import daemon_thread
from tests.support.host import Host
from tests.support.listener import Recorder
from tests.support.sizes import MIB
from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.config.load import load
from uecwatchd.demo.material import RealSet
from uecwatchd.events import Kind
from uecwatchd.intake.spool.output_files import SPOOL_LOCK
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.service.daemon import Service
from uecwatchd.system import clocks as clocks_module
from uecwatchd.system.disk_space import MIN_FREE_BYTES, MIN_FREE_INODES, Space, check_space, reason_too_full

# Longer than the first delay of a retry with its jitter, shorter than a scan may be overdue.
PAST_THE_RETRY_SECONDS = 34.0
# What a set and the ledger need, and little more.
INODES = 200


@dataclass(frozen=True)
class Disk:
    """A file system of its own in a folder, that can be filled up and emptied again."""

    folder: Path

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder)], check=True)

    def fill(self, way: str, *, spare: int = 0) -> None:
        """Leave no more than `spare` bytes or files."""
        found = os.statvfs(self.folder)
        with suppress(OSError):  # the program writes there as well
            if way == "bytes":
                (self.folder / "filler").write_bytes(bytes(max(0, found.f_bavail * found.f_frsize - spare)))
            for number in range(found.f_favail - spare if way == "files" else 0):
                (self.folder / f"filler{number}").touch()

    def free_space(self) -> None:
        for filler in self.folder.glob("filler*"):
            filler.unlink()


@pytest.fixture
def mount() -> Iterator[Callable[[Path], Disk]]:
    """Mounts tmpfs over folders. Needs root, as installing the tests' packages did."""
    mounted: list[Path] = []

    def make(folder: Path, size: int = 48 * MIB) -> Disk:
        folder.mkdir(exist_ok=True)
        options = f"size={size},nr_inodes={INODES},mode=0755"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
        mounted.append(folder)
        return Disk(folder)

    yield make
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def drop(host: Host, made: RealSet) -> dict[str, bytes]:
    """Drop the set `karmic`; what is there then must stay there."""
    names = [f"karmic.{ending}" for ending in ("img", "vmlinuz", "initrd")]
    host.drop_set(made)
    return {name: (host.spool / name).read_bytes() for name in names}


def assert_done_once(host: Host, files: dict[str, bytes]) -> None:
    """The set is registered, one image of each kind; its files are as they were, and so is the ledger."""
    assert {name: (host.spool / name).read_bytes() for name in files} == files
    kinds = [image.id[:3] for image in host.cloud.images if image.state == "available"]
    assert sorted(kinds) == ["eki", "emi", "eri"]
    assert [f"karmic{ending}" in host.outputs() for ending in (".emi", ".eki", ".eri", ".uec.error")] == [
        *(True, True, True, False)
    ]
    assert not [p.name for p in host.spool.iterdir() if p.name.startswith(".") and p.name != SPOOL_LOCK.name]
    with closing(sqlite3.connect(host.state / "ledger.sqlite")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# --- the rule ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (Space(MIN_FREE_BYTES, MIN_FREE_INODES, 100), ""),
        (Space(MIN_FREE_BYTES - 1, MIN_FREE_INODES, 100), "511 KiB are left"),
        (Space(MIN_FREE_BYTES, MIN_FREE_INODES - 1, 100), "it takes 15 more"),
        (Space(MIN_FREE_BYTES, 0, 0), ""),
        (Space(MIN_FREE_BYTES, MIN_FREE_INODES, 100, read_only=True), "read-only"),
    ],
    ids=["enough", "a byte short", "a file short", "files are not counted", "read-only"],
)
def test_a_disk_needs_space_for_the_results_of_a_set(space: Space, expected: str) -> None:
    why, remedy = reason_too_full(space)
    assert expected in why
    assert bool(expected) is bool(why) is bool(remedy)


def test_a_folder_whose_space_is_unknown_passes_the_check(tmp_path: Path) -> None:
    check_space(tmp_path / "none", "the spool folder")


# --- full -------------------------------------------------------------------------------------------------


@contextmanager
def once_uploading(host: Host, act: Callable[[], None]) -> Iterator[None]:
    """Act as soon as a part has gone up, and the work is not over for some time."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            if host.cloud.calls("PutObject"):
                act()
                host.cloud.faults.clear()
                return

    host.cloud.faults.arm("slow", 0.3)
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


# What is left free: less than a set needs, or nothing.
@pytest.mark.parametrize(
    ("place", "way", "spare"),
    [
        ("spool", "bytes", 0),
        ("spool", "files", 8),
        ("state", "bytes", MIN_FREE_BYTES * 3 // 4),
        ("state", "files", 8),
    ],
    ids=["spool", "spool, short of files", "state, short", "state, short of files"],
)
def test_no_work_starts_if_the_ledger_has_no_space(
    place: str, way: str, spare: int, host: Host, small_set: RealSet, mount: Callable[[Path], Disk]
) -> None:
    disk = mount(host.spool if place == "spool" else host.state)
    open_ledger(host.state).close()
    files = drop(host, small_set)
    disk.fill(way, spare=spare)
    ended = host.run("once")
    assert ended.returncode == 75, ended.stderr
    assert f"no room in the {place}" in ended.stderr
    assert "its disk is full" in ended.stderr
    assert not host.cloud.calls("PutObject")
    assert f"no room in the {place}" in host.run("check").stdout
    if spare:
        assert f"no room in the {place}" in (host.spool / "karmic.uec.error").read_text()
    assert_resumed(host, disk, files)


@pytest.mark.parametrize("way", ["bytes", "files"])
@pytest.mark.parametrize("place", ["spool", "state"])
def test_a_disk_that_fills_up_during_the_work_defers_a_set(
    place: str, way: str, host: Host, small_set: RealSet, mount: Callable[[Path], Disk]
) -> None:
    disk = mount(host.spool if place == "spool" else host.state)
    open_ledger(host.state).close()
    files = drop(host, small_set)
    with once_uploading(host, lambda: disk.fill(way)):
        ended = host.run("once")
    if (place, way) == ("state", "files"):
        assert ended.returncode == 0, "the ledger's files are there, and need no other"
    else:
        assert ended.returncode == 75, ended.stderr
        assert "karmic is deferred" in ended.stderr
        assert "full" in ended.stderr or "No space left" in ended.stderr
        assert not (host.spool / "karmic.emi").exists()
    assert_resumed(host, disk, files)


@pytest.mark.parametrize("way", ["bytes", "files"])
def test_a_ledger_that_cannot_be_opened_on_a_full_disk_says_that_it_is_full(
    way: str, host: Host, small_set: RealSet, mount: Callable[[Path], Disk]
) -> None:
    disk = mount(host.state)
    open_ledger(host.state).close()
    files = drop(host, small_set)
    disk.fill(way)
    ended = host.run("once")
    assert ended.returncode == 75
    assert "its disk is full" in ended.stderr
    assert "Free some space" in ended.stderr or "Remove some files" in ended.stderr
    assert host.outputs() == []
    disk.free_space()
    assert host.run("once").returncode == 0
    assert_done_once(host, files)


def assert_resumed(host: Host, disk: Disk, files: dict[str, bytes]) -> None:
    disk.free_space()
    if not (host.spool / "karmic.emi").exists():
        host.ask("retry", "karmic")  # as its time would come
    ended = host.run("once")
    assert ended.returncode == 0, ended.stderr
    assert_done_once(host, files)


# --- under a daemon ---------------------------------------------------------------------------------------


@contextmanager
def daemon(host: Host, listener: Recorder, clocks: Clocks) -> Iterator[Service]:
    settings = load(host.config, environ={})
    with closing(open_ledger(settings.state.dir)) as book:
        made = Service(
            settings,
            listener=listener,
            ledger=book,
            clocks=clocks_module.Clocks(now=clocks.now, monotonic=clocks.monotonic),
        )
        with daemon_thread(made):
            until(lambda: bool(listener.sentences(Kind.READY)), "the first round")
            yield made


def _read_only(disk: Disk) -> None:
    """Refused by the kernel in the moment in which a file there is written."""
    for _ in range(200):
        with suppress(subprocess.CalledProcessError):
            return disk.remount("ro")
        time.sleep(0.01)
    raise AssertionError("something is written there all the time")


@pytest.mark.parametrize(
    ("place", "harm", "repair", "sentence"),
    [
        ("state", lambda disk: disk.fill("bytes"), lambda disk: disk.remount(f"size={128 * MIB}"), "full"),
        ("spool", _read_only, lambda disk: disk.remount("rw"), "Read-only file system"),
    ],
    ids=["state full", "spool read-only"],
)
def test_a_daemon_survives_a_full_or_read_only_disk_and_resumes_by_itself(
    place: str,
    harm: Callable[[Disk], None],
    repair: Callable[[Disk], None],
    sentence: str,
    host: Host,
    listener: Recorder,
    small_set: RealSet,
    mount: Callable[[Path], Disk],
) -> None:
    disk = mount(host.spool if place == "spool" else host.state)
    clocks = Clocks()
    with daemon(host, listener, clocks) as service:
        with once_uploading(host, lambda: harm(disk)):
            files = drop(host, small_set)
            until(lambda: bool(listener.sentences(Kind.DEFERRED)), "the set to be deferred")
        assert sentence in listener.sentences(Kind.DEFERRED)[0]
        assert not (host.spool / "karmic.emi").exists()
        clocks.pass_by(PAST_THE_RETRY_SECONDS)  # tried again while it is so, and deferred again
        until(lambda: len(listener.sentences(Kind.DEFERRED)) > 1, "the second attempt")
        assert "no room in the" in listener.sentences(Kind.DEFERRED)[1]
        assert not service.troubles, "the folder itself can be looked at"
        repair(disk)
        for _ in range(2):  # the second delay is twice as long; in steps, or its scan would be overdue
            clocks.pass_by(PAST_THE_RETRY_SECONDS)
            time.sleep(0.3)
        until(lambda: (host.spool / "karmic.emi").exists(), "the set to be done")
    assert_done_once(host, files)


def test_the_ledgers_disk_cannot_be_made_read_only_under_a_daemon(
    host: Host, listener: Recorder, mount: Callable[[Path], Disk]
) -> None:
    disk = mount(host.state)
    with daemon(host, listener, Clocks()), pytest.raises(subprocess.CalledProcessError):
        disk.remount("ro")
    disk.remount("ro")
    ended = host.run("once")
    assert ended.returncode == 75
    assert "Mount it for writing" in ended.stderr
    assert "no room in the state directory: it is mounted read-only" in host.run("check").stdout


# --- failing ----------------------------------------------------------------------------------------------

STRACE = shutil.which("strace")


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("state/ledger.sqlite-wal", "the ledger: cannot use it: disk I/O error"),
        ("spool", "Input/output error"),
    ],
    ids=["ledger", "results"],
)
def test_a_disk_that_fails_to_keep_what_was_written_defers_the_set(
    path: str, sentence: str, host: Host, small_set: RealSet
) -> None:
    open_ledger(host.state).close()
    files = drop(host, small_set)
    calls = "fsync,fdatasync"
    tracer = [str(STRACE), "-f", "-qq", "-o", os.devnull, "--seccomp-bpf", "-P", str(host.folder / path)]
    inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:error=EIO:when=3+2"]
    ended = subprocess.run(
        [*tracer, *inject, sys.executable, "-m", "uecwatchd", "once", "--config", str(host.config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert ended.returncode == 75, ended.stderr
    assert sentence in ended.stderr
    assert not (host.spool / "karmic.emi").exists()
    host.ask("retry", "karmic")
    ended = host.run("once")
    assert ended.returncode == 0, ended.stderr
    assert_done_once(host, files)


# --- away -------------------------------------------------------------------------------------------------


def test_a_spool_that_is_unmounted_is_taken_up_again_and_nothing_of_it_is_forgotten(
    host: Host, listener: Recorder, small_set: RealSet, tmp_path: Path
) -> None:
    # The worst case: what is not there is forgotten at once.
    text = host.config.read_text().replace("settle =", "linger = 0\nsettle =")
    text = text.replace("scan_every = 5", "scan_every = 1")
    other = tmp_path / "other"
    host.configure(text.replace("folders = [", f'folders = ["{other}", '))
    (tmp_path / "disk").mkdir()
    other.mkdir()
    bind = ["mount", "--bind", str(tmp_path / "disk"), str(other)]
    subprocess.run(bind, check=True)
    there = replace(host, spool=other)
    try:
        with daemon(host, listener, Clocks()):
            files = drop(there, small_set)
            until(lambda: (other / "karmic.emi").exists(), "the set to be done")
            before = there.outputs()
            subprocess.run(["umount", "--lazy", str(other)], check=True)
            until(lambda: listener.sentences(Kind.WATCH_LOST) != [], "the loss to be noticed")
            shutil.copy(small_set.machine, host.spool / "second.img")
            (host.spool / "second.toml").write_text('kernel = "none"\nramdisk = "none"\n')
            until(lambda: (host.spool / "second.uec.json").exists(), "the other spool to go on")
            shutil.rmtree(other)  # with the lock that was made where there was no disk
            until(
                lambda: any("cannot open" in sentence for sentence in listener.sentences(Kind.FAULT)),
                "a sentence",
            )
            other.mkdir()
            subprocess.run(bind, check=True)
            until(
                lambda: any("is over" in sentence for sentence in listener.sentences(Kind.READY)),
                "the spool again",
            )
            (other / "third.vmlinuz").write_bytes(b"none")
            until(lambda: (other / "third.uec.json").exists(), "the spool to be taken up")
            # If the folder without its disk was looked at twice, the set is found in the cloud once more.
            until(lambda: set(before) <= set(there.outputs()), "the set to be as it was")
        assert sum("cannot open" in sentence for sentence in listener.sentences(Kind.FAULT)) == 1
        assert [name for name in there.outputs() if name.startswith("karmic")] == before
        calls = [image for image in host.cloud.images if image.id.startswith(("eki", "eri"))]
        assert len(calls) == 2, "nothing is registered twice"
        assert {name: (other / name).read_bytes() for name in files} == files
    finally:
        subprocess.run(["umount", "--lazy", str(other)], check=True)
