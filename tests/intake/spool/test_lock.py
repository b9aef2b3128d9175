"""One daemon for one state directory and for one spool folder, and what the second one says."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.daemon import daemon_process, wait_for_line
from tests.support.host import Host, open_way
from tests.support.waiting import PATIENCE_SECONDS
from uecwatchd.intake.spool import lock
from uecwatchd.intake.spool.lock import holder_in


@pytest.fixture
def daemon(host: Host) -> Iterator["subprocess.Popen[str]"]:
    with daemon_process(host) as running:
        wait_for_line(running, "Watching")
        yield running


@pytest.mark.parametrize("verb", ["run", "once"])
@pytest.mark.parametrize("shared", ["state directory", "spool folder"])
def test_a_second_daemon_ends_with_75_and_says_who_the_first_is(
    host: Host, daemon: "subprocess.Popen[str]", verb: str, shared: str
) -> None:
    other = host.folder / "other"
    other.mkdir()
    mine = host.state if shared == "spool folder" else host.spool
    host.configure(host.config.read_text().replace(str(mine), str(other)))
    second = host.run(verb)
    assert second.returncode == 75
    assert f"process {daemon.pid}" in second.stderr
    if shared == "spool folder":
        assert "uecwatchd run" in second.stderr, "the command, since the state directory is another"


def test_a_folder_is_free_again_when_its_holder_is_gone(host: Host, daemon: "subprocess.Popen[str]") -> None:
    daemon.kill()
    daemon.wait(PATIENCE_SECONDS)
    assert host.run("once").returncode == 0


@pytest.mark.parametrize(
    ("line", "holder"),
    [
        ("1: FLOCK  ADVISORY  WRITE 841 {place} 0 EOF", 841),
        ("1: FLOCK  ADVISORY  WRITE 0 {place} 0 EOF", None),
        ("1: POSIX  ADVISORY  WRITE 841 {place} 0 EOF", None),
        ("1: -> FLOCK  ADVISORY  WRITE 841 {place} 0 EOF", None),
        ("1: FLOCK  ADVISORY  WRITE 841 fe:00:1 0 EOF", None),
        ("1: LEASE  ACTIVE    READ 841 {place} 0 EOF", None),
        ("", None),
    ],
    ids=["held", "not seen from here", "of another kind", "waited for", "another file", "lease", "no line"],
)
def test_the_holder_is_read_from_the_kernels_list(tmp_path: Path, line: str, holder: int | None) -> None:
    status = tmp_path.stat()
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    assert holder_in([line.format(place=place)], status) == holder


def test_a_folder_held_by_this_process_names_it(tmp_path: Path) -> None:
    held = lock.hold(tmp_path)
    with pytest.raises(lock.Occupied, match=rf"process {os.getpid()} \(.*py"):
        lock.hold(tmp_path)
    os.close(held or 0)


# --- members who want it for themselves ------------------------------------------------------------------

NOBODY = 65534
# Locks what it can, as nobody, says so, and sleeps on it.
TAKE = """
import fcntl, os, sys, time
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for path in sys.argv[1:]:
    try:
        fcntl.flock(os.open(path, os.O_RDONLY | os.O_NONBLOCK), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        print(error.strerror, flush=True)
    else:
        print("locked", flush=True)
time.sleep(600)
"""


@contextmanager
def taking(*paths: Path) -> Iterator[list[str]]:
    """A member who locks what can be locked; what came of it, for each path."""
    command = [sys.executable, "-S", "-c", TAKE, *map(str, paths)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as member:
        assert member.stdout
        try:
            yield [member.stdout.readline().strip() for _ in paths]
        finally:
            member.kill()


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder as the service's are: its own, and open to all who drop files."""
    open_way(tmp_path)
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def theirs(at: Path) -> None:
    at.write_text("mine")
    at.chmod(0o644)
    os.chown(at, NOBODY, NOBODY)


def theirs_alone(at: Path) -> None:
    theirs(at)
    at.chmod(0o600)


def a_link_to_theirs(at: Path) -> None:
    theirs(at.with_name("target"))
    at.symlink_to("target")


def a_link_to_nothing(at: Path) -> None:
    at.symlink_to("/nothing/there")


def a_pipe(at: Path) -> None:
    os.mkfifo(at, 0o666)


def a_folder_with_something_in_it(at: Path) -> None:
    at.mkdir()
    theirs(at / "file")
    os.chown(at, NOBODY, NOBODY)


def ours_but_open_to_all(at: Path) -> None:
    at.write_text("ours")
    at.chmod(0o644)


PLANTS = (
    *(theirs, theirs_alone, a_link_to_theirs, a_link_to_nothing, a_pipe, a_folder_with_something_in_it),
    ours_but_open_to_all,
)


def test_a_member_who_locks_the_folder_keeps_nobody_from_it(shared: Path) -> None:
    with taking(shared) as came:
        assert came == ["locked"]
        held = lock.hold(shared)
    assert held is not None
    os.close(held)


def test_a_member_can_neither_lock_the_lock_nor_take_it_away(shared: Path) -> None:
    os.close(lock.hold(shared) or 0)
    with taking(shared / lock.LOCK_NAME) as came:
        assert came == ["Permission denied"]
    removed = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", "rm", "-f", shared / lock.LOCK_NAME],
        capture_output=True,
        check=False,
    )
    assert removed.returncode != 0
    assert (shared / lock.LOCK_NAME).exists()


