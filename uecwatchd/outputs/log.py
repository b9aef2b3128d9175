"""The log: each event as one sentence, through structlog to where standard error leads.

- to journald natively, if standard error is connected to the journal
- to the same stream as lines with `<6>` in front, if the extra `systemd` is not installed
- to a terminal, with the progress below: bars, or one line without the library rich
- to any other stream, as lines
"""

import logging
import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TextIO

import structlog
from structlog.typing import FilteringBoundLogger, Processor

from uecwatchd.events import Event, Level, Progress
from uecwatchd.outputs.console import (
    StreamLogger,
    TerminalLogger,
    draw_in_one_line,
    plain_processors,
    stream_processors,
    terminal_processors,
)
from uecwatchd.outputs.journal import JournaldLogger, Send, journal_send, journald_processors
from uecwatchd.outputs.progress import ProgressTracker
from uecwatchd.outputs.terminal import draw_bars, is_terminal, rich_console
from uecwatchd.outputs.wording import with_hint
from uecwatchd.system.text import shell_word

if TYPE_CHECKING:  # the library may be missing
    from rich.console import Console

LEVELS: Mapping[Level, int] = MappingProxyType(
    {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
)

LogOutput = Literal["journal", "marked", "terminal", "plain"]


@dataclass(frozen=True, slots=True)
class EventLog:
    """Listener that logs events, and tracks progress for the outputs."""

    logger: FilteringBoundLogger
    tracker: ProgressTracker

    def tell(self, event: Event) -> None:
        self.tracker.tell(event)
        # Members choose the name. Commands that are to be pasted have it as one word: the argument.
        about = {"set": event.set.name, "argument": shell_word(str(event.set))} if event.set else {}
        fields = {**about, **event.fields}
        self.logger.log(LEVELS[event.level], with_hint(event), kind=event.kind, fields=fields)

    def progress(self, progress: Progress) -> None:
        self.tracker.progress(progress)


def open_log(
    environ: Mapping[str, str],
    stderr: TextIO,
    *,
    level: Level = "info",
    send: Send | None = journal_send,
    rich: Callable[[TextIO, Mapping[str, str]], "Console | None"] = rich_console,
    clock: Callable[[], float] = time.monotonic,
) -> EventLog:
    """Return the log for the type of standard error. `level` is the lowest that is logged.

    `rich` returns the console of the library for a terminal, None without it.
    """
    tracker = ProgressTracker(clock=clock)
    output = choose_output(environ, stderr, native=send is not None)
    if output == "terminal":
        console = rich(stderr, environ)
        draw = partial(draw_bars, console) if console else partial(draw_in_one_line, stderr)
        logger: Any = TerminalLogger(stderr, tracker, draw)
        processors = terminal_processors(coloured=not environ.get("NO_COLOR"))
    else:
        logger, processors = _ends(output, stderr, send)
    wrapper = structlog.make_filtering_bound_logger(LEVELS[level])
    return EventLog(structlog.wrap_logger(logger, processors=processors, wrapper_class=wrapper), tracker)


def _ends(output: LogOutput, stderr: TextIO, send: Send | None) -> tuple[Any, list[Processor]]:
    """Return the logger at the end of structlog's chain, and the chain, where there is no progress."""
    if output == "journal" and send is not None:
        return JournaldLogger(send), journald_processors()
    return StreamLogger(stderr), stream_processors() if output == "marked" else plain_processors()


def choose_output(environ: Mapping[str, str], stderr: TextIO, *, native: bool) -> LogOutput:
    if _is_the_journal(environ, stderr):
        return "journal" if native else "marked"
    return "terminal" if is_terminal(stderr, environ) else "plain"


def _is_the_journal(environ: Mapping[str, str], stderr: TextIO) -> bool:
    """Return True if systemd connected this stream: a redirected child process inherits the variable too."""
    try:
        status = os.fstat(stderr.fileno())
    except (OSError, ValueError):  # closed, or not a file of the system
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class StdlibHandler(logging.Handler):
    """Handler that passes the logs of libraries (botocore, urllib3, watchdog) to the same log."""

    def __init__(self, log: EventLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
        self._log.logger.log(
            min(record.levelno, logging.ERROR),
            f"{record.name}: {record.getMessage()}",
            kind=None,
            fields={"traceback": trace},
        )


def take_over_stdlib(log: EventLog) -> logging.Handler:
    """Make the log the root logger's handler, and return the handler, for removal at the end."""
    # watchdog logs the end of its own thread at a normal stop. `watch` checks itself if it still works.
    logging.getLogger("watchdog").setLevel(logging.CRITICAL)
    # urllib3 warns about each response with unusual headers, with all of them: a cloud could flood the log.
    # Errors that prevent reading a response are raised, and logged by us.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    # watchdog warns about folders that are created too fast for it: the next scan finds what it misses.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"watchdog\.")
    handler = StdlibHandler(log)
    logging.getLogger().addHandler(handler)
    return handler
