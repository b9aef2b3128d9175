"""The claim on the test boots of one account, between threads and processes of one state directory.

Its holder may start one instance for a test, and may terminate all that are left from earlier tests. So two
names for one account in the configuration have one claim. Nobody waits for it in a call: a set that needs it
waits in the ledger.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uecwatchd.clouds.credentials.account import Account
from uecwatchd.ledger.state_folder import translate_folder_errors
from uecwatchd.system import lockfile


def _lock_file(account: Account) -> lockfile.LockFile:
    words = " ".join(part or "-" for part in account.identity)
    return lockfile.LockFile(
        f"boot-{hashlib.sha256(words.encode()).hexdigest()[:16]}.lock",
        f"another test boot is under way on cloud {account.cloud}",
        "It is over after a quarter of an hour at most; try again then.",
    )


@contextmanager
def claim_boots(state: Path, account: Account) -> Iterator[None]:
    """Claim the test boots of an account. Raises LockTaken if they are claimed."""
    lock = acquire_boots(state, account)
    try:
        yield
    finally:
        lockfile.release(lock)


def acquire_boots(state: Path, account: Account) -> int:
    """Claim the test boots of an account for any thread that releases the lock. Raises LockTaken."""
    with translate_folder_errors(state):
        return lockfile.acquire(state, _lock_file(account), patience_seconds=0.0)


def are_boots_claimed(state: Path, account: Account) -> bool:
    """Tell if a thread or a process has the boots of an account now."""
    return lockfile.is_locked(state, _lock_file(account))
