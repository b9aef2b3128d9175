"""The sets of other hosts with the same ledger, as far as the ledger knows them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from posixpath import basename, normpath
from typing import TypeVar

from uecwatchd.cli.host_names import check_host, split_host
from uecwatchd.cli.status.rows import ASKED, LedgerFacts
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.other_hosts import OtherHosts
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.sessions import HostSession
from uecwatchd.outputs.wording import host_words
from uecwatchd.types import SetId

Fact = TypeVar("Fact")

# Read in a few seconds, and more than anybody reads on a terminal.
MOST_SETS = 10_000
RECENT_SECONDS = 86400.0


@dataclass(frozen=True, slots=True)
class LookElsewhere:
    """The hosts of an answer: all, or one. `asked` is the name in the question.

    A name without a host is looked for among the names of sets alone, because only an index answers quickly.
    """

    host: str = ""
    asked: str = ""

    def is_for(self, own: str) -> bool:
        """Tell if the answer is also about this host."""
        return self.host in ("", own)


def check_hosts(look: LookElsewhere | None, hosts: Sequence[HostSession]) -> None:
    """Raise Rejected if the answer is to be about a host that is unknown."""
    if look and look.host:
        check_host(look.host, hosts)


def facts_elsewhere(
    ledger: Ledger, look: LookElsewhere, *, now: float, most: int = MOST_SETS
) -> Mapping[str, LedgerFacts]:
    """Return the facts about each host that is looked at, without this one, ordered by their names.

    `now` is in seconds of the epoch. Of more sets than `most` on all hosts, only those are read that are not
    done, or were done lately. Raises Rejected if there is no such host.
    """
    hosts, others = ledger.sessions.hosts(), ledger.others
    check_hosts(look, hosts)
    named, rest = split_host(look.asked, hosts)
    only = look.host or named
    chosen = [one for one in hosts if one.host != ledger.sessions.host and only in ("", one.host)]
    if not chosen or ("/" in normpath(rest) and not only):
        return {}
    records = _records(others, only, rest, now=now, most=most)
    holds, cloud_holds, progress = others.holds(), others.cloud_holds(), others.progress()
    asked = {one.set_id: one.verb for one in others.requests() if one.verb in ASKED and one.due is None}

    def facts(one: HostSession) -> LedgerFacts:
        return LedgerFacts(
            now,
            one.is_at_work,
            tuple(record for record in records if record.id.host == one.host),
            _of_host(one, holds),
            _of_host(one, progress),
            _of_host(one, asked),
            cloud_holds=_of_host(one, cloud_holds),
            host=one.host,
            host_words=host_words(one),
        )

    return {one.host: facts(one) for one in chosen}


def count_left_out(ledger: Ledger, found: Mapping[str, LedgerFacts], look: LookElsewhere) -> int:
    """Count the sets of other hosts without a row in an answer about all."""
    if look.host or look.asked or not found:
        return 0
    return max(0, sum(ledger.others.count().values()) - sum(len(facts.records) for facts in found.values()))


def _records(others: OtherHosts, host: str, name: str, *, now: float, most: int) -> tuple[SetRecord, ...]:
    """Return the sets of a host or of all, those with a name, or those that matter now."""
    if name:
        found = others.sets(host=host or None, name=basename(normpath(name)))
        return found if found or not host else others.sets(host=host)  # it may be the name of a file
    if host or sum(others.count().values()) <= most:
        return others.sets(host=host or None)
    return others.latest(most, ended_after=now - RECENT_SECONDS)


def _of_host(one: HostSession, facts: Mapping[SetId, Fact]) -> dict[SetId, Fact]:
    return {set_id: fact for set_id, fact in facts.items() if set_id.host == one.host}
