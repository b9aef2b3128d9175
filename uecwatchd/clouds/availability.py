"""Circuit breaker for clouds: which of them are suspended, and when to probe each again.

There are two reasons for suspending a cloud:

- A halt: our own side is wrong (credentials, certificates, the clock, the bucket). Every set would fail
  alike, so none is tried until a probe succeeds. A probe cannot see every halt (a missing right to register a
  kernel, for example). So each time that a cloud is suspended again and no set was registered in between, its
  next probe waits twice as long.
- An outage: the cloud does not answer. It comes back by itself. Instead of each set, the probe alone asks it.
  A cloud that comes and goes, and registers no set, is probed less and less as well. Hosts with one ledger
  share their outages: one probes for all. One that finds a cloud away soon after another host had an answer
  is alone with that: its network may be at fault, so it suspends and probes the cloud for itself.

Resembles the circuit breakers of HTTP clients: suspended is "open", a probe is "half-open".
"""

import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from uecwatchd.errors import CloudAway, Halted, UecError, words_of
from uecwatchd.types import SetId

# Soon after an administrator has repaired something, and no burden for a cloud that is being repaired.
FIRST_DELAY_SECONDS = 30.0
LONGEST_DELAY_SECONDS = 3600.0
# People wait for a cloud that is away. Most outages are the restart of a server: it is probed at one rate as
# long as that may take, and then less and less. A few small requests a minute do not burden a server that
# starts.
FIRST_OUTAGE_DELAY_SECONDS = 5.0
FIRST_OUTAGE_MINUTES = 3
LONGEST_OUTAGE_DELAY_SECONDS = 300.0
# Several hosts that lost a cloud in the same moment must not probe it in the same moment.
OUTAGE_JITTER = 0.2

# A suspension after this much time in service has nothing to do with earlier ones.
STEADY_SECONDS = 600.0
# With each suspension in a row, the first probe comes so many times later.
HALT_FACTOR = 2
OUTAGE_FACTOR = 3
MOST_FACTORS = 10  # enough to reach the longest delay
# A host whose network is at fault finds that out so soon after another host said that a cloud answers: the
# requests of its first set may run into several time-outs.
ALONE_SECONDS = 300.0
# Sets in a row that fail although a probe succeeds. One or two may have a problem of their own.
SEVERAL_SETS = 3


@dataclass(frozen=True, slots=True)
class Suspension:
    """Reason and next probe of a suspended cloud. Times are of the monotonic clock."""

    error: Halted | CloudAway
    since: float
    probe_at: float
    delay: float  #: seconds from a probe that failed to the next one
    is_found_here: bool = True  #: and not only by another host
    is_ours: bool = True  #: this host probes
    is_shared: bool = False  #: with other hosts: it ends when one of them gets an answer
    is_alone: bool = False  #: other hosts got an answer a moment ago

    def next_delay(self, now: float) -> float:
        if isinstance(self.error, CloudAway) and now - self.since < 60 * FIRST_OUTAGE_MINUTES:
            return self.delay
        return max(self.delay, min(2 * self.delay, LONGEST_OUTAGE_DELAY_SECONDS))


@dataclass(frozen=True, slots=True)
class _History:
    """History of a cloud since a set was registered there."""

    suspensions: int = 0
    failed_sets: frozenset[SetId] = frozenset()


