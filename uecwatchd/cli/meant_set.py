"""The set of a verb, with the ledger of its host, in a fleet of hosts with one ledger.

A verb works with the set of another host as with one of its own: what the ledger has about it is the same,
and a request is carried out by the service there, at its next look.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from uecwatchd.cli.host_names import split_host
from uecwatchd.cli.set_names import Ambiguous, NoSuchSet, find_past_set
from uecwatchd.config.records import Settings
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.open import open_host
from uecwatchd.ledger.records import SetRecord
from uecwatchd.types import SetId


@dataclass(frozen=True, slots=True)
class MeantSet:
    """A set, and the ledger, as its host has them. `host` is empty for this one."""

    id: SetId
    ledger: Ledger
    host: str = ""

    @property
    def shown(self) -> SetId:
        """The set as people name it here."""
        return self.id.of_host(self.host)

    @property
    def record(self) -> SetRecord | None:
        return self.ledger.set(self.id)


@contextmanager
def meant_set(
    words: str, ledger: Ledger, settings: Settings, *, past: bool = True, recorded: bool = True
) -> Iterator[MeantSet]:
    """Find the set with this name or file, of all hosts, and open the ledger of its host.

    It is one with a history if `past`, or with a record if `recorded`. Without a host, only names of sets are
    looked for on the others. Raises NoSuchSet or Ambiguous.
    """
    host, rest = split_host(words, ledger.sessions.hosts())
    others = () if host else tuple(one.id for one in ledger.others.sets(name=words))
    if host in ("", ledger.sessions.host):
        if (mine := _found(rest, ledger, past=past, recorded=recorded, may_lack=bool(others))) and others:
            raise Ambiguous.of(words, [mine, *others])
        if len(others) > 1:
            raise Ambiguous.of(words, others)
        if mine:
            yield MeantSet(mine, ledger)
            return
    with closing(open_host(settings, host or others[0].host)) as there:
        found = others[0].there if others else _found(rest, there, past=past, recorded=recorded)
        assert found  # noqa: S101 (it has raised)
        yield MeantSet(found, there, host or others[0].host)


def sets_of_name(words: str, ledger: Ledger) -> tuple[SetRecord, ...]:
    """Return the sets of all hosts that are meant by a name, or by a name with folder or host."""
    own = ledger.sessions.host
    host, rest = split_host(words, ledger.sessions.hosts())
    name = rest.rpartition("/")[2]
    mine = ledger.sets_named(name) if host in ("", own) else ()
    others = ledger.others.sets(host=host or None, name=name) if host != own or not host else ()
    found = [one for one in mine if rest in (one.name, str(one.id))]
    found += [one for one in others if rest == one.name or (host and rest == str(one.id.there))]
    return tuple(found)


def _found(words: str, ledger: Ledger, *, past: bool, recorded: bool, may_lack: bool = False) -> SetId | None:
    names = ledger.history.names() if past else ()
    try:
        return find_past_set(words, names, ledger.sets() if recorded else ())
    except NoSuchSet:
        if not may_lack:
            raise
        return None
