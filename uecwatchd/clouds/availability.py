"""Whether a cloud may be worked against: closed by a halt or an outage, opened again by a probe.

A halt is our own side being wrong: credentials, certificates, the clock, the bucket.
Every set would fail of it alike, so none is tried until a probe shows that it has passed.
Some halts no probe can see, a right that is missing to register a kernel for one: so each time that a gate
closes again without a single set having come through, the next probe waits twice as long.

An outage is a cloud that does not answer. One request that fails says little, a server that is busy drops
some: so whoever meets with it asks once more by a probe, and only if that fails too the gate is closed.
From then on the probe alone asks, instead of each set. One that comes and goes without a set coming through
is asked less and less as well.

Behind a gate there is a generation of cloud, which the rules of sets depend on: named in the configuration,
or found out by the first that enters. Until then it is taken for the one that was found the last time.
"""

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.connect import connect_as, detected, translated_troubles
from uecwatchd.clouds.credentials.gather import gather
from uecwatchd.clouds.detect import DetectedDialect
from uecwatchd.clouds.dialects import DIALECTS, Dialect
from uecwatchd.clouds.objects import ensure_bucket
from uecwatchd.clouds.presumed import assume_dialects, undetected
from uecwatchd.clouds.registration import probe_ec2
from uecwatchd.config.records import CloudSettings
from uecwatchd.errors import CloudAway, Halted, Stopped, UecError, cause_of, words_of
from uecwatchd.system.signals import NEVER, Stop
from uecwatchd.types import DetectedCloud

# Soon after an administrator has mended something, and no nuisance to a cloud that is being mended.
FIRST_DELAY_SECONDS = 30.0
LONGEST_DELAY_SECONDS = 3600.0
# A cloud that is away comes back by itself, and people are waiting for it then. Most outages are a server
# that is started again: it is asked at one pace as long as that may take, and then less and less. A few small
# requests in a minute are nothing to a server that comes up.
FIRST_OUTAGE_DELAY_SECONDS = 5.0
FIRST_OUTAGE_MINUTES = 3
LONGEST_OUTAGE_DELAY_SECONDS = 300.0
# Either way: several hosts that lost one cloud in one moment are not to find it again in one moment.
OUTAGE_JITTER = 0.2


# A gate that was open for so long before it closes has nothing to do with what closed it earlier.
STEADY_SECONDS = 600.0
# How often in a row a gate's closing is told, and how much later each time an outage is first probed.
TOLD_CLOSINGS = 3
OUTAGE_TIMES = 3
MOST_TIMES = 10  # enough to reach the longest delay
# Sets that get no good answer one after the other, where a probe does. One or two may have their own trouble.
SEVERAL_SETS = 3


@dataclass(frozen=True, slots=True)
class Closed:
    """`since` and `probe_at` by the clock; `delay` is in seconds, from a probe that failed to the next.

    `told` are the causes that somebody has told since.
    """

    error: Halted | CloudAway
    since: float
    probe_at: float
    delay: float
    told: frozenset[str] = frozenset()

    def next_delay(self, now: float) -> float:
        if isinstance(self.error, CloudAway) and now - self.since < 60 * FIRST_OUTAGE_MINUTES:
            return self.delay
        return max(self.delay, min(2 * self.delay, LONGEST_OUTAGE_DELAY_SECONDS))


