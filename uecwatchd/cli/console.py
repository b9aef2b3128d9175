"""The verb `console`: the serial console of an installation, shown, followed and typed on.

It shows what is on the console so far and follows it to the end of the build; lines that are typed go to the
machine. A machine is a stranger's: what would control the terminal is left out, unless `--raw` gives it that.
"""

import argparse
import os
import select
import socket
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from uecwatchd.cli.meant_set import meant_set
from uecwatchd.cli.output import flush, put, put_text, say, written
from uecwatchd.cli.set_names import find_past_set
from uecwatchd.config.load import load
from uecwatchd.config.records import Settings
from uecwatchd.errors import Deferred, Rejected, problem
from uecwatchd.images.console import without_sequences
from uecwatchd.install.request import CONSOLE, CONSOLE_SOCKET, VNC_SOCKET, BuildStatus, read_status
from uecwatchd.ledger.open import read_ledger
from uecwatchd.ledger.records import SetBuild, SetRecord
from uecwatchd.outputs.wording import command, duration
from uecwatchd.system.signals import Stop, stop_on_signals
from uecwatchd.system.text import printable, shell_word

# Between two looks at the console, a file.
POLL_SECONDS = 0.2
PIECE_BYTES = 64 * 1024
# Ctrl-], as in telnet and virsh: a machine needs every other key.
LEAVE = b"\x1d"
ESCAPE = b"\x1b"
EXIT_CODES: Mapping[str, int] = {"rejected": os.EX_DATAERR, "deferred": os.EX_TEMPFAIL}

Show = Callable[[bytes], None]


def console(arguments: argparse.Namespace) -> int:
    settings = load(arguments.config, environ=os.environ)
    record = _find_set(arguments.set, settings)
    if record.build is None:
        why = "there is no recipe for it, or no attempt has begun"
        raise Rejected(f"{record.name}: its system is not installed here", why, "See: uecwatchd status")
    builds, stop = settings.install.builds, stop_on_signals(code=os.EX_OK)
    if arguments.vnc:
        return _show_vnc(record, builds / record.build.key / VNC_SOCKET)
    line = SerialLine(builds / record.build.key, _keyboard())
    try:
        if arguments.raw:
            with _raw_terminal():
                line.follow(_is_over(builds, record.build), _show_raw, stop)
        else:
            shown = PlainText()
            line.follow(_is_over(builds, record.build), shown.show, stop)
            shown.end()
    finally:
        line.close()
    return _report(record, read_status(builds, record.build.key))


def _keyboard() -> int | None:
    try:
        return sys.stdin.fileno()
    except (OSError, ValueError):  # a caller has put something else in its place
        return None


def _find_set(words: str, settings: Settings) -> SetRecord:
    ledger = read_ledger(settings)
    if ledger is None:
        find_past_set(words, (), ())  # which says that there is none
    assert ledger  # noqa: S101 (it has raised)
    with closing(ledger), meant_set(words, ledger, settings, past=False) as meant:
        record = meant.record
    assert record  # noqa: S101 (it was found by it)
    if meant.host:
        why = f"its files are on host {meant.host}"
        hint = f"On {meant.host}: {command('console', meant.id)}"
        raise Rejected(f"{record.name}: its console cannot be reached from here", why, hint)
    return record


def _is_over(builds: Path, build: SetBuild) -> Callable[[], bool]:
    def is_over() -> bool:
        status = read_status(builds, build.key)
        is_there = os.path.lexists(builds / build.key)
        return not is_there or (status is not None and status.is_over)

    return is_over


def _report(record: SetRecord, status: BuildStatus | None) -> int:
    """Say how the installation has ended, or that it goes on; return the exit code."""
    if status is None or not status.is_over:
        say(f"{record.name}: see how it goes on: {command('status', record.id)}")
        return os.EX_OK
    if failure := status.failure:
        say(f"{record.name}: {problem(failure)}. {failure.hint}")
        return EXIT_CODES[failure.kind]
    say(f"{record.name}: installed in {duration(status.ended - status.began)}")
    return os.EX_OK


