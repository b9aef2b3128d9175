"""Copies in the ledger of how far each set has come, for `status` in another process."""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from uecwatchd.errors import UecError
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import ProgressRecord
from uecwatchd.outputs.progress import ProgressTracker, Snapshot
from uecwatchd.types import SetId

# Often enough for a person who watches; each is a write to the disk, and a shorter stage needs none.
ADVANCE_EVERY_SECONDS = 2.0


def track_in_ledger(
    ledger: Ledger,
    set_id: SetId,
    *,
    now: Callable[[], float],
    clock: Callable[[], float] = time.monotonic,
) -> ProgressTracker:
    """Return a tracker for one set that writes to the ledger. A failing write does not stop the work."""

    def write(snapshot: Snapshot) -> None:
        for tracked in snapshot:
            p = tracked.latest
            advance = ProgressRecord(set_id, p.stage, p.file, p.done, p.total, p.part, tracked.began, now())
            with suppress(UecError):
                ledger.put_advance(advance)

    tracker = ProgressTracker(clock=clock, now=now)
    tracker.subscribe(write, every_seconds=ADVANCE_EVERY_SECONDS, at_once=False)
    return tracker


def drop_advances(ledger: Ledger, keys: Iterable[SetId] | None = None) -> None:
    """Remove the copies for some sets, or all that a crash left behind."""
    with suppress(UecError):
        if keys is None:
            keys = tuple(ledger.advances())
        for key in keys:
            ledger.drop_advance(key)
