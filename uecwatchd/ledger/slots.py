"""Slots: what all hosts with one ledger do at one cloud at once, such as sending parts of uploads.

A limit of a cloud is that many slots. A host takes some, has them for as long as it needs them, and shares
them among its threads: nothing is asked of the ledger for a single part. They are free again when the session
of the host is over, however that ended. A limit for the load of a cloud needs no more than that: a host that
was taken for dead, and is not, may still send a part.

- Of different numbers in the configurations of hosts the smallest counts. It counts on all of them.
- A host takes half of what is free, so that the next one finds some too, and more of it later.
- Hosts that wait are served in their order. While one waits, the others give up what is above an equal share:
  with each beat of their leases. If there are more hosts than slots, that is all they have: each slot goes
  from host to host with the beats.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

Use = Literal["uploads", "registrations"]
USES: tuple[Use, ...] = ("uploads", "registrations")


class SlotKey(NamedTuple):
    """The key of a limit."""

    cloud: str
    use: Use


@dataclass(frozen=True, slots=True)
class SlotLimit:
    """A limit, and how it was used at the last look."""

    most: int
    host: str = ""  #: that is configured with this number; empty for a ledger of one host
    waiting: int = 0  #: other hosts without a slot that want one
    sharing: int = 1  #: hosts that have slots or wait
    taken: int = 0  #: slots that hosts have


Limits = Mapping[SlotKey, SlotLimit]


def slots_to_keep(used: int, limit: SlotLimit) -> int:
    """Return how many slots a host is to keep.

    `used` is how many it needs now, or has needed since the last look.
    """
    share = limit.most // max(1, limit.sharing) if limit.waiting else limit.most
    return min(used, share)


class Slots(Protocol):
    """The operations on slots, for any store. They raise what those of the ledger raise."""

    @property
    def limits(self) -> Limits:
        """The limits of all clouds as of the last look, which comes with each beat."""

    def announce(self, clouds: Sequence[str], own: Mapping[SlotKey, int], *, probes: bool) -> None:
        """Say what clouds this host has, with its own limits, and whether it probes the suspended ones."""

    def take(self, key: SlotKey, most: int, *, waits: bool) -> tuple[int, ...]:
        """Take up to so many free slots, and return their numbers.

        With `waits`, a host that gets none is in the queue of those that wait from now on.
        """

    def wait_no_more(self, key: SlotKey) -> None:
        """Leave the queue of hosts that wait."""

    def give_back(self, taken: Mapping[SlotKey, Sequence[int]]) -> None:
        """Let other hosts have these slots."""


class OwnSlots:
    """The slots of a host that has its ledger for itself. All free ones are its own."""

    def __init__(self) -> None:
        self.limits: Limits = {}

    def announce(self, clouds: Sequence[str], own: Mapping[SlotKey, int], *, probes: bool) -> None:
        self.limits = {key: SlotLimit(most) for key, most in own.items()}

    def take(self, key: SlotKey, most: int, *, waits: bool) -> tuple[int, ...]:
        return tuple(range(most))

    def wait_no_more(self, key: SlotKey) -> None:
        """Do nothing: there is no other host to wait for."""

    def give_back(self, taken: Mapping[SlotKey, Sequence[int]]) -> None:
        """Do nothing: nobody else wants them."""
