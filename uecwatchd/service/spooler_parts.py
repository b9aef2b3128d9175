"""Parts of the spooler: those that stay while the service runs, and those of one configuration.

They are passed on as these two records: `Reconciler` uses ten of the parts and `Schedule` seven, so that an
argument for each would only repeat this list.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from uecwatchd.config.records import Settings
from uecwatchd.errors import UecError
from uecwatchd.service.attempt import context
from uecwatchd.service.boot_threads import BootThreads
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.dispatch import Dispatcher
from uecwatchd.service.found_sets import FoundSets
from uecwatchd.service.requests import Requests
from uecwatchd.service.retire.thread import RetireThread
from uecwatchd.service.scanner import Scanner
from uecwatchd.service.set_reports import SetReports
from uecwatchd.service.set_states import SetStates
from uecwatchd.service.shared_work import SharedWork
from uecwatchd.types import SetId


@dataclass(frozen=True, slots=True)
class LastingParts:
    """Parts that stay while the service runs."""

    states: SetStates
    requests: Requests
    dispatcher: Dispatcher
    retiring: RetireThread
    boots: BootThreads
    conditions: Conditions
    shared: SharedWork
    monotonic: Callable[[], float]

    @property
    def busy_here(self) -> frozenset[SetId]:
        """Sets that are worked on: in a worker, in a test boot, or for a request about their images."""
        return frozenset(self.dispatcher.running) | self.boots.sets | self.retiring.running

    @property
    def busy(self) -> frozenset[SetId]:
        """The same, with those of this host's folders that other hosts work on."""
        return self.busy_here | self.shared.elsewhere

    def is_busy(self, set_id: SetId, cloud: str) -> bool:
        """Tell if a set is worked on, as far as that matters for one cloud; an empty name means all."""
        at_work = set_id in self.dispatcher.at_work or set_id in self.retiring.running
        return at_work or self.boots.has(set_id, cloud)


@dataclass(frozen=True, slots=True)
class ConfiguredParts:
    """Parts of one configuration, replaced when another one is read."""

    settings: Settings
    tools: context.AttemptTools
    scanner: Scanner
    reports: SetReports
    found: FoundSets = field(default_factory=FoundSets)
    troubles: dict[Path, UecError] = field(default_factory=dict)  #: errors of the last scan, by folder

    def settled_at(self, now: float) -> float:
        """Return when a file that is written now will have been unchanged for long enough."""
        return now + self.settings.spool.settle
