"""What people ask for, as the daemon heeds it, and how far each set at work has come, as they are told.

Other processes and the daemon meet in the ledger alone. A verb writes down a request or a hold; the daemon
finds it at its next look, and the request goes only once what was asked for has been done, so that no crash
between the two forgets it. The other way round, the daemon writes down now and then how far each set at work
has come.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from uecwatchd.clouds.availability import CloudAvailability
from uecwatchd.errors import UecError
from uecwatchd.events import Event, Kind, Monitor, Progress
from uecwatchd.intake.sets.records import Assembly
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import Advance, Request, SetRecord, Verb
from uecwatchd.service.cleanup import clear_traces
from uecwatchd.service.set_states import SetStates
from uecwatchd.types import SetId

# Often enough for whoever asks again and again, seldom enough to be no load: each is a write to the disk, and
# a set that takes less than this needs none.
ADVANCE_EVERY_SECONDS = 2.0

HELD = "it is held"
FORGOTTEN = "it is to be forgotten"
# What happens to a set that is put down for one of these reasons.
NEXT: Mapping[str, str] = {
    HELD: "It goes on where it was after: {release}",
    FORGOTTEN: "If its files still lie there, it starts again.",
}


# --- what is asked for ------------------------------------------------------------------------------------


class Brake:
    """Which sets at work are to be put down before their next step: set by the loop, asked by workers."""

    def __init__(self) -> None:
        self._why: Mapping[SetId, str] = {}
        self._turn = threading.Lock()

    def put(self, why: Mapping[SetId, str]) -> None:
        with self._turn:
            self._why = dict(why)

    def why(self, set_id: SetId) -> str:
        """The reason to put a set down, empty if there is none."""
        with self._turn:
            return self._why.get(set_id, "")


@dataclass(frozen=True, slots=True)
class Wanted:
    """All that is asked for and not done yet, as one look at the ledger found it."""

    requests: tuple[Request, ...] = ()
    holds: Mapping[SetId, float] = field(default_factory=dict)

    def asked(self, key: SetId, verb: Verb) -> bool:
        return any(r.set_id == key and r.verb == verb for r in self.requests)

    def keys(self, verb: Verb) -> tuple[SetId, ...]:
        """The sets for which something is asked, each once, in the order in which it was."""
        return tuple(dict.fromkeys(r.set_id for r in self.requests if r.verb == verb))

    def brakes(self) -> Mapping[SetId, str]:
        return {**dict.fromkeys(self.holds, HELD), **dict.fromkeys(self.keys("forget"), FORGOTTEN)}


class Control:
    """What is asked for, as the service's loop knows it; belongs to that loop.

    A request that was answered stays answered, also while a full disk keeps its row in the ledger.
    """

    def __init__(self, ledger: Ledger, brake: Brake, states: SetStates) -> None:
        self._ledger = ledger
        self._brake = brake
        self._states = states
        self._answered: set[int] = set()
        self.wanted = Wanted()

    def look(self) -> None:
        """Find out what is asked for. A ledger that cannot be read is told of where a set meets it."""
        with suppress(UecError):
            self.wanted = self._read()
        self._brake.put(self.wanted.brakes())

    def news(self) -> bool:
        """Whether something was asked for since the last look."""
        with suppress(UecError):
            return self._read() != self.wanted
        return False

    def answer(self, key: SetId, verb: Verb) -> None:
        """Be done with all requests of a verb for a set."""
        for request in self.wanted.requests:
            if request.set_id == key and request.verb == verb:
                self._answered.add(request.number)
                with suppress(UecError):
                    self._ledger.drop_request(request)
        open_requests = tuple(r for r in self.wanted.requests if r.number not in self._answered)
        self.wanted = replace(self.wanted, requests=open_requests)
        self._brake.put(self.wanted.brakes())  # or what begins anew would be put down at once

    def held(self, folder: Path) -> Collection[str]:
        """The names of the sets in a folder that are not to be touched."""
        return {name for place, name in self.wanted.holds if place == str(folder)}

    def heed(self, running: Collection[SetId], availability: CloudAvailability, monitor: Monitor) -> bool:
        """Find out what is asked for and do what needs no look at the folders; whether a probe is due now.

        A set at work is put down first, and forgotten once it is.
        """
        before = self.wanted
        self.look()
        for event in news_between(before, self.wanted):
            monitor.tell(event)
        for key in self.wanted.keys("forget"):
            if key not in running:
                self._forget(key, monitor)
        suspended = availability.suspended()
        asked = [self._states.get(key) for key in self.wanted.keys("retry")]
        shut_out = [record for record in asked if record and _is_shut_out(record, suspended)]
        for record in shut_out:
            availability.probe_soon(record.cloud)
            self._states.put(replace(record, next_retry=None))  # it is due as soon as its cloud resumes
            self.answer(record.id, "retry")
        return bool(shut_out)

    def decline(self, folder: Path, assembly: Assembly, running: Collection[SetId]) -> None:
        """Let go of what is asked of sets that are held, wait for a file, or are not there."""
        able = {found.name for found in assembly.ready} | {refused.name for refused in assembly.refused}
        able |= {waiting.name for waiting in assembly.waiting if waiting.ready_at is not None}
        able -= set(self.held(folder))
        for key in self.wanted.keys("retry"):
            if key[0] == str(folder) and key[1] not in able and key not in running:
                self.answer(key, "retry")

    def _forget(self, key: SetId, monitor: Monitor) -> None:
        """What cannot be taken away now, for a full disk say, is so at a later look."""
        if record := self._states.get(key):
            with suppress(UecError):
                clear_traces(record, self._ledger)
                self._states.drop(record)
        if self._states.get(key) is None:
            self.answer(key, "forget")
            monitor.tell(Event(Kind.ASKED, f"{key[1]}: forgotten, as somebody asked", key[1]))

    def _read(self) -> Wanted:
        requests = tuple(r for r in self._ledger.requests() if r.number not in self._answered)
        return Wanted(requests, self._ledger.holds())


def news_between(before: Wanted, after: Wanted) -> Iterator[Event]:
    """What to say of the difference, once for each set."""
    changes = (
        (after.holds.keys() - before.holds.keys(), "held back until it is released"),
        (before.holds.keys() - after.holds.keys(), "released"),
        (set(after.keys("retry")) - set(before.keys("retry")), "to be tried again"),
    )
    for keys, word in changes:
        for _, name in sorted(keys):
            yield Event(Kind.ASKED, f"{name}: {word}, as somebody asked", name)


def _is_shut_out(record: SetRecord, suspended: Collection[str]) -> bool:
    return record.state in ("halted", "deferred") and record.cloud in suspended


# --- what is told -----------------------------------------------------------------------------------------


class AdvanceWriter:
    """The monitor that writes down how far one set has come. What cannot be written stops nobody's work."""

    def __init__(
        self,
        ledger: Ledger,
        record: SetRecord,
        *,
        now: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._key = record.id
        self._now = now
        self._monotonic = monotonic
        self._written = monotonic()
        self._under: tuple[str, str] = ("", "")
        self._began = record.since

    def tell(self, event: Event) -> None:
        """Nothing: a change of state is in the set's record."""

    def progress(self, progress: Progress) -> None:
        if self._under != (progress.stage, progress.file):
            self._under, self._began = (progress.stage, progress.file), self._now()
        if self._monotonic() - self._written < ADVANCE_EVERY_SECONDS:
            return
        self._written = self._monotonic()
        with suppress(UecError):
            self._ledger.put_advance(self._advance(progress))

    def _advance(self, progress: Progress) -> Advance:
        p, moment = progress, self._now()
        return Advance(*self._key, p.stage, p.file, p.done, p.total, p.part, self._began, moment)


def drop_advances(ledger: Ledger, keys: Iterable[SetId] | None = None) -> None:
    """Of sets that are no longer at work; of all, before any is, since a crash leaves some behind."""
    with suppress(UecError):
        for folder, name in tuple(ledger.advances()) if keys is None else keys:
            ledger.drop_advance(folder, name)
