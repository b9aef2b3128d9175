"""The verbs `log` and `history`: what happened to a set, and the attempts at it."""

import argparse
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from uecwatchd.cli.history.attempts import PastAttempt, with_replacements
from uecwatchd.cli.history.text import attempt_json, attempt_lines, attempt_table, entry_json, entry_lines
from uecwatchd.cli.history.versions import version_json, version_lines
from uecwatchd.cli.host_names import check_host
from uecwatchd.cli.meant_set import MeantSet, meant_set
from uecwatchd.cli.output import put, put_json, say
from uecwatchd.cli.set_names import find_past_set
from uecwatchd.config.load import load
from uecwatchd.config.records import Settings
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.history import AttemptRecord
from uecwatchd.ledger.open import open_host, read_ledger
from uecwatchd.ledger.versions import VersionRecord


@dataclass(frozen=True, slots=True)
class PastOfSets:
    """The attempts and the published images of one set, or of all; `host` is this one in a fleet."""

    attempts: tuple[AttemptRecord, ...] = ()
    versions: tuple[VersionRecord, ...] = ()
    host: str = ""


def log(arguments: argparse.Namespace) -> int:
    settings = load(arguments.config, environ=os.environ)
    with _ledger(settings) as ledger, _meant(arguments.set, ledger, settings) as meant:
        story, host = meant.ledger.history.story(meant.id), meant.ledger.sessions.host
    if arguments.cloud:
        story = tuple(one for one in story if one.fields.get("cloud", arguments.cloud) == arguments.cloud)
    if arguments.json:
        put_json([entry_json(entry, host=host) for entry in story])
        return os.EX_OK
    for entry in story:
        for line in entry_lines(entry):
            put(line)
    if not story:
        say(f"Nothing is noted about {meant.id.name} yet.")
    return os.EX_OK


def history(arguments: argparse.Namespace) -> int:
    settings, host = load(arguments.config, environ=os.environ), arguments.host or ""
    with _ledger(settings) as ledger:
        if host:
            check_host(host, ledger.sessions.hosts() if ledger else ())
        if arguments.set:
            words = f"{host}:{arguments.set}" if host else arguments.set
            with _meant(words, ledger, settings) as meant:
                past, name = _past_of(meant, arguments.cloud), meant.id.name
        else:
            past, name = PastOfSets(), ""
            if ledger:
                past = _past_of_all(ledger, host, settings, versions=arguments.versions)
    return _show(past, name, arguments)


def _show(past: PastOfSets, name: str, arguments: argparse.Namespace) -> int:
    """Print attempts or published images, those of one set in full."""
    versions = [one for one in past.versions if arguments.cloud in (None, one.cloud)]
    if arguments.versions:
        return _show_versions(versions, host=past.host, as_json=arguments.json)
    every = with_replacements(past.attempts)
    attempts = [one for one in every if arguments.cloud in (None, one.record.cloud)]
    if arguments.json:
        put_json([attempt_json(one, host=past.host) for one in attempts])
        return os.EX_OK
    for line in _lines(attempts, host=past.host, of_one=bool(name)):
        put(line)
    for line in version_lines(versions) if name else ():
        put(line)
    if not attempts:
        say(f"No attempt{f' at {name}' if name else ''} is over yet.")
    return os.EX_OK


def _past_of(meant: MeantSet, cloud: str | None) -> PastOfSets:
    """Return the past of one set, the oldest first."""
    versions = reversed(meant.ledger.versions.of_set(meant.id, cloud))
    return _named(meant.ledger.history.attempts(meant.id), versions, meant.host, meant.ledger.sessions.host)


def _past_of_all(ledger: Ledger, host: str, settings: Settings, *, versions: bool) -> PastOfSets:
    """Return the attempts at all sets, of all hosts or of one, or instead their published images."""
    own = ledger.sessions.host
    if host not in ("", own):
        with closing(open_host(settings, host)) as there:
            return _named(*_past_here(there, versions=versions), host, own)
    attempts, images = _past_here(ledger, versions=versions)
    if host or not own:
        return PastOfSets(attempts, images, own)
    if versions:
        return PastOfSets((), (*images, *ledger.others.versions()), own)
    together = sorted((*attempts, *ledger.others.attempts()), key=lambda one: one.ended)
    return PastOfSets(tuple(together), (), own)


def _past_here(
    ledger: Ledger, *, versions: bool
) -> tuple[tuple[AttemptRecord, ...], tuple[VersionRecord, ...]]:
    """Return the attempts at the sets of a host, or their published images, the oldest of each set first."""
    if not versions:
        return ledger.history.attempts(), ()
    names = ledger.history.names()
    return (), tuple(one for name in names for one in reversed(ledger.versions.of_set(name)))


def _named(
    attempts: Iterable[AttemptRecord], versions: Iterable[VersionRecord], host: str, own: str
) -> PastOfSets:
    """Return the past of sets of a host under the names that they have on another one."""
    return PastOfSets(
        tuple(replace(one, set_id=one.set_id.of_host(host)) for one in attempts),
        tuple(replace(one, set_id=one.set_id.of_host(host)) for one in versions),
        own,
    )


def _show_versions(versions: Sequence[VersionRecord], *, host: str, as_json: bool) -> int:
    if as_json:
        put_json([version_json(one, host=host) for one in versions])
    for line in () if as_json else version_lines(versions):
        put(line)
    if not versions:
        say("No image was published.")
    return os.EX_OK


def _lines(attempts: Sequence[PastAttempt], *, host: str, of_one: bool) -> Iterator[str]:
    if of_one:
        return (line for past in attempts for line in attempt_lines(past))
    return attempt_table(attempts, host=host) if attempts else iter(())


@contextmanager
def _ledger(settings: Settings) -> Iterator[Ledger | None]:
    ledger = read_ledger(settings)
    if ledger is None:
        yield None
        return
    with closing(ledger):
        yield ledger


@contextmanager
def _meant(words: str, ledger: Ledger | None, settings: Settings) -> Iterator[MeantSet]:
    if ledger is None:
        find_past_set(words, (), ())  # which says that there is none
    assert ledger  # noqa: S101 (it has raised)
    with meant_set(words, ledger, settings) as meant:
        yield meant
