import os
import threading
from pathlib import Path

import pytest

from tests.support.waiting import PATIENCE_SECONDS
from uecwatchd.system import wakeup


def test_each_wakeup_wakes_the_listener(tmp_path: Path) -> None:
    woken = threading.Semaphore(0)
    with wakeup.listen(tmp_path, woken.release):
        for _ in range(3):
            wakeup.wake_daemon(tmp_path)
            assert woken.acquire(timeout=PATIENCE_SECONDS)
        assert (tmp_path / wakeup.PIPE_NAME).stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == []


def test_a_wakeup_without_a_listener_does_nothing(tmp_path: Path) -> None:
    wakeup.wake_daemon(tmp_path)
    assert list(tmp_path.iterdir()) == []
    os.mkfifo(tmp_path / wakeup.PIPE_NAME)  # as a killed daemon leaves it
    wakeup.wake_daemon(tmp_path)


def test_a_pipe_left_by_a_killed_daemon_is_used_again(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / wakeup.PIPE_NAME)
    woken = threading.Event()
    with wakeup.listen(tmp_path, woken.set):
        wakeup.wake_daemon(tmp_path)
        assert woken.wait(PATIENCE_SECONDS)


def test_a_wakeup_that_is_not_read_for_long_never_blocks_the_sender(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / wakeup.PIPE_NAME)
    unread = os.open(tmp_path / wakeup.PIPE_NAME, os.O_RDWR | os.O_NONBLOCK)
    os.write(unread, bytes(wakeup.PIPE_BYTES))
    wakeup.wake_daemon(tmp_path)
    os.close(unread)


@pytest.mark.parametrize("kind", ["file", "link", "nowhere"])
def test_without_a_pipe_the_daemon_runs_all_the_same(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "state" if kind == "nowhere" else tmp_path
    if kind == "file":
        (tmp_path / wakeup.PIPE_NAME).write_text("precious")
    if kind == "link":
        (tmp_path / wakeup.PIPE_NAME).symlink_to("elsewhere")
    with wakeup.listen(folder, lambda: None):
        wakeup.wake_daemon(folder)
    if kind == "file":
        assert (tmp_path / wakeup.PIPE_NAME).read_text() == "precious"
