"""The workers, and the sets that are due until there is a worker free for them.

A set is begun when there is room for it and not before: until then it can be changed, taken away, or left for
the next start at once.
"""

from collections.abc import Callable, Iterable, Mapping, Set
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from uecwatchd.intake.sets.records import ImageSet
from uecwatchd.ledger.records import SetRecord
from uecwatchd.service.queue import Candidate, begun_next, express
from uecwatchd.types import SetId


@dataclass(frozen=True, slots=True)
class Due:
    """A set that is to be begun, and what it counts for among others."""

    found: ImageSet
    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Expected:
    """A set that is due: whether it is tried `again`, and the bytes that count among others."""

    found: ImageSet
    again: bool
    size: int


@dataclass(frozen=True, slots=True)
class _AtWork:
    found: ImageSet
    future: Future[SetRecord]
    size: int


class Crew:
    """Belongs to the service's loop. `ended` is called, in a worker's thread, each time that a set's work is
    over."""

    def __init__(self, lanes: int, *, ended: Callable[[], None]) -> None:
        self._lanes = lanes
        self._ended = ended
        self._pool = ThreadPoolExecutor(lanes + 1, thread_name_prefix="set")  # one more for the express lane
        self._working: dict[SetId, _AtWork] = {}
        self._due: dict[Path, dict[SetId, Due]] = {}
        self._turn = 0

    @property
    def working(self) -> Set[SetId]:
        return self._working.keys()

    @property
    def due(self) -> Mapping[SetId, Due]:
        return {key: due for sets in self._due.values() for key, due in sets.items()}

    def waits(self, found: ImageSet) -> bool:
        """Whether this very set is due already, and nothing of it has changed."""
        known = self._due.get(found.folder, {}).get(found.id)
        return known is not None and known.found.stamp == found.stamp

    def expect(self, folder: Path, sets: Iterable[Expected], *, now: float) -> None:
        """The sets of a folder that are due as of now, in place of those that were. Who waited before has
        waited since then."""
        before = self._due.get(folder, {})
        expected: dict[SetId, Due] = {}
        for one in sets:
            key = one.found.id
            since = before[key].candidate.since if key in before else now
            expected[key] = Due(one.found, Candidate(key, one.size, since, one.again))
        self._due[folder] = expected

    def dismiss(self, folder: Path) -> None:
        """Expect nothing from this folder until it has been looked at again."""
        self._due.pop(folder, None)

    def dismiss_all(self) -> None:
        self._due.clear()

    def begin(self, work_on: Callable[[ImageSet], Callable[[], SetRecord]]) -> None:
        """Hand sets to the workers that are free for them; what is to be done is asked for here and now."""
        due = {key: each.candidate for key, each in self.due.items()}
        chosen = begun_next(due.values(), self._sizes(), lanes=self._lanes, turn=self._turn)
        self._turn += len(chosen)
        for candidate in chosen:
            self._start(due.pop(candidate.key), work_on)
        if passing := express(due.values(), self._sizes(), lanes=self._lanes):
            self._start(passing, work_on)

    def _sizes(self) -> list[int]:
        return [each.size for each in self._working.values()]

    def _start(self, candidate: Candidate, work_on: Callable[[ImageSet], Callable[[], SetRecord]]) -> None:
        expected = self._due[Path(candidate.key[0])]
        found = expected.pop(candidate.key).found
        future = self._pool.submit(work_on(found))
        self._working[candidate.key] = _AtWork(found, future, candidate.size)
        future.add_done_callback(lambda _: self._ended())

    def take(self) -> list[tuple[ImageSet, Future[SetRecord]]]:
        """The work that is over."""
        over = {key: each for key, each in self._working.items() if each.future.done()}
        for key in over:
            del self._working[key]
        return [(each.found, each.future) for each in over.values()]

    def wait(self) -> None:
        """Until some of the work is over."""
        wait([each.future for each in self._working.values()], return_when=FIRST_COMPLETED)

    def close(self) -> None:
        self._pool.shutdown()
