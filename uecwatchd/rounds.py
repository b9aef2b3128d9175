"""One look at each spool folder, and what follows from it.

A round scans a folder, lets `imageset` decide, writes down what has changed, and hands the sets that are due
to a few workers. What made somebody look, an event, a timer or a finished worker, makes no difference.
"""

import contextlib
import os
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from uecwatchd import imageset, pipeline, report, sidecar, spool
from uecwatchd.cloud.dialect import Dialect
from uecwatchd.control import Control, drop_advances, renewed
from uecwatchd.errors import Deferred, Halted, UecError
from uecwatchd.imageset import Assembly, ImageSet, Refused, Rules, Waiting
from uecwatchd.ledger import Leaving, SetRecord
from uecwatchd.monitor import Event, Kind
from uecwatchd.roll import Key, Roll, key_of
from uecwatchd.settings import Settings
from uecwatchd.verdict import failed
from uecwatchd.watch import identity

GONE = "its files were removed"


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


def due(record: SetRecord | None, found: ImageSet, *, now: float, closed: Mapping[str, Halted]) -> bool:
    """Whether a ready set is to be worked on now, by its record and the clouds whose gates are closed."""
    if record is None or record.stamp != found.stamp:
        return True
    if record.state in ("deferred", "waiting"):
        return record.next_retry is None or now >= record.next_retry
    if record.state == "halted":
        return found.sidecar.clouds[0] not in closed
    return record.state in ("queued", "working")


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
        self._control = Control(tools.ledger, tools.brake, roll)
        self._monotonic = monotonic
        self._ended = ended
        self._pool = ThreadPoolExecutor(settings.work.sets, thread_name_prefix="set")
        self._running: dict[Key, Future[SetRecord]] = {}
        self._locks: dict[Path, tuple[tuple[int, int] | None, int]] = {}
        self.configure(settings, tools)

    def configure(self, settings: Settings, tools: pipeline.Tools) -> None:
        """Take another configuration. Raises Halted, and changes nothing, for a mistake in `[defaults]`."""
        self._rules = rules_of(settings, tools.gates.dialects(), tools.gates.strange())
        self._settings, self._tools = settings, tools
        self._listings: dict[Path, spool.Listing] = {}
        self._asides: dict[str, str] = {}
        self._assemblies: dict[Path, Assembly] = {}
        self.troubles: dict[Path, UecError] = {}

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
        keys = {(str(found.folder), found.name) for found in ready} - self._running.keys()
        keys -= self._control.wanted.holds.keys()
        records = (self._roll.get(key) for key in keys)
        return min((r.next_retry for r in records if r and r.next_retry is not None), default=None)

    def asked(self) -> bool:
        """Whether somebody has asked for something since the last round."""
        return self._control.news()

    def summary(self) -> str:
        """One line with numbers, for systemd and for people."""
        held = self._control.wanted.holds
        states = {r: "held" if key_of(r) in held else r.state for r in self.present()}
        counts = Counter("working" if key_of(r) in self._running else state for r, state in states.items())
        told = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
        folders = len(self._settings.spool.folders)
        return f"Watching {folders} folder{'s' if folders > 1 else ''}; {told or 'no sets'}"

    # --- a round ------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Look at every folder once."""
        self._reap()
        self._roll.catch_up()
        gates = self._tools.gates
        if self._control.heed(self._running.keys(), gates, self._tools.monitor):
            self._ended()
        self._rules = rules_of(self._settings, gates.dialects(), gates.strange())
        for folder in self._locks.keys() - set(self._settings.spool.folders):
            os.close(self._locks.pop(folder)[1])
        for folder in self._settings.spool.folders:
            with self._by_itself(folder):
                self._hold(folder)
                self._look(folder)

    def finish(self) -> None:
        """Wait until every set at work has come to an end or been put down, and note it."""
        while self._running:
            next(iter(self._running.values())).exception()
            self._reap()

    def occupy(self) -> None:
        """Take the folders that can be taken. Raises Occupied when another daemon has one of them."""
        for folder in self._settings.spool.folders:
            try:
                self._hold(folder)
            except spool.Occupied:
                raise
            except UecError:
                continue  # told, and tried again, at each turn

    def close(self) -> None:
        """Finish, and let go of the folders."""
        self.finish()
        self._pool.shutdown()
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
        self._see_off(folder)
        before = self._listings.get(folder)
        listing = spool.scan(folder, now=self._monotonic(), before=before, ignore=self._settings.spool.ignore)
        self._listings[folder] = listing
        listing = self._without_leaving(listing)
        records = self._roll.of_folder(folder)
        assembly = imageset.assemble(listing, rules=self._rules, taken=taken_by(records.values()))
        assembly = self._closed(folder, assembly, records)
        self._assemblies[folder] = assembly
        held = self._control.held(folder)
        for found in assembly.ready:
            if found.name not in held:
                self._consider(found, records.get(found.name))
        for refused in assembly.refused:
            if refused.name not in held:
                self._refuse(folder, refused, records.get(refused.name))
        for waiting in assembly.waiting:
            if waiting.name not in held:
                self._wait(folder, waiting, records.get(waiting.name))
        self._control.decline(folder, assembly, self._running.keys())
        self._retire(listing, assembly, records)
        for name in records.keys() - _names(assembly):
            self._forget_in_time(records[name])

    def _closed(self, folder: Path, assembly: Assembly, records: Mapping[str, SetRecord]) -> Assembly:
        """Put back what would be begun or refused now, but somebody has one of its files open for writing."""
        news: list[ImageSet | Refused] = []
        news += [found for found in assembly.ready if self._is_due(found, records.get(found.name))]
        news += [one for one in assembly.refused if _stamp_of(records.get(one.name)) != one.stamp]
        asked = ((one.name, spool.open_for_writing(folder, one.files)) for one in news)
        written = {name: path for name, path in asked if path}
        ready_at = self._monotonic() + self._settings.spool.settle
        return imageset.put_back(assembly, written, ready_at=ready_at)

    def _is_due(self, found: ImageSet, record: SetRecord | None) -> bool:
        if (str(found.folder), found.name) in self._running:
            return False
        asked = self._control.wanted.asked((str(found.folder), found.name), "retry")
        return asked or due(record, found, now=self._tools.now(), closed=self._tools.gates.closed())

    def _consider(self, found: ImageSet, record: SetRecord | None) -> None:
        key = (str(found.folder), found.name)
        if record and record.reason == GONE:
            # They are back, as when a file system was mounted again.
            record = self._roll.put(replace(record, reason=""))
        if not self._is_due(found, record):
            return
        if record is None or record.stamp != found.stamp:
            files = ", ".join(member.path for member in found.members)
            self._tell(Kind.FOUND, f"Found set {found.name}: {files}", set_name=found.name)
        asked = self._control.wanted.asked(key, "retry")
        before = renewed(record) if asked else record
        future = self._pool.submit(pipeline.work, found, before=before, tools=self._tools)
        future.add_done_callback(lambda _: self._ended())
        self._running[key] = future

    def _refuse(self, folder: Path, refused: Refused, record: SetRecord | None) -> None:
        now = self._tools.now()
        key = (str(folder), refused.name)
        same = record if record and record.stamp == refused.stamp else None
        asked = self._control.wanted.asked(key, "retry")
        if key in self._running or (same and not asked and not _passed(same, now)):
            return
        self._control.answer(key, "retry")
        same = renewed(same) if asked else same
        fresh = same or SetRecord(str(folder), refused.name, refused.stamp, "waiting", now)
        fresh = replace(fresh, attempt=fresh.attempt + 1, reason="")
        ended = self._roll.put(failed(fresh, refused.error, now=now, spread=self._tools.random()))
        pipeline.show_refusal(ended, self._tools)

    def _wait(self, folder: Path, waiting: Waiting, record: SetRecord | None) -> None:
        """Write down and tell a new waiting reason, once; but a finished set is not undone by an edit."""
        if (str(folder), waiting.name) in self._running or (record and record.reason == waiting.reason):
            return
        if record and (waiting.brief or record.state == "done"):
            return
        now = self._tools.now()
        fresh = SetRecord(str(folder), waiting.name, "", "waiting", now, reason=waiting.reason)
        self._roll.put(fresh)
        if not waiting.brief:
            what = f"{waiting.name}: waiting for {waiting.reason}"
            self._tell(Kind.WAITING, what, set_name=waiting.name)
            with self._aside(waiting.name):
                report.publish(fresh)

    def _retire(self, listing: spool.Listing, assembly: Assembly, records: Mapping[str, SetRecord]) -> None:
        """Take finished sets' files away where the configuration says so, but none that others still need."""
        if (after := self._settings.spool.after) == "keep":
            return
        held = self._control.held(listing.folder)
        done = [found for found in assembly.ready if _is_done(found, records.get(found.name))]
        done = [found for found in done if found.name not in held]
        needed = {path for found in assembly.ready if found not in done for path in found.files}
        paths = dict.fromkeys(path for found in done for path in found.files if path not in needed)
        folder = str(listing.folder)
        if paths:
            leaving = [Leaving(folder, path, listing.entries[path].stamp, after) for path in paths]
            self._tools.ledger.put_leaving(leaving)
        self._see_off(listing.folder)

    def _see_off(self, folder: Path) -> None:
        """Take away what was noted as leaving, now or before a crash; what cannot go is told, and stays noted."""
        leaving = self._tools.ledger.leaving(folder)
        when = datetime.fromtimestamp(self._tools.now(), UTC)
        for one in leaving:
            files = [(one.path, one.stamp)]
            with self._aside(one.path):
                if one.way == "delete":
                    spool.discard(folder, files)
                else:
                    spool.archive(folder, files, when=when)
        if leaving and not any(one.path in self._asides for one in leaving):
            self._tools.ledger.drop_leaving(folder)

    def _without_leaving(self, listing: spool.Listing) -> spool.Listing:
        """Half a set is not to be taken for another one."""
        leaving = {(one.path, one.stamp) for one in self._tools.ledger.leaving(listing.folder)}
        entries = {path: e for path, e in listing.entries.items() if (path, e.stamp) not in leaving}
        return replace(listing, entries=entries)

    def _forget_in_time(self, record: SetRecord) -> None:
        """Outputs of a set whose files are gone go after a while: users cannot remove them themselves."""
        if key_of(record) in self._running:
            return
        if record.reason != GONE:
            self._roll.put(replace(record, reason=GONE, since=self._tools.now()))
        elif self._tools.now() - record.since >= self._settings.spool.linger:
            with self._aside(record.name):
                report.clear(record)
                self._roll.drop(record)

    def _reap(self) -> None:
        """Take the results of workers that have ended. A fault of ours defers the set and says so."""
        for key in [key for key, future in self._running.items() if future.done()]:
            future = self._running.pop(key)
            self._control.answer(key, "retry")
            drop_advances(self._tools.ledger, [key])
            fault = future.exception()
            if fault is None:
                self._roll.put(future.result())
            else:
                self._blame_ourselves(key, fault)

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
    def _aside(self, what: str) -> Iterator[None]:
        """Trouble with one thing in a folder is told once, and keeps nothing else there from its turn."""
        try:
            yield
        except UecError as error:
            if self._asides.get(what) != str(error):
                self._tell(Kind.FAULT, str(error), "error")
            self._asides[what] = str(error)
        else:
            self._asides.pop(what, None)

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

    def _trouble(self, folder: Path, error: UecError) -> None:
        # What was seen there before would only make the loop look again and again.
        self._assemblies.pop(folder, None)
        if str(self.troubles.get(folder)) != str(error):
            self._tell(Kind.FAULT, str(error), "error")
        self.troubles[folder] = error

    def _tell(self, kind: Kind, sentence: str, level: str = "info", *, set_name: str = "") -> None:
        self._tools.monitor.tell(Event(kind, sentence, set_name, level))  # type: ignore[arg-type]


def _passed(record: SetRecord, now: float) -> bool:
    """Whether the time has come to look again at what could not even be read."""
    return record.state == "deferred" and record.next_retry is not None and now >= record.next_retry


def _stamp_of(record: SetRecord | None) -> str:
    return record.stamp if record else ""


def _is_done(found: ImageSet, record: SetRecord | None) -> bool:
    return record is not None and record.state == "done" and record.stamp == found.stamp


def _names(assembly: Assembly) -> set[str]:
    ready, waiting, refused = assembly.ready, assembly.waiting, assembly.refused
    return {r.name for r in ready} | {w.name for w in waiting} | {r.name for r in refused}


def taken_by(records: Iterable[SetRecord]) -> dict[str, tuple[tuple[str, spool.Stamp], ...]]:
    """Which files finished sets were made of, by the set's name."""
    done = (record for record in records if record.state == "done")
    return {record.name: tuple((m.path, m.stamp) for m in record.members) for record in done}
