"""Messages to systemd about the service: ready, alive, and a line of status."""

from collections.abc import Callable

from uecwatchd.outputs.systemd import Notifier
from uecwatchd.service.conditions import Conditions

LATE = "late"  # the topic of late scans
# Between two lines for `systemctl status` while sets are only being reported.
IDLE_STATUS_SECONDS = 2.0
# Additional time that is requested from systemd during the first scan.
STARTING_SECONDS = 60.0
# Between two messages during a long scan, if systemd does not say how often it expects them.
BEAT_SECONDS = 5.0


class Heartbeat:
    """Decides when systemd gets a message. Belongs to the service's loop.

    Only the loop tells systemd that the service is alive, so that a hang in a scan or a dead mount is
    noticed.
    """

    def __init__(self, conditions: Conditions, *, monotonic: Callable[[], float]) -> None:
        self._conditions = conditions
        self._monotonic = monotonic
        self._notifier = Notifier({})
        self._is_ready = False
        self._next_beat = self._next_status = float("-inf")

    def begin(self, notifier: Notifier) -> None:
        """Send messages from now on."""
        self._notifier = notifier

    def limit(self, pause: float) -> float:
        """Shorten a pause to the time in which systemd expects a message."""
        return min(pause, self._notifier.watchdog_seconds or pause)

    def ready(self, summary: str) -> None:
        self._notifier.ready(summary)
        self._is_ready = True

    def status_due(self) -> bool:
        return self._monotonic() >= self._next_status

    def status(self, summary: str) -> None:
        self._next_status = self._monotonic() + IDLE_STATUS_SECONDS
        self._notifier.status(summary)

    def reloading(self) -> None:
        self._notifier.reloading()

    def stopping(self) -> None:
        self._notifier.stopping()

    def alive(self, *, late: str) -> None:
        """Tell systemd that the service is alive, unless its scans are `late`, for this reason."""
        if not late:
            self._notifier.watchdog()
        text = late and f"Scans are late, so systemd's watchdog is not notified: {late}"
        self._conditions.set((LATE,), text, level="error", once=True)

    def progressed(self) -> None:
        """Tell systemd during a long scan that it makes progress, but not too often.

        A real hang, for example in a dead mount, never gets here.
        """
        now = self._monotonic()
        if now < self._next_beat:
            return
        watchdog = self._notifier.watchdog_seconds
        self._next_beat = now + (watchdog / 2 if watchdog else BEAT_SECONDS)
        if self._is_ready:
            self._notifier.watchdog()
        else:
            self._notifier.extend(STARTING_SECONDS)
