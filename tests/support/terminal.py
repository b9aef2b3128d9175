"""A program on a pseudo terminal, and the screen as a person sees it."""

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pyte

from tests.support.host import Host
from tests.support.waiting import PATIENCE_SECONDS

PROGRAM = ("-m", "uecwatchd")
WITHOUT_RICH = (
    "-c",
    "import sys; sys.modules['rich'] = None; from uecwatchd.cli.main import main; sys.exit(main())",
)


class Terminal:
    """The screen of a program that runs on it. It has what was written so far, and nothing is lost."""

    def __init__(self, process: "subprocess.Popen[bytes]", master: int, columns: int, lines: int) -> None:
        self.process = process
        self.written = b""
        self._master = master
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    @property
    def cursor_is_hidden(self) -> bool:
        return bool(self._screen.cursor.hidden)

    def colours_of(self, words: str) -> set[str]:
        """Return the colours of these words where the screen has them first."""
        for number, line in enumerate(self._screen.display):
            if (at := line.find(words)) >= 0:
                return {self._screen.buffer[number][column].fg for column in range(at, at + len(words))}
        raise AssertionError(f"no {words!r} in\n{self.text}")

    def await_text(self, *words: str) -> str:
        """Read until the screen has all these words, and return it."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not all(word in self.text for word in words):
            assert time.monotonic() < end, f"waited too long for {words}\n{self.text}"
            if not self._read():
                break
        assert all(word in self.text for word in words), f"it has ended without {words}\n{self.text}"
        return self.text

    def await_end(self) -> int:
        """Read to the end, and return the exit code."""
        end = time.monotonic() + PATIENCE_SECONDS
        while self._read():
            assert time.monotonic() < end, f"waited too long for the end\n{self.text}"
        return self.process.wait(PATIENCE_SECONDS)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def interrupt_until_end(self) -> int:
        """Press Ctrl-C again and again, and return the exit code.

        Python notices one that comes just before it reads a line only with the next signal.
        """
        end = time.monotonic() + PATIENCE_SECONDS
        while self._read():
            assert time.monotonic() < end, f"waited too long for the end\n{self.text}"
            self.interrupt()
        return self.process.wait(PATIENCE_SECONDS)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def _read(self) -> bool:
        """Read what there is, and wait for it a moment. Return False at the end."""
        if not select.select([self._master], [], [], 0.1)[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: nobody has the other side open
            return False
        self.written += data
        self._stream.feed(data)
        return bool(data)


@contextmanager
def on_terminal(
    host: Host,
    *arguments: str,
    columns: int = 80,
    lines: int = 24,
    program: tuple[str, ...] = PROGRAM,
    **environ: str,
) -> Iterator[Terminal]:
    """Run `uecwatchd` on a terminal of this size, and end it afterwards if it has not ended."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (lines, columns))
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    named = {"TERM": "xterm-256color", "UECWATCHD_CONFIG": str(host.config)}
    process = subprocess.Popen(
        # A background job of a shell ignores the signal, and so would all that it starts.
        ["env", "--default-signal=INT", sys.executable, *program, *arguments],
        env={**inherited, **named, **environ},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(process, master, columns, lines)
    finally:
        process.kill()
        process.wait(PATIENCE_SECONDS)
        os.close(master)
