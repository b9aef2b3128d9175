"""One look at each spool folder, and what follows from it.

A round scans a folder, lets `imageset` decide, writes down what has changed, and tells the crew which sets
are due. What made somebody look, an event or a timer, makes no difference.
"""

import contextlib
import os
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType

from uecwatchd import imageset, pipeline, report, sidecar, spool
from uecwatchd.cloud.dialect import Dialect
from uecwatchd.crew import Crew
from uecwatchd.errors import CloudAway, Deferred, UecError
from uecwatchd.imageset import Assembly, ImageSet, Refused, Rules, Waiting
from uecwatchd.ledger import SetRecord
from uecwatchd.monitor import Event, Kind
from uecwatchd.roll import Key, Roll, key_of
from uecwatchd.settings import Settings
from uecwatchd.verdict import failed, retry_due, shifted
from uecwatchd.watch import identity

# A look at ten thousand files takes less than one; where it takes longer, people wait for their images.
SLOW_LOOK_SECONDS = 5.0

GONE = "its files were removed"
# The wall clock against the one that only counts: more than any slew between two rounds, less than a delay.
JUMP_SECONDS = 10.0


def rules_of(
    settings: Settings,
    dialects: Mapping[str, Dialect],
    strange: Mapping[str, UecError | None] = MappingProxyType({}),
) -> Rules:
    """What the rules of sets need of the configuration, and of the clouds as far as they are known; `strange`
    are those that are not, with the reason. Raises Halted for a mistake in `[defaults]`."""
    return Rules(
        settle=settings.spool.settle,
        defaults=sidecar.read_defaults(settings.defaults),
        needs={name: dialect.paravirtual_needs for name, dialect in dialects.items()},
        windows_needs={name: dialect.windows_needs for name, dialect in dialects.items()},
        disk_alone=frozenset(name for name, dialect in dialects.items() if dialect.boots_disk_alone),
        strange={name: f"{why.what}: {why.why}" if why else "" for name, why in strange.items()},
    )


def due(record: SetRecord | None, found: ImageSet, *, now: float, closed: Mapping[str, UecError]) -> bool:
    """Whether a ready set is to be worked on now, by its record and the clouds whose gates are closed."""
    if record is None or record.stamp != found.stamp:
        return True
    if record.state == "deferred":
        return retry_due(record, now=now, closed=found.sidecar.clouds[0] in closed)
    if record.state == "halted":
        return found.sidecar.clouds[0] not in closed
    return record.state in ("waiting", "queued", "working")