class CloudAvailability:
    """Circuit breaker: which clouds are suspended, and when to probe each again. Shared by all threads."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, random: Callable[[], float] = random.random
    ) -> None:
        self._clock = clock
        self._random = random
        self._lock = threading.Lock()  # guards all below
        self._suspended: dict[str, Suspension] = {}
        self._history: dict[str, _History] = {}
        self._resumed_at: dict[str, float] = {}
        # When another host said that a cloud answers, after this one had found it away.
        self._told_at: dict[str, float] = {}
        self._succeeded_at: dict[str, float] = {}

    def check(self, name: str) -> None:
        """Raise the error that suspended this cloud, if it is suspended."""
        with self._lock:
            if name in self._suspended:
                raise words_of(self._suspended[name].error)

    def suspended(self) -> Mapping[str, Halted | CloudAway]:
        """Return the suspended clouds, each with the reason."""
        with self._lock:
            return {name: one.error for name, one in self._suspended.items()}

    def suspension(self, name: str) -> Suspension | None:
        """Return how a cloud is suspended, None if it is not."""
        with self._lock:
            return self._suspended.get(name)

    def suspensions(self, name: str) -> int:
        """Count the suspensions in a row: no set registered, and no long time in service between them."""
        with self._lock:
            return self._past(name).suspensions

    def suspend(self, name: str, error: Halted | CloudAway) -> bool:
        """Let no set use a cloud until a probe succeeds. Return False if it is suspended already."""
        with self._lock:
            if name in self._suspended:
                return False
            now, past = self._clock(), self._past(name)
            if now - self._resumed_at.get(name, float("-inf")) > STEADY_SECONDS:
                past = replace(past, suspensions=0)
            self._history[name] = replace(past, suspensions=past.suspensions + 1)
            wait = later = _first_delay(error, past.suspensions)
            if isinstance(error, CloudAway):
                wait = self._jittered(wait)
            else:
                later = FIRST_DELAY_SECONDS
            is_alone = now - self._told_at.get(name, float("-inf")) < ALONE_SECONDS
            self._suspended[name] = Suspension(
                error, now, now + wait, later, is_alone=is_alone and isinstance(error, CloudAway)
            )
            return True

    def follow(self, name: str, error: CloudAway, *, probe_in: float, is_ours: bool) -> bool:
        """Suspend a cloud as other hosts do; return True if it was not suspended before.

        `probe_in` is in seconds. A halt stays what it is.
        """
        is_new = self.suspend(name, error)
        with self._lock:
            one = self._suspended.get(name)
            if one and isinstance(one.error, CloudAway):
                probe_at = self._clock() + probe_in
                self._suspended[name] = replace(
                    one,
                    probe_at=probe_at,
                    is_found_here=one.is_found_here and not is_new,
                    is_ours=is_ours,
                    is_shared=True,
                    is_alone=False,
                )
        return is_new

    def share(self, name: str, *, is_ours: bool) -> None:
        """Note that other hosts know of a suspension, and whether this one is to probe."""
        with self._lock:
            if one := self._suspended.get(name):
                self._suspended[name] = replace(one, is_ours=is_ours, is_shared=True)

    def seconds_to_probe(self, name: str) -> float:
        """Return the seconds until a suspended cloud is probed."""
        with self._lock:
            one = self._suspended.get(name)
            return max(0.0, one.probe_at - self._clock()) if one else 0.0

    def has_succeeded(self, name: str, suspension: Suspension) -> bool:
        """Tell if a set was registered on a cloud since it was suspended."""
        with self._lock:
            return self._succeeded_at.get(name, float("-inf")) > suspension.since

    def extend(self, name: str, error: UecError) -> None:
        """Wait for another probe after one that failed.

        A new halt replaces the reason. An outage does not: it says nothing about what was wrong before.
        """
        with self._lock:
            before, now = self._suspended[name], self._clock()
            delay = before.next_delay(now)
            self._suspended[name] = replace(
                before,
                error=error if isinstance(error, Halted) else before.error,
                probe_at=now + self._jittered(delay),
                delay=delay,
            )

    def resume(self, name: str, *, is_told: bool = False) -> None:
        """Let sets use a cloud again, after a probe that succeeded: of another host, if it `is_told`."""
        with self._lock:
            one = self._suspended.pop(name, None)
            self._resumed_at[name] = self._clock()
            self._told_at.pop(name, None)
            if is_told and one and one.is_found_here:
                self._told_at[name] = self._clock()

    def note_success(self, name: str) -> None:
        """Forget earlier trouble of a cloud: a set has been registered there."""
        with self._lock:
            self._history.pop(name, None)
            self._told_at.pop(name, None)
            self._succeeded_at[name] = self._clock()

    def note_failure(self, name: str, failed: SetId) -> bool:
        """Note that a set got no good answer. Return True if several sets in a row have got none."""
        with self._lock:
            past = self._past(name)
            past = replace(past, failed_sets=past.failed_sets | {failed})
            self._history[name] = past
            return len(past.failed_sets) >= SEVERAL_SETS

    def take_over(self, earlier: "CloudAvailability", names: Iterable[str]) -> None:
        """Keep these clouds suspended as they were in an object that this one replaces.

        Each is probed at once: an administrator who reloads the configuration may have repaired it.
        """
        wanted = frozenset(names)
        with earlier._lock:
            suspended = {name: one for name, one in earlier._suspended.items() if name in wanted}
            numbers = {name: one.suspensions for name, one in earlier._history.items() if name in wanted}
        with self._lock:
            self._suspended.update({n: replace(one, probe_at=self._clock()) for n, one in suspended.items()})
            for name, number in numbers.items():
                self._history[name] = replace(self._past(name), suspensions=number)

    def probe_soon(self, name: str) -> None:
        """Make a probe of a suspended cloud due now, and by this host."""
        with self._lock:
            if one := self._suspended.get(name):
                self._suspended[name] = replace(one, probe_at=self._clock(), is_ours=True)

    def probe_times(self) -> Mapping[str, float]:
        """Return when, by the clock, each suspended cloud is to be probed."""
        with self._lock:
            return {name: one.probe_at for name, one in self._suspended.items()}

    def next_probe(self) -> float | None:
        """Return when, by the clock, the next probe of this host is due."""
        with self._lock:
            return min((one.probe_at for one in self._suspended.values() if one.is_ours), default=None)

    def due(self) -> tuple[str, ...]:
        """Return the suspended clouds that this host is to probe now."""
        with self._lock:
            now = self._clock()
            return tuple(name for name, one in self._suspended.items() if one.is_ours and now >= one.probe_at)

    def _past(self, name: str) -> _History:
        return self._history.get(name, _History())

    def _jittered(self, delay: float) -> float:
        return delay * (1 - OUTAGE_JITTER / 2 + OUTAGE_JITTER * self._random())


def _first_delay(error: Halted | CloudAway, earlier: int) -> float:
    """Return the seconds from a suspension to its first probe, after so many `earlier` ones in a row."""
    away = isinstance(error, CloudAway)
    first, factor = (
        (FIRST_OUTAGE_DELAY_SECONDS, OUTAGE_FACTOR) if away else (FIRST_DELAY_SECONDS, HALT_FACTOR)
    )
    delay: float = first * factor ** min(earlier, MOST_FACTORS)
    return min(delay, LONGEST_DELAY_SECONDS)
