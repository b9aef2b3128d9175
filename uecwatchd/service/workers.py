"""Threads that work on sets."""

from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from uecwatchd.intake.sets.records import ImageSet
from uecwatchd.ledger.records import Request, SetRecord
from uecwatchd.types import SetId


@dataclass(frozen=True, slots=True)
class RunningSet:
    """A set that a worker has begun, and its record to come."""

    found: ImageSet
    clouds: tuple[str, ...]  #: that the attempt is for
    result: Future[SetRecord]
    size: int  #: bytes that may still have to be sent
    requests: tuple[Request, ...]  #: those that it carries out: not any that are made while it runs


class Workers:
    """Pool of threads, and the sets that they work on. Belongs to the service's loop.

    `ended` is called, in a worker's thread, each time that the work on a set has ended.
    """

    def __init__(self, slots: int, *, ended: Callable[[], None]) -> None:
        self._ended = ended
        self._pool = ThreadPoolExecutor(slots + 1, thread_name_prefix="set")  # one more: the express slot
        self._running: dict[SetId, RunningSet] = {}

    @property
    def sizes(self) -> Mapping[SetId, int]:
        """Sizes in bytes of the sets at work."""
        return {key: each.size for key, each in self._running.items()}

    @property
    def running(self) -> frozenset[SetId]:
        return frozenset(self._running)

    def start(
        self,
        found: ImageSet,
        clouds: tuple[str, ...],
        *,
        size: int,
        work: Callable[[], SetRecord],
        requests: tuple[Request, ...],
    ) -> None:
        """Have a set worked on now."""
        result = self._pool.submit(work)
        self._running[found.id] = RunningSet(found, clouds, result, size, requests)
        result.add_done_callback(lambda _: self._ended())

    def take_ended(self) -> list[RunningSet]:
        """Return the sets whose work has ended, once each."""
        over = {key: each for key, each in self._running.items() if each.result.done()}
        for key in over:
            del self._running[key]
        return list(over.values())

    def wait(self) -> None:
        """Wait until the work on some set has ended."""
        wait([each.result for each in self._running.values()], return_when=FIRST_COMPLETED)

    def close(self) -> None:
        self._pool.shutdown()
