"""Detection of programs that write to a file, and its consequences."""

import hashlib
import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import opened_service, wait_for_line
from tests.support.host import Host
from tests.support.listener import Recorder
from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.config.load import load
from uecwatchd.demo.material import RealSet
from uecwatchd.errors import Deferred, Rejected
from uecwatchd.events import Kind
from uecwatchd.images.digests import FLAT_HOLES_LIMIT_BYTES
from uecwatchd.intake.sets.records import FolderSets, Refused, defer_open_files
from uecwatchd.intake.spool import safe_open, writers
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.service.attempt.digests import FRESH_SECONDS
from uecwatchd.service.daemon import Service
from uecwatchd.system.clocks import Clocks
from uecwatchd.system.mounts import file_system_of_open
from uecwatchd.types import BLOCKS_MARK, FileStamp


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.img"
    path.write_bytes(bytes(8192))
    return path


def written(file: Path) -> str | None:
    return writers.open_for_writing(file.parent, [file.name])


def test_a_file_that_nobody_has_open_is_not_being_written(file: Path) -> None:
    assert written(file) is None
    with file.open("rb"):
        assert written(file) is None


@pytest.mark.parametrize("mode", ["ab", "r+b"])
def test_a_file_open_for_writing_is_being_written_until_it_is_closed(file: Path, mode: str) -> None:
    with file.open(mode):
        assert written(file) == "a.img"
    assert written(file) is None


def test_a_file_that_is_only_mapped_for_writing_is_being_written(file: Path) -> None:
    with file.open("r+b") as opened:
        mapped = mmap.mmap(opened.fileno(), 8192)
    with mapped:
        assert written(file) == "a.img"
    assert written(file) is None


def test_a_writer_under_another_name_of_the_file_counts(file: Path) -> None:
    other = file.parent / "elsewhere"
    other.hardlink_to(file)
    with other.open("ab"):
        assert written(file) == "a.img"


def test_of_several_files_the_first_that_is_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for name in ("a", "set/b", "set/c"):
        (tmp_path / name).write_bytes(b"x")
    with (tmp_path / "set/b").open("ab"), (tmp_path / "set/c").open("ab"):
        assert writers.open_for_writing(tmp_path, ["a", "set/b", "set/c"]) == "set/b"


