"""The daemon's loop: wait, scan, notify systemd; stop and reload."""

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from uecwatchd.bundle.upload_slots import UploadSlots
from uecwatchd.clouds.access import CloudAccess
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.detect import DetectedDialect, address_of
from uecwatchd.clouds.dialects import DIALECTS
from uecwatchd.clouds.patience import RetryPolicy
from uecwatchd.config.records import Settings
from uecwatchd.errors import UecError
from uecwatchd.events import Event, Kind, Monitor
from uecwatchd.intake.watch import TRY_AGAIN_SECONDS, Watch, WatchMode, deaf, overdue
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.schema import lock_state
from uecwatchd.outputs.advances import drop_advances
from uecwatchd.outputs.systemd import Notifier
from uecwatchd.service.attempt import context
from uecwatchd.service.cloud_notices import cloud_warnings, describe_cloud
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.interrupts import Interrupts
from uecwatchd.service.policy import make_rules
from uecwatchd.service.probing import ProbeThread, ProbeWriter
from uecwatchd.service.set_states import SetStates
from uecwatchd.service.spooler import Spooler
from uecwatchd.system import lockfile, wakeup
from uecwatchd.system.signals import Stop
from uecwatchd.types import DetectedCloud

# Between two turns of the loop, for any number of events: a large copy causes thousands.
LEAST_PAUSE_SECONDS = 0.02
# Between two scans of the folders. If scans take long, the pause is nine times the last scan, so that a spool
# that changes all the time uses at most a tenth of a processor.
LEAST_SCAN_PAUSE_SECONDS = 0.2
SCAN_PAUSE_TIMES = 9
# Maximum delay until a replaced folder, or a due probe of a suspended cloud, is noticed.
LONGEST_PAUSE_SECONDS = 10.0
# Between two lines for `systemctl status` while sets are only being reported.
STATUS_SECONDS = 2.0
# Additional time that is requested from systemd during the first scan.
STARTING_SECONDS = 60.0
# Maximum delay until the answer to a probe is noticed; the next probe may be due soon.
ASKED_PAUSE_SECONDS = 1.0
# `once` waits for files that are still being written, but not for one that never settles.
ONCE_PATIENCE_SETTLES = 12
# A reachable cloud is detected within one second; the first scan does not wait longer than this.
RECOGNISE_SECONDS = 5.0


