"""Spooler: scans the spool folders, and sees each set to its end.

Resembles the spooler of a printing system: what a scan finds is queued, worked on, retried, retired. This
class only connects the parts that do it.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from uecwatchd.config.records import Settings
from uecwatchd.errors import UecError, words_of
from uecwatchd.events import Event, Kind
from uecwatchd.intake.sets.records import Assembly, put_back
from uecwatchd.intake.spool import writers
from uecwatchd.ledger.records import SetRecord
from uecwatchd.service.attempt import context
from uecwatchd.service.clock_jumps import ClockJumps
from uecwatchd.service.cloud_notices import tell_outages
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.dispatch import Dispatcher
from uecwatchd.service.folder_locks import FolderLocks
from uecwatchd.service.found_sets import FoundSets
from uecwatchd.service.late_outputs import write_freed
from uecwatchd.service.leftover_files import tell_leftover_files
from uecwatchd.service.notices import Notices
from uecwatchd.service.policy import GONE, earliest_retry, summarize
from uecwatchd.service.requests import Requests
from uecwatchd.service.retention import clear_vanished, files_to_retire, remove_leaving
from uecwatchd.service.retry import adjust_for_clock_jump
from uecwatchd.service.scanner import FolderScan, Scanner
from uecwatchd.service.set_states import SetStates
from uecwatchd.system.internal_errors import as_internal_error


@dataclass(frozen=True, slots=True)
class _Setup:
    """What belongs to one configuration, and is replaced when another one is read."""

    settings: Settings
    tools: context.Tools
    conditions: Conditions
    scanner: Scanner
    notices: Notices
    found: FoundSets = field(default_factory=FoundSets)
    troubles: dict[Path, UecError] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Calls:
    monotonic: Callable[[], float]
    ended: Callable[[], None]
    progressed: Callable[[], None]


class Spooler:
    """All work on the spool folders. Belongs to the service's loop.

    `monotonic` is the clock for how long files are unchanged; `tools.now` the one for what is stored.
    `ended` is called, in a worker's thread, each time that an attempt at a set has ended, and in the loop's
    thread if there is a reason for another scan. `progressed` is called for each file and set that a scan has
    looked at.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        states: SetStates,
        tools: context.Tools,
        monotonic: Callable[[], float],
        ended: Callable[[], None],
        progressed: Callable[[], None] = lambda: None,
    ) -> None:
        self._calls = _Calls(monotonic, ended, progressed)
        self._states = states
        self._requests = Requests(tools.ledger, tools.interrupts, states)
        self._dispatcher = Dispatcher(
            settings.work.sets, states=states, requests=self._requests, monotonic=monotonic, ended=ended
        )
        self._locks = FolderLocks()
        self._clock_jumps = ClockJumps(now=tools.now, monotonic=monotonic)
        self._leftover_files = Conditions(tools.monitor)
        self._setup = self._set_up(settings, tools)

    def configure(self, settings: Settings, tools: context.Tools) -> None:
        """Take another configuration. Raises Halted, and changes nothing, for a mistake in `[defaults]`."""
        self._setup = self._set_up(settings, tools)
        self._dispatcher.clear()

    def _set_up(self, settings: Settings, tools: context.Tools) -> _Setup:
        conditions = Conditions(tools.monitor)
        scanner = Scanner(
            settings,
            tools=tools,
            states=self._states,
            conditions=conditions,
            monotonic=self._calls.monotonic,
            progressed=self._calls.progressed,
        )
        notices = Notices(
            tools,
            states=self._states,
            requests=self._requests,
            conditions=conditions,
            working=lambda: self._dispatcher.running,
            clock=self._calls.monotonic,
            settle=settings.spool.settle,
        )
        return _Setup(settings, tools, conditions, scanner, notices)

    # --- state --------------------------------------------------------------------------------------------

    @property
    def troubles(self) -> Mapping[Path, UecError]:
        """Errors that prevented the last scan of a folder."""
        return self._setup.troubles

    def present(self) -> tuple[SetRecord, ...]:
        """Return the records of the sets that are in the spool folders now."""
        records = map(self._states.get, self._setup.found.ids())
        return tuple(record for record in records if record)

    def settle_times(self) -> list[float]:
        """Return the monotonic times when files will have been unchanged for long enough."""
        return self._setup.found.settle_times()

    def next_retry(self, *, looks: bool = False) -> float | None:
        """Return when, by the wall clock, the next set that is deferred or waits is due.

        With `looks`, only sets count that wait for their cloud.
        """
        keys = {found.id for found in self._setup.found.ready()} - self._dispatcher.taken
        records = map(self._states.get, keys - self._requests.open.holds.keys())
        suspended = self._setup.tools.clouds.availability.suspended()
        return earliest_retry(filter(None, records), suspended=suspended, looks=looks)

    def due_in(self) -> float:
        """Return the seconds until files have settled or a retry is due; infinite if there is neither."""
        pauses = [ready_at - self._calls.monotonic() for ready_at in self.settle_times()]
        if (retry := self.next_retry()) is not None:
            pauses.append(retry - self._setup.tools.now())
        return min(pauses, default=float("inf"))

    def is_busy(self) -> bool:
        return bool(self._dispatcher.running)

    def has_new_requests(self) -> bool:
        return self._requests.changed()

    def has_notices(self) -> bool:
        """Tell if there are sets that cannot be begun and are not reported yet."""
        return self._setup.notices.has_pending()

    def is_behind(self) -> bool:
        """Tell if the last scan of some folder left files to the next one."""
        return self._setup.scanner.is_behind()

    def summary(self) -> str:
        """Return one line with numbers, for systemd and for people."""
        held, running = self._requests.open.holds, self._dispatcher.running
        folders = len(self._setup.settings.spool.folders)
        return summarize(self.present(), held, running, folders=folders)

    # --- work ---------------------------------------------------------------------------------------------

    def scan(self, folders: Collection[Path] | None = None) -> None:
        """Scan these folders once, or all, and begin sets as far as there are free workers."""
        setup, spool = self._setup, self._setup.settings.spool
        self._dispatcher.collect(setup.tools)
        self._adjust_for_clock_jump()
        self._states.catch_up()
        availability = setup.tools.clouds.availability
        if self._requests.carry_out(self._dispatcher.running, availability, setup.tools.monitor):
            self._calls.ended()  # for a probe is due at once
        setup.scanner.update_rules()
        self._locks.release_others(spool.folders)
        for folder in spool.folders if folders is None else folders:
            with self._isolated(folder), setup.scanner.timed(folder):
                self._locks.acquire(folder, setup.conditions)
                self._scan(folder)
        self.tend()

    def tend(self) -> bool:
        """Take results of workers, and begin what the last scan has queued as far as workers are free.

        Returns True if there were results.
        """
        setup = self._setup
        ended = self._dispatcher.collect(setup.tools)
        if not setup.tools.stopping.is_set():
            self._dispatcher.begin(setup.tools)
        for folder, written in setup.notices.report_some().items():
            setup.found.defer_open_files(folder, written, ready_at=self._settled_at())
        tell_outages(setup.conditions, setup.tools.clouds.availability, wanting=self._count_sets_for)
        return ended

    def drain(self) -> None:
        """Wait until all that is due has been begun and has ended, or a stop is requested."""
        self.tend()
        while self.is_busy() or self.has_notices():
            if not self.has_notices():
                self._dispatcher.wait()
            self.tend()

    def lock_folders(self) -> None:
        """Lock the folders that can be locked. Raises Occupied when another service has one of them."""
        self._locks.acquire_at_start(self._setup.settings.spool.folders, self._setup.conditions)

    def close(self) -> None:
        """Wait until every set at work has ended or stopped, and unlock the folders."""
        self._dispatcher.close(self._setup.tools)
        self._states.write_older(self._setup.tools.now())
        self._locks.release_others()

    def _scan(self, folder: Path) -> None:
        setup, running = self._setup, self._dispatcher.running
        tools, conditions = setup.tools, setup.conditions
        remove_leaving(folder, tools.ledger, conditions, now=tools.now())
        scanned = setup.scanner.scan(folder)
        self._restore_returned(scanned)
        idle = [record for record in scanned.present() if record.id not in running]
        write_freed(idle, scanned.listing, states=self._states, conditions=conditions)
        assembly = self._queue(scanned)
        setup.found.put(folder, assembly)
        setup.notices.replace_folder(folder, assembly, lambda path: scanned.listing.stamp(path).ctime_ns)
        self._requests.drop_impossible(folder, assembly, running)
        tell_leftover_files(folder, assembly.misfits, conditions=self._leftover_files, monitor=tools.monitor)
        self._retire(scanned, assembly)
        vanished = [record for record in scanned.absent() if record.id not in running]
        linger = setup.settings.spool.linger
        if clear_vanished(
            vanished, states=self._states, conditions=conditions, now=tools.now(), linger=linger
        ):
            self._calls.ended()

    def _restore_returned(self, scanned: FolderScan) -> None:
        """Note that files are there again, as after a file system was mounted again."""
        back = ((scanned.records.get(found.name), found.owner) for found in scanned.assembly.ready)
        gone = [(record, owner) for record, owner in back if record and record.reason == GONE]
        self._states.put_all([replace(record, reason="", owner=owner) for record, owner in gone])

    def _queue(self, scanned: FolderScan) -> Assembly:
        """Queue the sets that are due. Return all sets; those wait that have a file open for writing."""
        folder, records, tools = scanned.folder, scanned.records, self._setup.tools
        now, suspended = tools.now(), tools.clouds.availability.suspended()
        due_sets = [
            found
            for found in scanned.assembly.ready
            if self._dispatcher.is_due(found, records.get(found.name), now=now, suspended=suspended)
        ]
        opened = ((one.name, writers.open_for_writing(folder, one.files)) for one in due_sets)
        written = {name: path for name, path in opened if path}
        excluded = {*written, *self._requests.held_names(folder)}
        begun = [found for found in due_sets if found.name not in excluded]
        self._dispatcher.queue(folder, begun, records, tell=tools.monitor.tell)
        return put_back(scanned.assembly, written, ready_at=self._settled_at())

    def _retire(self, scanned: FolderScan, assembly: Assembly) -> None:
        """Archive or delete the files of finished sets, if the configuration says so."""
        folder, tools = scanned.folder, self._setup.tools
        if (way := self._setup.settings.spool.after) == "keep":
            return
        held = self._requests.held_names(folder)
        if leaving := files_to_retire(scanned.listing, assembly, scanned.records, held=held, way=way):
            tools.ledger.put_leaving(leaving)
            remove_leaving(folder, tools.ledger, self._setup.conditions, now=tools.now())

    def _settled_at(self) -> float:
        """Return when a file that is written now will have been unchanged for long enough."""
        return self._calls.monotonic() + self._setup.settings.spool.settle

    def _count_sets_for(self, cloud: str) -> int:
        """Count the complete sets that have still to be registered in a cloud."""
        keys = {found.id for found in self._setup.found.ready() if found.sidecar.clouds[0] == cloud}
        taken = self._dispatcher.taken
        others = (record for record in map(self._states.get, keys - taken) if record)
        return len(keys & taken) + sum(record.state == "deferred" for record in others)

    def _adjust_for_clock_jump(self) -> None:
        """Leave the remaining waits as they are after the wall clock has jumped."""
        if jump := self._clock_jumps.seconds():
            running = self._dispatcher.running
            waits = [r for r in self._states.records() if r.state in ("deferred", "waiting")]
            self._states.put_all(adjust_for_clock_jump(r, jump) for r in waits if r.id not in running)

    @contextlib.contextmanager
    def _isolated(self, folder: Path) -> Iterator[None]:
        """Report the trouble of one folder once, while it lasts, and let the others be scanned."""
        setup, key = self._setup, ("folder", str(folder))
        try:
            with as_internal_error(str(folder)):  # no dropped file may end the daemon
                yield
        except UecError as error:
            setup.found.drop(folder)
            self._dispatcher.clear(folder)
            setup.notices.clear_folder(folder)
            setup.conditions.set_error(key, error)
            setup.troubles[folder] = words_of(error)
        else:
            setup.troubles.pop(folder, None)
            if setup.conditions.clear(key):
                setup.tools.monitor.tell(Event(Kind.READY, f"{folder}: the trouble is over"))
