"""The knowledge of a service about its sets, clouds and folders at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from uecwatchd.errors import UecError
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.standing import shown_state
from uecwatchd.types import SetId


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
