"""The verbs. Standard output is data, standard error is talk; the exit code is one of sysexits'."""

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, cast

from uecwatchd import __version__, checkup, imageset, spool, status
from uecwatchd.bundle.files import bundle_to_folder, unbundle_to_folder
from uecwatchd.bundle.keys import load_private_key, public_key
from uecwatchd.cloud.client import connect
from uecwatchd.cloud.credentials import Account, gather
from uecwatchd.cloud.dialect import DIALECTS
from uecwatchd.errors import CloudAway, Halted, Rejected, UecError
from uecwatchd.image import Role, amount, arch_by_name, role_by_name
from uecwatchd.journal import Journal, journal_monitor, take_over_stdlib
from uecwatchd.ledger import SetRecord, open_ledger, read_ledger
from uecwatchd.monitor import Tee
from uecwatchd.notify import Notifier, StatusMonitor
from uecwatchd.service import Service, rules_of
from uecwatchd.settings import Settings, load
from uecwatchd.strangers import printable
from uecwatchd.verify import verify

EX_OK = 0
EX_USAGE = 64
EX_REJECTED = 65
EX_NO_INPUT = 66
EX_CLOUD_AWAY = 69
EX_DEFERRED = 75
EX_CONFIG = 78

# How a command that ran over several sets ends: the first of these that any of them is in.
EXIT_CODES: Mapping[str, int] = {
    "halted": EX_CONFIG,
    "rejected": EX_REJECTED,
    "deferred": EX_DEFERRED,
    "waiting": EX_DEFERRED,
    "queued": EX_DEFERRED,
    "working": EX_DEFERRED,
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return cast("Callable[[argparse.Namespace], int]", arguments.verb)(arguments)
    except UecError as error:
        _say(f"uecwatchd: {error.what}: {error.why}")
        _say(f"  {error.hint}")
        return error.exit_code
    except BrokenPipeError:
        # `uecwatchd status | head`: nobody is left to read the rest, nor Python's complaint about that.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EX_OK


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="uecwatchd", description="Drop a disk image in a folder; find its EMI beside it.")
    parser.add_argument("--version", action="version", version=f"uecwatchd {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    _add(verbs, "run", run, "watch the spool folders until stopped (for systemd)")
    once_verb = _add(verbs, "once", once, "scan, do everything that can be done, and exit")
    once_verb.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    once_verb.add_argument("--json", action="store_true", help="print the outcome as JSON")
    check_verb = _add(verbs, "check", check, "look at everything the service needs, and change nothing")
    check_verb.add_argument("--json", action="store_true", help="print the findings as JSON")
    status_verb = _add(verbs, "status", show_status, "what became of each file; with a name: why not yet")
    status_verb.add_argument("set", nargs="?", metavar="SET")
    status_verb.add_argument("--json", action="store_true", help="print the rows as JSON")
    verify_verb = _add(verbs, "verify", verify_set, "take a set back from the cloud and compare it")
    verify_verb.add_argument("set", metavar="SET")
    verify_verb.add_argument("--json", action="store_true", help="print the findings as JSON")
    _add_bundling(verbs)
    _add_trying(verbs)
    return parser


def _add_bundling(verbs: Any) -> None:
    bundle_verb = _add(verbs, "bundle", bundle, "bundle one image into a folder; no cloud is asked")
    bundle_verb.add_argument("file", type=Path, metavar="FILE")
    bundle_verb.add_argument("folder", type=Path, metavar="DIR")
    bundle_verb.add_argument("--type", choices=("machine", "kernel", "ramdisk"), help="default: as it looks")
    bundle_verb.add_argument("--arch", choices=("i386", "x86_64"), help="default: as it says of itself")
    bundle_verb.add_argument("--kernel", metavar="ID", help="a machine image's kernel: eki-…")
    bundle_verb.add_argument("--ramdisk", metavar="ID", help="a machine image's ramdisk: eri-…")
    bundle_verb.add_argument("--cloud", default="default", metavar="NAME", help="whose certificates to use")
    unbundle_verb = _add(verbs, "unbundle", unbundle, "make an image of a bundle in a folder again")
    unbundle_verb.add_argument("manifest", type=Path, metavar="MANIFEST")
    unbundle_verb.add_argument("folder", type=Path, metavar="DIR")
    unbundle_verb.add_argument("--cloud", default="default", metavar="NAME", help="whose keys to use")
    unbundle_verb.add_argument(
        "--cloud-key", type=Path, metavar="FILE", help="open it with the cloud's private key instead of ours"
    )


def _add_trying(verbs: Any) -> None:
    sandbox_verb = _add(verbs, "sandbox", sandbox, "run the embedded test cloud until interrupted")
    sandbox_verb.add_argument("--port", type=int, default=8773, help="on 127.0.0.1; 0 takes any free one")
    sandbox_verb.add_argument("--dir", type=Path, help="keep its buckets and images here")
    sandbox_verb.add_argument("--dialect", choices=("sandbox",), default="sandbox")
    demo_verb = _add(verbs, "demo", demo, "show it at work: embedded cloud, service, a real image set")
    demo_verb.add_argument("files", nargs="*", type=Path, metavar="FILE", help="drop these instead")
    demo_verb.add_argument("--dir", type=Path, help="do it in this new folder (default: a temporary one)")


def _add(verbs: Any, name: str, act: Callable[[argparse.Namespace], int], text: str) -> _Parser:
    parser: _Parser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="instead of /etc/uecwatchd/uecwatchd.toml"
    )
    parser.set_defaults(verb=act)
    return parser


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr)


