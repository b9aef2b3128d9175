"""The history of sets: what was told about each, and one record for each attempt that is over.

No work depends on it, so it is written with the next transaction of the ledger, and a crash may lose the last
entries. Old entries are removed: what is kept is enough for a person who asks what happened.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol

from uecwatchd.events import Fields, Level
from uecwatchd.ledger.records import State
from uecwatchd.types import Role, SetId

# Of one set. An attempt has about ten entries.
ENTRIES_OF_A_SET, ATTEMPTS_OF_A_SET = 500, 100
# Of all sets together: people could drop files with a new name every second. An entry takes about 400 bytes.
ENTRIES_OF_ALL, ATTEMPTS_OF_ALL = 200_000, 50_000

# Upper bounds of the groups that times of stages are counted in, in seconds: from a stage that has nothing to
# do to the upload of a large image over a slow line. They must not change: ledgers have counts with them.
STAGE_BOUNDS_SECONDS = (0.1, 1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0, 28800.0)

# "partly": done on its cloud, while the set is not done on another.
AttemptOutcome = State | Literal["partly"]
# "cloud": the cloud has failed, and not the image.
BootOutcome = Literal["passed", "failed", "cloud"]
# Of a published image, after another one has replaced it or a person has decided about it.
ImageChange = Literal["deprecated", "removed", "withdrawn", "rolled-back"]


@dataclass(frozen=True, slots=True)
class StoryEntry:
    """An event of a set as it was told. `moment` is in seconds of the epoch."""

    set_id: SetId
    moment: float
    kind: str  #: of `uecwatchd.events.Kind`
    level: Level
    sentence: str
    fields: Fields = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StageTime:
    """A stage of an attempt, and how many seconds it took."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt at a set that is over. Times are seconds of the epoch."""

    set_id: SetId
    number: int  #: from 1 on each cloud, counted anew when the files change
    began: float
    ended: float
    state: AttemptOutcome  #: that the attempt ended in; "waiting" if it goes on after a wait
    cloud: str
    stages: tuple[StageTime, ...] = ()
    ids: Mapping[Role, str] = field(default_factory=dict)  #: of the images, in a done set
    sent: int = 0  #: bytes that went to the bucket
    replaced: str = ""  #: id of the older image that was deregistered
    problem: str = ""  #: what failed and why, empty in a done set
    request_ids: tuple[str, ...] = ()  #: of the cloud, in the order of its answers


class TotalKey(NamedTuple):
    """Key of a total.

    `label` is a cloud, or the name of a stage. `detail` is the state of attempts, the outcome of test boots,
    the kind of changes to published images, or the upper bound in seconds of stages ("inf" for the longest);
    otherwise it is empty.
    """

    what: Literal["attempts", "sent", "stages", "stage seconds", "boots", "changes"]
    label: str
    detail: str = ""


def join_runs(runs: Iterable[AttemptRecord]) -> tuple[AttemptRecord, ...]:
    """Return the attempts that these runs make, in order. A wait parts an attempt into several runs."""
    joined, waiting = dict[int, AttemptRecord](), dict[tuple[SetId, str, float], int]()
    for place, run in enumerate(runs):
        key = (run.set_id, run.cloud, run.began)
        first = joined.pop(waiting.pop(key, -1), None)
        joined[place] = _join(first, run) if first else run
        if run.state == "waiting":
            waiting[key] = place
    return tuple(joined.values())


def _join(first: AttemptRecord, then: AttemptRecord) -> AttemptRecord:
    """Return two runs as one attempt. The wait between them belongs to the stage that waited."""
    seconds = defaultdict[str, float](float)
    for stage in (*first.stages, *then.stages):
        seconds[stage.name] += stage.seconds
    if first.stages:
        run_began = then.ended - sum(stage.seconds for stage in then.stages)
        seconds[first.stages[-1].name] += max(0.0, run_began - first.ended)
    return replace(
        then,
        stages=tuple(StageTime(name, round(value, 3)) for name, value in seconds.items()),
        sent=first.sent + then.sent,
        replaced=then.replaced or first.replaced,
        request_ids=tuple(dict.fromkeys((*first.request_ids, *then.request_ids))),
    )


def totals_of(attempt: AttemptRecord) -> Mapping[TotalKey, float]:
    """Return what a run of an attempt adds to the totals. One that waits is not over."""
    added = defaultdict[TotalKey, float](float)
    if attempt.state != "waiting":
        added[TotalKey("attempts", attempt.cloud, attempt.state)] += 1
    added[TotalKey("sent", attempt.cloud)] += attempt.sent
    for stage in attempt.stages:
        bound = next((one for one in STAGE_BOUNDS_SECONDS if stage.seconds <= one), float("inf"))
        added[TotalKey("stages", stage.name, str(bound))] += 1
        added[TotalKey("stage seconds", stage.name)] += stage.seconds
    return added


class History(Protocol):
    """The operations on the history, for any store. They raise what those of the ledger raise."""

    def add_entry(self, entry: StoryEntry) -> None:
        """Add an entry with the next transaction. Raises nothing."""

    def add_attempt(self, attempt: AttemptRecord) -> None:
        """Add an attempt with the next transaction, and remove what is too old. Raises nothing."""

    def count_boot(self, cloud: str, outcome: BootOutcome) -> None:
        """Count a test boot with the next transaction. Raises nothing."""

    def count_change(self, cloud: str, change: ImageChange) -> None:
        """Count a change to a published image with the next transaction. Raises nothing."""

    def flush(self) -> None:
        """Write what waits for a transaction, so that other processes see it."""

    def story(self, set_id: SetId) -> tuple[StoryEntry, ...]:
        """Return the entries of a set, oldest first."""

    def attempts(self, set_id: SetId | None = None) -> tuple[AttemptRecord, ...]:
        """Return the attempts at a set, or at all sets, oldest first."""

    def recent(self, most: int) -> tuple[AttemptRecord, ...]:
        """Return the last attempts at all sets, newest first, at most so many."""

    def names(self) -> tuple[SetId, ...]:
        """Return the sets that have a history, ordered by folder and name. Their record may be gone."""

    def successes(self) -> Mapping[SetId, float]:
        """Return when the last successful attempt at each set ended, in seconds of the epoch."""

    def failures(self) -> Mapping[SetId, int]:
        """Count the failed attempts at each set since its last success. Sets without one are left out."""

    def totals(self) -> Mapping[TotalKey, float]:
        """Return the sums over all attempts, also over those that are not kept any more."""

    def drop(self, set_id: SetId) -> None:
        """Remove the history of a set."""
