"""The verbs `log` and `history`: what happened to a set, and the attempts at it."""

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from uecwatchd.cli.history.attempts import PastAttempt, with_replacements
from uecwatchd.cli.history.text import attempt_json, attempt_lines, attempt_table, entry_json, entry_lines
from uecwatchd.cli.history.versions import version_json, version_lines
from uecwatchd.cli.output import put, put_json, say
from uecwatchd.cli.set_names import find_past_set
from uecwatchd.config.load import load
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.open import read_ledger
from uecwatchd.ledger.versions import VersionRecord
from uecwatchd.types import SetId


def log(arguments: argparse.Namespace) -> int:
    with _ledger(arguments) as ledger:
        meant = _meant(ledger, arguments.set)
        story = ledger.history.story(meant) if ledger else ()
    if arguments.cloud:
        story = tuple(one for one in story if one.fields.get("cloud", arguments.cloud) == arguments.cloud)
    if arguments.json:
        put_json([entry_json(entry) for entry in story])
        return os.EX_OK
    for entry in story:
        for line in entry_lines(entry):
            put(line)
    if not story:
        say(f"Nothing is noted about {meant.name} yet.")
    return os.EX_OK


def history(arguments: argparse.Namespace) -> int:
    with _ledger(arguments) as ledger:
        meant = _meant(ledger, arguments.set) if arguments.set else None
        every = with_replacements(ledger.history.attempts(meant) if ledger else ())
        versions = _versions(ledger, meant, arguments.cloud) if ledger else ()
    if arguments.versions:
        return _show_versions(versions, as_json=arguments.json)
    attempts = [past for past in every if arguments.cloud in (None, past.record.cloud)]
    if arguments.json:
        put_json([attempt_json(past) for past in attempts])
        return os.EX_OK
    for line in _lines(attempts, of_one=meant is not None):
        put(line)
    for line in version_lines(versions) if meant else ():
        put(line)
    if not attempts:
        say(f"No attempt{f' at {meant.name}' if meant else ''} is over yet.")
    return os.EX_OK


def _versions(ledger: Ledger, meant: SetId | None, cloud: str | None) -> tuple[VersionRecord, ...]:
    """Return the published images of a set, or of all, the oldest of each set first."""
    sets = (meant,) if meant else ledger.history.names()
    return tuple(one for set_id in sets for one in reversed(ledger.versions.of_set(set_id, cloud)))


def _show_versions(versions: Sequence[VersionRecord], *, as_json: bool) -> int:
    if as_json:
        put_json([version_json(one) for one in versions])
    for line in () if as_json else version_lines(versions):
        put(line)
    if not versions:
        say("No image was published.")
    return os.EX_OK


def _lines(attempts: Sequence[PastAttempt], *, of_one: bool) -> Iterator[str]:
    if of_one:
        return (line for past in attempts for line in attempt_lines(past))
    return attempt_table(attempts) if attempts else iter(())


@contextmanager
def _ledger(arguments: argparse.Namespace) -> Iterator[Ledger | None]:
    ledger = read_ledger(load(arguments.config, environ=os.environ))
    if ledger is None:
        yield None
        return
    with closing(ledger):
        yield ledger


def _meant(ledger: Ledger | None, words: str) -> SetId:
    past, records = (ledger.history.names(), ledger.sets()) if ledger else ((), ())
    return find_past_set(words, past, records)
