"""The journal: events as log lines, with message ids.

One event is one complete sentence. It goes to one of these:

- journald natively, if standard error is connected to the journal: fields `UEC_SET`, `UEC_EMI`, … have the
  data of the sentence, so that `journalctl -t uecwatchd UEC_SET=karmic` finds it
- the same stream as lines with `<6>` in front, if the extra `systemd` is not installed
- a terminal, with the time of day, and one line of progress below that is updated
- any other stream, as lines with the time in UTC

File names are untrusted: whatever they contain, an event cannot forge another one.
"""

import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.processors import CallsiteParameter, CallsiteParameterAdder, TimeStamper
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from uecwatchd.events import Event, Kind, Level, Progress
from uecwatchd.outputs.progress import Pacer, told
from uecwatchd.system.text import printable

Send = Callable[..., object]  # systemd.journal.send(MESSAGE, **fields)

try:
    from systemd.journal import send as native_send

    journal_send: Send | None = native_send
except ImportError:  # the extra is source only, and everything works without it
    journal_send = None

IDENTIFIER: Final = "uecwatchd"  # a unit's SyslogIdentifier= does not reach native messages

# Made once with `systemd-id128 new`, and never changed: the catalog explains them, and users filter by them.
MESSAGE_IDS: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.READY: "c803d43727394a74b0042d8d72102ff1",
        Kind.FOUND: "eea7a613a9da47329c7544a202c9107b",
        Kind.WAITING: "e4f7896ca3864c0dbf9358450686d5c4",
        Kind.WORKING: "36a4b2d0809a48699547819e52189383",
        Kind.BUNDLED: "929c539a24b94796ad0fd1457ae92a9b",
        Kind.UPLOADED: "ce07e4de780e441881b132d79c5f7918",
        Kind.REGISTERED: "ea3ef37076494b86bd895ecf1c996347",
        Kind.ADOPTED: "2c2100411f1c46b48cca1f830e4cd30e",
        Kind.DONE: "f47edcda86204ff791b518baf3b6e6f1",
        Kind.DEFERRED: "93a6f31b490a422ab35d715a29b50762",
        Kind.REJECTED: "a2a60d7ae7cd4fa0b5feae40029258f6",
        Kind.HALTED: "f594d48a721243a88607dcfa93aa360f",
        Kind.RESUMED: "512a4274e3784645bd2319b90db664d5",
        Kind.LEDGER_LOST: "e5b40f6276544783bd2671da03998cc1",
        Kind.WATCH_LOST: "76e22a642ad34cd98a11c2a0b1e9e3e5",
        Kind.RELOAD: "7ac5db29f3744c5fbf9a04cbcd6ea879",
        Kind.STOPPING: "4b06b756c31946289e8b270f2033b691",
        Kind.ASKED: "f6c7938aca424c788c3ef0b324ff047f",
        Kind.LEFT_OUT: "7d1f0c9be5a64cf7a3f2f7c1e08b6d45",
        Kind.FAULT: "0e6f259708af486ab7c00d8d4a3d25d8",
    }
)

