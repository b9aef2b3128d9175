"""The scanner: a scan of each spool folder, and everything that follows from it.

A round scans a folder, lets `intake.sets` decide, records changes, and tells the queue which sets are due. It
does not matter if an event or a timer started it.
"""

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from uecwatchd.config.records import Settings
from uecwatchd.errors import Halted, UecError, words_of
from uecwatchd.events import Event, Kind, error_event
from uecwatchd.intake.sets import assemble
from uecwatchd.intake.sets.records import Assembly, ImageSet, put_back
from uecwatchd.intake.spool import output_files, peek, safe_open, scan, writers
from uecwatchd.intake.spool.output_files import SPOOL_LOCK
from uecwatchd.intake.watch import identity
from uecwatchd.ledger.records import SetRecord
from uecwatchd.outputs import result_files
from uecwatchd.service.attempt import context, run
from uecwatchd.service.cloud_notices import tell_outages
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.late_outputs import write_freed
from uecwatchd.service.leftover_files import tell_leftover_files
from uecwatchd.service.notices import Notices
from uecwatchd.service.policy import (
    GONE,
    earliest_retry,
    is_due,
    make_rules,
    set_names,
    summarize,
    to_due_set,
)
from uecwatchd.service.queue import SetQueue
from uecwatchd.service.requests import Requests, drop_advances
from uecwatchd.service.retention import forget_in_time, leaving_of, see_off, without_leaving
from uecwatchd.service.retry import (
    adjust_for_clock_jump,
    adjust_for_downtime,
    record_failure,
    with_fresh_retries,
)
from uecwatchd.service.set_owners import known_of, newly_owned, rules_in
from uecwatchd.service.set_states import SetStates
from uecwatchd.service.workers import Workers
from uecwatchd.system import lockfile
from uecwatchd.system.unforeseen import in_words, our_fault
from uecwatchd.types import SetId

# A scan of ten thousand files takes less than one second; with slow scans, people wait for their images.
SLOW_LOOK_SECONDS = 5.0
# Difference between wall clock and monotonic clock: more than any slew between two rounds, less than a delay.
JUMP_SECONDS = 10.0


