"""Overview: the facts about all sets at one moment, for the page and for the metrics.

Both are read by people who look after the service, not by those who wait for one image. So both show the sets
that need attention, and leave out some if there are too many.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import chain, islice, zip_longest

from uecwatchd.errors import UecError
from uecwatchd.ledger.history import AttemptRecord, TotalKey
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.standing import PARTLY, shown_state
from uecwatchd.ledger.versions import VersionState
from uecwatchd.outputs.progress import TrackedProgress
from uecwatchd.types import SetId

# The order of states in an overview: first what is going on, then what a person has to act on.
STATES = (
    *("working", "halted", "rejected", "deferred", PARTLY, "held", "queued", "waiting", "withdrawn", "done"),
)


@dataclass(frozen=True, slots=True)
class SpoolFolder:
    """A spool folder: its error if it cannot be scanned, and its free space in bytes if that is known."""

    path: str
    error: UecError | None = None
    free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """The loop's knowledge: equal to an earlier one if nothing has changed.

    `holds` and the times in records are seconds of the epoch.
    """

    records: tuple[SetRecord, ...] = ()
    holds: Mapping[SetId, float] = field(default_factory=dict)
    running: frozenset[SetId] = frozenset()
    clouds: Mapping[str, str] = field(default_factory=dict)  #: what each is, empty if it is not known
    suspended: Mapping[str, UecError] = field(default_factory=dict)  #: clouds, with the reason
    probes: Mapping[str, float] = field(default_factory=dict)  #: of these, by the monotonic clock
    folders: tuple[SpoolFolder, ...] = ()

    def state_of(self, record: SetRecord) -> str:
        """Return the state of a set as people see it: held, and at work only while a worker has it."""
        if record.id in self.running:
            return "working"
        if record.id in self.holds:
            return "held"
        state = shown_state(record)
        return "queued" if state == "working" else state


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


def choose(situation: Situation, most: int) -> tuple[SetRecord, ...]:
    """Return the sets to be shown, at most so many, in the order of their states, the newest first.

    If there are more, owners have equal parts of the space: one of them may have dropped thousands of files.
    """
    by_owner = defaultdict[int | None, list[SetRecord]](list)
    for record in situation.records:
        by_owner[record.owner].append(record)

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