LEVELS: Mapping[Level, int] = MappingProxyType(
    {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
)
PRIORITIES: Mapping[str, int] = MappingProxyType(
    {"debug": 7, "info": 6, "warning": 4, "error": 3}
)  # of syslog
COLOURS: Mapping[str, str] = MappingProxyType({"warning": "\x1b[33m", "error": "\x1b[31m"})
PLAIN = "\x1b[0m"
ERASE_LINE = "\r\x1b[K"

# Faster changes are not readable, and ten thousand parts would be ten thousand writes.
REDRAW_SECONDS = 0.1
# After these events there is no work on the set until another event says so.
ENDS = frozenset({Kind.DONE, Kind.DEFERRED, Kind.REJECTED, Kind.HALTED, Kind.WAITING, Kind.ASKED, Kind.FAULT})

Sink = Literal["journal", "marked", "terminal", "plain"]


def journal_monitor(
    environ: Mapping[str, str],
    stderr: TextIO,
    *,
    level: Level = "info",
    send: Send | None = journal_send,
    clock: Callable[[], float] = time.monotonic,
) -> "Journal":
    """Make the monitor for the type of standard error. `level` is the lowest that is logged."""
    sink = choose_sink(environ, stderr, native=send is not None)
    bar = ProgressLine(stderr, clock=clock) if sink == "terminal" else None
    coloured = sink == "terminal" and not environ.get("NO_COLOR")
    target = _Sender(send) if sink == "journal" and send is not None else _Writer(stderr, bar)
    logger: FilteringBoundLogger = structlog.wrap_logger(
        target,
        processors=_pipeline(sink, coloured=coloured),
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
    )
    return Journal(logger, bar)


def choose_sink(environ: Mapping[str, str], stderr: TextIO, *, native: bool) -> Sink:
    if _is_the_journal(environ, stderr):
        return "journal" if native else "marked"
    return "terminal" if stderr.isatty() and environ.get("TERM", "dumb") != "dumb" else "plain"


def _is_the_journal(environ: Mapping[str, str], stderr: TextIO) -> bool:
    """Return True if systemd connected this stream: a redirected child process inherits the variable too."""
    try:
        status = os.fstat(stderr.fileno())
    except (OSError, ValueError):  # closed, or not a file of the system
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _pipeline(sink: Sink, *, coloured: bool) -> list[Processor]:
    if sink == "journal":
        return [structlog.processors.add_log_level, CALL_SITE, to_journal]
    if sink == "marked":
        return [structlog.processors.add_log_level, to_marked_lines]
    if sink == "terminal":
        clock_time = TimeStamper(fmt="%H:%M:%S", utc=False)
        return [structlog.processors.add_log_level, clock_time, to_coloured_lines if coloured else to_lines]
    return [structlog.processors.add_log_level, TimeStamper(fmt="%Y-%m-%d %H:%M:%SZ", utc=True), to_lines]


@dataclass(frozen=True, slots=True)
class Journal:
    """Listener that logs events."""

    logger: FilteringBoundLogger
    bar: "ProgressLine | None"

    def tell(self, event: Event) -> None:
        if self.bar:
            self.bar.end(event)
        fields = {"set": event.set, **event.fields}
        self.logger.log(LEVELS[event.level], sentence_of(event), kind=event.kind, fields=fields)

    def progress(self, progress: Progress) -> None:
        if self.bar:
            self.bar.show(progress)


def sentence_of(event: Event) -> str:
    """Return the event's sentence with its hint, so that this line alone is enough to act on."""
    hint = str(event.fields.get("hint", ""))
    if not hint or hint in event.sentence:
        return event.sentence
    return f"{event.sentence.removesuffix('.')}. {hint}"


# --- the last steps of the pipelines ----------------------------------------------------------------------

CALL_SITE = CallsiteParameterAdder(
    [CallsiteParameter.PATHNAME, CallsiteParameter.LINENO, CallsiteParameter.FUNC_NAME],
    additional_ignores=["uecwatchd.outputs.journal", "uecwatchd.events"],
)


def to_journal(_: WrappedLogger, __: str, entry: EventDict) -> EventDict:
    """Turn an entry into journald's fields, in upper case. Text as bytes may have several lines there."""
    fields = {
        f"UEC_{name.upper()}": _encoded(value) for name, value in entry["fields"].items() if value != ""
    }
    known = {"MESSAGE_ID": MESSAGE_IDS[entry["kind"]]} if entry["kind"] else {}
    return {
        **fields,
        **known,
        "MESSAGE": printable(entry["event"]),
        "PRIORITY": PRIORITIES[entry["level"]],
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "CODE_FILE": entry["pathname"],
        "CODE_LINE": entry["lineno"],
        "CODE_FUNC": entry["func_name"],
    }


def _encoded(value: object) -> bytes:
    """Return a field without control characters.

    The catalog inserts fields, and journalctl prints them raw.
    """
    return "\n".join(printable(line) for line in str(value).split("\n")).encode()


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


# --- where they lead --------------------------------------------------------------------------------------


class _Sender:
    """structlog's innermost logger for journald: every method is one `send`."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def debug(self, *, MESSAGE: str, **fields: Any) -> None:  # noqa: N803 (journald's spelling)
        with suppress(OSError):  # a failing journal must not stop the work
            self._send(MESSAGE, **fields)

    info = warning = error = debug


class _Writer:
    """structlog's innermost logger for streams."""

    def __init__(self, stream: TextIO, bar: "ProgressLine | None") -> None:
        self._stream = stream
        self._bar = bar
        self._lock = threading.Lock()

    def debug(self, lines: str) -> None:
        if self._bar:
            self._bar.above(lines)
            return
        with self._lock:
            _write(self._stream, f"{lines}\n")

    info = warning = error = debug


def _write(stream: TextIO, text: str) -> None:
    with suppress(OSError):  # a closed terminal or a full log disk must not stop the work
        stream.write(text)
        stream.flush()


class StdlibHandler(logging.Handler):
    """Handler that passes the logs of libraries (botocore, urllib3, watchdog) to the same journal."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.WARNING)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
        self._journal.logger.log(
            min(record.levelno, logging.ERROR),
            f"{record.name}: {record.getMessage()}",
            kind=None,
            fields={"traceback": trace},
        )


def take_over_stdlib(journal: Journal) -> logging.Handler:
    """Make the journal the root logger's handler, and return the handler, for removal at the end."""
    # watchdog logs the end of its own thread at a normal stop. `watch` checks itself if it still works.
    logging.getLogger("watchdog").setLevel(logging.CRITICAL)
    # urllib3 warns about each response with unusual headers, with all of them: a cloud could flood the log.
    # Errors that prevent reading a response are raised, and logged by us.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    # watchdog warns about folders that are created too fast for it: the next scan finds what it misses.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"watchdog\.")
    handler = StdlibHandler(journal)
    logging.getLogger().addHandler(handler)
    return handler


# --- progress ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Underway:
    """Current work, with one phrase for each set. Safe to use from several threads."""

    clock: Callable[[], float]
    _pacers: dict[str, Pacer] = field(default_factory=dict)
    _phrases: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, progress: Progress) -> None:
        with self._lock:
            pacer = self._pacers.setdefault(progress.set, Pacer())
            self._phrases[progress.set] = phrase(progress, speed=pacer.speed(progress, self.clock()))

    def drop(self, name: str) -> None:
        with self._lock:
            self._pacers.pop(name, None)
            self._phrases.pop(name, None)

    def text(self) -> str:
        with self._lock:
            return "; ".join(self._phrases.values())


