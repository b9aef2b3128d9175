"""The journal for verbs that work on sets."""

import os
import sys

from uecwatchd.events import Event, Kind, Monitor
from uecwatchd.outputs.log import EventLog, open_log, take_over_stdlib


def program_log() -> EventLog:
    log = open_log(os.environ, sys.stderr)
    take_over_stdlib(log)
    return log


def report_lost(monitor: Monitor, sentence: str) -> None:
    monitor.tell(Event(Kind.LEDGER_LOST, sentence, level="error"))
