"""Outages of clouds for all hosts with one ledger, each with the host that probes.

A host that finds a cloud away reports that: a row in the ledger. The others see it with their next beat,
suspend the cloud too, and ask it nothing. One host probes it. When it answers, the outage is over, and all
use the cloud again.

The network of the host that reports may be all that is away. So another host probes first, and then each for
a minute at a time: a cloud that answers any of them is used again. A halt is no matter of others, because
credentials, clocks and certificates are those of one host.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

# For so long one host probes, until it is the turn of the next.
TURN_SECONDS = 60.0
# A probe that is so late is made by another host: its own may hang, in a request without an answer.
OVERDUE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Outage:
    """The outage of a cloud, as of the last beat. The first three are the words of the error."""

    what: str
    why: str
    hint: str
    found_by: str  #: host
    prober: str  #: host that probes the cloud; empty if that is not alive
    is_ours: bool  #: that is this host
    probe_in: float  #: seconds until the next probe, negative if that is late

    @property
    def is_abandoned(self) -> bool:
        return not self.prober or self.probe_in < -OVERDUE_SECONDS


class Outages(Protocol):
    """The operations on outages, for any store. They raise what those of the ledger raise."""

    @property
    def read_at(self) -> float:
        """When `current` was read, by the monotonic clock."""

    @property
    def current(self) -> Mapping[str, Outage]:
        """The outages as of the last beat, by cloud."""

    def report(self, cloud: str, words: tuple[str, str, str], *, probe_in: float) -> bool:
        """Report an outage, unless it is known; return True if this host is to probe the cloud.

        `words` are those of the error, `probe_in` the seconds until the first probe.
        """

    def postpone(self, cloud: str, *, probe_in: float) -> bool:
        """Note the next probe after one of this host that failed; return True if that is its own, too."""

    def take_over(self, cloud: str) -> bool:
        """Become the prober if the present one is dead or late; return True if that is so."""

    def end(self, cloud: str) -> None:
        """End an outage: the cloud answers."""

    def probers(self) -> Mapping[str, str]:
        """Return the probing host of each cloud with an outage."""


class NoOutages:
    """The outages of a host that has its ledger for itself: it tells nobody, and probes each cloud."""

    read_at = float("-inf")
    current: Mapping[str, Outage] = MappingProxyType({})

    def report(self, cloud: str, words: tuple[str, str, str], *, probe_in: float) -> bool:
        return True

    def postpone(self, cloud: str, *, probe_in: float) -> bool:
        return True

    def take_over(self, cloud: str) -> bool:
        return True

    def end(self, cloud: str) -> None:
        """Do nothing: no other host waits for that."""

    def probers(self) -> Mapping[str, str]:
        return {}
