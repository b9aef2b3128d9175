"""The thread that asks clouds which cannot be used whether they can be now.

A cloud that takes a call and never answers may not hang the service's loop. The thread ends with the process,
so that a stop need not wait for such an answer either.
"""

import threading
import time
from collections.abc import Callable

from uecwatchd.clouds.availability import TOLD_CLOSINGS, Gates
from uecwatchd.service.requests import ProbeWriter
from uecwatchd.system.unforeseen import OurFault, Recurring


class Asking:
    """Belongs to the service's loop.

    `opened` is called from the thread with the name of each cloud that answered, and whether that is to be
    told: of one that comes and goes only a few times. `fault` is called with faults of our own.
    """

    def __init__(
        self,
        writer: ProbeWriter,
        *,
        opened: Callable[[str, bool], None],
        fault: Callable[[OurFault], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writer = writer
        self._opened = opened
        self._again = Recurring("asking the clouds", tell=fault)
        self._again_at = float("-inf")
        self._monotonic = monotonic
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def ask(self, gates: Gates) -> None:
        """Ask those whose time has come, unless somebody is being asked already."""
        if not gates.probe_due() or self.busy or self._monotonic() < self._again_at:
            return
        self._thread = threading.Thread(target=self._ask, args=(gates,), daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Wait for the answers, but no longer than that."""
        if self._thread:
            self._thread.join(seconds)

    def _ask(self, gates: Gates) -> None:
        with self._again.guarded():
            for name in gates.probe():
                self._opened(name, gates.closings(name) < TOLD_CLOSINGS)
            self._writer.write(gates)
        self._again_at = self._monotonic() + self._again.pause
