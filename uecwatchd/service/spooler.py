"""Spooler: scans the spool folders, and sees each set to its end.

Resembles the spooler of a printing system: what a scan finds is queued, worked on, retried, retired. This
class only connects the parts that do it.
"""

import contextlib
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from uecwatchd.config.records import Outcome, Settings
from uecwatchd.errors import UecError, words_of
from uecwatchd.events import Event, Kind
from uecwatchd.ledger.records import Request, SetRecord
from uecwatchd.ledger.standing import by_cloud
from uecwatchd.ledger.state_folder import name_of_home
from uecwatchd.outputs.notify.facts import Facts
from uecwatchd.service.attempt import context
from uecwatchd.service.attempt.boot import after_boots
from uecwatchd.service.attempt.trial import is_tested
from uecwatchd.service.build_child import BuildChild
from uecwatchd.service.builds import BuildWatch
from uecwatchd.service.clock_jumps import ClockJumps
from uecwatchd.service.cloud_reports import report_outages
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.dispatch import Dispatcher
from uecwatchd.service.file_removal import remove_leaving
from uecwatchd.service.folder_locks import FolderLocks, LockHolder
from uecwatchd.service.help import help_others
from uecwatchd.service.policy import GONE, to_offer
from uecwatchd.service.reconcile import Reconciler
from uecwatchd.service.requests import Requests
from uecwatchd.service.retire.rules import has_rule, may_have_rule
from uecwatchd.service.retire.thread import RetireThread
from uecwatchd.service.retry import adjust_for_clock_jump
from uecwatchd.service.scanner import Scanner
from uecwatchd.service.schedule import Schedule
from uecwatchd.service.set_reports import SetReports
from uecwatchd.service.set_states import SetStates
from uecwatchd.service.shared_work import SharedWork
from uecwatchd.service.spooler_parts import ConfiguredParts, LastingParts
from uecwatchd.service.work_folder import sweep_work
from uecwatchd.system.internal_errors import as_internal_error
from uecwatchd.types import SetId

Announce = Callable[[SetId, Outcome, Facts], None]
# Images become old by the day. A restart looks at all of them as well.
PRUNE_EVERY_SECONDS = 86400.0