def phrase(progress: Progress, *, speed: float) -> str:
    """Return `karmic: upload the machine, part 37, 31 %, 84 MB/s`, as far as it is known."""
    p = progress
    known = told(part=p.part, done=p.done, total=p.total, speed=speed)
    return printable(", ".join([f"{p.set}: {p.stage}", *known]))


class ProgressLine:
    """The last line of a terminal, updated during work; log lines are printed above it."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._underway = Underway(clock)
        self._drawn = float("-inf")
        self._lock = threading.Lock()

    def show(self, progress: Progress) -> None:
        self._underway.note(progress)
        with self._lock:
            if self._clock() - self._drawn >= REDRAW_SECONDS:
                self._drawn = self._clock()
                _write(self._stream, ERASE_LINE + self._clipped())

    def above(self, lines: str) -> None:
        with self._lock:
            _write(self._stream, f"{ERASE_LINE}{lines}\n{self._clipped()}")

    def end(self, event: Event) -> None:
        if event.kind in ENDS:
            self._underway.drop(event.set)

    def _clipped(self) -> str:
        # One column stays free: a terminal may start a new line after the last column.
        return self._underway.text()[: _columns(self._stream) - 1]


def _columns(stream: TextIO) -> int:
    # Asked each time, because windows change. 80 if it is not known, as on a serial line.
    with suppress(OSError):
        return os.get_terminal_size(stream.fileno()).columns or 80
    return 80
