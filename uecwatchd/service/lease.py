"""The lease of a service, where several hosts have one ledger: held from its start to its end."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from uecwatchd.errors import Overtaken, UecError
from uecwatchd.ledger.sessions import BEAT_SECONDS, Sessions
from uecwatchd.service.conditions import OUTAGE, Conditions

LEASE, DRAINED = ("lease",), ("drained",)
BEGINS_NOTHING = "This host is drained: it begins nothing new until `uecwatchd drain --undo` ends that"
# At the end: a renewal under way may wait for a database that is away.
JOIN_SECONDS = 1.0


@contextmanager
def leased(
    sessions: Sessions, conditions: Conditions, *, wake: Callable[[], None], beaten: Callable[[], None]
) -> Iterator[None]:
    """Hold a session, and renew its lease in a thread.

    `beaten` is called from there after each renewal. `wake` is called from there when the ledger can be used
    again, or if another host has ended the session: the ledger then says so, too.
    """
    sessions.begin()
    _tell_drained(sessions, conditions)
    over = threading.Event()
    thread = threading.Thread(
        target=_beat, args=(sessions, conditions, wake, beaten, over), name="lease", daemon=True
    )
    if sessions.is_shared:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if sessions.is_shared:
            thread.join(JOIN_SECONDS)
        with suppress(UecError):  # then its lease ends by itself
            sessions.end()


def _beat(
    sessions: Sessions,
    conditions: Conditions,
    wake: Callable[[], None],
    beaten: Callable[[], None],
    over: threading.Event,
) -> None:
    repeated = conditions.recurring("renewing the lease")
    while not over.wait(max(repeated.pause, BEAT_SECONDS)):
        with repeated.attempt():
            try:
                sessions.beat()
            except Overtaken:
                wake()
                return
            except UecError as error:
                conditions.set_error(LEASE, error)
            else:
                if conditions.clear(LEASE) or conditions.lasts(OUTAGE):
                    wake()
                _tell_drained(sessions, conditions)
                beaten()


def _tell_drained(sessions: Sessions, conditions: Conditions) -> None:
    conditions.set(DRAINED, BEGINS_NOTHING if sessions.is_drained else "")
