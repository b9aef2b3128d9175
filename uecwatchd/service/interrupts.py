"""Sets at work that are to stop before their next step: set by the service's loop, read by workers."""

import threading
from collections.abc import Mapping

from uecwatchd.types import SetId

HELD = "it is held"
FORGOTTEN = "it is to be forgotten"
# What happens to the set afterwards, by the reason for stopping it.
NEXT: Mapping[str, str] = {
    HELD: "It continues where it was after: {release}",
    FORGOTTEN: "If its files are still there, it starts again.",
}


class Interrupts:
    """Reasons to stop sets that are at work, `HELD` or `FORGOTTEN`: on one cloud, or "" for all.

    Shared by threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reasons: Mapping[tuple[SetId, str], str] = {}

    def replace(self, reasons: Mapping[tuple[SetId, str], str]) -> None:
        with self._lock:
            self._reasons = dict(reasons)

    def reason(self, set_id: SetId, cloud: str = "") -> str:
        """Return the reason to stop a set on a cloud, or everywhere, empty if there is none."""
        with self._lock:
            return self._reasons.get((set_id, "")) or self._reasons.get((set_id, cloud), "")
