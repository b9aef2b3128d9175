"""Hands due sets to workers, and takes the resulting records."""

import contextlib
from collections.abc import Callable, Container, Iterable, Mapping, Set
from dataclasses import replace
from functools import partial
from pathlib import Path

from uecwatchd.errors import UecError
from uecwatchd.events import Event, Kind, error_event
from uecwatchd.intake.sets.records import ImageSet
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.standing import combine, of_these_files, seen_from, with_each
from uecwatchd.outputs import result_files
from uecwatchd.service.attempt import context, run
from uecwatchd.service.policy import asked_clouds, due_clouds, to_due_set
from uecwatchd.service.queue import QueuedSet, SetQueue
from uecwatchd.service.requests import Requests
from uecwatchd.service.retry import adjust_for_downtime, record_failure, with_fresh_retries
from uecwatchd.service.set_states import SetStates
from uecwatchd.service.shared_work import SharedWork
from uecwatchd.service.workers import RunningSet, Workers
from uecwatchd.system.internal_errors import as_internal_error, internal_error
from uecwatchd.types import SetId


class Dispatcher:
    """Queue and workers, with what connects them. Belongs to the service's loop.

    `slots` is how many sets are worked on at once. `ended` is called, in a worker's thread, each time that an
    attempt at a set has ended.
    """

    def __init__(
        self,
        slots: int,
        *,
        states: SetStates,
        requests: Requests,
        shared: SharedWork,
        monotonic: Callable[[], float],
        ended: Callable[[], None],
    ) -> None:
        self._slots = slots
        self._shared = shared
        self._states = states
        self._requests = requests
        self._monotonic = monotonic
        self._queue = SetQueue(slots)
        self._workers = Workers(slots, ended=ended)

    @property
    def running(self) -> Set[SetId]:
        return self._workers.running

    @property
    def at_work(self) -> Set[SetId]:
        """Sets that are worked on, here or by another host."""
        return self._workers.running | self._shared.elsewhere

    @property
    def taken(self) -> Set[SetId]:
        """Sets that are at work, or queued for it."""
        return self.at_work | self._queue.ids

    @property
    def free(self) -> int:
        """Number of workers without a set for them."""
        return self._slots - len(self._workers.running | self._queue.ids)

    def is_due(
        self, found: ImageSet, record: SetRecord | None, *, now: float, suspended: Mapping[str, UecError]
    ) -> bool:
        """Tell if a set is to be worked on now: by its record, or because somebody asked for it."""
        if found.id in self.at_work:
            return False
        return bool(self._clouds(found, record, now=now, suspended=suspended))

    def _clouds(
        self, found: ImageSet, record: SetRecord | None, *, now: float, suspended: Container[str]
    ) -> tuple[str, ...]:
        """Return the clouds that a set is to go to now: those it is due on, and those asked for."""
        asked = asked_clouds(record, found, self._requests.asked_clouds(found.id))
        due = due_clouds(record, found, now=now, suspended=suspended)
        return tuple(dict.fromkeys((*due, *asked)))

    def queue(
        self,
        folder: Path,
        sets: Iterable[ImageSet],
        records: Mapping[str, SetRecord],
        *,
        tell: Callable[[Event], None],
    ) -> None:
        """Put the due sets of a folder into the queue, in place of those before, and report new ones."""
        due_sets = []
        for found in sets:
            record = records.get(found.name)
            same = record is not None and record.stamp == found.stamp
            if not same and not self._queue.has(found):
                files = ", ".join(found.sources)
                tell(Event(Kind.FOUND, f"Found set {found.name}: {files}", found.id))
            due_sets.append(to_due_set(found, record if same else None))
        self._queue.replace(folder, due_sets, now=self._monotonic())

    def queued(self, folder: Path) -> tuple[QueuedSet, ...]:
        """Return the sets of a folder in the queue."""
        return self._queue.of_folder(folder)

    def clear(self, folder: Path | None = None) -> None:
        """Empty the queue, or remove the sets of one folder."""
        if folder is None:
            self._queue.clear()
        else:
            self._queue.clear_folder(folder)

    def begin(self, tools: context.AttemptTools) -> None:
        """Have free workers begin queued sets, unless this host is to begin nothing new now."""
        sessions = tools.ledger.sessions
        if sessions.is_drained or sessions.is_away:
            self._queue.clear()
            return
        for each in self._queue.take(self._workers.sizes):
            if self._shared.take(each.found.id):
                self._begin(each.found, self._states.get(each.found.id), each.candidate.size, tools)

    def begin_taken(self, found: ImageSet, size: int, tools: context.AttemptTools) -> bool:
        """Have a worker begin a set that another host has offered; False if it is not due here.

        Raises what the ledger raises.
        """
        if self._requests.open.holds.keys() & {found.id}:
            return False
        return self._begin(found, tools.ledger.set(found.id), size, tools)

    def _begin(
        self, found: ImageSet, record: SetRecord | None, size: int, tools: context.AttemptTools
    ) -> bool:
        suspended = tools.clouds.availability.suspended()
        clouds = self._clouds(found, record, now=tools.clocks.now(), suspended=suspended)
        if not clouds:
            return False  # its cloud was suspended since the scan; the next one queues it when it is due
        if record and (named := self._requests.asked_clouds(found.id)):
            asked = asked_clouds(record, found, named)
            record = with_each(record, with_fresh_retries, asked)
        work = partial(run.work, found, before=record, tools=tools, clouds=clouds)
        requests = self._requests.open.of(found.id, "retry")
        self._workers.start(found, clouds, size=size, work=work, requests=requests)
        return True

    def collect(self, tools: context.AttemptTools) -> tuple[ImageSet, ...]:
        """Take the results of attempts that have ended; return the sets."""
        ended = self._workers.take_ended()
        for each in ended:
            self._requests.finish(each.requests)
            fault = each.result.exception()
            if fault is None:
                self._states.take(each.result.result())
            else:
                self._record_fault(each, fault, tools)
        return tuple(each.found for each in ended)

    def wait(self) -> None:
        """Wait until some attempt has ended."""
        self._workers.wait()

    def close(self, tools: context.AttemptTools) -> None:
        """Wait until all attempts have ended, and take their results."""
        while self._workers.running:
            self._workers.wait()
            self.collect(tools)
        self._workers.close()

    def _record_fault(self, each: RunningSet, fault: BaseException, tools: context.AttemptTools) -> None:
        """Defer a set when an internal error has prevented even the record of how the attempt ended."""
        found, now = each.found, tools.clocks.now()
        error = internal_error(found.name, fault)
        tools.reporting.listener.tell(error_event(error, found.id))
        record = self._states.get(found.id)
        with contextlib.suppress(UecError):  # the attempt may have come to an end on some of its clouds
            record = tools.ledger.set(found.id) or record
        record = of_these_files(record or SetRecord(found.id, "", "working", now), found.stamp)
        record = adjust_for_downtime(record, started=tools.started)

        def fail(one: SetRecord) -> SetRecord:
            one = replace(one, attempt=one.attempt + 1)
            return record_failure(one, error, now=now, spread=tools.clocks.random())

        clouds = [one for one in each.clouds if seen_from(record, one).state != "done"]
        record = combine(with_each(record, fail, clouds)) if record.cloud else fail(record)
        # The copy beside the files is a courtesy: what counts is the record.
        with contextlib.suppress(UecError), as_internal_error(found.name):
            result_files.publish(self._states.put(record))
