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
from uecwatchd.service.retire.context import Retirement, RetirementOutcome, tell_about
from uecwatchd.service.retire.mark import mark
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
    "mark": mark,
}


@dataclass(frozen=True, slots=True)
class EndedRetirement:
    """A request after a try, and its outcome, None after a failure. It is repeated unless it is over."""

    request: Request
    outcome: RetirementOutcome | None
    is_over: bool


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
        self._closed: frozenset[str] = frozenset()  # clouds with an error in this run of the retention

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
        if not any(one.verb == "prune" for one in open_requests):
            self._closed = frozenset()  # the run is over
        now = self._monotonic()
        due = (one for one in open_requests if self._next_try(one) <= now)
        if request := next(due, None):
            job = Retirement(request, record(request.set_id), tools, self._closed)
            future = self._pool.submit(_carry_out, job)
            self._running = (request, future)
            future.add_done_callback(lambda _: self._ended())

    def take_ended(self, tools: AttemptTools) -> EndedRetirement | None:
        """Return the request that was tried, once; None if there is none, or it was stopped."""
        if self._running is None or not self._running[1].done():
            return None
        request, future = self._running
        self._running = None
        try:
            outcome = future.result()
        except Stopped:
            return None
        except UecError as error:
            is_postponed = self._fail(request, [error], tools)
            return EndedRetirement(request, None, is_over=not is_postponed)
        if request.verb == "prune":
            self._closed |= outcome.failed.keys()
        is_postponed = self._fail(request, outcome.failed.values(), tools)
        return EndedRetirement(request, outcome, is_over=not (is_postponed or outcome.was_stopped))

    def wait(self) -> None:
        """Wait until the request at hand has been tried."""
        if self._running:
            wait([self._running[1]])

    def close(self) -> None:
        self._pool.shutdown()

    def _next_try(self, request: Request) -> float:
        postponed = self._postponed.get(request.number)
        return postponed.next_try if postponed else float("-inf")

    def _fail(self, request: Request, errors: Iterable[UecError], tools: AttemptTools) -> bool:
        """Tell failures, and postpone the request if it can succeed later. Return True if it was."""
        before, is_postponed = self._postponed.get(request.number), False
        for error in errors:
            is_repeated = _is_repeated(request, error)
            is_postponed |= is_repeated
            if before is None:  # each further failure would say the same
                _tell_failure(request, error, tools, is_repeated=is_repeated)
        if is_postponed:
            tries = before.tries + 1 if before else 1
            delay = min(FIRST_DELAY_SECONDS * 2 ** (tries - 1), LONGEST_DELAY_SECONDS)
            self._postponed[request.number] = _Postponed(tries, self._monotonic() + delay)
        return is_postponed


def _is_repeated(request: Request, error: UecError) -> bool:
    """Tell if a request is tried again after an error. A mark is: rights may be given at any time."""
    if request.verb in ("prune", "mark"):
        return request.verb == "mark"
    return isinstance(error, Deferred | Halted)


def failure_words(request: Request) -> str:
    """Return the beginning of the sentence about a try that has failed."""
    return f"{request.set_id.name}: cannot {request.verb} it: "


def _tell_failure(request: Request, error: UecError, tools: AttemptTools, *, is_repeated: bool) -> None:
    what = f"{failure_words(request)}{problem(error)}"
    hint = f"{error.hint} It is tried again by itself." if is_repeated else error.hint
    fields = {"error": problem(error), "hint": hint}
    tell_about(request, Event(Kind.FAULT, what, request.set_id, "error", fields), tools)


def _carry_out(job: Retirement) -> RetirementOutcome:
    with as_internal_error(job.id.name):
        return CARRIED_OUT[job.request.verb](job)
