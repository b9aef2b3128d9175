"""The verbs. Standard output is data, standard error is talk; the exit code is one of sysexits'."""

import argparse
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

from uecwatchd import __version__, byhand, checkup, digest, gallery, memory, orders, status, terminal
from uecwatchd.cloud.entry import entered
from uecwatchd.demo import trying
from uecwatchd.errors import Deferred, Halted, NotPermitted, Rejected, UecError
from uecwatchd.image import amount
from uecwatchd.journal import Journal, journal_monitor, take_over_stdlib
from uecwatchd.ledger import Ledger, SetRecord, open_ledger, read_ledger
from uecwatchd.monitor import Event, Kind, Monitor, Tee
from uecwatchd.notify import Notifier, StatusMonitor
from uecwatchd.service import Service
from uecwatchd.settings import Settings, load
from uecwatchd.signals import answer, answer_end, stopped_by_signals
from uecwatchd.strangers import shell_word, spelled
from uecwatchd.terminal import flush, let_go, put, put_json, say
from uecwatchd.types import DetectedCloud
from uecwatchd.unforeseen import our_fault
from uecwatchd.unit import Unasked, Unit, take_environment, take_user, unit_for
from uecwatchd.verify import verify

EX_OK = 0
EX_USAGE = 64
EX_NO_INPUT = 66
EX_DEFERRED = 75

# How a command that ran over several sets ends: by the first of these states that any of them is in.
WORST_FIRST = ("halted", "rejected", "deferred", "waiting", "queued", "working")


# A disk is given space by hand, by somebody who then looks whether that was enough.
LEDGER_RETRY_SECONDS = 5.0
BESIDES = "; or read what lies beside your file: NAME.uec.error, NAME.uec.json, NAME.uec.log."


