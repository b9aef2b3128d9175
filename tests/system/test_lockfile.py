"""One process in a folder of our own and in one that is shared with other users, and who has the lock."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.host import NOBODY, open_way
from tests.support.members import locking, theirs
from uecwatchd.system import lockfile
from uecwatchd.system.lockfile import LockFile, LockTaken, find_holder

FILE = LockFile("lock", "another one is at work here", "Stop the other one.")


def acquire(folder: Path, *, patience_seconds: float = 0.0) -> int:
    return lockfile.acquire(folder, FILE, patience_seconds=patience_seconds)


def acquire_if_possible(folder: Path) -> int | None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return lockfile.acquire_in_shared_folder(folder, descriptor, FILE)
    finally:
        os.close(descriptor)


def acquire_shared(folder: Path) -> int:
    lock = acquire_if_possible(folder)
    assert lock is not None
    return lock


# --- a folder of our own ----------------------------------------------------------------------------------


def test_a_second_process_is_told_which_process_has_the_lock(tmp_path: Path) -> None:
    lock = acquire(tmp_path)
    with pytest.raises(LockTaken, match=rf"process {os.getpid()} \(.*python.*\) holds its lock"):
        acquire(tmp_path)
    lockfile.release(lock)
    lockfile.release(acquire(tmp_path))


def test_the_lock_file_names_the_process_and_is_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("a longer text than ours\n")
    (tmp_path / "lock").unlink()
    lockfile.release(acquire(tmp_path))
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


def test_no_link_is_followed_to_a_lock(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to("target")
    with pytest.raises(OSError, match="symbolic links"):
        acquire(tmp_path)
    assert not (tmp_path / "target").exists()


def test_a_lock_is_seen_without_getting_in_its_way(tmp_path: Path) -> None:
    assert not lockfile.is_locked(tmp_path, FILE)
    assert list(tmp_path.iterdir()) == []
    lock = acquire(tmp_path)
    assert lockfile.is_locked(tmp_path, FILE)
    lockfile.release(lock)
    assert not lockfile.is_locked(tmp_path, FILE)


def test_a_lock_that_another_process_has_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    lock = acquire(tmp_path)
    threading.Timer(0.2, lockfile.release, [lock]).start()
    lockfile.release(acquire(tmp_path, patience_seconds=10.0))


# --- the holder -------------------------------------------------------------------------------------------


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
    ids=["lock", "not seen from here", "of another kind", "waited for", "another file", "lease", "no line"],
)
def test_the_holder_is_read_from_the_kernels_list(tmp_path: Path, line: str, holder: int | None) -> None:
    status = tmp_path.stat()
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    assert find_holder([line.format(place=place)], status) == holder


def test_a_shared_folder_that_this_process_has_locked_names_it(tmp_path: Path) -> None:
    lock = acquire_shared(tmp_path)
    with pytest.raises(LockTaken, match=rf"process {os.getpid()} \(.*py"):
        acquire_shared(tmp_path)
    lockfile.release(lock)


# --- a folder that is shared with other users --------------------------------------------------------------


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder as the service's are: its own, and open to all who drop files."""
    open_way(tmp_path)
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


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


def test_a_member_who_locks_the_folder_itself_keeps_no_process_out(shared: Path) -> None:
    with locking(shared) as came:
        assert came == ["locked"]
        lock = acquire_shared(shared)
    lockfile.release(lock)


def test_a_member_cannot_lock_or_remove_the_lock(shared: Path) -> None:
    lockfile.release(acquire_shared(shared))
    with locking(shared / FILE.name) as came:
        assert came == ["Permission denied"]
    removed = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", "rm", "-f", shared / FILE.name],
        capture_output=True,
        check=False,
    )
    assert removed.returncode != 0
    assert (shared / FILE.name).exists()


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_and_locked_file_in_place_of_the_lock_is_removed(
    shared: Path, plant: Callable[[Path], None]
) -> None:
    plant(shared / FILE.name)
    with locking(shared / FILE.name):
        lock = acquire_shared(shared)
        assert lockfile.is_in_place(shared, lock, FILE)
        with pytest.raises(LockTaken):
            acquire_shared(shared)
    lockfile.release(lock)
    assert not (shared / "target").exists() or (shared / "target").read_text() == "mine"


def test_a_planted_file_that_cannot_be_removed_leaves_the_folder_unlocked(
    shared: Path, become_nobody: Callable[[], None]
) -> None:
    """The folder and the file are somebody else's, as where an administrator gave a folder away."""
    ours_but_open_to_all(shared / FILE.name)
    become_nobody()
    assert acquire_if_possible(shared) is None


def test_a_lock_file_that_was_removed_is_created_again(tmp_path: Path) -> None:
    lock = acquire_shared(tmp_path)
    (tmp_path / FILE.name).unlink()
    assert not lockfile.is_in_place(tmp_path, lock, FILE)
    again = acquire_shared(tmp_path)
    with pytest.raises(LockTaken):
        acquire_shared(tmp_path)
    lockfile.release(lock)
    lockfile.release(again)


@pytest.fixture
def become_nobody() -> Iterator[Callable[[], None]]:
    def become() -> None:
        os.setegid(NOBODY)
        os.seteuid(NOBODY)

    yield become
    os.seteuid(0)
    os.setegid(0)
