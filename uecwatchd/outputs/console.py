"""Events as lines: for journald's stream, for a terminal, for any other stream.

A terminal shows the time of day, colours, and one line of progress below the log. Other streams have the time
in UTC. File names are untrusted: whatever they contain, an event cannot forge another line.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import TextIO

import structlog
from structlog.processors import TimeStamper
from structlog.typing import EventDict, Processor, WrappedLogger

from uecwatchd.outputs.progress import ProgressTracker, Snapshot
from uecwatchd.outputs.terminal import size_of
from uecwatchd.outputs.wording import phrases
from uecwatchd.system.text import printable

# syslog's numbers
PRIORITIES: Mapping[str, int] = MappingProxyType({"debug": 7, "info": 6, "warning": 4, "error": 3})
COLOURS: Mapping[str, str] = MappingProxyType({"warning": "\x1b[33m", "error": "\x1b[31m"})
PLAIN = "\x1b[0m"
ERASE_LINE = "\r\x1b[K"
ERASE_BELOW = "\x1b[J"
# Faster changes are not readable, and ten thousand parts would be ten thousand writes.
REDRAW_SECONDS = 0.1


Lines = Sequence[str]


# --- processors of structlog ------------------------------------------------------------------------------


def stream_processors() -> list[Processor]:
    """Return the chain for journald's stream."""
    return [structlog.processors.add_log_level, to_marked_lines]


def terminal_processors(*, coloured: bool) -> list[Processor]:
    clock_time = TimeStamper(fmt="%H:%M:%S", utc=False)
    return [structlog.processors.add_log_level, clock_time, to_coloured_lines if coloured else to_lines]


def plain_processors() -> list[Processor]:
    return [structlog.processors.add_log_level, TimeStamper(fmt="%Y-%m-%d %H:%M:%SZ", utc=True), to_lines]


def to_marked_lines(_: WrappedLogger, __: str, entry: EventDict) -> str:
    """Return lines for journald's stream, each with its priority, because each becomes an entry."""
    return "\n".join(f"<{PRIORITIES[entry['level']]}>{line}" for line in _lines(entry))


def to_lines(_: WrappedLogger, __: str, entry: EventDict) -> str:
    first, *others = _lines(entry)
    level = "" if entry["level"] == "info" else f"{entry['level']}: "
    return "\n".join([f"{entry['timestamp']}  {level}{first}", *(f"    {line}" for line in others)])


def to_coloured_lines(logger: WrappedLogger, method: str, entry: EventDict) -> str:
    lines, colour = to_lines(logger, method, entry), COLOURS.get(entry["level"])
    return f"{colour}{lines}{PLAIN}" if colour else lines


def _lines(entry: EventDict) -> list[str]:
    """Return the sentence, and the traceback if there is one."""
    return [printable(line) for line in (entry["event"], *entry["fields"].get("traceback", "").splitlines())]


# --- loggers that structlog calls at the end of a chain ---------------------------------------------------


class StreamLogger:
    """Logger that writes lines to a stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def msg(self, lines: str) -> None:
        with self._lock:
            _write(self._stream, f"{lines}\n")

    debug = info = warning = error = msg


class TerminalLogger:
    """Logger for a terminal: lines above the progress, which changes.

    `draw` returns the progress as lines, none of them wider than the terminal.
    """

    def __init__(self, stream: TextIO, tracker: ProgressTracker, draw: Callable[[Snapshot], Lines]) -> None:
        self._stream = stream
        self._tracker = tracker
        self._draw = draw
        self._drawn: Lines = ()
        self._lock = threading.Lock()  # guards the stream and _drawn
        tracker.subscribe(self._redraw, every_seconds=REDRAW_SECONDS, ends=True)

    def msg(self, lines: str) -> None:
        with self._lock:
            _write(self._stream, f"{self._erase()}{lines}\n{self._progress(self._tracker.snapshot())}")

    debug = info = warning = error = msg

    def _redraw(self, snapshot: Snapshot) -> None:
        with self._lock:
            if snapshot or self._drawn:
                _write(self._stream, f"{self._erase()}{self._progress(snapshot)}")

    def _erase(self) -> str:
        """Return the sequence that erases the progress, and moves the cursor to its beginning."""
        above = len(self._drawn) - 1
        return f"\r\x1b[{above}A{ERASE_BELOW}" if above > 0 else ERASE_LINE

    def _progress(self, snapshot: Snapshot) -> str:
        self._drawn = self._draw(snapshot) if snapshot else ()
        return "\n".join(self._drawn)


def draw_in_one_line(stream: TextIO, snapshot: Snapshot) -> Lines:
    """Return the progress of all sets in one line, as much of it as fits."""
    # One column stays free: a terminal may start a new line after the last column.
    return (phrases(snapshot)[: size_of(stream).columns - 1],)


def _write(stream: TextIO, text: str) -> None:
    with suppress(OSError):  # a closed terminal or a full log disk must not stop the work
        stream.write(text)
        stream.flush()