@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_planted_in_the_locks_place_and_locked_is_put_aside(
    shared: Path, plant: Callable[[Path], None]
) -> None:
    plant(shared / lock.LOCK_NAME)
    with taking(shared / lock.LOCK_NAME):
        held = lock.hold(shared)
        assert held is not None
        assert lock.is_held(shared, held)
        with pytest.raises(lock.Occupied):
            lock.hold(shared)
    os.close(held)
    assert not (shared / "target").exists() or (shared / "target").read_text() == "mine"


def test_what_cannot_be_put_aside_leaves_the_folder_unlocked_and_not_unserved(
    host: Host, as_nobody_in: Callable[[Path], None]
) -> None:
    """The folder is somebody else's, and so is what lies there: as where an administrator gave one away."""
    (host.spool / lock.LOCK_NAME).write_text("root's")
    (host.spool / lock.LOCK_NAME).chmod(0o644)
    host.spool.chmod(0o1777)
    as_nobody_in(host.spool)
    assert lock.hold(host.spool) is None


def test_a_lock_that_was_taken_away_is_taken_anew_and_excludes_again(tmp_path: Path) -> None:
    held = lock.hold(tmp_path)
    assert held is not None
    (tmp_path / lock.LOCK_NAME).unlink()
    assert not lock.is_held(tmp_path, held)
    again = lock.hold(tmp_path)
    assert again is not None
    with pytest.raises(lock.Occupied):
        lock.hold(tmp_path)
    os.close(held)
    os.close(again)


def test_a_daemon_starts_and_works_while_a_member_locks_all_there_is(host: Host) -> None:
    open_way(host.folder)
    host.spool.chmod(0o3777)
    theirs(host.spool / lock.LOCK_NAME)
    (host.spool / "karmic.toml").write_text('kernel = "none"\nconvert = "keep"\n')
    (host.spool / "karmic.img").write_bytes(b"\1" * (1 << 20))
    with taking(host.spool, host.spool / lock.LOCK_NAME) as came:
        assert came == ["locked", "locked"]
        ended = host.run("once")
    assert ended.returncode == 0, ended.stderr
    assert (host.spool / "karmic.emi").exists()
    rows = host.run("status").stdout
    assert lock.LOCK_NAME not in rows


@pytest.fixture
def as_nobody_in(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    def become(folder: Path) -> None:
        open_way(folder)
        os.setegid(NOBODY)
        os.seteuid(NOBODY)

    yield become
    os.seteuid(0)
    os.setegid(0)


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "other"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_two_folders_on_two_file_systems_are_both_served_and_their_files_archived_where_they_are(
    make_host: Callable[..., Host], other_disk: Path
) -> None:
    host = make_host()
    text = host.config.read_text().replace("folders = [", f'folders = ["{other_disk}", ')
    host.configure(text.replace("settle =", 'after = "archive"\nsettle ='))
    for number, folder in enumerate((host.spool, other_disk)):
        (folder / "karmic.toml").write_text('kernel = "none"\nconvert = "keep"\n')
        (folder / "karmic.img").write_bytes(bytes([number]) * (1 << 20))
        (folder / "lucid").mkdir()
        (folder / "lucid" / "image.toml").write_text('kernel = "none"\nconvert = "keep"\nmachine = "disk"\n')
        (folder / "lucid" / "disk").write_bytes(bytes([number + 2]) * (1 << 20))
    for _ in range(2):
        assert host.run("once").returncode == 0
    ids = {
        (folder / f"{name}.emi").read_text()
        for folder in (host.spool, other_disk)
        for name in ("karmic", "lucid")
    }
    assert len(ids) == len(host.cloud.images) == 4
    for folder in (host.spool, other_disk):
        kept = sorted(path.name for path in (folder / "done").rglob("*") if path.is_file())
        assert kept == ["disk", "image.toml", "karmic.img", "karmic.toml"]
        assert not (folder / "lucid").exists()
