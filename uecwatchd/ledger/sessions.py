"""Sessions of the hosts with one ledger, and their claims on bundles.

A service has one session for as long as it runs. Where several hosts have one ledger, it holds a lease, which
a thread renews. A host that is dead, frozen or cut off does not renew it. Then another host buries the
session, and may take its claims over. After that the buried host can write nothing more, and its service ends
as soon as it finds out. Resembles the leases of Kubernetes, with the database's clock as the only one.

- Its holder counts the lease by a clock of its own that goes on while the machine sleeps, from before it
  asked for the renewal, and gives up a margin earlier. So it gives up first.
- A host buries others only after a whole lease of unbroken contact of its own: after an outage of the
  database, all of them have had the time to renew theirs.
- Claims of a dead host are taken one by one, by the sets that need them, after the session was buried.

A store for one host needs none of this: its lock of the state directory keeps others out.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, Protocol

from uecwatchd.ledger.outages import NoOutages, Outages
from uecwatchd.ledger.slots import OwnSlots, Slots

# A host that was away for so long is taken for dead. Shorter than that are pauses of virtual machines.
LEASE_SECONDS = 30.0
# Two renewals may fail before a lease ends.
BEAT_SECONDS = 10.0
# What was begun while the lease held, such as one request to a cloud, is on its way by then.
MARGIN_SECONDS = 5.0
# For how long a request of a dead host to register an image may still come through: EC2's read time-out.
SETTLE_SECONDS = 300.0


def boot_time() -> float:
    """Return the seconds since the machine was started, with those that it slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim on one bundle.

    `former` is the host that it was taken over from, empty if there is none. What that host had asked the
    cloud for may still come through for `settles_in` seconds.
    """

    former: str = ""
    settles_in: float = 0.0


UNSHARED = Claim()
HostState = Literal["running", "drained", "silent", "stopped"]


@dataclass(frozen=True, slots=True)
class HostSession:
    """A host, and its last session. Times are seconds of the epoch, by the clock of the database."""

    host: str
    is_drained: bool  #: it begins nothing new
    now: float  #: when this was read
    working: int  #: number of sets at work
    claims: int = 0  #: number of bundles that are kept from the other hosts
    version: str | None = None  #: of the service; None if it never ran
    began: float | None = None
    lease_until: float = 0.0
    ended: float | None = None

    @property
    def is_open(self) -> bool:
        return self.began is not None and self.ended is None

    @property
    def is_at_work(self) -> bool:
        """True while its service runs, and has its lease."""
        return self.state in ("running", "drained")

    @property
    def state(self) -> HostState:
        if self.began is None:
            return "stopped"
        if self.lease_until < (self.now if self.ended is None else self.ended):
            return "silent"  # also after another host has buried it: it has not ended by itself
        if self.ended is not None:
            return "stopped"
        return "drained" if self.is_drained else "running"


class Sessions(Protocol):
    """The operations on sessions, for any store. They raise what those of the ledger raise."""

    def close(self) -> None:
        """End the use of the store."""

    @property
    def host(self) -> str:
        """Name of this host among those with the ledger; empty if it has it for itself."""

    @property
    def is_shared(self) -> bool:
        """True if several hosts may have the ledger: then `beat` is to be called."""

    @property
    def is_away(self) -> bool:
        """True if the store could not be reached the last time: nothing new is to be begun."""

    @property
    def slots(self) -> Slots:
        """The slots for the work of all hosts at one cloud."""

    @property
    def outages(self) -> Outages:
        """The clouds that are away for all hosts."""

    @property
    def is_drained(self) -> bool:
        """True if this host is to begin nothing new, as of the last beat."""

    def begin(self) -> None:
        """Begin the session of this host. Its state directory is locked: an earlier session is over."""

    def beat(self) -> None:
        """Renew the lease, and bury the sessions of dead hosts. Raises Overtaken if this one was buried."""

    def end(self) -> None:
        """End the session, if there is one."""

    def sure(self) -> None:
        """Raise Overtaken if this host has lost its claims, Deferred if that cannot be told now.

        To be called right before an effect that must not happen twice.
        """

    def check_lease(self) -> None:
        """Raise the same if the lease may have ended, by the clock of this host alone."""

    def claimed(self, bundle: str, *, check: Callable[[], None]) -> AbstractContextManager[Claim]:
        """Keep other hosts from a bundle. `check` is called about once a second while another one has it."""

    def same_cloud(self, name: str, place: str) -> str:
        """Return the place of a cloud of this name for all hosts: the first one given by any of them."""

    def hosts(self) -> tuple[HostSession, ...]:
        """Return the hosts, ordered by name."""

    def set_drained(self, host: str, *, is_drained: bool) -> None:
        """Let a host begin nothing new from its next beat on, or let it work again."""


class OneHost:
    """The sessions of a store that one host has for itself."""

    host = ""
    is_shared = is_drained = is_away = False

    def __init__(self) -> None:
        self.slots = OwnSlots()
        self.outages = NoOutages()

    def close(self) -> None:
        """Do nothing: the ledger closes its store."""

    def begin(self) -> None:
        """Do nothing: nobody else can have one."""

    def beat(self) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""

    def sure(self) -> None:
        """Do nothing: nobody takes anything over."""

    def check_lease(self) -> None:
        """Do nothing: there is none."""

    def claimed(self, bundle: str, *, check: Callable[[], None]) -> AbstractContextManager[Claim]:
        return nullcontext(UNSHARED)

    def same_cloud(self, name: str, place: str) -> str:
        return place

    def hosts(self) -> tuple[HostSession, ...]:
        return ()

    def set_drained(self, host: str, *, is_drained: bool) -> None:
        """Do nothing: there is no other host to do the work."""
