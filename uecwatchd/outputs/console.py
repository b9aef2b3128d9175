"""Events as lines: for journald's stream, for a terminal, for any other stream.

A terminal shows the time of day, colours, and one line of progress below the log. Other streams have the time
in UTC. File names are untrusted: whatever they contain, an event cannot forge another line.
"""

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import TextIO

import structlog
from structlog.processors import TimeStamper
from structlog.typing import EventDict, Processor, WrappedLogger

from uecwatchd.outputs.progress import ProgressTracker, Snapshot
from uecwatchd.outputs.wording import phrases
from uecwatchd.system.text import printable

# syslog's numbers
PRIORITIES: Mapping[str, int] = MappingProxyType({"debug": 7, "info": 6, "warning": 4, "error": 3})
COLOURS: Mapping[str, str] = MappingProxyType({"warning": "\x1b[33m", "error": "\x1b[31m"})
PLAIN = "\x1b[0m"
ERASE_LINE = "\r\x1b[K"
# Faster changes are not readable, and ten thousand parts would be ten thousand writes.
REDRAW_SECONDS = 0.1


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
    """Logger for a terminal: lines above one changing line of progress."""

    def __init__(self, stream: TextIO, tracker: ProgressTracker) -> None:
        self._stream = stream
        self._tracker = tracker
        self._lock = threading.Lock()
        tracker.subscribe(self._redraw, every_seconds=REDRAW_SECONDS)

    def msg(self, lines: str) -> None:
        with self._lock:
            _write(self._stream, f"{ERASE_LINE}{lines}\n{self._shortened(self._tracker.snapshot())}")

    debug = info = warning = error = msg

    def _redraw(self, snapshot: Snapshot) -> None:
        with self._lock:
            _write(self._stream, ERASE_LINE + self._shortened(snapshot))

    def _shortened(self, snapshot: Snapshot) -> str:
        # One column stays free: a terminal may start a new line after the last column.
        return phrases(snapshot)[: _columns(self._stream) - 1]


def _write(stream: TextIO, text: str) -> None:
    with suppress(OSError):  # a closed terminal or a full log disk must not stop the work
        stream.write(text)
        stream.flush()


def _columns(stream: TextIO) -> int:
    # Asked each time, because windows change. 80 if it is not known, as on a serial line.
    with suppress(OSError):
        return os.get_terminal_size(stream.fileno()).columns or 80
    return 80