def _put(text: str) -> None:
    """One line, in which no file name can hide another line or an order to the terminal."""
    print(printable(text))


def _put_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def _settings(arguments: argparse.Namespace) -> Settings:
    return load(arguments.config, environ=os.environ)


# --- the service ------------------------------------------------------------------------------------------


def run(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    notifier = Notifier(os.environ)
    monitor = Tee((_journal(), StatusMonitor(notifier)))
    with closing(open_ledger(settings.state.dir)) as book:
        service = Service(settings, monitor=monitor, book=book)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: service.stop())
        signal.signal(signal.SIGHUP, lambda *_: service.ask_reload())
        service.run(notifier, reloaded=lambda: _settings(arguments))
    return EX_OK


def _journal() -> Journal:
    journal = journal_monitor(os.environ, sys.stderr)
    take_over_stdlib(journal)
    return journal


def once(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    if arguments.dry_run:
        return _plan(settings)
    with closing(open_ledger(settings.state.dir)) as book:
        before = {(r.folder, r.name): r for r in book.sets()}
        service = Service(settings, monitor=_journal(), book=book)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: service.stop())
        records = service.once()
    changed = [r for r in records if before.get((r.folder, r.name)) != r]
    _say(_summed_up(records, changed))
    if arguments.json:
        found = [status.Row(r.folder, r.name, r.state, "", r) for r in records]
        _put_json([status.as_json(row) for row in found])
    return _exit_code(records)


def _summed_up(records: Sequence[SetRecord], changed: Sequence[SetRecord]) -> str:
    states = sorted({r.state for r in records})
    counts = ", ".join(f"{sum(r.state == state for r in records)} {state}" for state in states)
    if not records:
        return "Nothing to do: there are no sets in the spool."
    return f"Nothing to do: {counts}." if not changed else f"Worked on {len(changed)} of them: {counts}."


def _exit_code(records: Iterable[SetRecord]) -> int:
    states = {record.state for record in records}
    return next((code for state, code in EXIT_CODES.items() if state in states), EX_OK)


def _plan(settings: Settings) -> int:
    for row in _rows(settings):
        _put(f"{row.name}: {row.state}: {row.detail}")
    return EX_OK


# --- questions --------------------------------------------------------------------------------------------


def check(arguments: argparse.Namespace) -> int:
    findings = list(checkup.examine(_settings(arguments), now=datetime.now(UTC)))
    if arguments.json:
        _put_json([{"level": f.level, "what": f.what, "hint": f.hint} for f in findings])
        return checkup.exit_code(findings)
    for finding in findings:
        _put(f"{finding.level:<8} {finding.what}")
        if finding.hint:
            _put(f"{'':8} {finding.hint}")
    return checkup.exit_code(findings)


def show_status(arguments: argparse.Namespace) -> int:
    rows = _rows(_settings(arguments))
    if arguments.set:
        rows = [row for row in rows if row.name == arguments.set]
        if not rows:
            _say(f"uecwatchd: there is nothing named {arguments.set} in the spool folders")
            return EX_NO_INPUT
    if arguments.json:
        _put_json([status.as_json(row) for row in rows])
    elif arguments.set:
        for line in (line for row in rows for line in status.story(row)):
            _put(line)
    elif rows:
        for line in status.table(rows):
            _put(line)
    else:
        _say("The spool folders are empty.")
    return EX_OK


def _rows(settings: Settings) -> list[status.Row]:
    """A fresh look that takes every file for settled: only the service knows how long each has lain still."""
    rules = rules_of(settings)
    book = read_ledger(settings.state.dir)
    records = book.sets() if book else ()
    if book:
        book.close()
    rows: list[status.Row] = []
    for folder in settings.spool.folders:
        mine = [record for record in records if record.folder == str(folder)]
        listing = spool.scan(folder, now=rules.settle, ignore=settings.spool.ignore, seen=0.0)
        taken = {r.name: tuple((m.path, m.stamp) for m in r.members) for r in mine if r.state == "done"}
        rows += status.rows(listing, imageset.assemble(listing, rules=rules, taken=taken), mine)
    return rows


