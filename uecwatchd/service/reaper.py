"""The reaper: terminates instances of test boots that a crash, a stop or a lost answer has left behind.

It runs at the start of the service, and then now and then in a thread of its own, because a cloud may accept
a call and never answer. While a boot is under way on an account it leaves that account alone.
"""

import threading
from collections.abc import Iterator
from pathlib import Path

from uecwatchd.clouds.access import CloudAccess
from uecwatchd.delivery.boot_lock import claim_boots
from uecwatchd.delivery.leftover_instances import BootCleaner
from uecwatchd.delivery.test_boot import token_mark
from uecwatchd.errors import Deferred, Stopped, UecError
from uecwatchd.events import Event, Kind, Listener
from uecwatchd.ledger.api import Ledger
from uecwatchd.service.attempt.context import AttemptTools
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.service_context import Shared
from uecwatchd.system.clocks import Clocks
from uecwatchd.system.lockfile import LockTaken
from uecwatchd.system.signals import Stop

# What was left behind costs money by the hour.
PAUSE_SECONDS = 60.0
REAPER = "reaper"


class Reaper:
    """Ends left instances, as far as their clouds can be asked. `clouds` is replaced at a reload."""

    def __init__(
        self,
        clouds: CloudAccess,
        *,
        ledger: Ledger,
        listener: Listener,
        conditions: Conditions,
        clocks: Clocks,
        stopping: Stop,
        state_folder: Path,
        host: str,
    ) -> None:
        self.clouds = clouds
        self._ledger = ledger
        self._listener = listener
        self._conditions = conditions
        self._clocks = clocks
        self._stopping = stopping
        self._state_folder = state_folder
        self._mark = token_mark(host, state_folder)
        self._repeated = conditions.recurring("ending left instances")
        self._next_start = float("-inf")
        self._thread: threading.Thread | None = None

    def start_if_due(self) -> None:
        """End left instances in a thread, if there are any and none is still at it."""
        now = self._clocks.monotonic()
        if now < self._next_start or (self._thread and self._thread.is_alive()):
            return
        self._next_start = now + PAUSE_SECONDS
        if not any(self._left()):
            return
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait for the thread, after a stop was requested."""
        if self._thread:
            self._thread.join(self._stopping.seconds_left() + 1.0)

    def _run(self) -> None:
        with self._repeated.attempt():
            self.reap()

    def reap(self) -> None:
        """End what is left on each cloud. An error is reported once, and tried again later."""
        for name in self._left():
            key = (REAPER, name)
            try:
                self._reap(name)
            except (Stopped, LockTaken):
                continue
            except UecError as error:
                self._conditions.set_error(key, error)
            else:
                self._conditions.clear(key)

    def _left(self) -> Iterator[str]:
        suspended = self.clouds.availability.suspended()
        try:
            names = dict.fromkeys(boot.cloud for boot in self._ledger.boots.open())
        except Deferred:  # of the ledger, which sets report
            return
        yield from (name for name in names if name not in suspended and self.clouds.is_configured(name))

    def _reap(self, name: str) -> None:
        cloud = self.clouds.enter(name)
        with claim_boots(self._state_folder, cloud.account):
            cleaner = BootCleaner(
                cloud,
                self._ledger.boots,
                self._mark,
                tell=self._tell,
                sleep=self._sleep,
                now=self._clocks.now,
                monotonic=self._clocks.monotonic,
            )
            cleaner.clean_up()

    def _tell(self, sentence: str) -> None:
        self._listener.tell(Event(Kind.BOOTED, sentence))

    def _sleep(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise Stopped("ending left instances", "a stop was asked for", "It continues at the next start.")


def reaper_of(shared: Shared, tools: AttemptTools) -> Reaper:
    """Make the reaper of a service."""
    return Reaper(
        tools.clouds,
        ledger=shared.ledger,
        listener=shared.reporting.listener,
        conditions=shared.conditions,
        clocks=shared.clocks,
        stopping=shared.signals.stopping,
        state_folder=shared.state_folder,
        host=tools.host,
    )