class Gates:
    """One gate for each configured cloud. Clients are made at first use and shared by all threads.

    `bucket` is the one sets use unless their sidecars say otherwise: no gate opens before it can be used.
    `before` is what clouds were found to be earlier. `met` is told of each cloud that is entered for the
    first time, and of one that has become another since; `missed` of each halt that a probe has met, once.
    """

    def __init__(
        self,
        clouds: Mapping[str, CloudSettings],
        *,
        uploads: int,
        bucket: str,
        before: Mapping[str, DetectedCloud] | None = None,
        met: Callable[[Cloud, DetectedDialect], None] = lambda _cloud, _found: None,
        missed: Callable[[UecError], None] = lambda _error: None,
        clock: Callable[[], float] = time.monotonic,
        spread: Callable[[], float] = random.random,
        stop: Stop = NEVER,
    ) -> None:
        self._settings = clouds
        self._before = before or {}
        self._met = met
        self._missed = missed
        self._uploads = uploads
        self._bucket = bucket
        self._clock = clock
        self._spread = spread
        self._stop = stop
        self._turn = threading.Lock()
        self._connecting = threading.Lock()
        self._doubting = threading.Lock()
        self._open: dict[str, Cloud] = {}
        self._in_vain: dict[str, set[str]] = {}
        self._closed: dict[str, Closed] = {}
        self._closings: dict[str, int] = {}
        self._opened: dict[str, float] = {}
        self._known: dict[str, Dialect] = {}

    def enter(self, name: str) -> Cloud:
        """The cloud, ready to be asked. Raises the error that closed its gate, or that keeps us out."""
        if cloud := self._within(name):
            return cloud
        with self._connecting, translated_troubles(name):  # nobody else needs to ask meanwhile
            return self._within(name) or self._connect(name)

    def _within(self, name: str) -> Cloud | None:
        with self._turn:
            if name in self._closed:
                raise words_of(self._closed[name].error)
            return self._open.get(name)

    def dialects(self) -> Mapping[str, Dialect]:
        """What each cloud is, as far as that is known now."""
        return {**assume_dialects(self._settings, self._before), **self._known}

    def strange(self) -> Mapping[str, UecError | None]:
        """The clouds of which nothing is known, not even from earlier, and why, once they were asked."""
        unknown, closed = undetected(self._settings, self._before), self.closed()
        return {name: closed.get(name) for name in unknown if name not in self._known}

    def recognise(self) -> None:
        """Enter every cloud whose generation has still to be found out. One that keeps us out is closed."""
        for name in self._unknown():
            try:
                self.enter(name)
            except Stopped:
                return
            except Halted as error:
                self.close(name, error)
                self._missed(error)
            except UecError as error:
                self._close_away(name, error)

    def _unknown(self) -> list[str]:
        named = (name for name, settings in self._settings.items() if settings.dialect not in DIALECTS)
        return [name for name in named if name not in self._known and name not in self._closed]

    def close(self, name: str, error: Halted) -> None:
        """Let nobody in until a probe succeeds; whoever calls tells why. Closing a closed gate changes
        nothing."""
        self._close(name, error, first=FIRST_DELAY_SECONDS, times=2, later=FIRST_DELAY_SECONDS)

    def _close_away(self, name: str, error: UecError) -> None:
        away = error if isinstance(error, CloudAway) else CloudAway(error.what, error.why, error.hint)
        self._close(name, away, first=FIRST_OUTAGE_DELAY_SECONDS, times=OUTAGE_TIMES, later=None)

    def _close(
        self, name: str, error: Halted | CloudAway, *, first: float, times: int, later: float | None
    ) -> None:
        """The first probe is due after `first` seconds, `times` as many if it is the second closing in a row,
        and so on; the next one `later` than that, or as late again."""
        with self._turn:
            if name in self._closed:
                return
            now = self._clock()
            if now - self._opened.get(name, float("-inf")) > STEADY_SECONDS:
                self._closings.pop(name, None)
            before = self._closings.get(name, 0)
            self._closings[name] = before + 1
            delay = min(first * times ** min(before, MOST_TIMES), LONGEST_DELAY_SECONDS)
            wait = delay if later else self._jittered(delay)
            self._closed[name] = Closed(error, now, now + wait, later or delay, frozenset({_cause(error)}))
            self._open.pop(name, None)

    def closings(self, name: str) -> int:
        """How often in a row the gate was closed with no set coming through and no long time between."""
        return self._closings.get(name, 0)

    def go_on_from(self, earlier: "Gates") -> None:
        """Keep closed what is closed, for clouds of which the configuration says the same as before.

        Whoever had the configuration read again may have mended what it names, so each is probed at once.
        """
        same = {name for name, one in self._settings.items() if one == earlier._settings.get(name)}
        with earlier._turn:
            closed = {name: one for name, one in earlier._closed.items() if name in same}
            closings = {name: number for name, number in earlier._closings.items() if name in same}
        with self._turn:
            self._closed.update({n: replace(one, probe_at=self._clock()) for n, one in closed.items()})
            self._closings.update(closings)

    def away(self, name: str) -> bool:
        """Whether a cloud that gave somebody no answer is away for everybody; if so, its gate is closed."""
        with self._doubting:  # one asks for all whom the same outage has met
            if name not in self.closed():
                self._doubt(name)
        return isinstance(self.closed().get(name), CloudAway)

    def _doubt(self, name: str) -> None:
        try:
            self._ask(name)
        except CloudAway as error:
            self._close_away(name, error)
        except Halted as error:
            self.close(name, error)
            self._missed(error)
        except UecError:
            return  # it answered, and of what it said each set will hear in its turn

    def in_vain(self, name: str, error: CloudAway, *, of: str) -> bool:
        """Whether the set `of`, which got no good answer, is to wait for its cloud, and not by itself.

        A cloud may answer probes and do nothing for anybody: after several sets in a row it counts as away.
        """
        if self.away(name):
            return True
        with self._turn:
            met = self._in_vain.setdefault(name, set())
            met.add(of)
            several = len(met) >= SEVERAL_SETS
        if several:
            self._close_away(name, CloudAway(f"cloud {name}", error.why, error.hint))
        return several

    def came_through(self, name: str) -> None:
        """A set has been registered: whatever closed this gate before is over."""
        with self._turn:
            self._closings.pop(name, None)
            self._in_vain.pop(name, None)

    def closed(self) -> Mapping[str, Halted | CloudAway]:
        with self._turn:
            return {name: closed.error for name, closed in self._closed.items()}

    def hurry(self, name: str) -> None:
        """Probe a closed gate at the next occasion, since somebody asked for it."""
        with self._turn:
            if closed := self._closed.get(name):
                self._closed[name] = replace(closed, probe_at=self._clock())

    def next_probe(self) -> float | None:
        """When, by the clock, the next closed gate is to be tried."""
        with self._turn:
            return min((closed.probe_at for closed in self._closed.values()), default=None)

    def probes(self) -> Mapping[str, float]:
        """When, by the clock, each closed gate is to be tried."""
        with self._turn:
            return {name: closed.probe_at for name, closed in self._closed.items()}

    def probe_due(self) -> bool:
        with self._turn:
            now = self._clock()
            return bool(self._unknown()) or any(now >= each.probe_at for each in self._closed.values())

    def probe(self) -> tuple[str, ...]:
        """Try each closed gate whose time has come with fresh credentials; the names of those now open."""
        self.recognise()
        with self._turn:
            due = [name for name, closed in self._closed.items() if self._clock() >= closed.probe_at]
        return tuple(name for name in due if self._opens(name))

    def _opens(self, name: str) -> bool:
        try:
            self._ask(name)
        except UecError as error:
            self._stay_closed(name, error)
            return False
        with self._turn:
            self._closed.pop(name, None)
            self._opened[name] = self._clock()
        return True

    def _ask(self, name: str) -> None:
        """The probe: all that every set needs of a cloud, with credentials read anew."""
        with translated_troubles(name):
            with self._connecting:
                cloud = self._connect(name)
            probe_ec2(cloud)
            ensure_bucket(cloud, self._bucket)

    def _stay_closed(self, name: str, error: UecError) -> None:
        """A cloud that is away says nothing of what closed its gate; another halt is the newer reason."""
        with self._turn:
            before, now = self._closed[name], self._clock()
            other = isinstance(error, Halted) and _cause(error) != _cause(before.error)
            news = other and _cause(error) not in before.told
            delay = before.next_delay(now)
            self._closed[name] = replace(
                before,
                error=error if other else before.error,  # type: ignore[arg-type]  # it is a Halted then
                probe_at=now + self._jittered(delay),
                delay=delay,
                told=before.told | {_cause(error)},
            )
        if news:
            self._missed(error)

    def _jittered(self, delay: float) -> float:
        return delay * (1 - OUTAGE_JITTER / 2 + OUTAGE_JITTER * self._spread())

    def _connect(self, name: str) -> Cloud:
        settings = self._settings[name]
        account = gather(settings)
        found = detected(settings, account, stop=self._stop)
        cloud = connect_as(account, found, uploads=self._uploads, stop=self._stop)
        with self._turn:
            self._open[name] = cloud
            news = self._known.get(name) != found.dialect
            self._known[name] = found.dialect
        if news:
            self._met(cloud, found)
        return cloud


def _cause(error: UecError) -> str:
    return f"{error.kind}: {cause_of(error.why)}"
