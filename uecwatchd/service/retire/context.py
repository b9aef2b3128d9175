"""One request about published images, with the tools for it, and its outcome."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from uecwatchd.config.records import Outcome
from uecwatchd.errors import Stopped, UecError
from uecwatchd.events import Event, Fields, Kind, Level
from uecwatchd.ledger.records import Request, SetRecord
from uecwatchd.ledger.standing import hold_scope
from uecwatchd.outputs.notify.facts import Facts
from uecwatchd.outputs.result_files import LogFile
from uecwatchd.service.attempt.context import AttemptTools
from uecwatchd.types import SetId


@dataclass(frozen=True, slots=True)
class Retirement:
    """A request that is carried out.

    `record` is that of its set, None if it has none any more. Nothing is removed from the `closed` clouds.
    """

    request: Request
    record: SetRecord | None
    tools: AttemptTools
    closed: frozenset[str] = frozenset()

    @property
    def id(self) -> SetId:
        return self.request.set_id

    def hold(self, cloud: str) -> None:
        """Hold the set on this cloud, or as a whole, unless the person who asked has done so."""
        if self.id not in self.tools.ledger.holds():
            scope, now = hold_scope(self.record, cloud), self.tools.clocks.now()
            self.tools.ledger.put_hold(self.id, since=now, cloud=scope)

    def tell(self, kind: Kind, what: str, *, level: Level = "info", fields: Fields | None = None) -> None:
        """Send an event about the set, with its name in front."""
        event = Event(kind, f"{self.id.name}: {what}", self.id, level=level, fields=fields or {})
        tell_about(self.request, event, self.tools)

    def sleep(self, seconds: float) -> None:
        """Wait. Raises Stopped if the service is to end."""
        self.tools.stopping.wait(seconds)
        self.check_stop()

    def check_stop(self) -> None:
        """Raise Stopped if the service is to end."""
        if self.tools.stopping.is_set():
            what = f"{self.id.name}: stopped at: {self.request.verb}"
            raise Stopped(what, "the service was asked to stop", "It continues at the next start.")


def tell_about(request: Request, event: Event, tools: AttemptTools) -> None:
    """Send an event about a request.

    It is in the log of the set as well, if a person has made the request.
    """
    if request.verb in ("withdraw", "rollback") and request.due is None and tools.ledger.set(request.set_id):
        LogFile(request.set_id).tell(event)
    tools.reporting.listener.tell(event)


@dataclass(frozen=True, slots=True)
class RetirementOutcome:
    """Outcome of a request: the change of the set's record, None if it stays.

    `stays` are sentences about images that could not be taken out of their cloud. `failed` are the errors of
    clouds while others were worked on. `news` are told to people. `was_stopped` means that more is to do.
    """

    change: Callable[[SetRecord], SetRecord] | None = None
    stays: tuple[str, ...] = ()
    failed: Mapping[str, UecError] = field(default_factory=dict)
    news: tuple[tuple[Outcome, Facts], ...] = ()
    was_stopped: bool = False
