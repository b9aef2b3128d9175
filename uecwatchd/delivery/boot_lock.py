"""The claim on the test boots of one cloud, between threads and processes of one state directory.

Its holder may start one instance for a test, and may terminate all that are left from earlier tests.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from uecwatchd.ledger.state_folder import translate_folder_errors
from uecwatchd.system import lockfile

# A service may wait for a boot by hand as long as that takes.
LOOK_SECONDS = 1.0


def _lock_file(cloud: str) -> lockfile.LockFile:
    return lockfile.LockFile(
        f"boot-{cloud}.lock",
        f"another test boot is under way on cloud {cloud}",
        "It is over after a quarter of an hour at most; try again then.",
    )


@contextmanager
def claim_boots(state: Path, cloud: str, *, check: Callable[[], None] | None) -> Iterator[None]:
    """Claim the test boots of a cloud, and wait for that. `check` is called while it waits, and may raise.

    Without `check` it does not wait: raises LockTaken if the boots are claimed.
    """
    with translate_folder_errors(state):
        lock = _acquire(state, _lock_file(cloud), check)
    try:
        yield
    finally:
        lockfile.release(lock)


def _acquire(state: Path, file: lockfile.LockFile, check: Callable[[], None] | None) -> int:
    while True:
        try:
            return lockfile.acquire(state, file, patience_seconds=0.0)
        except lockfile.LockTaken:
            if check is None:
                raise
        check()
        time.sleep(LOOK_SECONDS)
