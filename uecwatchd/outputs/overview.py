"""Overview: the facts about all sets at one moment, for the page and for the metrics.

Both are read by people who look after the service, not by those who wait for one image. So both show the sets
that need attention, and leave out some if there are too many.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from heapq import nsmallest
from itertools import chain, islice, zip_longest

from uecwatchd.ledger.history import AttemptRecord, TotalKey
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.standing import PARTLY
from uecwatchd.ledger.versions import VersionState
from uecwatchd.outputs.fleet_overview import MOST_ATTEMPTS, FleetOverview
from uecwatchd.outputs.progress import TrackedProgress
from uecwatchd.outputs.situation import Situation, SpoolFolder
from uecwatchd.types import SetId

# The order of states in an overview: first what is going on, then what a person has to act on.
STATES = (
    *("working", "halted", "rejected", "deferred", PARTLY, "held", "queued", "waiting", "withdrawn", "done"),
)


@dataclass(frozen=True, slots=True)
class Overview:
    """The facts at one `moment`. All times are seconds of the epoch."""

    moment: float
    host: str
    version: str
    situation: Situation = field(default_factory=Situation)
    probes: Mapping[str, float] = field(default_factory=dict)  #: when suspended clouds are asked again
    folders: tuple[SpoolFolder, ...] = ()  #: those of the situation, with their free space
    progress: Mapping[SetId, TrackedProgress] = field(default_factory=dict)
    recent: tuple[AttemptRecord, ...] = ()  #: the newest first
    successes: Mapping[SetId, float] = field(default_factory=dict)  #: when the last one of each set ended
    failures: Mapping[SetId, int] = field(default_factory=dict)  #: attempts since that
    totals: Mapping[TotalKey, float] = field(default_factory=dict)
    images: Mapping[tuple[str, VersionState], int] = field(default_factory=dict)  #: by cloud and state
    is_last: bool = False  #: the service ends after this
    fleet: FleetOverview = field(default_factory=FleetOverview)  #: the other hosts with the same ledger

    @property
    def everywhere(self) -> Situation:
        """The situation here, with the sets of other hosts that are to be shown."""
        own, there = self.situation, self.fleet.situation
        if not self.fleet.host:
            return own
        return replace(
            own,
            records=(*own.records, *there.records),
            holds={**own.holds, **there.holds},
            running=own.running | there.running,
        )

    @property
    def all_recent(self) -> tuple[AttemptRecord, ...]:
        """The last attempts on all hosts, the newest first."""
        if not self.fleet.host:
            return self.recent
        found = sorted((*self.recent, *self.fleet.recent), key=lambda one: -one.ended)
        return tuple(found[:MOST_ATTEMPTS])

    def progress_of(self, set_id: SetId) -> TrackedProgress | None:
        """Return the progress of a set of any host."""
        return (self.fleet.progress if set_id.is_elsewhere else self.progress).get(set_id)

    def count_everywhere(self) -> Mapping[str, int]:
        """Count the sets of all hosts in each state. The holds of the other hosts are not told apart."""
        counts = dict(count_states(self.situation))
        for one in self.fleet.hosts:
            for state, number in self.fleet.counts_of(one.host).items():
                counts[state] += number
        return counts


def choose(situation: Situation, most: int) -> tuple[SetRecord, ...]:
    """Return the sets to be shown, at most so many, in the order of their states, the newest first.

    If there are more, the owners on each host have equal parts of the space: one of them may have dropped
    thousands of files.
    """
    by_owner = defaultdict[tuple[str, int | None], list[SetRecord]](list)
    for record in situation.records:
        by_owner[record.id.host, record.owner].append(record)

    def urgency(record: SetRecord) -> tuple[int, float, SetId]:
        return STATES.index(situation.state_of(record)), -record.since, record.id

    first = (nsmallest(most, records, urgency) for records in by_owner.values())
    in_turn = (record for record in chain.from_iterable(zip_longest(*first)) if record)
    return tuple(sorted(islice(in_turn, most), key=urgency))


def count_states(situation: Situation) -> Mapping[str, int]:
    """Count the sets in each state, also those without any."""
    counts = dict.fromkeys(STATES, 0)
    for record in situation.records:
        counts[situation.state_of(record)] += 1
    return counts


def began_to_wait(record: SetRecord) -> float:
    """Return since when a set is not done, across the attempts that have failed."""
    return min(record.since, record.first_failure or record.since)


def known_successes(records: Iterable[SetRecord], history: Mapping[SetId, float]) -> dict[SetId, float]:
    """Return when each set was done last, by the history, or else by its state.

    A set may have been done before there was a history, or its attempts are no longer kept.
    """
    done = (one for one in records if one.state == "done" and not one.reason)
    return {one.id: one.since for one in done} | dict(history)


def last_successes(overview: Overview, most: int) -> Iterable[tuple[SetId, float]]:
    """Return the last success of the sets whose is newest, at most so many."""
    known = known_successes(overview.situation.records, overview.successes)
    return sorted(nsmallest(most, known.items(), key=lambda item: -item[1]))
