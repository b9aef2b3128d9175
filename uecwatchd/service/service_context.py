"""Context of one running service: clocks, signals between threads, and tools for attempts."""

import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from uecwatchd.bundle.upload_slots import UploadSlots
from uecwatchd.clouds.access import CloudAccess
from uecwatchd.clouds.request_retry import RetryPolicy
from uecwatchd.config.records import Settings
from uecwatchd.delivery.limits import CloudLimits
from uecwatchd.errors import Overtaken, UecError
from uecwatchd.events import Event, Kind
from uecwatchd.images.formats.open import DiskAccess
from uecwatchd.ledger.api import Ledger, LedgerDamaged
from uecwatchd.service.attempt import context
from uecwatchd.service.boot_threads import BootThreads
from uecwatchd.service.cloud_reports import CloudReports
from uecwatchd.service.conditions import OUTAGE, Conditions
from uecwatchd.service.interrupts import Interrupts
from uecwatchd.service.policy import make_rules
from uecwatchd.service.reporting import Reporting
from uecwatchd.service.shared_outages import SharedOutages
from uecwatchd.system.clocks import Clocks
from uecwatchd.system.signals import Stop


@dataclass(frozen=True, slots=True)
class Signals:
    """Signals to the service's loop, from any thread."""

    wake: threading.Event = field(default_factory=threading.Event)
    stopping: Stop = field(default_factory=Stop)
    reload: threading.Event = field(default_factory=threading.Event)

    def ask_reload(self) -> None:
        self.reload.set()
        self.wake.set()

    def stop(self) -> None:
        self.stopping.set()
        self.wake.set()


@dataclass(frozen=True, slots=True)
class Shared:
    """One running service, apart from its configuration."""

    reporting: Reporting
    conditions: Conditions
    ledger: Ledger
    clocks: Clocks
    patience: RetryPolicy  #: how long a worker stays with a cloud that is not ready
    started: float  #: wall clock at the start
    state_folder: Path  #: the one of the start: another one in the configuration takes effect at a restart
    limits: CloudLimits
    outages: SharedOutages
    signals: Signals = field(default_factory=Signals)
    interrupts: Interrupts = field(default_factory=Interrupts)
    boot_threads: BootThreads = field(default_factory=BootThreads)

    def check_ledger(self) -> None:
        """Raise LedgerDamaged or Overtaken if any thread has met it: only a new start helps.

        The end of an outage is told.
        """
        if not self.ledger.sessions.is_away and self.conditions.clear(OUTAGE):
            self.reporting.listener.tell(Event(Kind.READY, "The ledger can be used again"))
        try:
            self.ledger.check()
        except (LedgerDamaged, Overtaken):
            self.signals.stop()
            raise

    def reports(self) -> CloudReports:
        return CloudReports(self.ledger, self.conditions, self.reporting.listener, wake=self.signals.wake.set)

    def _suspended(self, cloud: str, error: UecError) -> None:
        self.reports().suspended(cloud, error)
        self.outages.suspended(cloud)

    def tools_for(self, settings: Settings) -> context.AttemptTools:
        """Make the tools of attempts by one configuration. Raises Halted for a mistake in `[defaults]`."""
        bucket, reports = make_rules(settings, {}).defaults.bucket, self.reports()
        clouds = CloudAccess(
            settings.clouds,
            uploads=settings.work.uploads,
            bucket=bucket,
            before=self.ledger.clouds(),
            on_detected=partial(reports.detected, settings.clouds),
            admit=reports.admit,
            on_suspend=self._suspended,
            on_probe=self.outages.probed,
            on_halt=reports.halted,
            clock=self.clocks.monotonic,
            stop=self.signals.stopping,
        )
        return context.AttemptTools(
            ledger=self.ledger,
            state_folder=self.state_folder,
            work_folder=settings.state.work_folder,
            clouds=clouds,
            reporting=self.reporting,
            stopping=self.signals.stopping,
            interrupts=self.interrupts,
            boot_threads=self.boot_threads,
            access=DiskAccess.limited_to(settings.work.max_disk_size),
            work=settings.work,
            install=settings.install,
            slots=UploadSlots(settings.work.uploads),
            limits=self.limits,
            configured_bucket=bucket,
            clocks=self.clocks,
            hooks=settings.hooks,
            cloud_settings=settings.clouds,
            started=self.started,
            patience=self.patience,
            retention_of=settings.retention_of,
        )
