"""The only clock: wake, scan, pick, run, tell systemd; signals, drain, reload.

Everything happens in rounds. A round scans every folder, lets `imageset` decide, writes down what has
changed, and hands the sets that are due to a few workers. What wakes the loop, an event, a timer or a worker
that has finished, makes no difference to what a round does.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from uecwatchd import imageset, ledger, pipeline, report, sidecar, spool
from uecwatchd.cloud.dialect import DIALECTS
from uecwatchd.cloud.gate import Gates
from uecwatchd.errors import Deferred, Halted, UecError
from uecwatchd.imageset import Assembly, ImageSet, Refused, Rules, Waiting
from uecwatchd.ledger import Ledger, SetRecord
from uecwatchd.monitor import Event, Kind, Monitor
from uecwatchd.notify import Notifier
from uecwatchd.settings import Settings
from uecwatchd.verdict import failed
from uecwatchd.watch import Watch

# Between two rounds, however many events there are: a large copy raises thousands.
LEAST_PAUSE_SECONDS = 0.2
# While a set is at work its end wakes the loop; this only bounds how late the watchdog is fed.
LONGEST_PAUSE_SECONDS = 10.0
# `once` waits for files that are still being written, but not for one that never comes to rest.
ONCE_PATIENCE_SETTLES = 12

Key = tuple[str, str]
GONE = "its files were removed"


def rules_of(settings: Settings) -> Rules:
    """What the rules of sets need of the configuration. Raises Halted for a mistake in `[defaults]`."""
    dialects = {name: DIALECTS[cloud.dialect] for name, cloud in settings.clouds.items()}
    return Rules(
        settle=settings.spool.settle,
        defaults=sidecar.read_defaults(settings.defaults),
        clouds=frozenset(settings.clouds),
        kernel_needed=frozenset(n for n, d in dialects.items() if "kernel" in d.paravirtual_needs),
        disk_alone=frozenset(n for n, d in dialects.items() if d.boots_disk_alone),
    )


def due(record: SetRecord | None, found: ImageSet, *, now: float, closed: Mapping[str, Halted]) -> bool:
    """Whether a ready set is to be worked on now, by its record and the clouds whose gates are closed."""
    if record is None or record.stamp != found.stamp:
        return True
    if record.state == "deferred":
        return record.next_retry is None or now >= record.next_retry
    if record.state == "halted":
        return found.sidecar.clouds[0] not in closed
    return record.state in ("waiting", "queued", "working")


@dataclass
class _Memory:
    """What a round knows from the rounds before. Only hints, but for `unsaved`: records that a full disk kept
    out of the ledger, so that their retry times hold all the same."""

    listings: dict[Path, spool.Listing] = field(default_factory=dict)
    assemblies: dict[Path, Assembly] = field(default_factory=dict)
    unsaved: dict[Key, SetRecord] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)
    scanned: float = float("-inf")


class Service:
    """The daemon. `now` is the wall clock for what is stored, `monotonic` the one for how long things lie."""

    def __init__(
        self,
        settings: Settings,
        *,
        monitor: Monitor,
        book: Ledger,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.wake = threading.Event()
        self.stopping = threading.Event()
        self._monitor = monitor
        self._book = book
        self._now = now
        self._monotonic = monotonic
        self._memory = _Memory()
        self._running: dict[Key, Future[SetRecord]] = {}
        self._pool = ThreadPoolExecutor(settings.work.sets, thread_name_prefix="set")
        self._configure(settings)

    def _configure(self, settings: Settings) -> None:
        self._rules = rules_of(settings)
        self._settings = settings
        bucket = self._rules.defaults.bucket
        self._gates = Gates(
            settings.clouds, uploads=settings.work.uploads, bucket=bucket, clock=self._monotonic
        )
        self._tools = pipeline.Tools(
            ledger=self._book,
            gates=self._gates,
            monitor=self._monitor,
            stopping=self.stopping,
            uploads=settings.work.uploads,
            configured_bucket=bucket,
            now=self._now,
        )

    # --- the two ways to run ------------------------------------------------------------------------------

    def once(self) -> tuple[SetRecord, ...]:
        """Scan, do everything that can be done now, and return the records of all sets that are there."""
        patience = self._monotonic() + ONCE_PATIENCE_SETTLES * max(self._settings.spool.settle, 1.0)
        with _held(self._settings), self._pool:
            while True:
                self._round()
                self._await_workers()
                if self.stopping.is_set() or not self._more_to_do() or self._monotonic() > patience:
                    break
                self.wake.wait(max(LEAST_PAUSE_SECONDS, self._pause()))
                self.wake.clear()
        return self.present()

    def run(self, notifier: Notifier, *, reloaded: Callable[[], Settings] | None = None) -> None:
        """Work until `stopping` is set; then put down what is at work between two parts, and return."""
        self._reloaded = reloaded
        self._reload_asked = False
        with _held(self._settings), self._pool:
            self._watch = self._new_watch()
            try:
                self._round()
                self._tell_ready(notifier)
                while not self.stopping.is_set():
                    self._tick(notifier)
            finally:
                notifier.stopping()
                self._watch.stop()
        self._reap()

    def ask_reload(self) -> None:
        """From a signal handler: the next turn of the loop reads the configuration again."""
        self._reload_asked = True
        self.wake.set()

    def stop(self) -> None:
        """From a signal handler."""
        self.stopping.set()
        self.wake.set()

    def present(self) -> tuple[SetRecord, ...]:
        """The records of the sets that lie in the spool folders now."""
        names = {(str(folder), name) for folder, a in self._memory.assemblies.items() for name in _names(a)}
        return tuple(r for r in self._records() if (r.folder, r.name) in names)

    # --- one turn of the loop -----------------------------------------------------------------------------

    def _tick(self, notifier: Notifier) -> None:
        pause = self._pause()
        self.wake.wait(min(pause, notifier.watchdog_seconds or pause))
        self.wake.clear()
        if self._reload_asked:
            self._reload(notifier)
        self._reap()
        if lost := self._watch.lost():
            self._tell(Kind.WATCH_LOST, f"Lost the watch: {lost}; watching anew", "warning")
            self._watch.restart()
        self._round()
        notifier.status(self.summary())
        # Fed from here alone: a loop that hangs, in a scan or in a dead mount, must be noticed.
        notifier.watchdog()
        self.stopping.wait(LEAST_PAUSE_SECONDS)

    def _new_watch(self) -> Watch:
        watch = Watch(self._settings.spool.folders, self.wake, scan_every=self._settings.spool.scan_every)
        watch.start()
        return watch

    def _tell_ready(self, notifier: Notifier) -> None:
        for way in self._watch.ways:
            self._tell(Kind.READY, f"Watching {way}")
        notifier.ready(self.summary())

    def _reload(self, notifier: Notifier) -> None:
        self._reload_asked = False
        notifier.reloading()
        try:
            settings = self._reloaded() if self._reloaded else self._settings
            if settings.state != self._settings.state or settings.work != self._settings.work:
                self._tell(
                    Kind.RELOAD, "Changes under [state] and [work] take effect at a restart", "warning"
                )
            self._configure(settings)
        except UecError as error:
            self._tell(Kind.RELOAD, f"Kept the old configuration: {error}", "error")
        else:
            self._watch.stop()
            self._watch = self._new_watch()
            self._tell(Kind.RELOAD, "Read the configuration again")
        notifier.ready(self.summary())

    def summary(self) -> str:
        """One line with numbers, for systemd and for people."""
        counts: dict[str, int] = {}
        for record in self.present():
            counts[record.state] = counts.get(record.state, 0) + 1
        told = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
        folders = len(self._settings.spool.folders)
        return f"Watching {folders} folder{'s' if folders > 1 else ''}; {told or 'no sets'}"

    def _pause(self) -> float:
        """Seconds until something is due by itself: a file will have settled, a retry, the next full scan."""
        elapsed = self._monotonic() - self._memory.scanned
        pauses = [self._settings.spool.scan_every - elapsed, LONGEST_PAUSE_SECONDS]
        for assembly in self._memory.assemblies.values():
            pauses += [w.ready_at - self._monotonic() for w in assembly.waiting if w.ready_at is not None]
        pauses += [r.next_retry - self._now() for r in self.present() if r.next_retry is not None]
        return max(0.0, min(pauses))

    # --- a round ------------------------------------------------------------------------------------------

    def _round(self) -> None:
        for name in self._gates.probe():
            self._tell(Kind.READY, f"Cloud {name} can be used again")
        self._memory.scanned = self._monotonic()
        for folder in self._settings.spool.folders:
            with self._watchful(str(folder)):
                self._round_of(folder)

    def _round_of(self, folder: Path) -> None:
        before = self._memory.listings.get(folder)
        listing = spool.scan(folder, now=self._monotonic(), before=before, ignore=self._settings.spool.ignore)
        self._memory.listings[folder] = listing
        records = {record.name: record for record in self._records() if record.folder == str(folder)}
        assembly = imageset.assemble(listing, rules=self._rules, taken=_taken(records))
        self._memory.assemblies[folder] = assembly
        for found in assembly.ready:
            self._consider(found, records.get(found.name))
        for refused in assembly.refused:
            self._refuse(folder, refused, records.get(refused.name))
        for waiting in assembly.waiting:
            self._wait(folder, waiting, records.get(waiting.name))
        self._retire(listing, assembly, records)
        for name in records.keys() - _names(assembly):
            self._forget_in_time(records[name])

    def _consider(self, found: ImageSet, record: SetRecord | None) -> None:
        key = (str(found.folder), found.name)
        if record and record.reason == GONE:
            self._save(replace(record, reason=""))  # they are back, as when a file system was mounted again
        if key in self._running or not due(record, found, now=self._now(), closed=self._gates.closed()):
            return
        if record is None or record.stamp != found.stamp:
            files = ", ".join(member.path for member in found.members)
            self._tell(Kind.FOUND, f"Found set {found.name}: {files}", set_name=found.name)
        future = self._pool.submit(pipeline.work, found, before=record, tools=self._tools)
        future.add_done_callback(lambda _: self.wake.set())
        self._running[key] = future

    def _refuse(self, folder: Path, refused: Refused, record: SetRecord | None) -> None:
        if (record and record.stamp == refused.stamp) or (str(folder), refused.name) in self._running:
            return
        fresh = SetRecord(str(folder), refused.name, refused.stamp, "waiting", self._now())
        self._save(
            pipeline.refuse(failed(fresh, refused.error, now=self._now(), spread=0.5), tools=self._tools)
        )

    def _wait(self, folder: Path, waiting: Waiting, record: SetRecord | None) -> None:
        """Write down and tell a new waiting reason, once; but a finished set is not undone by an edit."""
        settling = waiting.ready_at is not None
        if (str(folder), waiting.name) in self._running or (record and record.reason == waiting.reason):
            return
        if record and (settling or record.state == "done"):
            return
        fresh = SetRecord(str(folder), waiting.name, "", "waiting", self._now(), reason=waiting.reason)
        if not settling:
            what = f"{waiting.name}: waiting for {waiting.reason}"
            self._tell(Kind.WAITING, what, set_name=waiting.name)
        if record and record.error:
            report.publish(fresh)
        self._save(self._book.put_set(fresh))

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
            spool.archive(listing.folder, files, when=datetime.fromtimestamp(self._now(), UTC))

    def _forget_in_time(self, record: SetRecord) -> None:
        """Outputs of a set whose files are gone go after a while: users cannot remove them themselves."""
        if (record.folder, record.name) in self._running:
            return
        if record.reason != GONE:
            self._save(self._book.put_set(replace(record, reason=GONE, since=self._now())))
        elif self._now() - record.since >= self._settings.spool.linger:
            report.clear(record)
            self._book.drop_set(record)

    # --- workers and records ------------------------------------------------------------------------------

    def _reap(self) -> None:
        """Take the results of workers that have ended. A fault of ours defers the set and says so."""
        for key in [key for key, future in self._running.items() if future.done()]:
            future = self._running.pop(key)
            if (fault := future.exception()) is None:
                self._save(future.result())
                continue
            self._tell(
                Kind.FAULT, f"{key[1]}: a fault of uecwatchd itself: {fault!r}", "error", set_name=key[1]
            )
            record = self._memory.unsaved.get(key) or self._book.set(Path(key[0]), key[1])
            if record:
                error = Deferred(f"{key[1]}: a fault of uecwatchd itself", repr(fault), "Please report it.")
                self._save(failed(record, error, now=self._now(), spread=0.5))

    def _await_workers(self) -> None:
        while self._running:
            next(iter(self._running.values())).exception()
            self._reap()

    def _more_to_do(self) -> bool:
        assemblies = self._memory.assemblies.values()
        return any(waiting.ready_at is not None for a in assemblies for waiting in a.waiting)

    def _records(self) -> tuple[SetRecord, ...]:
        kept = {(r.folder, r.name): r for r in self._book.sets()}
        return tuple({**kept, **self._memory.unsaved}.values())

    def _save(self, record: SetRecord) -> None:
        key = (record.folder, record.name)
        self._memory.unsaved.pop(key, None)
        try:
            if self._book.set(Path(record.folder), record.name) != record:
                self._book.put_set(record)
        except UecError:
            self._memory.unsaved[key] = record

    @contextlib.contextmanager
    def _watchful(self, place: str) -> Iterator[None]:
        """One folder's trouble is told once while it lasts, and does not keep the others from their turn."""
        try:
            yield
        except UecError as error:
            if self._memory.troubles.get(place) != str(error):
                self._tell(Kind.FAULT, str(error), "error")
            self._memory.troubles[place] = str(error)
        else:
            if self._memory.troubles.pop(place, None):
                self._tell(Kind.READY, f"{place}: the trouble is over")

    def _tell(self, kind: Kind, sentence: str, level: str = "info", *, set_name: str = "") -> None:
        self._monitor.tell(Event(kind, sentence, set_name, level))  # type: ignore[arg-type]


def _is_done(found: ImageSet, record: SetRecord | None) -> bool:
    return record is not None and record.state == "done" and record.stamp == found.stamp


def _names(assembly: Assembly) -> set[str]:
    ready, waiting, refused = assembly.ready, assembly.waiting, assembly.refused
    return {r.name for r in ready} | {w.name for w in waiting} | {r.name for r in refused}


def _taken(records: Mapping[str, SetRecord]) -> dict[str, tuple[tuple[str, spool.Stamp], ...]]:
    done = (record for record in records.values() if record.state == "done")
    return {record.name: tuple((m.path, m.stamp) for m in record.members) for record in done}


@contextlib.contextmanager
def _held(settings: Settings) -> Iterator[None]:
    """Be the only daemon on the state directory and on each spool folder that is there."""
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, ledger.hold(settings.state.dir))
        for folder in settings.spool.folders:
            if folder.is_dir():
                stack.callback(os.close, spool.hold(folder))
        yield