def _show_vnc(record: SetRecord, place: Path) -> int:
    if not place.is_socket():
        why = "no machine of it runs at the moment"
        raise Deferred(f"{record.name}: there is no screen", why, f"See: {command('status', record.id)}")
    put(str(place))
    say(f"Show it with a viewer that takes a socket: vncviewer {shell_word(str(place))}")
    return os.EX_OK


# --- the line ---------------------------------------------------------------------------------------------


class SerialLine:
    """The serial port of the machines of one build: one after the other, each with its own socket.

    The output is read from the log, which is complete and which several people can follow. The socket takes
    the input; what it sends is the same output again, and dropped.
    """

    def __init__(self, folder: Path, keyboard: int | None) -> None:
        self._folder = folder
        self._read = 0
        self._socket: socket.socket | None = None
        self._keyboard = keyboard

    def follow(self, is_over: Callable[[], bool], show: Show, stop: Stop) -> None:
        """Show the console until the build is over, a stop is asked for, or the user leaves."""
        while not stop.is_set():
            over = is_over()  # before the last look, so that nothing is missed
            while data := self._new_output():
                show(data)
            if over or not self._exchange():
                return

    def close(self) -> None:
        if self._socket:
            self._socket.close()

    def _new_output(self) -> bytes:
        try:
            with (self._folder / CONSOLE).open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._read:  # the worker has begun again
                    self._read = 0
                data = os.pread(file.fileno(), PIECE_BYTES, self._read)
        except FileNotFoundError:
            return b""
        self._read += len(data)
        return data

    def _exchange(self) -> bool:
        """Wait a moment for the keyboard and the socket. Returns False if the user leaves."""
        self._connect()
        places = [place for place in (self._keyboard, self._socket) if place is not None]
        ready, _, _ = select.select(places, [], [], POLL_SECONDS)
        if self._socket in ready:
            self._drain()
        return self._type() if self._keyboard in ready else True

    def _connect(self) -> None:
        if self._socket is None and self._keyboard is not None:
            with suppress(OSError):  # no machine runs now
                self._socket = _connected(self._folder, CONSOLE_SOCKET)

    def _drain(self) -> None:
        data = b""
        with suppress(OSError):
            data = self._socket.recv(PIECE_BYTES) if self._socket else b""
        if not data and self._socket:  # the machine has ended
            self._socket.close()
            self._socket = None

    def _type(self) -> bool:
        data = os.read(self._keyboard, PIECE_BYTES) if self._keyboard is not None else b""
        if not data:
            self._keyboard = None
        before, left, _ = data.partition(LEAVE)
        if before and self._socket:
            with suppress(OSError):
                self._socket.sendall(before)
        return not left


def _connected(folder: Path, name: str) -> socket.socket:
    """Return a connection to a socket in a folder, whose path may be longer than one of a socket."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    line = socket.socket(socket.AF_UNIX)
    try:
        line.connect(f"/proc/self/fd/{descriptor}/{name}")
    except OSError:
        line.close()
        raise
    finally:
        os.close(descriptor)
    return line


# --- what is shown ----------------------------------------------------------------------------------------


class PlainText:
    """The console as text, without what controls a terminal. A prompt is shown before its line ends."""

    def __init__(self) -> None:
        self._rest = b""
        self._shown = ""  # of the line that has not ended

    def show(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._put(_plain(line), "\n")
        if ESCAPE not in self._rest:  # half a sequence would be shown as text
            self._put(_plain(self._rest), "")
        flush()

    def end(self) -> None:
        if self._rest:
            self._put(_plain(self._rest), "\n")

    def _put(self, text: str, end: str) -> None:
        again = "" if text.startswith(self._shown) else "\n"
        put_text(f"{again}{text if again else text[len(self._shown) :]}{end}")
        self._shown = "" if end else text


def _plain(line: bytes) -> str:
    return printable(without_sequences(line.decode(errors="replace").rstrip("\r")))


def _show_raw(data: bytes) -> None:
    with written():
        os.write(sys.stdout.fileno(), data)


@contextmanager
def _raw_terminal() -> Iterator[None]:
    """Give the machine each key as it is typed, also those that a terminal would act on."""
    descriptor = sys.stdin.fileno()
    if not os.isatty(descriptor):
        yield
        return
    say("Ctrl-] leaves the console.")
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        say("")
