"""The service: start and end, one run or a loop, and another configuration."""

import contextlib
from collections.abc import Callable, Container, Iterator
from functools import partial

from uecwatchd.clouds.request_retry import RetryPolicy
from uecwatchd.config.records import Settings
from uecwatchd.config.sharing import check_shares_stay
from uecwatchd.delivery.limits import CloudLimits
from uecwatchd.errors import UecError
from uecwatchd.events import Event, Kind, Level, Listener
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.state_folder import lock_state
from uecwatchd.outputs.ledger_progress import drop_progress
from uecwatchd.outputs.progress import ProgressTracker
from uecwatchd.outputs.systemd import Notifier
from uecwatchd.service.boot_threads import BootThreads
from uecwatchd.service.bucket_folders import BucketFolders
from uecwatchd.service.cloud_reports import HALTED
from uecwatchd.service.conditions import FAULT, Conditions, Key
from uecwatchd.service.folder_watch import FolderWatch
from uecwatchd.service.heartbeat import LATE, Heartbeat
from uecwatchd.service.lease import leased
from uecwatchd.service.leftover_files import LEFT_OUT
from uecwatchd.service.loop import LEAST_SCAN_PAUSE_SECONDS, Loop
from uecwatchd.service.messages.messages import Messages
from uecwatchd.service.overviews import Overviews, OverviewSources
from uecwatchd.service.probing import ProbeThread
from uecwatchd.service.reaper import reaper_of
from uecwatchd.service.reporting import report_to
from uecwatchd.service.service_context import Shared, Signals
from uecwatchd.service.set_states import SetStates
from uecwatchd.service.shared_clouds import SharedClouds
from uecwatchd.service.shared_outages import SharedOutages
from uecwatchd.service.spooler import Spooler
from uecwatchd.system import lockfile, wakeup
from uecwatchd.system.clocks import Clocks
from uecwatchd.types import SetId

# `once` waits for files that are still being written, but not for one that never settles.
ONCE_PATIENCE_SETTLES = 12
# A reachable cloud is detected within one second; the first scan does not wait longer than this.
DETECT_SECONDS = 5.0


