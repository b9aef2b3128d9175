"""Queue of the due sets, and the rules for the next one to begin.

The service works on `work.sets` sets at once. Starts go through a short cycle, so that no set waits for ever,
whatever else keeps arriving:

- New sets alternate with sets that are tried again: many of one kind do not shut out the other.
- Within each kind, the smallest alternates with the one that has waited longest: a small set does not wait
  behind large ones, and a large one does not wait behind an endless stream of small ones.

So a set with `k` older ones of its kind is begun within `(k + 1) * len(CYCLE)` starts.

While every slot is taken by a large set there is one slot more, the express slot, for a set that is done in a
fraction of their time. A large image may hold its slot for hours, and with `sets = 1` there is no other.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from uecwatchd.intake.sets.records import ImageSet
from uecwatchd.types import SetId

CYCLE: tuple[tuple[Literal["new", "again"], Literal["smallest", "oldest"]], ...] = (
    ("new", "smallest"),
    ("again", "oldest"),
    ("new", "oldest"),
    ("again", "smallest"),
)

# Takes longer than people like to wait for something small: some ten seconds at a usual upload rate.
LARGE_BYTES = 256 * 1024 * 1024
# Of the smallest set at work: a set that passes large ones in the express slot is done long before they are.
EXPRESS_FRACTION = 8


@dataclass(frozen=True, slots=True)
class DueSet:
    """A set that is ready to be worked on."""

    found: ImageSet
    again: bool  #: it was deferred or has waited for a cloud
    size: int  #: bytes that may still have to be sent


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """One set in the queue, with all that decides when it is begun."""

    key: SetId
    size: int  #: bytes of its members
    since: float  #: when it became due, by any clock
    again: bool = False  #: it was deferred


@dataclass(frozen=True, slots=True)
class QueuedSet:
    """A set in the queue."""

    found: ImageSet
    candidate: QueueEntry


class SetQueue:
    """Sets that are due, until there is a worker for them. Belongs to the service's loop.

    A set leaves the queue when it is begun and not before: until then a scan can change or remove it.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._sets: dict[Path, dict[SetId, QueuedSet]] = {}
        self._begun = 0  # starts so far, for the cycle

    @property
    def ids(self) -> Set[SetId]:
        return {key for sets in self._sets.values() for key in sets}

    def has(self, found: ImageSet) -> bool:
        """Tell if a set is in the queue with these very files."""
        known = self._sets.get(found.folder, {}).get(found.id)
        return known is not None and known.found.stamp == found.stamp

    def replace(self, folder: Path, sets: Iterable[DueSet], *, now: float) -> None:
        """Replace the due sets of a folder by those that are due now.

        A set that was in the queue before keeps its place.
        """
        before = self._sets.get(folder, {})
        queued: dict[SetId, QueuedSet] = {}
        for one in sets:
            key = one.found.id
            since = before[key].candidate.since if key in before else now
            queued[key] = QueuedSet(one.found, QueueEntry(key, one.size, since, one.again))
        self._sets[folder] = queued

    def of_folder(self, folder: Path) -> tuple[QueuedSet, ...]:
        """Return the sets of a folder in the queue."""
        return tuple(self._sets.get(folder, {}).values())

    def clear_folder(self, folder: Path) -> None:
        self._sets.pop(folder, None)

    def clear(self) -> None:
        self._sets.clear()

    def take(self, running: Mapping[SetId, int]) -> list[QueuedSet]:
        """Take out the sets to begin now. `running` are those at work, with their sizes in bytes."""
        sizes = list(running.values())
        candidates = {
            one.candidate.key: one.candidate for sets in self._sets.values() for one in sets.values()
        }
        chosen = list(choose(candidates.values(), sizes, slots=self._slots, begun=self._begun))
        self._begun += len(chosen)
        rest = [c for key, c in candidates.items() if key not in {c.key for c in chosen}]
        if passing := choose_express(rest, [*sizes, *(c.size for c in chosen)], slots=self._slots):
            chosen.append(passing)
        return [self._sets[Path(c.key.folder)].pop(c.key) for c in chosen]


def choose(
    candidates: Iterable[QueueEntry], running: Iterable[int], *, slots: int, begun: int
) -> tuple[QueueEntry, ...]:
    """Choose the sets to begin now, in order.

    `running` are the sizes of those at work; `begun` is the number of earlier starts, which gives the place
    in the cycle.
    """
    waiting = list(candidates)
    chosen: list[QueueEntry] = []
    for _ in range(min(len(waiting), slots - len(list(running)))):
        chosen.append(_next_in_cycle(waiting, begun=begun + len(chosen)))
        waiting.remove(chosen[-1])
    return tuple(chosen)


def choose_express(
    candidates: Iterable[QueueEntry], running: Iterable[int], *, slots: int
) -> QueueEntry | None:
    """Choose the set to begin beside large ones that take every slot, if there is one.

    It does not count in the cycle: otherwise it could always use up the same kind's place.
    """
    sizes = tuple(running)
    if len(sizes) != slots or min(sizes) < LARGE_BYTES:
        return None
    passing = (each for each in candidates if each.size <= min(sizes) // EXPRESS_FRACTION)
    return min(passing, key=_by_age, default=None)


def _next_in_cycle(waiting: Sequence[QueueEntry], *, begun: int) -> QueueEntry:
    kind, order = CYCLE[begun % len(CYCLE)]
    of_kind = [candidate for candidate in waiting if candidate.again == (kind == "again")]
    return min(of_kind or waiting, key=_by_size if order == "smallest" else _by_age)


def _by_size(candidate: QueueEntry) -> tuple[float, float, SetId]:
    return (candidate.size, candidate.since, candidate.key)


def _by_age(candidate: QueueEntry) -> tuple[float, float, SetId]:
    return (candidate.since, candidate.size, candidate.key)
