"""Spooler: scans the spool folders, and sees each set to its end.

Resembles the spooler of a printing system: what a scan finds is queued, worked on, retried, retired. This
class only connects the parts that do it.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from uecwatchd.config.records import Settings
from uecwatchd.errors import UecError, words_of
from uecwatchd.events import Event, Kind
from uecwatchd.ledger.records import SetRecord
from uecwatchd.service.attempt import context
from uecwatchd.service.clock_jumps import ClockJumps
from uecwatchd.service.cloud_reports import report_outages
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.dispatch import Dispatcher
from uecwatchd.service.folder_locks import FolderLocks
from uecwatchd.service.notices import Notices
from uecwatchd.service.policy import GONE
from uecwatchd.service.reconcile import Reconciler
from uecwatchd.service.requests import Requests
from uecwatchd.service.retention import remove_leaving
from uecwatchd.service.retry import adjust_for_clock_jump
from uecwatchd.service.scanner import Scanner
from uecwatchd.service.schedule import Schedule
from uecwatchd.service.set_states import SetStates
from uecwatchd.service.spooler_parts import ConfiguredParts, LastingParts
from uecwatchd.service.work_folder import sweep_work
from uecwatchd.system.internal_errors import as_internal_error


class Spooler:
    """All work on the spool folders. Belongs to the service's loop.

    `ended` is called, in a worker's thread, each time that an attempt at a set has ended, and in the loop's
    thread if there is a reason for another scan. `progressed` is called for each file and set that a scan has
    looked at.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        states: SetStates,
        tools: context.AttemptTools,
        conditions: Conditions | None = None,
        ended: Callable[[], None],
        progressed: Callable[[], None] = lambda: None,
    ) -> None:
        monotonic = tools.clocks.monotonic
        requests = Requests(tools.ledger, tools.interrupts, states)
        dispatcher = Dispatcher(
            settings.work.sets, states=states, requests=requests, monotonic=monotonic, ended=ended
        )
        conditions = conditions or Conditions(tools.reporting.listener)
        self._parts = LastingParts(states, requests, dispatcher, conditions, monotonic)
        self._ended = ended
        self._progressed = progressed
        self._locks = FolderLocks()
        self._clock_jumps = ClockJumps(now=tools.clocks.now, monotonic=monotonic)
        self.configure(settings, tools)

    def configure(self, settings: Settings, tools: context.AttemptTools) -> None:
        """Take another configuration. Raises Halted, and changes nothing, for a mistake in `[defaults]`."""
        self._setup = self._set_up(settings, tools)
        self._reconciler = Reconciler(self._parts, self._setup)
        self.schedule = Schedule(self._parts, self._setup)
        self._parts.dispatcher.clear()

    def _set_up(self, settings: Settings, tools: context.AttemptTools) -> ConfiguredParts:
        parts = self._parts
        scanner = Scanner(
            settings,
            tools=tools,
            states=parts.states,
            conditions=parts.conditions,
            monotonic=parts.monotonic,
            progressed=self._progressed,
        )
        notices = Notices(
            tools,
            states=parts.states,
            requests=parts.requests,
            conditions=parts.conditions,
            working=lambda: parts.dispatcher.running,
            clock=parts.monotonic,
            settle=settings.spool.settle,
        )
        return ConfiguredParts(settings, tools, scanner, notices)

    # --- state --------------------------------------------------------------------------------------------

    @property
    def troubles(self) -> Mapping[Path, UecError]:
        """Errors that prevented the last scan of a folder."""
        return self._setup.troubles

    def records(self) -> tuple[SetRecord, ...]:
        """Return the records of all sets, also of those whose files are gone."""
        return self._parts.states.records()

    def is_busy(self) -> bool:
        return bool(self._parts.dispatcher.running)

    def has_new_requests(self) -> bool:
        return self._parts.requests.changed()

    def has_notices(self) -> bool:
        """Tell if there are sets that cannot be begun and are not reported yet."""
        return self._setup.notices.has_pending()

    def is_behind(self) -> bool:
        """Tell if the last scan of some folder left files to the next one."""
        return self._setup.scanner.is_behind()

    # --- work ---------------------------------------------------------------------------------------------

    def scan(self, folders: Collection[Path] | None = None) -> None:
        """Scan these folders once, or all, and begin sets as far as there are free workers."""
        setup, spool = self._setup, self._setup.settings.spool
        self._parts.dispatcher.collect(setup.tools)
        self._adjust_for_clock_jump()
        self._parts.states.catch_up()
        availability = setup.tools.clouds.availability
        if self._parts.requests.carry_out(
            self._parts.dispatcher.running, availability, setup.tools.reporting.listener
        ):
            self._ended()  # for a probe is due at once
        self._sweep_work()
        setup.scanner.update_rules()
        self._locks.release_others(spool.folders)
        folders = spool.folders if folders is None else folders
        for folder in folders:
            with self._isolated(folder), setup.scanner.timed(folder):
                self._locks.acquire(folder, self._parts.conditions)
                remove_leaving(
                    folder, setup.tools.ledger, self._parts.conditions, now=setup.tools.clocks.now()
                )
                if self._reconciler.reconcile(setup.scanner.scan(folder)):
                    self._ended()
        self.dispatch()

    def dispatch(self) -> bool:
        """Take results of workers, and begin what the last scan has queued as far as workers are free.

        Returns True if there were results.
        """
        setup = self._setup
        ended = self._parts.dispatcher.collect(setup.tools)
        if not setup.tools.stopping.is_set():
            self._parts.dispatcher.begin(setup.tools)
        for folder, written in setup.notices.report_some().items():
            setup.found.defer_open_files(folder, written, ready_at=setup.settled_at(self._parts.monotonic()))
        availability = setup.tools.clouds.availability
        report_outages(self._parts.conditions, availability, count_sets=self.schedule.count_sets_for)
        return ended

    def drain(self) -> None:
        """Wait until all that is due has been begun and has ended, or a stop is requested."""
        self.dispatch()
        while self.is_busy() or self.has_notices():
            if not self.has_notices():
                self._parts.dispatcher.wait()
            self.dispatch()

    def lock_folders(self) -> None:
        """Lock the folders that can be locked. Raises LockTaken when another service has one of them."""
        self._locks.acquire_at_start(self._setup.settings.spool.folders, self._parts.conditions)

    def close(self) -> None:
        """Wait until every set at work has ended or stopped, and unlock the folders."""
        self._parts.dispatcher.close(self._setup.tools)
        self._parts.states.write_older(self._setup.tools.clocks.now())
        self._locks.release_others()

    def _sweep_work(self) -> None:
        """Remove what was made for sets that do not need it any more."""
        setup, parts = self._setup, self._parts
        with parts.conditions.guard(("work folder",), "the work folder"):
            records, running = parts.states.records(), parts.dispatcher.running
            sweep_work(setup.tools.work_folder, records, running=running, gone=GONE)

    def _adjust_for_clock_jump(self) -> None:
        """Leave the remaining waits as they are after the wall clock has jumped."""
        if jump := self._clock_jumps.seconds():
            running = self._parts.dispatcher.running
            waits = [r for r in self._parts.states.records() if r.state in ("deferred", "waiting")]
            self._parts.states.put_all(adjust_for_clock_jump(r, jump) for r in waits if r.id not in running)

    @contextlib.contextmanager
    def _isolated(self, folder: Path) -> Iterator[None]:
        """Report the trouble of one folder once, while it lasts, and let the others be scanned."""
        setup, key = self._setup, ("folder", str(folder))
        try:
            with as_internal_error(str(folder)):  # no dropped file may end the daemon
                yield
        except UecError as error:
            setup.found.drop(folder)
            self._parts.dispatcher.clear(folder)
            setup.notices.clear_folder(folder)
            self._parts.conditions.set_error(key, error)
            setup.troubles[folder] = words_of(error)
        else:
            setup.troubles.pop(folder, None)
            if self._parts.conditions.clear(key):
                setup.tools.reporting.listener.tell(Event(Kind.READY, f"{folder}: the trouble is over"))