class Service:
    """The daemon.

    `tracker` is the one that `listener` passes progress to; without it, the service has one of its own.
    `patience` is how long a worker stays with a cloud that is not ready.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        listener: Listener,
        ledger: Ledger,
        tracker: ProgressTracker | None = None,
        clocks: Clocks = Clocks(),  # noqa: B008 (it is frozen)
        patience: RetryPolicy = RetryPolicy(),  # noqa: B008 (it is frozen)
    ) -> None:
        self._settings = settings
        reporting = report_to(listener, tracker=tracker, ledger=ledger, clocks=clocks)
        conditions, signals = Conditions(reporting.listener), Signals()
        limits = CloudLimits(ledger.sessions.slots, monotonic=clocks.monotonic)
        outages = SharedOutages(ledger.sessions, conditions, resumed=self._resumed)
        self._shared = Shared(
            reporting,
            conditions,
            ledger,
            clocks,
            patience,
            started=clocks.now(),
            state_folder=settings.state.dir,
            limits=limits,
            outages=outages,
            signals=signals,
            boot_threads=BootThreads(signals.wake.set),
        )
        self._heartbeat = Heartbeat(conditions, monotonic=clocks.monotonic)
        self._shared_clouds = SharedClouds(ledger.sessions, limits, outages, conditions)
        self._tools = self._shared.tools_for(settings)
        clouds = outages.clouds = self._tools.clouds
        self._probes = ProbeThread(
            clouds, ledger=ledger, clocks=clocks, resumed=self._resumed, conditions=conditions
        )
        self._reaper = reaper_of(self._shared, self._tools)
        self._messages = Messages(settings.notify, self._shared, is_ours=self._is_ours)
        self._buckets = BucketFolders(settings.spool, self._shared, clouds)
        self._spooler = self._make_spooler(settings)

    def _is_ours(self, set_id: SetId) -> bool:
        return self._spooler.is_ours(set_id)

    def _make_spooler(self, settings: Settings) -> Spooler:
        return Spooler(
            settings,
            states=SetStates(self._shared.ledger),
            tools=self._tools,
            conditions=self._shared.conditions,
            ended=self._shared.signals.wake.set,
            progressed=self._heartbeat.progressed,
            announce=self._messages.tell,
        )

    # --- from any thread ----------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """True if a set is being worked on, or a cloud is being asked."""
        return self._spooler.is_busy() or self._probes.busy

    def ask_reload(self) -> None:
        """Ask the loop to read the configuration again."""
        self._shared.signals.ask_reload()

    def stop(self) -> None:
        """Ask the loop to stop."""
        self._shared.signals.stop()

    # --- the two ways to run ------------------------------------------------------------------------------

    @property
    def troubles(self) -> tuple[UecError, ...]:
        """Errors of spool folders in the last scan, and of clouds that were not detected while sets wait."""
        waits = any(record.state == "waiting" for record in self._spooler.schedule.present())
        unidentified = self._tools.clouds.unidentified().values()
        folders = {**self._buckets.troubles, **self._spooler.troubles}
        return (*folders.values(), *(error for error in unidentified if error and waits))

    def once(self) -> tuple[SetRecord, ...]:
        """Scan, do everything that can be done now, and return the records of all present sets."""
        patience = ONCE_PATIENCE_SETTLES * max(self._settings.spool.settle, 1.0)
        with self._locked():
            self._announce()
            self._tools.clouds.detect()
            self._reaper.reap()
            self._buckets.look_now()
            while True:
                self._spooler.scan()
                self._spooler.drain()
                self._announce(at_once=True)
                self._shared.check_ledger()
                pauses = self._pauses(settling=patience >= 0 or self._spooler.is_behind())
                if self._shared.signals.stopping.is_set() or not pauses:
                    self._spooler.look_at_builds()  # so that no disk of a set that is done stays
                    self._buckets.look_now()  # with the results
                    self._messages.deliver_now()
                    return self._spooler.schedule.present()
                pause = max(LEAST_SCAN_PAUSE_SECONDS, min(pauses))
                patience -= pause  # only time of waiting counts, not of work
                self._shared.signals.stopping.wait(pause)

    def carry_out_requests(self) -> None:
        """Carry out what was asked about published images, and return. Raises LockTaken if a daemon runs."""
        with self._locked():
            self._spooler.drain_requests()
            self._announce(at_once=True)
            self._messages.deliver_now()

    def run(self, notifier: Notifier, *, reloaded: Callable[[], Settings] | None = None) -> None:
        """Work until a stop is requested; then stop the sets at work between two steps, and return.

        Raises LedgerDamaged, after the same, when the ledger is found to be damaged.
        """
        signals = self._shared.signals
        with (
            self._locked(probes=True) as overviews,
            wakeup.listen(self._settings.state.dir, signals.wake.set),
        ):
            self._heartbeat.begin(notifier)
            watch = FolderWatch(
                self._settings.spool,
                wake=signals.wake,
                listener=self._shared.reporting.listener,
                conditions=self._shared.conditions,
                monotonic=self._shared.clocks.monotonic,
            )
            loop = self._make_loop(watch, overviews)
            self._announce()  # before a scan can change what an earlier process has left
            self._messages.start()
            self._buckets.start()
            try:
                self._detect_at_start()
                loop.scan()
                watch.report()
                self._heartbeat.ready(self._spooler.schedule.summary())
                loop.run(lambda: self._reload(loop, watch, overviews, reloaded))
            finally:
                self._heartbeat.stopping()
                watch.stop()
                self._buckets.close()
                self._reaper.close()
                self._messages.close()

    def _make_loop(self, watch: FolderWatch, overviews: Overviews) -> Loop:
        return Loop(
            self._shared,
            conditions=self._shared.conditions,
            spooler=self._spooler,
            watch=watch,
            probes=self._probes,
            reaper=self._reaper,
            heartbeat=self._heartbeat,
            announce=self._announce,
            overviews=overviews,
        )

    @contextlib.contextmanager
    def _locked(self, *, probes: bool = False) -> Iterator[Overviews]:
        """Lock the state directory and the folders; a folder that appears later is locked then.

        With `probes`, this service asks suspended clouds again.
        """
        lock = lock_state(self._settings.state.dir)
        overviews = Overviews(
            self._settings.outputs,
            sources=OverviewSources.of(self._shared),
            situation=lambda: self._spooler.schedule.situation(),
        )
        session = leased(
            self._shared.ledger.sessions,
            self._shared.conditions,
            wake=self._shared.signals.wake.set,
            beaten=self._shared_clouds.beat,
        )
        try:
            with session:
                self._shared_clouds.announce(self._settings, probes=probes)
                drop_progress(self._shared.ledger)
                try:
                    self._spooler.lock_folders()
                    overviews.begin()
                    yield overviews
                finally:
                    self._spooler.close()
                    overviews.finish()
        finally:
            lockfile.release(lock)

    def _pauses(self, *, settling: bool) -> list[float]:
        """Return the seconds until each reason for another scan of `once`; with `settling`, files count."""
        now = self._shared.clocks.monotonic()
        pauses = [ready_at - now for ready_at in self._spooler.schedule.settle_times() if settling]
        if (look := self._spooler.schedule.next_retry(looks=True)) is not None:
            pauses.append(look - self._shared.clocks.now())  # so that a registered image is completed
        return pauses

    def _detect_at_start(self) -> None:
        """Wait a moment for the detection of the clouds, which decides what sets need.

        A cloud may be away.
        """
        self._probes.start_if_due()
        for _ in range(round(DETECT_SECONDS / LEAST_SCAN_PAUSE_SECONDS)):
            if self._shared.signals.stopping.is_set() or not self._probes.busy:
                return
            self._probes.join(LEAST_SCAN_PAUSE_SECONDS)

    # --- messages -----------------------------------------------------------------------------------------

    def _announce(self, *, at_once: bool = False) -> None:
        suspended = self._tools.clouds.availability.suspended()
        self._messages.announce(self._spooler.records(), suspended, at_once=at_once)

    def _resumed(self, cloud: str, reported: bool) -> None:  # noqa: FBT001 (a callback)
        self._messages.note_resumed(cloud)
        self._shared.reports().resumed(cloud, reported)

    # --- configuration ------------------------------------------------------------------------------------

    def _reload(
        self, loop: Loop, watch: FolderWatch, overviews: Overviews, reloaded: Callable[[], Settings] | None
    ) -> None:
        """Take another configuration, or keep the old one if it has a mistake."""
        self._heartbeat.reloading()
        try:
            settings = reloaded() if reloaded else self._settings
            check_shares_stay(self._settings.spool, settings.spool)
            tools = self._shared.tools_for(settings)
            tools.clouds.take_over(self._tools.clouds)
            self._shared_clouds.announce(settings, probes=True)
            self._spooler.configure(settings, tools)
            suspended = tools.clouds.availability.suspended()
            self._shared.conditions.keep_only(partial(_outlasts_reload, suspended))
        except UecError as error:
            self._tell(f"Kept the old configuration: {error}", "error")
        else:
            old = self._settings
            if (settings.state, settings.work, settings.fleet) != (old.state, old.work, old.fleet):
                self._tell("Changes under [state], [work] and [fleet] take effect at a restart", "warning")
            self._settings, self._tools = settings, tools
            overviews.configure(settings.outputs)
            self._probes.clouds = self._reaper.clouds = self._shared.outages.clouds = tools.clouds
            self._messages.configure(settings.notify)
            self._buckets.configure(settings.spool, tools.clouds)
            watch.stop()
            watch.start(settings.spool)
            self._tell("Read the configuration again")
            watch.report()
            loop.scan()
        self._heartbeat.ready(self._spooler.schedule.summary())

    def _tell(self, sentence: str, level: Level = "info") -> None:
        self._shared.reporting.listener.tell(Event(Kind.RELOAD, sentence, level=level))


def _outlasts_reload(suspended: Container[str], key: Key) -> bool:
    """Tell if a condition depends on no configuration, or on a cloud that has the same one as before."""
    topic, *about = key
    return topic in (LEFT_OUT, LATE, FAULT) or (topic == HALTED and about[0] in suspended)
