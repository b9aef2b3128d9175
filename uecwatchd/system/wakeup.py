"""A wake-up for the daemon: a named pipe in the state directory, beside the ledger.

Requests are in the ledger, and the daemon reads them now and then in any case; the pipe only makes it faster.
So the pipe may be missing, full, or written to for nothing. A verb that writes to it does not have to know
which process listens, or if one does.
"""

import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PIPE_NAME = "wakeup"
# How long a daemon that nobody wakes up goes without a look at the ledger: another host cannot wake it up.
UNWOKEN_SECONDS = 10.0
# All that a pipe holds: one wake-up is enough for any number of requests.
PIPE_BYTES = 65536


def wake_daemon(folder: Path) -> None:
    """Wake the daemon of a state directory. If none listens, nothing happens."""
    with suppress(OSError):
        pipe = os.open(folder / PIPE_NAME, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _write_byte(pipe)
        finally:
            os.close(pipe)


@contextmanager
def listen(folder: Path, wake: Callable[[], None]) -> Iterator[None]:
    """Call `wake` in a separate thread, each time a verb writes to the pipe."""
    try:
        pipe = _open_pipe(folder)
    except OSError:  # a file system without pipes, or a full one
        yield
        return
    ended = threading.Event()
    listener = threading.Thread(target=_listen, args=(pipe, ended, wake), name="wakeup", daemon=True)
    listener.start()
    try:
        yield
    finally:
        ended.set()
        _write_byte(pipe)
        listener.join()
        os.close(pipe)
        with suppress(OSError):
            (folder / PIPE_NAME).unlink()


def _open_pipe(folder: Path) -> int:
    """Open the pipe, after creating it if needed.

    It is open for both reading and writing, so that a read never ends for lack of a writer.
    """
    with suppress(FileExistsError):
        os.mkfifo(folder / PIPE_NAME, 0o600)
    pipe = os.open(folder / PIPE_NAME, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISFIFO(os.fstat(pipe).st_mode):
        os.close(pipe)
        raise FileExistsError(f"{folder / PIPE_NAME} is no pipe")
    os.set_blocking(pipe, True)
    return pipe


def _listen(pipe: int, ended: threading.Event, wake: Callable[[], None]) -> None:
    while os.read(pipe, PIPE_BYTES) and not ended.is_set():
        wake()


def _write_byte(pipe: int) -> None:
    if stat.S_ISFIFO(os.fstat(pipe).st_mode):
        with suppress(BlockingIOError):  # full: a wake-up is on its way already
            os.write(pipe, b"!")
