"""Probes of suspended clouds, in a thread of their own, and the times of the next ones in the ledger.

A cloud that accepts a call and never answers must not hang the service's loop. The thread ends with the
process, so that a stop does not wait for such an answer either.
"""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from uecwatchd.clouds.access import CloudAccess
from uecwatchd.clouds.availability import CloudAvailability
from uecwatchd.errors import UecError
from uecwatchd.ledger.api import Ledger
from uecwatchd.service.conditions import Conditions, reported_part
from uecwatchd.system.clocks import Clocks


class ProbeWriter:
    """Copy in the ledger of when suspended clouds are probed next, for `status`. Shared by threads.

    `now` is the wall clock, `monotonic` the one of the clouds' availability.
    """

    def __init__(
        self, ledger: Ledger, *, now: Callable[[], float], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._ledger = ledger
        self._now = now
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._written: Mapping[str, float] | None = None

    def write(self, availability: CloudAvailability) -> None:
        """Write the times if they have changed. What cannot be written is tried again at the next call."""
        with self._lock, suppress(UecError):
            if self._written is None and not self._ledger.probes():
                self._written = {}
            times = availability.probe_times()
            if times != self._written:
                ahead = self._now() - self._monotonic()
                self._ledger.put_probes({cloud: at + ahead for cloud, at in times.items()})
                self._written = times


class ProbeThread:
    """Thread that probes the clouds when they are due. Belongs to the service's loop.

    `resumed` is called from the thread with the name of each cloud that resumes, and whether to report that:
    a cloud that comes and goes is reported a few times only. `clouds` is replaced at a reload.
    """

    def __init__(
        self,
        clouds: CloudAccess,
        *,
        ledger: Ledger,
        clocks: Clocks,
        resumed: Callable[[str, bool], None],
        conditions: Conditions,
    ) -> None:
        self.clouds = clouds
        self._writer = ProbeWriter(ledger, now=clocks.now, monotonic=clocks.monotonic)
        self._resumed = resumed
        self._repeated = conditions.recurring("asking the clouds")
        self._next_start = float("-inf")
        self._monotonic = clocks.monotonic
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start_if_due(self) -> None:
        """Probe the clouds that are due, unless the thread still waits for others."""
        if not self.clouds.probe_due() or self.busy or self._monotonic() < self._next_start:
            return
        self._thread = threading.Thread(target=self._probe, args=(self.clouds,), daemon=True)
        self._thread.start()

    def join(self, seconds: float) -> None:
        """Wait for the end of the probes, at most this long."""
        if self._thread:
            self._thread.join(seconds)

    def next_at(self) -> float | None:
        """Return when, by the monotonic clock, the next probe is due."""
        return self.clouds.availability.next_probe()

    def write_times(self) -> None:
        """Write to the ledger when each suspended cloud is probed next, if that has changed."""
        self._writer.write(self.clouds.availability)

    def _probe(self, clouds: CloudAccess) -> None:
        with self._repeated.attempt():
            for name in clouds.probe():
                self._resumed(name, reported_part(clouds.availability.suspensions(name)) == "all")
            self._writer.write(clouds.availability)
        self._next_start = self._monotonic() + self._repeated.pause
