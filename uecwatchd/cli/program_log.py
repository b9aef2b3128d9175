"""The journal for verbs that work on sets."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from uecwatchd.events import Event, Kind, Listener
from uecwatchd.outputs.log import EventLog, open_log, take_over_stdlib


def program_log() -> EventLog:
    log = open_log(os.environ, sys.stderr)
    take_over_stdlib(log)
    return log


@contextmanager
def progress_shown(log: EventLog) -> Iterator[EventLog]:
    """Leave no progress on the terminal behind the work, however that ends."""
    try:
        yield log
    finally:
        log.tracker.clear()


def report_lost(listener: Listener, sentence: str) -> None:
    listener.tell(Event(Kind.LEDGER_LOST, sentence, level="error"))