def verify_set(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    record = _registered(settings, arguments.set)
    cloud_settings = settings.clouds[record.cloud]
    cloud = connect(gather(cloud_settings), DIALECTS[cloud_settings.dialect], uploads=settings.work.uploads)
    found: list[dict[str, object]] = []
    for finding in verify(record, cloud):
        against = finding.source or "the ledger's digest (the file is gone)"
        found.append({"role": finding.role, "id": finding.image_id, "sha256": finding.sha256})
        if not arguments.json:
            _put(
                f"{finding.role:<8} {finding.image_id} equals {against}: {amount(finding.size)}, "
                f"SHA-256 {finding.sha256}"
            )
    if arguments.json:
        _put_json(found)
    return EX_OK


def _registered(settings: Settings, name: str) -> SetRecord:
    book = read_ledger(settings.state.dir)
    records = [r for r in book.sets() if r.name == name] if book else []
    if book:
        book.close()
    record = next((r for r in records if r.state == "done"), None)
    if record is None:
        raise Rejected(
            f"{name}: it is not registered", "the ledger has no finished set of this name", _look()
        )
    if record.cloud not in settings.clouds:
        why = f"it was registered on cloud {record.cloud}, which is not configured"
        raise Halted(f"{name}: cannot look", why, "Use the configuration it was registered with.")
    return record


def _look() -> str:
    return "See: uecwatchd status."


# --- the format by hand -----------------------------------------------------------------------------------


def bundle(arguments: argparse.Namespace) -> int:
    account = _account(arguments)
    kind, arch = arguments.type, arguments.arch
    if kind is None or arch is None:
        facts = _facts(arguments.file)
        kind = kind or facts.role or role_by_name(arguments.file.name) or "machine"
        arch = arch or facts.arch or arch_by_name(arguments.file.name) or "x86_64"
    arguments.folder.mkdir(parents=True, exist_ok=True)
    manifest = bundle_to_folder(
        arguments.file,
        arguments.folder,
        kind=cast("Role", kind),
        arch=arch,
        user=account.account,
        user_key=account.user_key,
        user_cert=account.user_cert,
        cloud_cert=account.cloud_cert,
        kernel=arguments.kernel,
        ramdisk=arguments.ramdisk,
    )
    _put(str(manifest))
    return EX_OK


def _facts(file: Path) -> Any:
    peek = spool.peek_at(file)
    if isinstance(peek, UecError):
        raise peek
    return peek


def unbundle(arguments: argparse.Namespace) -> int:
    if arguments.cloud_key:
        key = load_private_key(arguments.cloud_key, whose="the cloud's")
        image = unbundle_to_folder(arguments.manifest, arguments.folder, key=key, side="cloud")
    else:
        account = _account(arguments)
        image = unbundle_to_folder(
            arguments.manifest,
            arguments.folder,
            key=account.user_key,
            side="user",
            signer=public_key(account.user_cert),
        )
    _put(str(image))
    return EX_OK


def _account(arguments: argparse.Namespace) -> Account:
    settings = _settings(arguments)
    if arguments.cloud not in settings.clouds:
        why = f"the configuration has {', '.join(sorted(settings.clouds)) or 'none'}"
        raise Halted(f"there is no cloud named {arguments.cloud}", why, "Name one of them with --cloud.")
    return gather(settings.clouds[arguments.cloud])


# --- to try it --------------------------------------------------------------------------------------------


def sandbox(arguments: argparse.Namespace) -> int:
    sandbox_class = _sandbox_class()
    folder = arguments.dir or Path(tempfile.mkdtemp(prefix="uecwatchd-sandbox-"))
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with sandbox_class(folder, port=arguments.port, dialect=arguments.dialect) as cloud:
        _put(f"EC2_URL={cloud.ec2_url}")
        _put(f"S3_URL={cloud.s3_url}")
        _put(f"eucarc={cloud.eucarc}")
        sys.stdout.flush()
        _say(f"The embedded cloud keeps everything in {folder}. End it with Ctrl-C.")
        ended.wait()
    return EX_OK


def demo(arguments: argparse.Namespace) -> int:
    _sandbox_class()
    from uecwatchd.demo.show import show

    folder = arguments.dir or Path(tempfile.mkdtemp(prefix="uecwatchd-demo-"))
    return show(folder, tuple(arguments.files), say=_put, clock=time.monotonic)


def _sandbox_class() -> Any:
    try:
        from uecwatchd.sandbox.server import Sandbox
    except ImportError as error:
        why = f"the Python package {error.name} is not installed"
        raise Halted("the embedded cloud", why, "Try: pip install 'uecwatchd[sandbox]'") from error
    return Sandbox


__all__ = ["CloudAway", "main"]