class _Parser(argparse.ArgumentParser):
    """`appendix` makes the end of the help when somebody asks for it: nothing of that is imported before."""

    appendix: Callable[[], str] | None = None

    def format_help(self) -> str:
        if self.appendix:
            self.epilog = self.appendix()
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns its exit code."""
    if argv is None:
        terminal.speak_utf8()
    terminal.escape()
    memory.keep_together()
    memory.never_dumped()
    arguments = _parser().parse_args(argv)
    try:
        with _permitted(sys.argv[1:] if argv is None else argv, arguments):
            arguments.given = _enter(arguments)
            code = cast("Callable[[argparse.Namespace], int]", arguments.verb)(arguments)
        flush()
        return code
    except UecError as error:
        say(f"uecwatchd: {error.what}: {error.why}")
        say(f"  {error.hint}")
        return error.exit_code
    except BrokenPipeError:
        # `uecwatchd status | head`: nobody is left to read the rest, nor Python's complaint about that.
        let_go()
        return EX_OK
    except Exception as fault:  # noqa: BLE001 (whoever typed a command is told in words whatever it is)
        found = our_fault("this command", fault)
        say(f"uecwatchd: {found.what}: {found.why}")
        say(f"  Please report it, with these places: {found.way}")
        return found.exit_code


def _enter(arguments: argparse.Namespace) -> Unit | None:
    """Have what the service has, as far as the verb is to do or see what the service would."""
    if arguments.place == "own":
        return None
    try:
        given = unit_for(arguments.config, name=arguments.unit)
    except Unasked as error:
        say(f"uecwatchd: {error}")
        given = None
    if given:
        take_environment(given)
    if arguments.place == "service" and os.geteuid() == 0:
        take_user(given, _settings(arguments).state.dir)
    return given


@contextmanager
def _permitted(argv: Sequence[str], arguments: argparse.Namespace) -> Iterator[None]:
    """Tell those who may not read the configuration or the ledger who may.

    What is missing when root asks is the service's user's to have: that hint is not ours to give.
    """
    as_root = os.geteuid() == 0
    try:
        yield
    except NotPermitted as error:
        if as_root or "set" not in arguments:
            raise
        hint = f"Try: sudo uecwatchd {' '.join(map(shell_word, argv))}"
        raise NotPermitted(error.what, error.why, f"{hint}{arguments.besides}") from error


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="uecwatchd",
        description="Makes registered cloud images of the disk images that people put in a folder.",
    )
    parser.add_argument("--version", action="version", version=f"uecwatchd {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    _add(verbs, "run", run, "watch the spool folders until stopped (for systemd)")
    once_verb = _add(verbs, "once", once, "scan, do everything that can be done, and exit")
    once_verb.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    once_verb.add_argument("--json", action="store_true", help="print the outcome as JSON")
    check_verb = _add(verbs, "check", check, "look at everything the service needs", place="environment")
    check_verb.add_argument("--json", action="store_true", help="print the findings as JSON")
    status_verb = _add(verbs, "status", show_status, "what became of each file; with a name: why not yet")
    status_verb.add_argument(
        "set", nargs="?", metavar="SET", type=spelled, help=f"{orders.HOW_NAMED}, or a file"
    )
    status_verb.add_argument("--json", action="store_true", help="print the rows as JSON")
    status_verb.set_defaults(besides=BESIDES)
    verify_verb = _add(verbs, "verify", verify_set, "take a set back from the cloud and compare it")
    verify_verb.add_argument("set", metavar="SET", type=spelled, help=orders.HOW_NAMED)
    verify_verb.add_argument("--json", action="store_true", help="print the findings as JSON")
    orders.add_verbs(partial(_add, verbs))
    gallery.add_verb(partial(_add, verbs))
    byhand.add_verbs(partial(_add, verbs, place="environment"))
    trying.add_verbs(partial(_add, verbs, place="own"))
    return parser


def _add(
    verbs: Any,
    name: str,
    act: Callable[[argparse.Namespace], int],
    text: str,
    *,
    place: Literal["service", "environment", "own"] = "service",
) -> _Parser:
    """`place` is what a verb has of the service: its user and environment, its environment, or nothing."""
    parser: _Parser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="instead of /etc/uecwatchd/uecwatchd.toml"
    )
    parser.add_argument(
        "--unit", metavar="NAME", help="whose environment, credentials and user to have: uecwatchd.service"
    )
    parser.set_defaults(verb=act, place=place, besides="")
    return parser


def _settings(arguments: argparse.Namespace) -> Settings:
    return load(arguments.config, environ=os.environ)


# --- the service ------------------------------------------------------------------------------------------


def run(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    notifier, stopped = Notifier(os.environ), threading.Event()
    ends = [stopped.set]
    answer_end(lambda: [end() for end in ends], code=EX_OK)
    monitor, reload_asked = Tee((_journal(), StatusMonitor(notifier))), threading.Event()
    answer([signal.SIGHUP], reload_asked.set)  # by itself it would be the end
    threading.excepthook = partial(_tell_of_thread, monitor)
    book = _await_ledger(settings, notifier, stopped, monitor)
    if book is None:
        return EX_OK
    with closing(book):
        service = Service(settings, monitor=monitor, book=book, spread=random.random)
        ends.append(service.stop)
        if stopped.is_set():  # asked while the ledger was opened
            service.stop()
        answer([signal.SIGHUP], service.ask_reload)
        if reload_asked.is_set():
            service.ask_reload()
        service.run(notifier, reloaded=lambda: _settings(arguments))
    return EX_OK


def _await_ledger(
    settings: Settings, notifier: Notifier, stopped: threading.Event, monitor: Monitor
) -> Ledger | None:
    """Open the ledger, however long a full disk keeps us from it; None when asked to stop before that.

    systemd is told that we are there: `systemctl start` would wait for it in silence, and five failed starts
    would be the last.
    """
    told = ""
    while not stopped.is_set():
        try:
            return open_ledger(settings.state.dir, lost=partial(_tell_lost, monitor))
        except Deferred as error:
            if str(error) != told:
                told = str(error)
                monitor.tell(Event(Kind.FAULT, f"Nothing is begun yet: {error}", level="error"))
                notifier.ready(f"Waiting: {error.what}: {error.why}")
            notifier.watchdog()
            stopped.wait(min(LEDGER_RETRY_SECONDS, notifier.watchdog_seconds or LEDGER_RETRY_SECONDS))
    return None


def _tell_of_thread(monitor: Monitor, ended: threading.ExceptHookArgs) -> None:
    if isinstance(ended.exc_value, Exception):
        fault = our_fault(f"thread {ended.thread.name if ended.thread else ''}", ended.exc_value)
        monitor.tell(Event(Kind.FAULT, str(fault), level="error", fields={"traceback": fault.trace}))


def _tell_lost(monitor: Monitor, sentence: str) -> None:
    monitor.tell(Event(Kind.LEDGER_LOST, sentence, level="error"))


def _journal() -> Journal:
    journal = journal_monitor(os.environ, sys.stderr)
    take_over_stdlib(journal)
    return journal


def once(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    if arguments.dry_run:
        return show_plan(settings, as_json=arguments.json)
    journal = _journal()
    with closing(open_ledger(settings.state.dir, lost=partial(_tell_lost, journal))) as book:
        before = {(r.folder, r.name): r for r in book.sets()}
        service = Service(settings, monitor=journal, book=book, spread=random.random)
        answer_end(service.stop, code=EX_DEFERRED)
        records = service.once()
    changed = [r for r in records if before.get((r.folder, r.name)) != r]
    say(_summed_up(records, changed))
    if arguments.json:
        found = [status.Row(r.folder, r.name, r.state, "", r) for r in records]
        put_json([status.as_json(row) for row in found])
    return max((trouble.exit_code for trouble in service.troubles), default=_exit_code(records))


def show_plan(settings: Settings, *, as_json: bool) -> int:
    """What `once` would do: it waits for files to settle, so all of them are taken to have."""
    found = status.survey(settings, now=time.time(), settled=True)
    for trouble in found.troubles:
        say(f"uecwatchd: {trouble}")
    rows = [row for row in found.rows if status.begun_now(row, found.known.now)]
    if as_json:
        put_json([status.as_json(row) for row in rows])
    for line in _table(rows, settings) if not as_json else ():
        put(line)
    others = sum(row.is_set for row in found.rows) - len(rows)
    say(f"{len(rows)} to be worked on, nothing to be done with {others}.")
    return max((trouble.exit_code for trouble in found.troubles), default=EX_OK)


def _summed_up(records: Sequence[SetRecord], changed: Sequence[SetRecord]) -> str:
    states = sorted({r.state for r in records})
    counts = ", ".join(f"{sum(r.state == state for r in records)} {state}" for state in states)
    if not records:
        return "Nothing to do: no sets were found."
    return f"Nothing to do: {counts}." if not changed else f"Worked on {len(changed)}: {counts}."


def _exit_code(records: Iterable[SetRecord]) -> int:
    unfinished = [record for record in records if record.state in WORST_FIRST]
    if not unfinished:
        return EX_OK
    worst = min(unfinished, key=lambda record: WORST_FIRST.index(record.state))
    return worst.error.exit_code if worst.error else EX_DEFERRED


# --- questions --------------------------------------------------------------------------------------------


def check(arguments: argparse.Namespace) -> int:
    unit, settings = arguments.given, _settings(arguments)
    wanted = checkup.needs(settings)
    take_user(unit, settings.state.dir)
    stop, clock = stopped_by_signals(code=EX_DEFERRED), partial(datetime.now, UTC)
    findings = list(checkup.examine(settings, clock=clock, unit=unit, wanted=wanted, stop=stop))
    stop.may_go_on()
    if arguments.json:
        put_json([{"level": f.level, "what": f.what, "hint": f.hint} for f in findings])
        return checkup.exit_code(findings)
    for finding in findings:
        put(f"{finding.level:<8} {finding.what}")
        if finding.hint:
            put(f"{'':8} {finding.hint}")
    return checkup.exit_code(findings)


def show_status(arguments: argparse.Namespace) -> int:
    return show_rows(_settings(arguments), as_json=arguments.json, name=arguments.set)


def show_rows(settings: Settings, *, as_json: bool, name: str | None = None) -> int:
    found = status.survey(settings, now=time.time())
    for trouble in found.troubles:
        say(f"uecwatchd: {trouble}")
    rows = status.about(found.rows, name) if name else found.rows
    if name and not rows and not found.troubles:
        say(f"uecwatchd: there is nothing named {name} in the spool folders")
        return EX_NO_INPUT
    if as_json:
        put_json([status.as_json(row) for row in rows])
    for line in () if as_json else _worded(rows, name, settings):
        put(line)
    if not rows and not found.troubles and not as_json:
        say("The spool folders are empty.")
    if not found.known.alive and any(row.needs_daemon for row in rows):
        say(f"No daemon is running on {settings.state.dir}: nothing goes on until one does.")
    return max((trouble.exit_code for trouble in found.troubles), default=EX_OK)


def _worded(rows: Sequence[status.Row], name: str | None, settings: Settings) -> list[str]:
    if name:
        return [line for row in rows for line in status.story(row, asked=name)]
    return _table(rows, settings)


def _table(rows: Sequence[status.Row], settings: Settings) -> list[str]:
    return status.table(rows, folders=len(settings.spool.folders)) if rows else []


def verify_set(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    record, before = _registered(settings, arguments.set)
    stop = stopped_by_signals(code=EX_DEFERRED)
    cloud = entered(settings.clouds[record.cloud], uploads=settings.work.uploads, before=before, stop=stop)
    found: list[dict[str, object]] = []
    for finding in verify(record, cloud):
        against = finding.source or "the ledger's digest (the file is gone)"
        found.append({"role": finding.role, "id": finding.image_id, **digest.named(finding.digest)})
        if not arguments.json:
            put(
                f"{finding.role:<8} {finding.image_id} equals {against}: {amount(finding.size)}, "
                f"{digest.spoken(finding.digest)}"
            )
    if arguments.json:
        put_json(found)
    return EX_OK


def _registered(settings: Settings, name: str) -> tuple[SetRecord, Mapping[str, DetectedCloud]]:
    records: Sequence[SetRecord] = ()
    before: Mapping[str, DetectedCloud] = {}
    if book := read_ledger(settings.state.dir):
        with closing(book):
            records, before = book.sets(), book.clouds()
    done = [r for r in records if r.state == "done"]
    meant = [r for r in done if name in (r.name, f"{r.folder}/{r.name}")]
    if len(meant) > 1:
        raise orders.Ambiguous.of(name, meant)
    record = next(iter(meant), None)
    if record is None:
        raise Rejected(
            f"{name}: it is not registered", "the ledger has no finished set of this name", _look()
        )
    if record.cloud not in settings.clouds:
        why = f"it was registered on cloud {record.cloud}, which is not configured"
        raise Halted(f"{name}: cannot look", why, "Use the configuration it was registered with.")
    return record, before


def _look() -> str:
    return "See: uecwatchd status."
