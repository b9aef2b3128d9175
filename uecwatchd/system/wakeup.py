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

BELL_NAME = "bell"
# All that a pipe holds: one wake-up is enough for any number of requests.
PIPE_BYTES = 65536


def ring(folder: Path) -> None:
    """Wake the daemon of a state directory. If none listens, nothing happens."""
    with suppress(OSError):
        rope = os.open(folder / BELL_NAME, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _pull(rope)
        finally:
            os.close(rope)


@contextmanager
def listening(folder: Path, wake: Callable[[], None]) -> Iterator[None]:
    """Call `wake` in a separate thread, each time a verb writes to the pipe."""
    try:
        pipe = _hung(folder)
    except OSError:  # a file system without pipes, or a full one
        yield
        return
    ended = threading.Event()
    listener = threading.Thread(target=_listen, args=(pipe, ended, wake), name="bell", daemon=True)
    listener.start()
    try:
        yield
    finally:
        ended.set()
        _pull(pipe)
        listener.join()
        os.close(pipe)
        with suppress(OSError):
            (folder / BELL_NAME).unlink()


def _hung(folder: Path) -> int:
    """Open the pipe, after creating it if needed.

    It is open for both reading and writing, so that a read never ends for lack of a writer.
    """
    with suppress(FileExistsError):
        os.mkfifo(folder / BELL_NAME, 0o600)
    pipe = os.open(folder / BELL_NAME, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISFIFO(os.fstat(pipe).st_mode):
        os.close(pipe)
        raise FileExistsError(f"{folder / BELL_NAME} is no pipe")
    os.set_blocking(pipe, True)
    return pipe


def _listen(pipe: int, ended: threading.Event, wake: Callable[[], None]) -> None:
    while os.read(pipe, PIPE_BYTES) and not ended.is_set():
        wake()


def _pull(rope: int) -> None:
    if stat.S_ISFIFO(os.fstat(rope).st_mode):
        with suppress(BlockingIOError):  # full: then it rings already
            os.write(rope, b"!")
