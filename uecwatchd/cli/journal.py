"""The journal for verbs that work on sets."""

import os
import sys

from uecwatchd.events import Event, Kind, Monitor
from uecwatchd.outputs.journal import Journal, journal_monitor, take_over_stdlib


def program_journal() -> Journal:
    journal = journal_monitor(os.environ, sys.stderr)
    take_over_stdlib(journal)
    return journal


def tell_lost(monitor: Monitor, sentence: str) -> None:
    monitor.tell(Event(Kind.LEDGER_LOST, sentence, level="error"))
