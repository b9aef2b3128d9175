"""The other hosts with the same ledger, read for the page and for the metrics.

There may be a hundred of them with hundreds of thousands of sets. So their sets are counted by an index, and
read only while they are not done or shortly after; and not each time that the page is written.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from uecwatchd.events import Progress
from uecwatchd.ledger.history import AttemptRecord
from uecwatchd.ledger.other_hosts import HostCount, OtherHosts
from uecwatchd.ledger.records import ProgressRecord, SetRecord
from uecwatchd.ledger.sessions import HostSession, Sessions
from uecwatchd.outputs.progress import TrackedProgress, rate
from uecwatchd.outputs.situation import Situation
from uecwatchd.types import SetId

# As many as a page shows in all. A busy team has some hundred sets. Each takes about 2 KiB in the JSON, and
# 1 KiB in the page.
MOST_SETS = 500
MOST_ATTEMPTS = 50
# What ended before is in the history, and for each host in its own page.
RECENT_SECONDS = 86400.0
# With six statements at a time, a hundred hosts ask twenty times a second. With a large ledger, each of them
# keeps the database busy for a hundredth of the time at most.
PAUSE_SECONDS = 30.0
PAUSE_TIMES = 99


@dataclass(frozen=True, slots=True)
class FleetOverview:
    """The hosts of a fleet at one moment, and the sets of the others that are to be shown."""

    host: str = ""  #: name of this one; empty without a fleet
    hosts: tuple[HostSession, ...] = ()  #: all of them, ordered by name
    situation: Situation = field(default_factory=Situation)
    counts: Mapping[HostCount, int] = field(default_factory=dict)  #: of all sets of the others
    progress: Mapping[SetId, TrackedProgress] = field(default_factory=dict)
    recent: tuple[AttemptRecord, ...] = ()  #: the newest first

    def counts_of(self, host: str) -> Mapping[str, int]:
        """Return the numbers of sets of another host by state. Those of a dead host are not at work."""
        works = any(one.host == host and one.is_at_work for one in self.hosts)
        found: dict[str, int] = {}
        for (name, state), number in self.counts.items():
            if name == host:
                shown = "queued" if state == "working" and not works else state
                found[shown] = found.get(shown, 0) + number
        return found


class FleetReader:
    """Reads the other hosts. Belongs to one thread.

    `is_shown` tells if a set is shown at all.
    """

    def __init__(
        self,
        sessions: Sessions,
        others: OtherHosts,
        *,
        is_shown: Callable[[SetRecord], bool],
        monotonic: Callable[[], float],
    ) -> None:
        self._sessions = sessions
        self._others = others
        self._is_shown = is_shown
        self._monotonic = monotonic
        self._next = float("-inf")
        self._last = FleetOverview()

    def hosts(self) -> FleetOverview:
        """Return the hosts alone."""
        host = self._sessions.host
        return FleetOverview(host, self._sessions.hosts()) if host else FleetOverview()

    def read(self, *, now: float) -> FleetOverview:
        """Return all of it, with the sets as of the last seconds. `now` is in seconds of the epoch."""
        found = self.hosts()
        if not found.host:
            return found
        if (began := self._monotonic()) >= self._next:
            self._last = self._read(found, now)
            ended = self._monotonic()
            self._next = ended + max(PAUSE_SECONDS, PAUSE_TIMES * (ended - began))
        return replace(self._last, hosts=found.hosts)

    def _read(self, found: FleetOverview, now: float) -> FleetOverview:
        others = self._others
        latest = others.latest(MOST_SETS, ended_after=now - RECENT_SECONDS)
        records = tuple(filter(self._is_shown, latest))
        alive = {one.host for one in found.hosts if one.is_at_work}
        at_work = (one.id for one in records if one.state == "working" and one.id.host in alive)
        return replace(
            found,
            situation=Situation(records, others.holds(), frozenset(at_work)),
            counts=others.count(),
            progress={set_id: _tracked(one) for set_id, one in others.progress().items()},
            recent=others.recent(MOST_ATTEMPTS),
        )


def _tracked(one: ProgressRecord) -> TrackedProgress:
    latest = Progress(one.set_id, one.stage, one.file, one.done, one.total, one.part)
    return TrackedProgress(latest, one.began, rate(one.done, one.moment - one.began))