class Service:
    """The daemon. `now` is the wall clock for stored times, `monotonic` the clock for ages of files.

    `spread` returns numbers from 0 to 1, so that retries do not come at the same moment. `patience` is how
    long a worker stays with a cloud that is not ready. `wait` waits for an event, or for some seconds by the
    clock, and returns True if the event has come. `troubles` are the errors of spool folders in the last
    round, and those of clouds that could not be detected while sets wait for them.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        monitor: Monitor,
        book: Ledger,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        spread: Callable[[], float] = lambda: 0.5,
        patience: RetryPolicy = RetryPolicy(),  # noqa: B008 (it is frozen)
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        self._settings = settings
        self._monitor = monitor
        self._book = book
        self._now = now
        self._started = now()
        self._monotonic = monotonic
        self._spread = spread
        self._patience = patience
        self._wait = wait
        self._wake = threading.Event()
        self._stopping = Stop()
        self._interrupts = Interrupts()
        self._reload_asked = False
        self._conditions = Conditions(monitor)
        self._loop = self._conditions.recurring("the service's loop")
        self._probes = ProbeWriter(book, now=now, monotonic=monotonic)
        self._probe_thread = ProbeThread(
            self._probes, resumed=self._cloud_resumed, conditions=self._conditions, monotonic=monotonic
        )
        self._looked: dict[Path, float] = {}
        self._improved = float("-inf")
        self._notifier, self._is_ready = Notifier({}), False
        self._went_on_next = self._status_next = self._scan_next = float("-inf")
        self._scan_wanted = False
        self._tools = self._tools_for(settings)
        self._spooler = self._make_spooler(self._tools)

    def _make_spooler(self, tools: context.Tools) -> Spooler:
        return Spooler(
            self._settings,
            states=SetStates(self._book),
            tools=tools,
            monotonic=self._monotonic,
            ended=self._wake.set,
            progressed=self._went_on,
        )

    def _tools_for(self, settings: Settings) -> context.Tools:
        bucket = make_rules(settings, {}).defaults.bucket
        clouds = CloudAccess(
            settings.clouds,
            uploads=settings.work.uploads,
            bucket=bucket,
            before=self._book.clouds(),
            on_detected=self._cloud_detected,
            on_halt=self._cloud_halted,
            clock=self._monotonic,
            stop=self._stopping,
        )
        return context.Tools(
            ledger=self._book,
            clouds=clouds,
            monitor=self._monitor,
            stopping=self._stopping,
            interrupts=self._interrupts,
            work=settings.work,
            slots=UploadSlots(settings.work.uploads),
            configured_bucket=bucket,
            now=self._now,
            started=self._started,
            random=self._spread,
            patience=self._patience,
        )

    # --- the two ways to run ------------------------------------------------------------------------------

    def once(self) -> tuple[SetRecord, ...]:
        """Scan, do everything that can be done now, and return the records of all existing sets."""
        patience = ONCE_PATIENCE_SETTLES * max(self._settings.spool.settle, 1.0)
        with self._alone():
            self._tools.clouds.detect()
            while True:
                self._spooler.scan()
                self._spooler.work_off()
                self._must_have_a_ledger()
                now = self._monotonic()
                late = patience < 0 and not self._spooler.is_behind()
                pauses = [ready_at - now for ready_at in self._spooler.settle_times() if not late]
                if (look := self._spooler.next_retry(looks=True)) is not None:
                    pauses.append(look - self._now())  # or an image that is registered were left half done
                if self._stopping.is_set() or not pauses:
                    return self._spooler.present()
                pause = max(LEAST_SCAN_PAUSE_SECONDS, min(pauses))
                patience -= pause  # only time of waiting counts, not of work
                self._stopping.wait(pause)

    def run(self, notifier: Notifier, *, reloaded: Callable[[], Settings] | None = None) -> None:
        """Work until asked to stop; then stop running work between two steps, and return.

        Raises LedgerDamaged, after stopping the work, if the ledger is damaged.
        """
        with self._alone(), wakeup.listen(self._settings.state.dir, self._wake.set):
            self._notifier = notifier
            watch = self._watch()
            try:
                self._recognise_at_first()
                self._turn()
                self._tell_ways(watch)
                notifier.ready(self._spooler.summary())
                self._is_ready = True
                while not self._stopping.is_set():
                    watch = self._tick(watch, notifier, reloaded)
            finally:
                notifier.stopping()
                watch.stop()

    @property
    def troubles(self) -> tuple[UecError, ...]:
        waits = any(record.state == "waiting" for record in self._spooler.present())
        strange = (error for error in self._tools.clouds.unidentified().values() if error and waits)
        return (*self._spooler.troubles.values(), *strange)

    @property
    def busy(self) -> bool:
        """Whether a set is at work, or a cloud is being asked, at this moment."""
        return self._spooler.is_busy() or self._probe_thread.busy

    def ask_reload(self) -> None:
        """Ask the loop to read the configuration again, from any thread."""
        self._reload_asked = True
        self._wake.set()

    def stop(self) -> None:
        """Ask the loop to stop, from any thread."""
        self._stopping.set()
        self._wake.set()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock the state directory and the folders; a folder that appears later is locked then."""
        lock = lock_state(self._settings.state.dir)
        drop_advances(self._book)
        try:
            self._spooler.lock_folders()
            yield
        finally:
            self._spooler.close()
            lockfile.release(lock)

    # --- one turn of the loop -----------------------------------------------------------------------------

    def _tick(self, watch: Watch, notifier: Notifier, reloaded: Callable[[], Settings] | None) -> Watch:
        """Run the loop once.

        While an unexpected error prevents this, systemd hears nothing, and finally restarts us.
        """
        with self._loop.attempt():
            watch = self._go_around(watch, notifier, reloaded)
        self._stopping.wait(self._loop.pause)
        return watch

    def _go_around(self, watch: Watch, notifier: Notifier, reloaded: Callable[[], Settings] | None) -> Watch:
        pause = min(self._pause(watch), LONGEST_PAUSE_SECONDS)
        woken = self._wait(self._wake, min(pause, notifier.watchdog_seconds or pause))
        self._wake.clear()
        if self._reload_asked:
            watch = self._reload(watch, notifier, reloaded)
        woken |= self._mend(watch)
        self._probe_thread.start_if_due(self._tools.clouds)
        ended = self._spooler.tend()
        self._probes.write(self._tools.clouds.availability)
        self._scan_wanted |= woken or self._spooler.due_in() <= 0 or self._spooler.has_new_requests()
        self._must_have_a_ledger()
        folders = self._settings.spool.folders if self._scan_wanted else self._overdue(watch)
        if folders and self._monotonic() >= self._scan_next:
            self._turn(folders)
            ended = True
        if ended or (self._spooler.has_notices() and self._monotonic() >= self._status_next):
            self._status_next = self._monotonic() + STATUS_SECONDS
            notifier.status(self._spooler.summary())
        self._feed(watch, notifier)
        self._wait(self._stopping, LEAST_PAUSE_SECONDS)
        return watch

    def _must_have_a_ledger(self) -> None:
        """Raise LedgerDamaged if any thread has found damage: only a start can replace the ledger."""
        if self._book.damage:
            self.stop()
            raise self._book.damage

    def _mend(self, watch: Watch) -> bool:
        """Restart lost watches, and watch folders that can be watched now.

        Returns True if all folders must be scanned, because changes in between caused no events.
        """
        now = self._monotonic()
        if lost := watch.lost():
            self._tell(Kind.WATCH_LOST, f"Lost the watch: {lost}; watching again", "warning")
            before = watch.ways
            watch.restart()
            self._tell_ways(watch, before)
            return True
        if now - self._improved < TRY_AGAIN_SECONDS:
            return False
        self._improved, before = now, watch.ways
        improved = watch.improve()
        self._tell_ways(watch, before)
        return improved

    def _feed(self, watch: Watch, notifier: Notifier) -> None:
        """Notify systemd's watchdog if scans are in time.

        Only the loop does this, so that a hang in a scan or a dead mount is noticed.
        """
        why = deaf(self._looked, watch.ways, now=self._monotonic())
        if not why:
            notifier.watchdog()
        text = why and f"No longer fit for work, and telling systemd so: {why}"
        self._conditions.set(("deaf",), text, level="error", once=True)

    def _went_on(self) -> None:
        """Notify systemd during a long scan, each time that a file is done, but not too often.

        A real hang, for example in a dead mount, never gets here.
        """
        now = self._monotonic()
        if now < self._went_on_next:
            return
        self._went_on_next = now + (self._notifier.watchdog_seconds or LONGEST_PAUSE_SECONDS) / 2
        if self._is_ready:
            self._notifier.watchdog()
        else:
            self._notifier.extend(STARTING_SECONDS)

    def _turn(self, folders: Collection[Path] | None = None) -> None:
        """Scan some of the folders, or all."""
        folders = self._settings.spool.folders if folders is None else folders
        self._scan_wanted = False
        began = self._monotonic()
        self._spooler.scan(folders)
        ended = self._monotonic()
        self._looked.update(dict.fromkeys(folders, ended))
        # Never so long that a full scan comes late. What is still to be read comes to an end by being read.
        times = 1 if self._spooler.is_behind() else SCAN_PAUSE_TIMES
        pause = min(times * (ended - began), self._settings.spool.scan_every)
        self._scan_next = ended + max(LEAST_SCAN_PAUSE_SECONDS, pause)

    def _overdue(self, watch: Watch) -> tuple[Path, ...]:
        late = overdue(self._looked, watch.ways, now=self._monotonic())
        return tuple(folder for folder, seconds in late.items() if seconds >= 0)

    def _pause(self, watch: Watch) -> float:
        """Seconds until there is something to do by itself: a scan, or the probe of a cloud."""
        if self._spooler.has_notices():
            return 0.0
        now = self._monotonic()
        late = overdue(self._looked, watch.ways, now=now).values()
        scan = 0.0 if self._scan_wanted else min(self._spooler.due_in(), -max(late))
        probe = (
            now + ASKED_PAUSE_SECONDS
            if self._probe_thread.busy
            else self._tools.clouds.availability.next_probe()
        )
        scan = max(scan, self._scan_next - now)
        return max(0.0, scan if probe is None else min(scan, probe - now))

    def _recognise_at_first(self) -> None:
        """Wait a moment for the detection of the clouds, which decides what sets need.

        A cloud may be away.
        """
        self._probe_thread.start_if_due(self._tools.clouds)
        for _ in range(round(RECOGNISE_SECONDS / LEAST_SCAN_PAUSE_SECONDS)):
            if self._stopping.is_set() or not self._probe_thread.busy:
                return
            self._probe_thread.wait(LEAST_SCAN_PAUSE_SECONDS)

    def _cloud_detected(self, cloud: Cloud, found: DetectedDialect) -> None:
        if self._settings.clouds[cloud.name].dialect not in DIALECTS:
            with contextlib.suppress(UecError):  # if it cannot be stored, the next start detects it again
                self._book.put_cloud(cloud.name, DetectedCloud(found.dialect.name, address_of(cloud.account)))
            self._tell(Kind.READY, describe_cloud(cloud, found))
            self._wake.set()
        for sentence in cloud_warnings(cloud):
            self._tell(Kind.READY, sentence, "warning")

    def _cloud_halted(self, error: UecError) -> None:
        self._tell(Kind.HALTED, str(error), "warning")
        self._wake.set()

    def _cloud_resumed(self, name: str, is_news: bool) -> None:  # noqa: FBT001 (a callback)
        if is_news:
            self._tell(Kind.READY, f"Cloud {name} can be used again")
        self._wake.set()

    # --- configuration ------------------------------------------------------------------------------------

    def _watch(self) -> Watch:
        watch = Watch(self._settings.spool.folders, self._wake, scan_every=self._settings.spool.scan_every)
        watch.start()
        return watch

    def _tell_ways(self, watch: Watch, before: Collection[WatchMode] = ()) -> None:
        for way in watch.ways:
            if way not in before:
                self._tell(Kind.READY, f"Watching {way}", "warning" if way.passing else "info")

    def _reload(self, watch: Watch, notifier: Notifier, reloaded: Callable[[], Settings] | None) -> Watch:
        self._reload_asked = False
        notifier.reloading()
        try:
            settings = reloaded() if reloaded else self._settings
            tools = self._tools_for(settings)
            tools.clouds.take_over(self._tools.clouds)
            self._spooler.configure(settings, tools)
        except UecError as error:
            self._tell(Kind.RELOAD, f"Kept the old configuration: {error}", "error")
        else:
            if (settings.state, settings.work) != (self._settings.state, self._settings.work):
                self._tell(
                    Kind.RELOAD, "Changes under [state] and [work] take effect at a restart", "warning"
                )
            self._settings, self._tools = settings, tools
            watch.stop()
            watch = self._watch()
            self._tell(Kind.RELOAD, "Read the configuration again")
            self._tell_ways(watch)
            self._turn()
        notifier.ready(self._spooler.summary())
        return watch

    def _tell(self, kind: Kind, sentence: str, level: str = "info") -> None:
        self._monitor.tell(Event(kind, sentence, level=level))  # type: ignore[arg-type]
