"""The claim on the test boots of one cloud, between threads and processes of one state directory.

Its holder may start one instance for a test, and may terminate all that are left from earlier tests. Nobody
waits for it in a call: a set that needs it waits in the ledger.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uecwatchd.ledger.state_folder import translate_folder_errors
from uecwatchd.system import lockfile


def _lock_file(cloud: str) -> lockfile.LockFile:
    return lockfile.LockFile(
        f"boot-{cloud}.lock",
        f"another test boot is under way on cloud {cloud}",
        "It is over after a quarter of an hour at most; try again then.",
    )


@contextmanager
def claim_boots(state: Path, cloud: str) -> Iterator[None]:
    """Claim the test boots of a cloud. Raises LockTaken if they are claimed."""
    lock = acquire_boots(state, cloud)
    try:
        yield
    finally:
        lockfile.release(lock)


def acquire_boots(state: Path, cloud: str) -> int:
    """Claim the test boots of a cloud for any thread that releases the lock. Raises LockTaken."""
    with translate_folder_errors(state):
        return lockfile.acquire(state, _lock_file(cloud), patience_seconds=0.0)


def are_boots_claimed(state: Path, cloud: str) -> bool:
    """Tell if a thread or a process has the boots of a cloud now."""
    return lockfile.is_locked(state, _lock_file(cloud))