class Rounds:
    """The folders, what is known of them from the round before, and the workers. Belongs to one thread.

    `monotonic` is the clock for how long files lie still; `tools.now` the one for what is stored.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        roll: Roll,
        tools: pipeline.Tools,
        monotonic: Callable[[], float],
        ended: Callable[[], None],
    ) -> None:
        """`ended` is called, in a worker's thread, each time that a set's attempt is over."""
        self._roll = roll
        self._monotonic = monotonic
        self._crew = Crew(settings.work.sets, ended=ended)
        self._away: set[str] = set()
        self._clocks_apart: float | None = None
        self._locks: dict[Path, tuple[tuple[int, int] | None, int]] = {}
        self.configure(settings, tools)

    def configure(self, settings: Settings, tools: pipeline.Tools) -> None:
        """Take another configuration. Raises Halted, and changes nothing, for a mistake in `[defaults]`."""
        self._rules = rules_of(settings, tools.gates.dialects(), tools.gates.strange())
        self._settings, self._tools = settings, tools
        self._listings: dict[Path, spool.Listing] = {}
        self._assemblies: dict[Path, Assembly] = {}
        self._crew.dismiss_all()
        self.troubles: dict[Path, UecError] = {}
        self._slow: set[Path] = set()

    # --- what may be asked --------------------------------------------------------------------------------

    def present(self) -> tuple[SetRecord, ...]:
        """The records of the sets that lie in the spool folders now."""
        found = ((str(folder), name) for folder, a in self._assemblies.items() for name in _names(a))
        records = (self._roll.get(key) for key in sorted(found))
        return tuple(record for record in records if record)

    def settling(self) -> list[float]:
        """The monotonic times at which files will have lain still for long enough."""
        waiting = (wait for assembly in self._assemblies.values() for wait in assembly.waiting)
        return [wait.ready_at for wait in waiting if wait.ready_at is not None]

    def next_retry(self) -> float | None:
        """When, by the wall clock, the next deferred set is due; sets at work or not ready are not."""
        ready = (found for assembly in self._assemblies.values() for found in assembly.ready)
        keys = {_key(found) for found in ready} - self._crew.working - self._crew.due.keys()
        records = (self._roll.get(key) for key in keys)
        return min((r.next_retry for r in records if r and r.next_retry is not None), default=None)

    def summary(self) -> str:
        """One line with numbers, for systemd and for people."""
        counts = Counter("working" if key_of(r) in self._crew.working else r.state for r in self.present())
        told = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
        folders = len(self._settings.spool.folders)
        return f"Watching {folders} folder{'s' if folders > 1 else ''}; {told or 'no sets'}"

    # --- a round ------------------------------------------------------------------------------------------

    def turn(self, folders: Collection[Path] | None = None) -> None:
        """Look once at every folder, or at those named, and begin what there is room for."""
        self._reap()
        self._mind_the_clocks()
        self._roll.catch_up()
        gates = self._tools.gates
        self._rules = rules_of(self._settings, gates.dialects(), gates.strange())
        for folder in self._locks.keys() - set(self._settings.spool.folders):
            os.close(self._locks.pop(folder)[1])
        for folder in self._settings.spool.folders if folders is None else folders:
            with self._by_itself(folder), self._timed(folder):
                self._hold(folder)
                self._look(folder)
        self.tend()

    def tend(self) -> bool:
        """Take what workers have done, and begin what there is room for now, by what the last round has seen.
        Whether there was anything to take."""
        ended = self._reap()
        if not self._tools.stopping.is_set():
            tools, roll = self._tools, self._roll
            self._crew.begin(
                lambda found: partial(pipeline.work, found, before=roll.get(_key(found)), tools=tools)
            )
        self._tell_outages()
        return ended

    def work_off(self) -> None:
        """Wait until all that is due has been begun and has come to an end, or a stop was asked for."""
        self.tend()
        while self._crew.working:
            self._crew.wait()
            self.tend()

    def finish(self) -> None:
        """Wait until every set at work has come to an end or been put down, and note it."""
        while self._crew.working:
            self._crew.wait()
            self._reap()

    def close(self) -> None:
        """Finish, and let go of the folders."""
        self.finish()
        self._crew.close()
        for _, lock in self._locks.values():
            os.close(lock)
        self._locks.clear()

    def _hold(self, folder: Path) -> None:
        """Have the lock of the folder that is there now, which need not be the one of the last round."""
        now = identity(folder)
        before, lock = self._locks.get(folder, (None, -1))
        if lock >= 0 and before == now:
            return
        if lock >= 0:
            os.close(lock)
            del self._locks[folder]
        self._locks[folder] = (now, spool.hold(folder))
        spool.sweep(folder)

    def _look(self, folder: Path) -> None:
        before = self._listings.get(folder)
        listing = spool.scan(folder, now=self._monotonic(), before=before, ignore=self._settings.spool.ignore)
        self._listings[folder] = listing
        records = self._roll.of_folder(folder)
        assembly = imageset.assemble(listing, rules=self._rules, taken=taken_by(records.values()))
        self._assemblies[folder] = assembly
        closed = self._tools.gates.closed()
        due_sets = [f for f in assembly.ready if self._is_due(f, records.get(f.name), closed=closed)]
        again = {name for name, record in records.items() if record.state == "deferred"}
        expected = ((f, f.name in again and f.stamp == records[f.name].stamp) for f in due_sets)
        self._crew.expect(folder, expected, now=self._monotonic())
        for refused in assembly.refused:
            self._refuse(folder, refused, records.get(refused.name))
        for waiting in assembly.waiting:
            self._wait(folder, waiting, records.get(waiting.name))
        self._retire(listing, assembly, records)
        for name in records.keys() - _names(assembly):
            self._forget_in_time(records[name])

    def _is_due(self, found: ImageSet, record: SetRecord | None, *, closed: Mapping[str, UecError]) -> bool:
        if record and record.reason == GONE:
            # They are back, as when a file system was mounted again.
            record = self._roll.put(replace(record, reason=""))
        now = self._tools.now()
        if _key(found) in self._crew.working or not due(record, found, now=now, closed=closed):
            return False
        if (record is None or record.stamp != found.stamp) and not self._crew.waits(found):
            files = ", ".join(member.path for member in found.members)
            self._tell(Kind.FOUND, f"Found set {found.name}: {files}", set_name=found.name)
        return True

    def _tell_outages(self) -> None:
        """Once for each cloud that has gone away, however many sets meet with it."""
        closed = self._tools.gates.closed()
        away = {name: error for name, error in closed.items() if isinstance(error, CloudAway)}
        for name in away.keys() - self._away:
            sets = self._wanting(name)
            waiting = f"{sets} set{' waits' if sets == 1 else 's wait'} for it"
            self._tell(Kind.DEFERRED, f"Cloud {name} is away: {away[name].why}; {waiting}", "warning")
        self._away = set(away)

    def _wanting(self, cloud: str) -> int:
        """How many sets that are complete have still to go to a cloud."""
        ready = (found for assembly in self._assemblies.values() for found in assembly.ready)
        keys = {_key(found) for found in ready if found.sidecar.clouds[0] == cloud}
        under_way = self._crew.due.keys() | self._crew.working
        others = (record for record in map(self._roll.get, keys - under_way) if record)
        return len(keys & under_way) + sum(record.state == "deferred" for record in others)

    def _mind_the_clocks(self) -> None:
        """Where the time was set, or the machine slept, what is still to be waited stays what it was."""
        apart = self._tools.now() - self._monotonic()
        jumped = 0.0 if self._clocks_apart is None else apart - self._clocks_apart
        self._clocks_apart = apart
        if abs(jumped) < JUMP_SECONDS:
            return
        for record in self._roll.records():
            if record.state == "deferred" and key_of(record) not in self._crew.working:
                self._roll.put(shifted(record, jumped))

    def _refuse(self, folder: Path, refused: Refused, record: SetRecord | None) -> None:
        now = self._tools.now()
        same = record if record and record.stamp == refused.stamp else None
        if (str(folder), refused.name) in self._crew.working or (same and not _passed(same, now)):
            return
        fresh = same or SetRecord(str(folder), refused.name, refused.stamp, "waiting", now)
        fresh = replace(fresh, attempt=fresh.attempt + 1, reason="")
        ended = self._roll.put(failed(fresh, refused.error, now=now, spread=self._tools.random()))
        pipeline.show_refusal(ended, self._tools)

    def _wait(self, folder: Path, waiting: Waiting, record: SetRecord | None) -> None:
        """Write down and tell a new waiting reason, once; but a finished set is not undone by an edit."""
        settling = waiting.ready_at is not None
        if (str(folder), waiting.name) in self._crew.working or (record and record.reason == waiting.reason):
            return
        if record and (settling or record.state == "done"):
            return
        now = self._tools.now()
        fresh = SetRecord(str(folder), waiting.name, "", "waiting", now, reason=waiting.reason)
        self._roll.put(fresh)
        if not settling:
            what = f"{waiting.name}: waiting for {waiting.reason}"
            self._tell(Kind.WAITING, what, set_name=waiting.name)
            report.publish(fresh)

    def _retire(self, listing: spool.Listing, assembly: Assembly, records: Mapping[str, SetRecord]) -> None:
        """Take finished sets' files away where the configuration says so, but none that others still need."""
        if (after := self._settings.spool.after) == "keep":
            return
        done = [found for found in assembly.ready if _is_done(found, records.get(found.name))]
        needed = {path for found in assembly.ready if found not in done for path in found.files}
        paths = dict.fromkeys(path for found in done for path in found.files if path not in needed)
        files = [(path, listing.entries[path].stamp) for path in paths]
        if after == "delete":
            spool.discard(listing.folder, files)
        else:
            spool.archive(listing.folder, files, when=datetime.fromtimestamp(self._tools.now(), UTC))

    def _forget_in_time(self, record: SetRecord) -> None:
        """Outputs of a set whose files are gone go after a while: users cannot remove them themselves."""
        if key_of(record) in self._crew.working:
            return
        if record.reason != GONE:
            self._roll.put(replace(record, reason=GONE, since=self._tools.now()))
        elif self._tools.now() - record.since >= self._settings.spool.linger:
            report.clear(record)
            self._roll.drop(record)

    def _reap(self) -> bool:
        """Take the results of workers that have ended. A fault of ours defers the set and says so."""
        ended = self._crew.take()
        for key, future in ended:
            fault = future.exception()
            if fault is None:
                self._roll.put(future.result())
            else:
                self._blame_ourselves(key, fault)
        return bool(ended)

    def _blame_ourselves(self, key: Key, fault: BaseException) -> None:
        folder, name = key
        what = f"{name}: a fault of uecwatchd itself"
        self._tell_fault(what, fault, name)
        now = self._tools.now()
        record = self._roll.get(key) or SetRecord(folder, name, "", "working", now)
        record = replace(record, attempt=record.attempt + 1)
        error = Deferred(what, repr(fault), "Please report it, with the journal's lines about it.")
        with contextlib.suppress(UecError):  # the fault has been told; its copy beside the file is a courtesy
            report.publish(self._roll.put(failed(record, error, now=now, spread=self._tools.random())))

    def _tell_fault(self, what: str, fault: BaseException, set_name: str = "") -> None:
        """With the traceback as a field: it is the journal's lines that a report to us needs."""
        fields = {"traceback": "".join(traceback.format_exception(fault))}
        self._tools.monitor.tell(Event(Kind.FAULT, f"{what}: {fault!r}", set_name, "error", fields))

    @contextlib.contextmanager
    def _by_itself(self, folder: Path) -> Iterator[None]:
        """One folder's trouble is told once while it lasts, and does not keep the others from their turn."""
        try:
            yield
        except UecError as error:
            self._trouble(folder, error)
        except Exception as fault:  # noqa: BLE001 (no file that anybody drops may end the daemon)
            what = f"{folder}: a fault of uecwatchd itself"
            if folder not in self.troubles:
                self._tell_fault(what, fault)
            self._trouble(folder, Deferred(what, repr(fault), "Please report it."))
        else:
            if self.troubles.pop(folder, None):
                self._tell(Kind.READY, f"{folder}: the trouble is over")

    @contextlib.contextmanager
    def _timed(self, folder: Path) -> Iterator[None]:
        """A look that takes long is told once while it does: a failing disk or a slow file server."""
        began = self._monotonic()
        yield
        took = self._monotonic() - began
        if took < SLOW_LOOK_SECONDS:
            self._slow.discard(folder)
        elif folder not in self._slow:
            self._slow.add(folder)
            self._tell(Kind.FAULT, f"{folder}: it took {took:.0f} s to look at it once", "warning")

    def _trouble(self, folder: Path, error: UecError) -> None:
        # What was seen there before would only make the loop look again and again.
        self._assemblies.pop(folder, None)
        self._crew.dismiss(folder)
        if str(self.troubles.get(folder)) != str(error):
            self._tell(Kind.FAULT, str(error), "error")
        self.troubles[folder] = error

    def _tell(self, kind: Kind, sentence: str, level: str = "info", *, set_name: str = "") -> None:
        self._tools.monitor.tell(Event(kind, sentence, set_name, level))  # type: ignore[arg-type]


def _passed(record: SetRecord, now: float) -> bool:
    """Whether the time has come to look again at what could not even be read."""
    return record.state == "deferred" and record.next_retry is not None and now >= record.next_retry


def _is_done(found: ImageSet, record: SetRecord | None) -> bool:
    return record is not None and record.state == "done" and record.stamp == found.stamp


def _key(found: ImageSet) -> Key:
    return (str(found.folder), found.name)


def _names(assembly: Assembly) -> set[str]:
    ready, waiting, refused = assembly.ready, assembly.waiting, assembly.refused
    return {r.name for r in ready} | {w.name for w in waiting} | {r.name for r in refused}


def taken_by(records: Iterable[SetRecord]) -> dict[str, tuple[tuple[str, spool.Stamp], ...]]:
    """Which files finished sets were made of, by the set's name."""
    done = (record for record in records if record.state == "done")
    return {record.name: tuple((m.path, m.stamp) for m in record.members) for record in done}
