"""The verb `run`: the service, until it is asked to stop."""

import argparse
import os
import random
import signal
import threading
from contextlib import closing
from functools import partial

from uecwatchd.cli.program_log import program_log, report_lost
from uecwatchd.config.load import load
from uecwatchd.config.records import Settings
from uecwatchd.errors import Deferred, problem
from uecwatchd.events import Listener, error_event
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.open import open_ledger
from uecwatchd.outputs.systemd import Notifier, show_work
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.daemon import Service
from uecwatchd.system.clocks import Clocks
from uecwatchd.system.internal_errors import internal_error
from uecwatchd.system.signals import handle_signals, handle_stop_signals

# Somebody frees space by hand, and then checks if that was enough.
LEDGER_RETRY_SECONDS = 5.0


def run(arguments: argparse.Namespace) -> int:
    settings = load(arguments.config, environ=os.environ)
    notifier, stopped = Notifier(os.environ), threading.Event()
    ends = [stopped.set]
    handle_stop_signals(lambda: [end() for end in ends], code=os.EX_OK)
    log, reload_asked = program_log(), threading.Event()
    show_work(notifier, log.tracker)
    handle_signals([signal.SIGHUP], reload_asked.set)  # by default the signal ends the process
    threading.excepthook = partial(_tell_of_thread, log)
    ledger = _await_ledger(settings, notifier, stopped, log)
    if ledger is None:
        return os.EX_OK
    with closing(ledger):
        service = Service(
            settings, listener=log, tracker=log.tracker, clocks=Clocks(random=random.random), ledger=ledger
        )
        ends.append(service.stop)
        if stopped.is_set():  # asked while the ledger was opened
            service.stop()
        handle_signals([signal.SIGHUP], service.ask_reload)
        if reload_asked.is_set():
            service.ask_reload()
        service.run(notifier, reloaded=lambda: load(arguments.config, environ=os.environ))
    return os.EX_OK


def _await_ledger(
    settings: Settings, notifier: Notifier, stopped: threading.Event, listener: Listener
) -> Ledger | None:
    """Open the ledger, and wait while the disk is full; None if a stop is requested before.

    systemd hears that we are ready: otherwise `systemctl start` would wait without a message, and five failed
    starts would be the last.
    """
    conditions = Conditions(listener)
    while not stopped.is_set():
        try:
            return open_ledger(settings, lost=partial(report_lost, listener))
        except Deferred as error:
            if conditions.set(("ledger",), f"Nothing is begun yet: {error}", level="error"):
                notifier.ready(f"Waiting: {problem(error)}")
            notifier.watchdog()
            stopped.wait(min(LEDGER_RETRY_SECONDS, notifier.watchdog_seconds or LEDGER_RETRY_SECONDS))
    return None


def _tell_of_thread(listener: Listener, ended: threading.ExceptHookArgs) -> None:
    if isinstance(ended.exc_value, Exception):
        fault = internal_error(f"thread {ended.thread.name if ended.thread else ''}", ended.exc_value)
        listener.tell(error_event(fault))
