"""The service's loop: wait for a reason, scan, hand out work, tell systemd."""

from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from uecwatchd.errors import Deferred
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.folder_watch import FolderWatch
from uecwatchd.service.heartbeat import Heartbeat
from uecwatchd.service.overviews import Overviews
from uecwatchd.service.probing import ProbeThread
from uecwatchd.service.reaper import Reaper
from uecwatchd.service.service_context import Shared
from uecwatchd.service.spooler import Spooler
from uecwatchd.system.wakeup import UNWOKEN_SECONDS

# Between two passes, for any number of events: a large copy causes thousands.
LEAST_PAUSE_SECONDS = 0.02
# Between two scans of the folders. If scans take long, the pause is nine times the last scan, so that a spool
# that changes all the time uses at most a tenth of a processor.
LEAST_SCAN_PAUSE_SECONDS = 0.2
SCAN_PAUSE_TIMES = 9
# Maximum delay until a replaced folder, a due probe of a suspended cloud, or a request of another host is
# noticed.
LONGEST_PAUSE_SECONDS = UNWOKEN_SECONDS
# Between two writes of what waits for a transaction: most of it goes with one that is made anyway.
FLUSH_SECONDS = 5.0
# Maximum delay until the answer to a probe is noticed; the next probe may be due soon.
ASKED_PAUSE_SECONDS = 1.0


class Loop:
    """Main thread of the service. It owns all that is not shared by threads.

    `announce` is called when states may have changed.
    """

    def __init__(
        self,
        shared: Shared,
        *,
        conditions: Conditions,
        spooler: Spooler,
        watch: FolderWatch,
        probes: ProbeThread,
        reaper: Reaper,
        heartbeat: Heartbeat,
        announce: Callable[[], None],
        overviews: Overviews,
    ) -> None:
        self._shared = shared
        self._spooler = spooler
        self._watch = watch
        self._probes = probes
        self._reaper = reaper
        self._heartbeat = heartbeat
        self._announce = announce
        self._overviews = overviews
        self._repeated = conditions.recurring("the service's loop")
        self._scan_wanted = False
        self._next_scan = float("-inf")
        self._next_flush = float("-inf")

    def run(self, reload: Callable[[], None]) -> None:
        """Pass after pass until a stop is requested. `reload` is called when it is asked for.

        While an unexpected error prevents passes, systemd hears nothing, and finally restarts us.
        """
        stopping = self._shared.signals.stopping
        while not stopping.is_set():
            with self._repeated.attempt():
                self._pass(reload)
            stopping.wait(self._repeated.pause)

    def scan(self, folders: Collection[Path] | None = None) -> None:
        """Scan some of the folders, or all."""
        settings, monotonic = self._watch.settings, self._shared.clocks.monotonic
        folders = settings.folders if folders is None else folders
        self._scan_wanted = False
        began = monotonic()
        self._spooler.scan(folders)
        ended = monotonic()
        self._watch.note_scan(folders, ended=ended)
        # Never so long that a full scan is late. While files are unread, scans follow each other quickly.
        times = 1 if self._spooler.is_behind() else SCAN_PAUSE_TIMES
        pause = min(times * (ended - began), settings.scan_every)
        self._next_scan = ended + max(LEAST_SCAN_PAUSE_SECONDS, pause)

    def _pass(self, reload: Callable[[], None]) -> None:
        signals, clocks = self._shared.signals, self._shared.clocks
        woken = clocks.wait(signals.wake, self._heartbeat.limit(min(self._pause(), LONGEST_PAUSE_SECONDS)))
        signals.wake.clear()
        if signals.reload.is_set():
            signals.reload.clear()
            reload()
        woken |= self._watch.restore()
        self._probes.start_if_due()
        self._reaper.start_if_due()
        changed = self._spooler.dispatch()
        self._announce()
        self._probes.write_times()
        self._scan_wanted |= woken or self._spooler.schedule.due_in() <= 0 or self._spooler.has_new_requests()
        self._shared.check_ledger()
        changed |= self._scan_if_due()
        if clocks.monotonic() >= self._next_flush:
            self._next_flush = clocks.monotonic() + FLUSH_SECONDS
            with suppress(Deferred):  # what cannot be written now waits for a later transaction
                self._shared.ledger.history.flush()
        if changed or (self._spooler.has_reports() and self._heartbeat.status_due()):
            self._heartbeat.status(self._spooler.schedule.summary())
        self._overviews.write_if_due()
        self._heartbeat.alive(late=self._watch.reason_late())
        clocks.wait(signals.stopping, LEAST_PAUSE_SECONDS)

    def _scan_if_due(self) -> bool:
        folders = self._watch.settings.folders if self._scan_wanted else self._watch.overdue()
        if not folders or self._shared.clocks.monotonic() < self._next_scan:
            return False
        self.scan(folders)
        return True

    def _pause(self) -> float:
        """Return the seconds until something is due by itself: a scan, or the probe of a cloud."""
        if self._spooler.has_reports():
            return 0.0
        now = self._shared.clocks.monotonic()
        scan = 0.0 if self._scan_wanted else min(self._spooler.schedule.due_in(), self._watch.due_in())
        scan = min(scan, self._spooler.help_in())
        probe = now + ASKED_PAUSE_SECONDS if self._probes.busy else self._probes.next_at()
        scan = max(scan, self._next_scan - now)
        return max(0.0, scan if probe is None else min(scan, probe - now))
