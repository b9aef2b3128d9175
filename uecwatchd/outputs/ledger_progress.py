"""Copies in the ledger of how far each set has come, for `status` in another process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from uecwatchd.errors import UecError
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import ProgressRecord
from uecwatchd.outputs.progress import ProgressTracker, Snapshot
from uecwatchd.types import SetId

# Often enough for a person who watches; each is a write to the disk, and a shorter stage needs none.
WRITE_EVERY_SECONDS = 2.0


@contextmanager
def progress_in_ledger(
    tracker: ProgressTracker, ledger: Ledger, set_id: SetId, *, now: Callable[[], float]
) -> Iterator[None]:
    """Copy the progress of a set to the ledger while this lasts. A failing write does not stop the work."""
    is_written = False

    def write(snapshot: Snapshot) -> None:
        nonlocal is_written
        is_written = True
        for tracked in snapshot:
            p = tracked.latest
            progress = ProgressRecord(set_id, p.stage, p.file, p.done, p.total, p.part, tracked.began, now())
            with suppress(UecError):
                ledger.put_progress(progress)

    try:
        with tracker.following(set_id, write, every_seconds=WRITE_EVERY_SECONDS):
            yield
    finally:
        if is_written:
            ledger.drop_progress(set_id)


def drop_progress(ledger: Ledger) -> None:
    """Remove all copies, which a crash has left behind."""
    with suppress(UecError):
        for key in tuple(ledger.progress()):
            ledger.drop_progress(key)
