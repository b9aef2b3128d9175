"""How a verb wakes the daemon: a named pipe in the state directory, beside the ledger.

Whatever is asked for stands in the ledger, and the daemon looks there now and then in any case; the bell only
saves somebody's waiting for that. So it may be missing, full, or rung for nothing, and who rings it need not
know which process listens, or whether one does.
"""

import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BELL_NAME = "bell"
# However often it was rung meanwhile, waking up once is enough: as much as a pipe holds.
PIPE_BYTES = 65536


def ring(folder: Path) -> None:
    """Wake the daemon on a state directory. Where none listens, nothing happens."""
    with suppress(OSError):
        rope = os.open(folder / BELL_NAME, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _pull(rope)
        finally:
            os.close(rope)


@contextmanager
def listening(folder: Path, wake: Callable[[], None]) -> Iterator[None]:
    """Have `wake` called, in a thread of its own that sleeps meanwhile, each time that somebody rings."""
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
    """A descriptor of the pipe: for both ways, so that it never comes to the end for want of a writer."""
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