def test_a_file_whose_writers_are_unknown_is_not_held(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    assert writers.open_for_writing(tmp_path, ["link", "pipe", "gone"]) is None
    assert writers.open_for_writing(tmp_path / "none", ["a"]) is None


def test_a_file_of_somebody_else_is_not_asked_about_without_the_right_to(
    file: Path, request: pytest.FixtureRequest
) -> None:
    with file.open("ab"):
        request.getfixturevalue("as_nobody")
        assert written(file) is None


# What the unit's AmbientCapabilities=CAP_LEASE comes to: another user, without any right but capability 28.
WITH_CAP_LEASE = """
import ctypes, os, pathlib, struct, sys
from uecwatchd.intake.spool import writers
libc, bits = ctypes.CDLL(None, use_errno=True), 1 << 28
assert libc.prctl(8, 1, 0, 0, 0) == 0
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
header, sets = struct.pack("Ii", 0x20080522, 0), struct.pack("6I", bits, bits, 0, 0, 0, 0)
assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())
print(writers.open_for_writing(pathlib.Path(sys.argv[1]), ["a.img"]))
"""


def test_the_one_right_that_the_unit_gives_is_enough_for_the_files_of_others(
    file: Path, as_nobody: None
) -> None:
    del as_nobody
    os.seteuid(0)
    command = [sys.executable, "-c", WITH_CAP_LEASE, str(file.parent)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "None\n"
    with file.open("ab"):
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "a.img\n"


LATE_SECONDS = 60.0  # how late a turn may come on a busy machine
HOLD = """
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
opened = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(opened, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(file: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that does with the file as a file server does, and gives nothing back when it is asked to."""
    command = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_file_that_a_process_has_leased_counts_as_being_written(
    file: Path, holder: "subprocess.Popen[str]"
) -> None:
    assert writers.open_for_writing(file.parent, ["gone.img", "a.img"]) == "a.img"
    holder.communicate()
    assert writers.open_for_writing(file.parent, ["a.img"]) is None


def test_reading_a_leased_file_is_not_reported_as_a_disk_error(
    file: Path, holder: "subprocess.Popen[str]"
) -> None:
    words = r"a\.img: cannot open it yet: a process has a lease on it"
    with pytest.raises(Deferred, match=words), safe_open.open_member(file.parent, "a.img"):
        pass
    holder.communicate()
    with safe_open.open_member(file.parent, "a.img"):
        pass


def test_a_set_with_a_leased_file_waits_and_goes_on_by_itself(host: Host, small_set: RealSet) -> None:
    host.drop(small_set.machine, small_set.kernel, small_set.ramdisk, small_set.sidecar)
    command = [sys.executable, "-c", HOLD, str(host.spool / small_set.kernel.name)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        ended = host.run("once")
        assert ended.returncode == 75, ended.stderr
        assert "disk" not in ended.stderr
        assert small_set.kernel.name in host.run("status", "tiny").stdout
        process.communicate()
    assert host.run("once").returncode == 0


def test_a_denial_by_a_special_file_system_proves_no_writer(file: Path) -> None:
    assert file_system_of_open(-1) == ""
    with file.open("rb") as opened:
        assert file_system_of_open(opened.fileno()) in writers.LOCAL_FILE_SYSTEMS
    with Path("/proc/self/status").open("rb") as opened:
        assert file_system_of_open(opened.fileno()) == "proc"


def test_the_check_for_writers_harms_neither_the_writer_nor_itself(tmp_path: Path) -> None:
    """The kernel signals the holder of a lease on a file opened for writing; the usual signal would kill."""
    loop = (
        "import os, sys, time\n"
        "end = time.monotonic() + 1.5\n"
        "while time.monotonic() < end:\n"
        "    os.close(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT))\n"
    )
    probe = (
        "import sys, time, pathlib\n"
        "from uecwatchd.intake.spool import writers\n"
        "end, met = time.monotonic() + 1, 0\n"
        "while time.monotonic() < end:\n"
        "    met += writers.open_for_writing(pathlib.Path(sys.argv[1]), ['a']) is not None\n"
        "print(met)\n"
    )
    (tmp_path / "a").touch()
    writer = subprocess.Popen([sys.executable, "-c", loop, str(tmp_path / "a")])
    asked = subprocess.run(
        [sys.executable, "-c", probe, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (writer.wait(PATIENCE_SECONDS), asked.returncode) == (0, 0), asked.stderr


def test_a_set_that_would_be_refused_waits_as_well_while_it_is_written() -> None:
    refused = Refused("karmic", Rejected("a", "b", "c"), "stamp", ("karmic.img",))
    (wait,) = defer_open_files(FolderSets(refused=(refused,)), {"karmic": "karmic.img"}, ready_at=7.0).waiting
    assert wait.reason == "karmic.img to be closed by the process that writes it"
    assert wait.ready_at == 7.0
    assert not defer_open_files(
        FolderSets(refused=(refused,)), {"karmic": "karmic.img"}, ready_at=7.0
    ).refused
    assert defer_open_files(FolderSets(refused=(refused,)), {}, ready_at=7.0).refused


# --- sums -------------------------------------------------------------------------------------------------

Turn = Callable[..., Any]


@pytest.fixture
def turn(host: Host, listener: Recorder) -> Turn:
    """A run of `once`, as many seconds from now; gives the set's record."""

    def once(later: float = 0.0) -> Any:
        settings = load(host.config, environ={})
        with closing(open_ledger(settings.state.dir)) as book:
            now = time.time() + later
            (record,) = Service(
                settings, listener=listener, ledger=book, clocks=Clocks(now=lambda: now)
            ).once()
            return record

    return once


CONTENT = bytes(1 << 20)
RIGHT = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def dropped(host: Host) -> Path:
    """An image whose sum is not yet the declared one."""
    (host.spool / "karmic.toml").write_text('kernel = "none"\nconvert = "keep"\n')
    (host.spool / "karmic.sha256").write_text(f"{RIGHT}  karmic.img\n")
    image = host.spool / "karmic.img"
    image.write_bytes(b"half")
    return image


def test_a_fresh_set_waits_for_its_sum_and_is_taken_when_it_has_it(
    dropped: Path, turn: Turn, host: Host
) -> None:
    waiting = turn()
    assert (waiting.state, waiting.reason) == ("waiting", "karmic.img to have its declared SHA-256")
    assert host.report("karmic")["waiting_for"] == waiting.reason
    assert not (host.spool / "karmic.uec.error").exists()
    assert not host.cloud.calls("PutObject")
    dropped.write_bytes(CONTENT)
    assert turn().state == "done"


def test_the_wait_for_a_sum_ends_by_itself_also_across_restarts(
    dropped: Path, turn: Turn, listener: Recorder
) -> None:
    del dropped
    until = turn().next_retry
    for later in (FRESH_SECONDS / 2, FRESH_SECONDS - 5):
        assert (turn(later).state, turn(later).next_retry) == ("waiting", until)
    assert len(listener.sentences(Kind.WAITING)) == 1
    rejected = turn(FRESH_SECONDS + 5)
    assert rejected.state == "rejected"
    assert rejected.error.what == "karmic.img: its SHA-256 is not the declared one"


def test_an_old_set_with_a_wrong_sum_is_rejected_at_once(dropped: Path, turn: Turn) -> None:
    del dropped
    assert turn(FRESH_SECONDS + 5).state == "rejected"


def test_files_of_a_host_whose_clock_is_ahead_do_not_wait_longer(dropped: Path, turn: Turn) -> None:
    del dropped
    begun = time.time() - 86400.0
    assert turn(-86400.0).next_retry <= begun + FRESH_SECONDS + LATE_SECONDS
    assert turn(-86400.0 + FRESH_SECONDS + LATE_SECONDS).state == "rejected"


def test_a_sum_that_is_wrong_is_not_computed_again_while_nothing_changes(
    dropped: Path, turn: Turn, host: Host
) -> None:
    turn()
    settings = load(host.config, environ={})
    with closing(open_ledger(settings.state.dir)) as book:
        book.put_digest(FileStamp.of(dropped.stat()), "file", RIGHT)  # were it computed, it would be another
    assert turn(FRESH_SECONDS + 5).stage == "deliver the machine image", "where the mistake shows"


def test_the_sum_of_a_file_that_is_mostly_holes_is_computed_once_while_nothing_changes(
    dropped: Path, turn: Turn, host: Host
) -> None:
    os.truncate(dropped, FLAT_HOLES_LIMIT_BYTES + (1 << 20))
    assert turn().state == "waiting"
    settings = load(host.config, environ={})
    with closing(open_ledger(settings.state.dir)) as book:
        stamp = FileStamp.of(dropped.stat())
        assert str(book.digest(stamp, "file")).startswith(BLOCKS_MARK)
        assert book.digest(stamp, "plain")
        book.put_digest(stamp, "plain", RIGHT)  # were it computed, it would be another
    assert turn(FRESH_SECONDS + 5).state == "done"


def test_a_digest_that_a_file_turns_out_not_to_have_is_computed_again(
    dropped: Path, turn: Turn, host: Host
) -> None:
    """Pages that somebody has mapped are written to with no word of it in the file's times."""
    dropped.write_bytes(CONTENT)
    settings = load(host.config, environ={})
    with closing(open_ledger(settings.state.dir)) as book:
        book.put_digest(FileStamp.of(dropped.stat()), "file", RIGHT[::-1])
    (host.spool / "karmic.sha256").unlink()
    found = turn()
    assert (found.state, found.error.what) == ("deferred", "karmic.img: it changed while it was read")
    assert turn(FRESH_SECONDS).state == "done"


# --- what moves while it is read --------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["chmod", "link", "content with size and time kept"])
def test_a_file_that_moves_while_it_goes_up_is_not_registered_then_but_is_later(
    host: Host, listener: Recorder, change: str
) -> None:
    (host.spool / "karmic.toml").write_text('kernel = "none"\nconvert = "keep"\n')
    image = host.spool / "karmic.img"
    image.write_bytes(os.urandom(12 << 20))
    host.cloud.faults.arm("slow", 0.3)
    settings = load(host.config, environ={})
    with closing(open_ledger(settings.state.dir)) as book:
        service = Service(settings, listener=listener, ledger=book)
        mover = threading.Thread(target=_move, args=(host, image, change))
        mover.start()
        (record,) = service.once()
        mover.join(PATIENCE_SECONDS)
        assert (record.state, record.error and record.error.what) == (
            "deferred",
            "karmic.img: it changed while it was read",
        )
        assert not host.cloud.images
        host.cloud.faults.clear()
        (record,) = Service(settings, listener=listener, ledger=book).once()
    assert record.state == "done"
    assert [member.stamp for member in record.members] == [FileStamp.of(image.stat())]


def _move(host: Host, image: Path, change: str) -> None:
    until(lambda: host.cloud.calls("CreateBucket"), "the upload", pause=0.01)
    before = image.stat()
    if change == "chmod":
        image.chmod(0o600)
    elif change == "link":
        (image.parent.parent / "second").hardlink_to(image)
    else:
        with image.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"!")
        os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))


# --- a set whose file is open -----------------------------------------------------------------------------


def hurried(host: Host, listener: Recorder) -> Any:
    """A run of `once` by a clock so fast that its patience is soon over; gives the set's record."""
    with opened_service(host, listener, monotonic=lambda: 50 * time.monotonic()) as service:
        (record,) = service.once()
        return record


def test_once_waits_for_a_file_to_be_closed_and_says_so_when_that_takes_too_long(
    host: Host, listener: Recorder
) -> None:
    (host.spool / "karmic.toml").write_text('kernel = "none"\nconvert = "keep"\n')
    with (host.spool / "karmic.img").open("wb", buffering=0) as file:
        file.write(CONTENT)
        assert hurried(host, listener).state == "waiting"
        reason = "for karmic.img to be closed by the process that writes it"
        assert listener.sentences(Kind.WAITING) == [f"karmic: waiting {reason}"]
        assert reason in host.run("status", "karmic").stdout
        assert not host.cloud.calls("PutObject")
        host.ask("forget", "karmic")  # so that it is said again
        waiting = host.start("once")
        wait_for_line(waiting, f"waiting {reason}")
    _, talk = waiting.communicate(timeout=PATIENCE_SECONDS)
    assert waiting.returncode == 0, talk
    assert host.report("karmic")["state"] == "done"


def test_a_file_cut_short_is_not_refused_while_it_is_open(host: Host, listener: Recorder) -> None:
    (host.spool / "karmic.toml").write_text('kernel = "none"\n')
    image = host.spool / "karmic.img"
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", image, "4m"], check=True)
    os.truncate(image, 1 << 20)
    with image.open("ab"):
        record = hurried(host, listener)
        assert (record.state, record.error) == ("waiting", None)
        assert not (host.spool / "karmic.uec.error").exists()
    assert hurried(host, listener).state == "rejected"
