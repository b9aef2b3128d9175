"""The verbs `fleet` and `drain`: the hosts with one ledger, and one of them that is to begin nothing new."""

import argparse
import os
from contextlib import closing

from uecwatchd.cli.host_names import NO_FLEET, check_host
from uecwatchd.cli.output import put, put_json, say
from uecwatchd.config.load import load
from uecwatchd.config.records import Settings
from uecwatchd.ledger.open import open_ledger, read_ledger
from uecwatchd.ledger.sessions import HostSession
from uecwatchd.outputs.result_files import instant
from uecwatchd.outputs.wording import duration

TITLES = ("HOST", "STATE", "VERSION", "SINCE", "LEASE", "SETS AT WORK", "CLAIMS")


def fleet(arguments: argparse.Namespace) -> int:
    settings = load(arguments.config, environ=os.environ)
    hosts = _hosts(settings)
    if arguments.json:
        put_json([_as_json(one) for one in hosts])
    elif not settings.fleet.dsn:
        say(NO_FLEET)
    else:
        put_rows([TITLES, *(_cells(one) for one in hosts)])
    return os.EX_OK


def drain(arguments: argparse.Namespace) -> int:
    settings = load(arguments.config, environ=os.environ)
    name, is_drained = arguments.host, not arguments.undo
    check_host(name, _hosts(settings))
    with closing(open_ledger(settings)) as ledger:
        ledger.sessions.set_drained(name, is_drained=is_drained)
    begins = "begins nothing new; what it works on goes on" if is_drained else "begins new work again"
    say(f"{name} {begins}.")
    return os.EX_OK


def _hosts(settings: Settings) -> tuple[HostSession, ...]:
    if (ledger := read_ledger(settings)) is None:
        return ()
    with closing(ledger):
        return ledger.sessions.hosts()


def put_rows(rows: list[tuple[str, ...]]) -> None:
    """Print cells in columns as wide as they need."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        put("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cells(one: HostSession) -> tuple[str, ...]:
    lease = "-"
    if one.is_open:
        left = one.lease_until - one.now
        lease = f"{duration(left)} left" if left > 0 else f"ended {duration(-left)} ago"
    since = instant(one.began) if one.is_open else instant(one.ended)
    numbers = (str(one.working), str(one.claims))
    return (one.host, one.state, one.version or "-", since or "-", lease, *numbers)


def _as_json(one: HostSession) -> dict[str, object]:
    return {
        "host": one.host,
        "state": one.state,
        "drained": one.is_drained,
        "version": one.version or None,
        "began": instant(one.began),
        "ended": instant(one.ended),
        "lease_until": instant(one.lease_until) if one.is_open else None,
        "working": one.working,
        "claims": one.claims,
    }