class Rounds:
    """The folders, the results of their last scan, and the workers. Belongs to one thread.

    `monotonic` is the clock for ages of files; `tools.now` the one for stored times.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        states: SetStates,
        tools: context.Tools,
        monotonic: Callable[[], float],
        ended: Callable[[], None],
        went_on: Callable[[], None] = lambda: None,
    ) -> None:
        """Start without any results.

        `ended` is called in a worker's thread after each attempt, and in ours if another scan is needed;
        `went_on` is called whenever a scan has finished another file or set.
        """
        self._went_on = went_on
        self._states = states
        self._requests = Requests(tools.ledger, tools.interrupts, states)
        self._monotonic = monotonic
        self._ended = ended
        self._queue = SetQueue(settings.work.sets)
        self._workers = Workers(settings.work.sets, ended=ended)
        self._clocks_apart: float | None = None
        self._leftover_files = Conditions(tools.monitor)
        self._locks: dict[Path, tuple[tuple[int, int] | None, int | None]] = {}
        self.configure(settings, tools)

    def configure(self, settings: Settings, tools: context.Tools) -> None:
        """Use another configuration. Raises Halted, and changes nothing, for a mistake in `[defaults]`."""
        self._rules = make_rules(settings, tools.clouds.dialects(), tools.clouds.unidentified())
        self._settings, self._tools = settings, tools
        self._listings: dict[Path, scan.Listing] = {}
        self._conditions = Conditions(tools.monitor)
        self._assemblies: dict[Path, Assembly] = {}
        self._queue.clear()
        self._notices = Notices(
            tools,
            states=self._states,
            requests=self._requests,
            conditions=self._conditions,
            working=lambda: self._workers.running,
            clock=self._monotonic,
            settle=settings.spool.settle,
        )
        self.troubles: dict[Path, UecError] = {}

    # --- what may be asked --------------------------------------------------------------------------------

    def present(self) -> tuple[SetRecord, ...]:
        """Return the records of the sets that are in the spool folders now."""
        found = (SetId(str(folder), name) for folder, a in self._assemblies.items() for name in set_names(a))
        records = (self._states.get(key) for key in sorted(found))
        return tuple(record for record in records if record)

    def settling(self) -> list[float]:
        """Return the monotonic times when files will have settled."""
        waiting = (wait for assembly in self._assemblies.values() for wait in assembly.waiting)
        return [wait.ready_at for wait in waiting if wait.ready_at is not None]

    def next_retry(self, *, looks: bool = False) -> float | None:
        """Return when the next deferred or waiting set is due, by the wall clock, except sets at work.

        With `looks`, only sets that wait for a pending image.
        """
        ready = (found for assembly in self._assemblies.values() for found in assembly.ready)
        keys = {found.id for found in ready} - self._workers.running - self._queue.ids
        records = map(self._states.get, keys - self._requests.open.holds.keys())
        return earliest_retry(
            filter(None, records), suspended=self._tools.clouds.availability.suspended(), looks=looks
        )

    def due_in(self) -> float:
        """Return the seconds until files have settled or a retry is due; infinite if there is neither."""
        pauses = [ready_at - self._monotonic() for ready_at in self.settling()]
        if (retry := self.next_retry()) is not None:
            pauses.append(retry - self._tools.now())
        return min(pauses, default=float("inf"))

    def busy(self) -> bool:
        return bool(self._workers.running)

    def asked(self) -> bool:
        """Return True if there are new requests since the last round."""
        return self._requests.changed()

    def untold(self) -> bool:
        """Return True if there are notices that are not reported yet."""
        return self._notices.left()

    def behind(self) -> bool:
        """Return True if the last scan of a folder left files unread."""
        return any(listing.unread for listing in self._listings.values())

    def summary(self) -> str:
        """Return one line with numbers, for systemd and for people."""
        held, working = self._requests.open.holds, self._workers.running
        return summarize(self.present(), held, working, folders=len(self._settings.spool.folders))

    # --- a round ------------------------------------------------------------------------------------------

    def turn(self, folders: Collection[Path] | None = None) -> None:
        """Scan every folder, or the given ones, and start as much work as possible."""
        self._reap()
        self._mind_the_clocks()
        self._states.catch_up()
        clouds = self._tools.clouds
        if self._requests.carry_out(self._workers.running, clouds.availability, self._tools.monitor):
            self._ended()  # because a probe is due at once
        self._rules = make_rules(self._settings, clouds.dialects(), clouds.unidentified())
        for folder in self._locks.keys() - set(self._settings.spool.folders):
            self._release(folder)
        for folder in self._settings.spool.folders if folders is None else folders:
            with self._by_itself(folder), self._timed(folder):
                self._acquire(folder)
                self._look(folder)
        self.tend()

    def tend(self) -> bool:
        """Take results of workers, and start as much work as possible, without a scan.

        Returns True if there were results.
        """
        ended = self._reap()
        if not self._tools.stopping.is_set():
            self._begin()
        for folder, written in self._notices.work_off().items():
            found = self._assemblies[folder]
            self._assemblies[folder] = put_back(found, written, ready_at=self._settled())
        tell_outages(self._conditions, self._tools.clouds.availability, wanting=self._wanting)
        return ended

    def work_off(self) -> None:
        """Wait until all due work has ended, or a stop is requested."""
        self.tend()
        while self._workers.running or self._notices.left():
            if not self._notices.left():
                self._workers.wait()
            self.tend()

    def finish(self) -> None:
        """Wait until all running work has ended or stopped, and record it."""
        while self._workers.running:
            self._workers.wait()
            self._reap()

    def occupy(self) -> None:
        """Lock the folders that can be locked. Raises Occupied if another daemon has one of them."""
        for folder in self._settings.spool.folders:
            try:
                self._acquire(folder)
            except lockfile.Occupied:
                raise
            except UecError:
                continue  # reported, and tried again, at each turn

    def close(self) -> None:
        """Finish, and release the folders."""
        self.finish()
        self._states.write_older(self._tools.now())
        self._workers.close()
        for folder in tuple(self._locks):
            self._release(folder)

    def _release(self, folder: Path) -> None:
        if (lock := self._locks.pop(folder)[1]) is not None:
            lockfile.release(lock)

    def _acquire(self, folder: Path) -> None:
        """Lock the folder that is at this path now: it may have been replaced since the last round."""
        now = identity(folder)
        before, lock = self._locks.get(folder, (None, None))
        if lock is not None and before == now and lockfile.is_in_place(folder, lock, SPOOL_LOCK):
            return
        if folder in self._locks:
            self._release(folder)
        if twin := next((other for other, (known, _) in self._locks.items() if known == now), None):
            what, hint = f"{folder} and {twin} are the same folder", "Take one of them out of spool.folders."
            raise Halted(what, "it has come to be so since the configuration was read", hint)
        lock = output_files.lock_spool(folder)
        self._locks[folder] = (now, lock)
        loose = f"{folder}: it is not locked against a second uecwatchd: cannot write {SPOOL_LOCK.name} there"
        self._conditions.set(("lock", str(folder)), loose if lock is None else "")
        if lock is not None:
            output_files.sweep(folder)

    def _look(self, folder: Path) -> None:
        ledger = self._tools.ledger
        see_off(folder, ledger, self._conditions, now=self._tools.now())
        before, budget = self._listings.get(folder), peek.Budget(beat=self._went_on)
        ignore = self._settings.spool.ignore
        listing = scan.scan(folder, now=self._monotonic(), before=before, ignore=ignore, budget=budget)
        self._listings[folder] = listing
        self._tell_what_is_left(listing)
        listing = without_leaving(listing, ledger.leaving(folder))
        records = self._states.of_folder(folder)
        rules = rules_in(folder, self._rules, self._settings.spool, service=os.geteuid())
        known = known_of(records.values(), rules.people)
        assembly = assemble.assemble(listing, rules=rules, **known, beat=self._went_on)
        owners, proven = newly_owned(assembly, listing, records)
        records = self._states.put_owners(folder, owners, proven) if owners else records
        suspended = self._tools.clouds.availability.suspended()
        self._welcome_back(assembly, records)
        here = [records[name] for name in records.keys() & set_names(assembly)]
        still = [record for record in here if record.id not in self._workers.running]
        write_freed(still, listing, states=self._states, conditions=self._conditions)
        due_sets = [f for f in assembly.ready if self._is_due(f, records.get(f.name), suspended=suspended)]
        assembly = self._closed(folder, assembly, due_sets)
        self._assemblies[folder] = assembly
        held = self._requests.held_names(folder)
        ready = {found.name for found in assembly.ready} - set(held)
        self._expect(folder, [found for found in due_sets if found.name in ready], records)
        self._notices.expect(folder, assembly, lambda path: listing.stamp(path).ctime_ns)
        self._requests.drop_impossible(folder, assembly, self._workers.running)
        tell_leftover_files(
            folder, assembly.misfits, conditions=self._leftover_files, monitor=self._tools.monitor
        )
        self._retire(listing, assembly, records)
        absent = (records[name] for name in records.keys() - set_names(assembly))
        if forget_in_time(
            [record for record in absent if record.id not in self._workers.running],
            states=self._states,
            conditions=self._conditions,
            now=self._tools.now(),
            linger=self._settings.spool.linger,
        ):
            self._ended()

    def _closed(self, folder: Path, assembly: Assembly, due_sets: Iterable[ImageSet]) -> Assembly:
        """Make due sets wait if a process has one of their files open for writing."""
        asked = ((one.name, writers.open_for_writing(folder, one.files)) for one in due_sets)
        written = {name: path for name, path in asked if path}
        return put_back(assembly, written, ready_at=self._settled())

    def _settled(self) -> float:
        """Return when a file that is written now will have settled."""
        return self._monotonic() + self._settings.spool.settle

    def _welcome_back(self, assembly: Assembly, records: Mapping[str, SetRecord]) -> None:
        """Update sets whose files are there again, for example because a file system was mounted again."""
        back = ((records.get(found.name), found.owner) for found in assembly.ready)
        gone = [(record, owner) for record, owner in back if record and record.reason == GONE]
        self._states.put_all([replace(record, reason="", owner=owner) for record, owner in gone])

    def _is_due(
        self, found: ImageSet, record: SetRecord | None, *, suspended: Mapping[str, UecError]
    ) -> bool:
        key = found.id
        if key in self._workers.running:
            return False
        asked = self._requests.open.has(key, "retry")
        return asked or is_due(record, found, now=self._tools.now(), suspended=suspended)

    def _expect(self, folder: Path, sets: Iterable[ImageSet], records: Mapping[str, SetRecord]) -> None:
        """Put the sets that are due into the queue, and report the new ones."""
        expected = []
        for found in sets:
            record = records.get(found.name)
            same = record is not None and record.stamp == found.stamp
            if not same and not self._queue.has(found):
                files = ", ".join(member.path for member in found.members)
                text = f"Found set {found.name}: {files}"
                self._tools.monitor.tell(Event(Kind.FOUND, text, found.name))
            expected.append(to_due_set(found, record if same else None))
        self._queue.replace(folder, expected, now=self._monotonic())

    def _begin(self) -> None:
        """Give due sets to free workers."""
        for each in self._queue.take(self._workers.sizes):
            size = each.candidate.size
            self._workers.start(each.found, size=size, work=self._work_on(each.found))

    def _work_on(self, found: ImageSet) -> Callable[[], SetRecord]:
        record = self._states.get(found.id)
        if record and self._requests.open.has(found.id, "retry"):
            record = with_fresh_retries(record)
        return partial(run.work, found, before=record, tools=self._tools)

    def _wanting(self, cloud: str) -> int:
        """Return how many complete sets are still to be delivered to a cloud."""
        ready = (found for assembly in self._assemblies.values() for found in assembly.ready)
        keys = {found.id for found in ready if found.sidecar.clouds[0] == cloud}
        under_way = self._queue.ids | self._workers.running
        others = (record for record in map(self._states.get, keys - under_way) if record)
        return len(keys & under_way) + sum(record.state == "deferred" for record in others)

    def _mind_the_clocks(self) -> None:
        """Keep the remaining waits unchanged after the clock was set, or the machine slept."""
        apart = self._tools.now() - self._monotonic()
        jumped = 0.0 if self._clocks_apart is None else apart - self._clocks_apart
        self._clocks_apart = apart
        if abs(jumped) < JUMP_SECONDS:
            return
        waits = [record for record in self._states.records() if record.state in ("deferred", "waiting")]
        self._states.put_all(
            [adjust_for_clock_jump(r, jumped) for r in waits if r.id not in self._workers.running]
        )

    def _retire(self, listing: scan.Listing, assembly: Assembly, records: Mapping[str, SetRecord]) -> None:
        if (way := self._settings.spool.after) == "keep":
            return
        held = self._requests.held_names(listing.folder)
        if leaving := leaving_of(listing, assembly, records, held=held, way=way):
            self._tools.ledger.put_leaving(leaving)
            see_off(listing.folder, self._tools.ledger, self._conditions, now=self._tools.now())

    def _reap(self) -> bool:
        """Take the results of workers that have ended. An internal error defers the set, and is reported."""
        ended = self._workers.take_ended()
        for each in ended:
            key = each.found.id
            self._requests.finish(key, "retry")
            drop_advances(self._tools.ledger, [key])
            fault = each.result.exception()
            if fault is None:
                self._states.put(each.result.result())
            else:
                self._blame_ourselves(each.found, fault)
        return bool(ended)

    def _blame_ourselves(self, found: ImageSet, fault: BaseException) -> None:
        """Record an internal error that even prevented the end of an attempt from being recorded."""
        error, now = our_fault(found.name, fault), self._tools.now()
        self._tools.monitor.tell(error_event(error, found.name))
        record = self._states.get(found.id)
        record = record or SetRecord(str(found.folder), found.name, "", "working", now)
        record = replace(adjust_for_downtime(record, started=self._tools.started), stamp=found.stamp)
        record = replace(record, attempt=record.attempt + 1)
        with contextlib.suppress(UecError), in_words(found.name):  # the copy beside the file is optional
            result_files.publish(
                self._states.put(record_failure(record, error, now=now, spread=self._tools.random()))
            )

    @contextlib.contextmanager
    def _by_itself(self, folder: Path) -> Iterator[None]:
        """Report a folder's trouble once while it lasts, and continue with the other folders."""
        try:
            with in_words(str(folder)):  # no dropped file may end the daemon
                yield
        except UecError as error:
            self._trouble(folder, error)
        else:
            self.troubles.pop(folder, None)
            if self._conditions.clear(("folder", str(folder))):
                self._tools.monitor.tell(Event(Kind.READY, f"{folder}: the trouble is over"))

    @contextlib.contextmanager
    def _timed(self, folder: Path) -> Iterator[None]:
        """Report a slow scan once while it is slow: a failing disk or a slow file server."""
        began = self._monotonic()
        yield
        took = self._monotonic() - began
        slow = f"{folder}: it took {took:.0f} s to look at it once" if took >= SLOW_LOOK_SECONDS else ""
        self._conditions.set(("slow", str(folder)), slow, once=True)

    def _tell_what_is_left(self, listing: scan.Listing) -> None:
        """Report files that a scan had no time or memory for."""
        folder, unread, crowded = listing.folder, len(listing.unread), len(listing.crowded)
        late = f"{folder}: much lies there; {unread} files are still to be read, at the next looks"
        self._conditions.set(("unread", str(folder)), late if unread else "", once=True)
        large = f"{folder}: there is too much metadata; the sets of the {crowded} largest files of it wait"
        self._conditions.set(("crowded", str(folder)), large if crowded else "", once=True)
        whose = " and ".join(
            f"{number} of {safe_open.user_name(uid)}" for uid, number in listing.left_out.items()
        )
        many = f"{folder}: more lies there than is looked at; left out are names of files: {whose}"
        self._conditions.set(("many names", str(folder)), many if whose else "", once=True)

    def _trouble(self, folder: Path, error: UecError) -> None:
        # Old results would only make the loop scan again and again.
        self._assemblies.pop(folder, None)
        self._queue.clear_folder(folder)
        self._notices.dismiss(folder)
        self._conditions.set_error(("folder", str(folder)), error)
        self.troubles[folder] = words_of(error)
