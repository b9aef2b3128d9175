"""Notifications for systemd: ready, alive, status, stopping.

It is written here in a few lines, because the unit's `Type=notify` must work without the optional
systemd-python. The protocol is one datagram of `NAME=value` lines to the socket in `$NOTIFY_SOCKET`.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping

from uecwatchd.outputs.progress import ProgressTracker
from uecwatchd.outputs.wording import phrases
from uecwatchd.system.text import printable

# systemd accepts a message at once or is busy; the work must not wait for it.
SEND_TIMEOUT_SECONDS = 1.0
# People read `systemctl status`; systemd sends each change over the bus.
STATUS_SECONDS = 1.0


class Notifier:
    """Sender of notifications to systemd. Without `$NOTIFY_SOCKET` it does nothing."""

    def __init__(
        self,
        environ: Mapping[str, str],
        pid: int | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._clock = clock
        self._summary = self._work = self._shown = ""
        self._unsent = False
        self._lock = threading.Lock()
        self.watchdog_seconds = _watchdog_seconds(environ, pid or os.getpid())

    def ready(self, summary: str) -> None:
        self._say("READY=1", summary=summary)

    def status(self, summary: str) -> None:
        """Set the general status: `Watching 2 folders; 1 waiting`."""
        self._say(summary=summary)

    def work(self, text: str) -> None:
        """Set the current work, shown before the status. Empty if there is none."""
        self._say(work=text)

    def _say(self, *lines: str, summary: str | None = None, work: str | None = None) -> None:
        with self._lock:
            self._summary = self._summary if summary is None else summary
            self._work = self._work if work is None else work
            if not lines and self._status() == self._shown and not self._unsent:
                return
            # A status is not worth waiting for: it is sent again with the next watchdog message.
            self._unsent = not self._send(*lines, self._status(), wait=bool(lines))
            self._shown = self._status()

    def _status(self) -> str:
        # A newline in a file's name would start another assignment, such as STOPPING=1.
        return f"STATUS={printable('; '.join(filter(None, (self._work, self._summary))))}"

    def watchdog(self) -> None:
        with self._lock:
            self._unsent = not self._send("WATCHDOG=1", *([self._status()] if self._unsent else []))

    def reloading(self) -> None:
        """Tell systemd that a reload starts. Call `ready` after it, even if the old configuration is kept."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(self._clock() * 1_000_000)}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """Ask for more time to start or stop, counted from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def _send(self, *lines: str, wait: bool = True) -> bool:
        """Send a message; returns False if it could not be sent now, True also if nobody listens."""
        if not self._address:
            return True
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.settimeout(SEND_TIMEOUT_SECONDS if wait else 0)
            try:
                # The kernel waits for space at the other end only for a connected socket.
                out.connect(self._address)
                out.send("\n".join(lines).encode("utf-8", errors="backslashreplace"))
            except (BlockingIOError, TimeoutError):
                return False
            except OSError:  # nobody listens any more: continue, like libsystemd
                return True
        return True


def _address(text: str) -> str:
    """Return a path, or with `@` a name in Linux's abstract namespace.

    Other kinds of systemd, such as vsock, are not supported.
    """
    if text.startswith("@"):
        return f"\0{text[1:]}"
    return text if text.startswith("/") else ""


def _watchdog_seconds(environ: Mapping[str, str], pid: int) -> float | None:
    """Return how often `watchdog` is due: half of systemd's timeout, as it advises. None if there is none."""
    usec = environ.get("WATCHDOG_USEC", "")
    if not usec.isascii() or not usec.isdigit() or int(usec) == 0:
        return None
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):  # set for a parent process that started us
        return None
    return int(usec) / 1_000_000 / 2


def show_work(notifier: Notifier, tracker: ProgressTracker) -> None:
    """Show progress in `systemctl status`: at most once a second, and each end at once."""
    tracker.subscribe(
        lambda snapshot: notifier.work(phrases(snapshot)), every_seconds=STATUS_SECONDS, ends=True
    )
