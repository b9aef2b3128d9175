"""Which of the sets that are due are begun next, now that there is room for some: rules without I/O.

There are as many lanes as sets may be worked on at once (`work.sets`). Each start takes its turn in a short
cycle, so that nothing waits for ever whatever else keeps arriving:

- new sets and those tried again take turns: no flood of the ones shuts out the others
- of each kind, the smallest and the one that has waited longest take turns: a small set does not wait behind
  large ones, nor a large one behind an endless stream of small ones

So a set with `k` older ones of its kind is begun within `(k + 1) * len(TURNS)` starts.

Where every lane is held by something large there is one lane more, the express lane, for a set that is done
in a fraction of the time. A large image may hold its lane for hours, and with `sets = 1` there is no other.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from uecwatchd.types import SetId

TURNS: tuple[tuple[Literal["new", "again"], Literal["smallest", "oldest"]], ...] = (
    ("new", "smallest"),
    ("again", "oldest"),
    ("new", "oldest"),
    ("again", "smallest"),
)

# What takes longer than people like to wait for something small: some ten seconds at a usual upload.
LARGE_BYTES = 256 * 1024 * 1024
# Of the smallest set at work: what passes a large one on the express lane is gone long before that ends.
EXPRESS_FRACTION = 8


@dataclass(frozen=True, slots=True)
class Candidate:
    """A set that is due. `size` is the bytes of its members, `since` when it came to be due, by any clock.
    `again` tells one that was deferred."""

    key: SetId
    size: int
    since: float
    again: bool = False


def begun_next(
    candidates: Iterable[Candidate], running: Iterable[int], *, lanes: int, turn: int
) -> tuple[Candidate, ...]:
    """The sets to begin now, in order. `running` are the sizes of those at work; `turn` is how many have been
    begun so before, which decides whose turn it is."""
    waiting = list(candidates)
    chosen: list[Candidate] = []
    for _ in range(min(len(waiting), lanes - len(list(running)))):
        chosen.append(_whose_turn(waiting, turn=turn + len(chosen)))
        waiting.remove(chosen[-1])
    return tuple(chosen)


def express(candidates: Iterable[Candidate], running: Iterable[int], *, lanes: int) -> Candidate | None:
    """The set to begin beside what holds every lane, if there is one. It takes nobody's turn: counted as one,
    it could always be the same kind's that falls to it."""
    sizes = tuple(running)
    if len(sizes) != lanes or min(sizes) < LARGE_BYTES:
        return None
    passing = (each for each in candidates if each.size <= min(sizes) // EXPRESS_FRACTION)
    return min(passing, key=_by_age, default=None)


def _whose_turn(waiting: Sequence[Candidate], *, turn: int) -> Candidate:
    kind, manner = TURNS[turn % len(TURNS)]
    of_kind = [candidate for candidate in waiting if candidate.again == (kind == "again")]
    return min(of_kind or waiting, key=_by_size if manner == "smallest" else _by_age)


def _by_size(candidate: Candidate) -> tuple[float, float, SetId]:
    return (candidate.size, candidate.since, candidate.key)


def _by_age(candidate: Candidate) -> tuple[float, float, SetId]:
    return (candidate.since, candidate.size, candidate.key)