class Spooler:
    """All work on the spool folders. Belongs to the service's loop.

    `ended` is called, in a worker's thread, each time that an attempt at a set has ended, and in the loop's
    thread if there is a reason for another scan. `progressed` is called for each file and set that a scan has
    looked at, `announce` with what people are to be told of a request.
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
        announce: Announce = lambda _about, _outcome, _facts: None,
    ) -> None:
        monotonic = tools.clocks.monotonic
        requests = Requests(tools.ledger, tools.interrupts, states)
        shared = SharedWork(tools.ledger, states, monotonic=monotonic)
        dispatcher = Dispatcher(
            settings.work.sets,
            states=states,
            requests=requests,
            shared=shared,
            monotonic=monotonic,
            ended=ended,
        )
        conditions = conditions or Conditions(tools.reporting.listener)
        retiring = RetireThread(monotonic=monotonic, ended=ended)
        self._parts = LastingParts(
            states, requests, dispatcher, retiring, tools.boot_threads, conditions, shared, monotonic
        )
        self._build_child = BuildChild(ended=ended, monotonic=monotonic)
        self._ended = ended
        self._progressed = progressed
        self._announce = announce
        self._next_prune = float("-inf")
        self._locks = FolderLocks(_lock_holder(settings, tools), conditions)
        self._clock_jumps = ClockJumps(now=tools.clocks.now, monotonic=monotonic)
        self.configure(settings, tools)

    def configure(self, settings: Settings, tools: context.AttemptTools) -> None:
        """Take another configuration. Raises Halted, and changes nothing, for a mistake in `[defaults]`."""
        self._setup = self._set_up(settings, tools)
        self._parts.shared.configure(settings.spool)
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
        reports = SetReports(
            tools,
            states=parts.states,
            requests=parts.requests,
            conditions=parts.conditions,
            working=lambda: parts.dispatcher.at_work,
            clock=parts.monotonic,
            settle=settings.spool.settle,
        )
        return ConfiguredParts(settings, tools, scanner, reports)

    # --- state --------------------------------------------------------------------------------------------

    @property
    def troubles(self) -> Mapping[Path, UecError]:
        """Errors that prevented the last scan of a folder."""
        return self._setup.troubles

    def records(self) -> tuple[SetRecord, ...]:
        """Return the records of all sets of this host, also of those whose files are gone."""
        return tuple(one for one in self._parts.states.records() if self.is_ours(one.id))

    def is_ours(self, set_id: SetId) -> bool:
        """Tell if this host decides about a set, and no other one."""
        return self._parts.shared.is_ours(set_id)

    def help_in(self) -> float:
        """Return the seconds until the next look for sets of another host; infinite if there are no such."""
        return self._parts.shared.look_in() if self._parts.dispatcher.free > 0 else float("inf")

    def is_busy(self) -> bool:
        return bool(self._parts.busy_here)

    def has_new_requests(self) -> bool:
        return self._parts.requests.changed()

    def has_reports(self) -> bool:
        """Tell if there are sets that cannot be begun and are not reported yet."""
        return self._setup.reports.has_pending()

    def is_behind(self) -> bool:
        """Tell if the last scan of some folder left files to the next one."""
        return self._setup.scanner.is_behind()

    # --- work ---------------------------------------------------------------------------------------------

    def scan(self, folders: Collection[Path] | None = None) -> None:
        """Scan these folders once, or all, and begin sets as far as there are free workers."""
        setup, spool = self._setup, self._setup.settings.spool
        self._collect()
        folders = spool.folders if folders is None else folders
        self._locks.release_others(spool.folders)
        entered = self._parts.shared.enter(folders, self._locks.acquire)
        self._adjust_for_clock_jump()
        self._parts.states.catch_up()
        availability = setup.tools.clouds.availability
        listener, builds = setup.tools.reporting.listener, setup.settings.install.builds
        is_known = self._parts.shared.is_known
        if self._parts.requests.carry_out(
            self._parts.is_busy, availability, listener, is_known=is_known, builds=builds
        ):
            self._ended()  # for a probe is due at once
        self._sweep_work()
        self.look_at_builds()
        setup.scanner.update_rules()
        for folder in folders:
            with self._isolated(folder), setup.scanner.timed(folder):
                self._scan_entered(folder, entered=entered.get(folder, True))
        self.dispatch()

    def _scan_entered(self, folder: Path, *, entered: UecError | bool) -> None:
        """Scan one folder, unless another host does."""
        if isinstance(entered, UecError):
            raise entered
        text = "" if entered else f"{folder}: another host scans it; this one works on its sets as well"
        self._parts.conditions.set(("scanned", str(folder)), text, kind=Kind.READY, level="info")
        if entered:
            self._scan(folder)
        else:
            self._drop_found(folder)

    def _scan(self, folder: Path) -> None:
        """Scan one folder, and do all that follows."""
        setup, parts = self._setup, self._parts
        self._locks.acquire(folder)
        ledger, now = setup.tools.ledger, setup.tools.clocks.now()
        leaving = remove_leaving(folder, ledger, parts.conditions, now=now)
        if self._reconciler.reconcile(setup.scanner.scan(folder, leaving)):
            self._ended()
        if parts.shared.is_shared(folder):
            is_kept = partial(is_tested, clouds=setup.settings.clouds)
            queued = parts.dispatcher.queued(folder)
            parts.shared.offer(to_offer(one, is_kept=is_kept(one.found)) for one in queued)

    def dispatch(self) -> bool:
        """Take results of workers, and begin what the last scan has queued as far as workers are free.

        Returns True if there were results.
        """
        setup = self._setup
        ended = self._collect()
        ended |= self.retire()
        if ended:
            self._parts.shared.look_soon()
        if not setup.tools.stopping.is_set():
            self._parts.dispatcher.begin(setup.tools)
            help_others(self._parts, setup)
        self._parts.shared.release_ended(self._parts.dispatcher.running)
        for folder, written in setup.reports.make_some().items():
            setup.found.defer_open_files(folder, written, ready_at=setup.settled_at(self._parts.monotonic()))
        availability = setup.tools.clouds.availability
        report_outages(self._parts.conditions, availability, count_sets=self.schedule.count_sets_for)
        return ended

    def _collect(self) -> bool:
        """Take results of workers. The older images of each set that is done are looked at, by its rule."""
        tools = self._setup.tools
        ended = self._parts.dispatcher.collect(tools)
        ruled = (found for found in ended if may_have_rule(found, tools.retention_of))
        records = (self._parts.states.get(found.id) for found in ruled)
        self._ask_to_prune(one.id for one in records if one and one.state == "done")
        return bool(ended) | self._collect_boots()

    def _collect_boots(self) -> bool:
        """Start the prepared test boots. Sets go on after their boot, or when it is their turn."""
        parts, now, running = self._parts, self._setup.tools.clocks.now(), self._parts.dispatcher.running
        parts.boots.start(but=running)
        if not (ended := parts.boots.take_ended(but=running)):
            return False
        is_same = self._setup.tools.clouds.is_same_account
        idle = [record for record in parts.states.records() if record.id not in running]
        changed = ((record, after_boots(record, ended, now=now, is_same=is_same)) for record in idle)
        parts.states.put_all(after for before, after in changed if after != before)
        return True

    def retire(self) -> bool:
        """Take the result of a request about published images, and begin the next one.

        Returns True if there was a result.
        """
        parts, tools = self._parts, self._setup.tools
        has_ended = self._collect_retired()
        if parts.monotonic() >= self._next_prune:
            self._next_prune = parts.monotonic() + PRUNE_EVERY_SECONDS
            self._ask_to_prune(None)
        due = parts.requests.retirements(now=tools.clocks.now())
        taken = parts.dispatcher.taken
        ours = (one for one in due if parts.shared.is_ours(one.set_id))
        free = (one for one in ours if one.set_id not in taken and not parts.boots.has(one.set_id, one.cloud))
        parts.retiring.begin(free, record=parts.states.get, tools=tools)
        return has_ended

    def _ask_to_prune(self, sets: Iterable[SetId] | None) -> None:
        """Have the older images of some sets looked at, or of all, where there is a rule."""
        tools = self._setup.tools
        with contextlib.suppress(UecError):  # an unusable ledger is reported by the sets
            asked = tools.ledger.versions.sets() if sets is None else sets
            due = [one for one in asked if has_rule(one, tools.ledger, tools.retention_of)]
            self._parts.requests.ask_to_prune(filter(self.is_ours, due))
            for one in due if sets is not None else ():
                if not self.is_ours(one):  # the host that scans does it
                    tools.ledger.put_request(Request(one, "prune"))

    def _collect_retired(self) -> bool:
        parts = self._parts
        ended = parts.retiring.take_ended(self._setup.tools)
        if ended:
            change = ended.outcome.change if ended.outcome else None
            for outcome, facts in ended.outcome.news if ended.outcome else ():  # before the request is over
                self._announce(ended.request.set_id, outcome, facts)
            parts.requests.end_retirement(ended.request, change, is_over=ended.is_over)
            if ended.outcome is None and ended.request.verb == "prune":
                parts.requests.drop_prunes()
        return ended is not None

    def drain(self) -> None:
        """Wait until all that is due has been begun and has ended, or a stop is requested."""
        self.dispatch()
        while self.is_busy() or self.has_reports():
            if not self.has_reports():
                self._wait()
            self.dispatch()

    def _wait(self) -> None:
        """Wait until some of the work has ended."""
        parts = self._parts
        if parts.dispatcher.running:
            parts.dispatcher.wait()
        elif parts.retiring.running:
            parts.retiring.wait()
        else:
            parts.boots.wait()

    def drain_requests(self) -> None:
        """Carry out what is asked about published images, and nothing else."""
        self._next_prune = float("inf")  # that nobody asked for
        self._parts.shared.enter(self._setup.settings.spool.folders, self._locks.acquire)
        self._parts.requests.update()
        while self.retire() or self._parts.retiring.running:
            self._parts.retiring.wait()

    def lock_folders(self) -> None:
        """Lock the folders that can be locked. Raises LockTaken when another service has one of them."""
        self._locks.acquire_at_start(self._setup.settings.spool.folders)

    def close(self) -> None:
        """Wait until every set at work has ended or stopped, and unlock the folders."""
        self._parts.dispatcher.close(self._setup.tools)
        self._parts.boots.start(but=())  # they stop at once, and release their claims
        self._parts.boots.close()
        self._collect_boots()
        self._parts.shared.release_ended(self._parts.dispatcher.running)
        self._parts.retiring.close()
        self._build_child.close()
        self._collect_retired()
        self._parts.states.write_older(self._setup.tools.clocks.now())
        self._locks.release_others()

    def _sweep_work(self) -> None:
        """Remove what was made for sets that do not need it any more."""
        setup, parts = self._setup, self._parts
        with parts.conditions.guard(("work folder",), "the work folder"):
            records, running = parts.states.records(), parts.dispatcher.running
            sweep_work(setup.tools.work_folder, records, running=running, gone=GONE)

    def look_at_builds(self) -> None:
        """See how far installations are, and let their worker run if it has anything to do."""
        setup, parts = self._setup, self._parts
        builds, listener = setup.settings.install.builds, setup.tools.reporting.listener
        watch = BuildWatch(parts.states, setup.tools.ledger, builds, listener)
        with parts.conditions.guard(("builds",), "the folder of builds"):
            held, now = parts.requests.open.holds.keys(), setup.tools.clocks.now()
            watch.look(held=held, running=parts.dispatcher.at_work, now=now)
            if not setup.tools.stopping.is_set():
                self._build_child.start_if_needed(setup.settings.install)

    def _adjust_for_clock_jump(self) -> None:
        """Leave the remaining waits as they are after the wall clock has jumped."""
        if jump := self._clock_jumps.seconds():
            running, is_known = self._parts.dispatcher.at_work, self._parts.shared.is_known
            records = (one for one in self._parts.states.records() if is_known(one.id))
            idle = (one for one in records if one.id not in running)
            waits = [one for one in idle if {each.state for each in by_cloud(one)} & {"deferred", "waiting"}]
            self._parts.states.put_all(adjust_for_clock_jump(one, jump) for one in waits)

    @contextlib.contextmanager
    def _isolated(self, folder: Path) -> Iterator[None]:
        """Report the trouble of one folder once, while it lasts, and let the others be scanned."""
        setup, key = self._setup, ("folder", str(folder))
        try:
            with as_internal_error(str(folder)):  # no dropped file may end the daemon
                yield
        except UecError as error:
            self._drop_found(folder)
            self._parts.conditions.set_error(key, error)
            setup.troubles[folder] = words_of(error)
        else:
            setup.troubles.pop(folder, None)
            if self._parts.conditions.clear(key):
                setup.tools.reporting.listener.tell(Event(Kind.READY, f"{folder}: the trouble is over"))

    def _drop_found(self, folder: Path) -> None:
        """Forget what the last scan of a folder has found: it would only cause more scans."""
        setup, parts = self._setup, self._parts
        setup.found.drop(folder)
        parts.requests.confirm_removed(folder, ())
        parts.dispatcher.clear(folder)
        setup.reports.clear_folder(folder)


def _lock_holder(settings: Settings, tools: context.AttemptTools) -> LockHolder:
    return LockHolder(
        settings.fleet.host or socket.gethostname(),
        name_of_home(tools.state_folder),
        sharing=tools.ledger.sharing,
        check_lease=tools.ledger.sessions.check_lease,
    )
