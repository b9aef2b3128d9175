"""The thread that carries out requests about published images, one after the other.

It is a thread of its own because a request may wait for a cloud for minutes, and there are few: neither the
loop nor a worker waits. A request that fails is carried out again later, until it succeeds or is dropped.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from uecwatchd.errors import Deferred, Halted, Stopped, UecError, problem
from uecwatchd.events import Event, Kind
from uecwatchd.ledger.records import Request, SetRecord, Verb
from uecwatchd.service.attempt.context import AttemptTools
from uecwatchd.service.retire.context import Retirement, RetirementOutcome
from uecwatchd.service.retire.prune import prune
from uecwatchd.service.retire.rollback import roll_back
from uecwatchd.service.retire.withdraw import withdraw
from uecwatchd.service.retry import FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS
from uecwatchd.system.internal_errors import as_internal_error
from uecwatchd.types import SetId

CARRIED_OUT: Mapping[Verb, Callable[[Retirement], RetirementOutcome]] = {
    "withdraw": withdraw,
    "prune": prune,
    "rollback": roll_back,
}


@dataclass(frozen=True, slots=True)
class EndedRetirement:
    """A request that was carried out, and its outcome; None if it failed for good."""

    request: Request
    outcome: RetirementOutcome | None


@dataclass(frozen=True, slots=True)
class _Postponed:
    """A request that has failed."""

    tries: int
    next_try: float  #: by the monotonic clock


class RetireThread:
    """Thread and queue of requests. Belongs to the service's loop.

    `ended` is called, in the thread, each time that a request has been tried.
    """

    def __init__(self, *, monotonic: Callable[[], float], ended: Callable[[], None]) -> None:
        self._monotonic = monotonic
        self._ended = ended
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="retire")
        self._running: tuple[Request, Future[RetirementOutcome]] | None = None
        self._postponed: dict[int, _Postponed] = {}

    @property
    def running(self) -> frozenset[SetId]:
        """The set that is worked on, if there is one."""
        return frozenset({self._running[0].set_id}) if self._running else frozenset()

    def begin(
        self, requests: Iterable[Request], *, record: Callable[[SetId], SetRecord | None], tools: AttemptTools
    ) -> None:
        """Carry out the first of these requests that is not postponed, if the thread is free."""
        open_requests = list(requests)
        numbers = {one.number for one in open_requests}
        self._postponed = {number: each for number, each in self._postponed.items() if number in numbers}
        if self._running or tools.stopping.is_set():
            return
        now = self._monotonic()
        due = (one for one in open_requests if self._next_try(one) <= now)
        if request := next(due, None):
            job = Retirement(request, record(request.set_id), tools)
            future = self._pool.submit(_carry_out, job)
            self._running = (request, future)
            future.add_done_callback(lambda _: self._ended())

    def take_ended(self, tools: AttemptTools) -> EndedRetirement | None:
        """Return the request that has ended, once; None if there is none, or it is to be repeated."""
        if self._running is None or not self._running[1].done():
            return None
        request, future = self._running
        self._running = None
        try:
            return EndedRetirement(request, future.result())
        except Stopped:
            return None
        except UecError as error:
            return self._fail(request, error, tools)

    def wait(self) -> None:
        """Wait until the request at hand has been tried."""
        if self._running:
            wait([self._running[1]])

    def close(self) -> None:
        self._pool.shutdown()

    def _next_try(self, request: Request) -> float:
        postponed = self._postponed.get(request.number)
        return postponed.next_try if postponed else float("-inf")

    def _fail(self, request: Request, error: UecError, tools: AttemptTools) -> EndedRetirement | None:
        """Tell a failure, and postpone the request if it can succeed later."""
        before = self._postponed.get(request.number)
        is_repeated = isinstance(error, Deferred | Halted) and request.verb != "prune"
        what = f"{request.set_id.name}: cannot {request.verb} it: {problem(error)}"
        if before is None:  # each further failure would say the same
            hint = f"{error.hint} It is tried again by itself." if is_repeated else error.hint
            fields = {"error": problem(error), "hint": hint}
            tools.reporting.listener.tell(Event(Kind.FAULT, what, request.set_id, "error", fields))
        if not is_repeated:
            return EndedRetirement(request, None)
        tries = before.tries + 1 if before else 1
        delay = min(FIRST_DELAY_SECONDS * 2 ** (tries - 1), LONGEST_DELAY_SECONDS)
        self._postponed[request.number] = _Postponed(tries, self._monotonic() + delay)
        return None


def _carry_out(job: Retirement) -> RetirementOutcome:
    with as_internal_error(job.id.name):
        return CARRIED_OUT[job.request.verb](job)
