"""Requests of people (retry, forget, hold, release), as the daemon carries them out.

Other processes and the daemon meet in the ledger only. A verb writes a request or a hold; the daemon finds it
at its next scan, and deletes the request only when it has been carried out, so that a crash in between does
not lose it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from uecwatchd.clouds.availability import CloudAvailability
from uecwatchd.errors import UecError
from uecwatchd.events import Event, Kind, Listener
from uecwatchd.intake.sets.records import FolderSets, ImageSet
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import Asked, Request, SetRecord, Verb
from uecwatchd.ledger.standing import by_cloud, with_each
from uecwatchd.outputs import result_files
from uecwatchd.service.cleanup import clear_history, clear_traces, forget_on_cloud
from uecwatchd.service.interrupts import FORGOTTEN, HELD, Interrupts
from uecwatchd.service.set_states import SetStates
from uecwatchd.types import SetId

# Requests about published images, which a thread of its own carries out.
RETIRING: frozenset[Verb] = frozenset({"withdraw", "rollback", "prune", "mark"})


@dataclass(frozen=True, slots=True)
class OpenRequests(Asked):
    """All requests that are not carried out yet, and all holds, as read from the ledger at one moment."""

    def has(self, key: SetId, verb: Verb) -> bool:
        return bool(self.of(key, verb))

    def of(self, key: SetId, verb: Verb) -> tuple[Request, ...]:
        return tuple(r for r in self.requests if r.set_id == key and r.verb == verb)

    def leaving(self) -> frozenset[SetId]:
        """Return the sets whose images are to be taken back: nothing is published of them before."""
        return frozenset(one.set_id for one in self.requests if one.verb in ("withdraw", "rollback"))

    def sets(self, verb: Verb) -> tuple[SetId, ...]:
        """Return the sets with a request of this verb, each once, the oldest request first."""
        return tuple(dict.fromkeys(r.set_id for r in self.requests if r.verb == verb))

    def interrupts(self) -> Mapping[tuple[SetId, str], str]:
        """Return the sets that may not be worked on, each with a cloud or "" for all, and the reason."""
        held = [(key, "") for key in self.holds]
        held += [(key, cloud) for key, clouds in self.cloud_holds.items() for cloud in clouds]
        forgotten = [(one.set_id, one.cloud) for one in self.requests if one.verb == "forget"]
        return {**dict.fromkeys(held, HELD), **dict.fromkeys(forgotten, FORGOTTEN)}


class Requests:
    """Requests and holds as the service's loop knows them; belongs to that loop.

    A request that was carried out is not carried out again while a full disk keeps its row in the ledger.
    """

    def __init__(self, ledger: Ledger, interrupts: Interrupts, states: SetStates) -> None:
        self._ledger = ledger
        self._interrupts = interrupts
        self._states = states
        self._finished: set[int] = set()
        self._removed: frozenset[SetId] = frozenset()
        self._to_prune: dict[SetId, Request] = {}
        self._asked = 0
        self._told = self.open = OpenRequests()

    def update(self) -> None:
        """Read requests and holds. An unreadable ledger is reported by the first set in need of it."""
        with suppress(UecError):
            self.open = self._read()
        self._interrupts.replace(self.open.interrupts())

    def changed(self) -> bool:
        """Tell if there is a change in the ledger since the last update."""
        with suppress(UecError):
            return self._read() != self.open
        return False

    def finish(self, done: Iterable[Request]) -> None:
        """Delete requests that have been carried out. Newer ones for the same set stay open."""
        for request in done:
            if request.number < 0:
                self._to_prune.pop(request.set_id, None)
                continue
            self._finished.add(request.number)
            with suppress(UecError):
                self._ledger.drop_request(request)
        self.open, self._told = (
            replace(known, requests=tuple(r for r in known.requests if r.number not in self._finished))
            for known in (self.open, self._told)
        )
        self._interrupts.replace(self.open.interrupts())  # or a set that starts again would stop at once

    def held_names(self, folder: Path) -> Collection[str]:
        """Return the names of the sets in a folder that are held."""
        return {name for place, name in self.open.holds if place == str(folder)}

    def carry_out(
        self,
        is_busy: Callable[[SetId, str], bool],
        availability: CloudAvailability,
        listener: Listener,
        *,
        builds: Path,
        is_known: Callable[[SetId], bool] = lambda _set_id: True,
    ) -> bool:
        """Update, and do what needs no scan. Return True if a cloud is to be probed now.

        A set at work, by `is_busy` on a cloud, stops first, and is forgotten at a later call. Its retry waits
        for the attempt's end. What is not `is_known` is left to another host, or to a later scan.
        """
        self.update()
        before, self._told = self._told, self.open
        for event in events_between(before, self.open):
            if event.set is None or is_known(event.set):
                listener.tell(event)
        for request in [one for one in self.open.requests if one.verb == "forget"]:
            if is_busy(request.set_id, request.cloud) or not is_known(request.set_id):
                continue
            if request.cloud:
                self._forget_on_cloud(request, listener)
            else:
                self._forget(request.set_id, listener, builds)
        is_blocked = False
        for record in filter(None, map(self._states.get, filter(is_known, self.open.sets("retry")))):
            is_blocked |= self._await_clouds(record, is_busy, availability)
        return is_blocked

    def _await_clouds(
        self, record: SetRecord, is_busy: Callable[[SetId, str], bool], availability: CloudAvailability
    ) -> bool:
        """Have those suspended clouds probed that a request is about; return True if there are any.

        The request is over if the set can be tried on no other cloud. Where it is busy, it is tried already.
        """
        suspended, named = availability.suspended(), self.asked_clouds(record.id)
        seen = [one for one in by_cloud(record) if one.state != "done" and named & {"", one.cloud}]
        seen = [one for one in seen if not is_busy(record.id, one.cloud)]
        stuck = [one for one in seen if one.state in ("halted", "deferred") or one.awaits_requirements]
        blocked = [one for one in stuck if one.cloud in suspended]
        for one in blocked:
            availability.probe_soon(one.cloud)
        if blocked:  # it is due as soon as its cloud resumes
            clouds = [one.cloud for one in blocked]
            self._states.put(with_each(record, lambda one: replace(one, next_retry=None), clouds))
        if blocked and blocked == seen:
            self.finish(self.open.of(record.id, "retry"))
        return bool(blocked)

    def asked_clouds(self, key: SetId) -> frozenset[str]:
        """Return the clouds that a set is to be tried on, by request; an empty name for all."""
        return frozenset(request.cloud for request in self.open.of(key, "retry"))

    def end_retirement(
        self, request: Request, change: Callable[[SetRecord], SetRecord] | None, *, is_over: bool
    ) -> None:
        """Change the record of a set after a request about its images, and delete the request if it is over.

        Until then no id comes back that a withdrawal has removed.
        """
        record = self._states.get(request.set_id)
        if record and change and (is_over or change(record) != record):
            record = self._states.put(change(record))
            with suppress(UecError):  # the copy beside the files is a courtesy
                (result_files.publish if is_over else result_files.publish_report)(record)
        if is_over:
            self.finish([request])

    def retirements(self, *, now: float) -> tuple[Request, ...]:
        """Return the requests about published images that are due, in order.

        One that was made because files were removed needs the last scan to say that they still are.
        """
        asked = (one for one in self.open.requests if one.verb in RETIRING)
        due = (one for one in asked if one.due is None or (one.due <= now and one.set_id in self._removed))
        return (*due, *self._to_prune.values())

    def ask_to_prune(self, sets: Iterable[SetId]) -> None:
        """Have the older images of sets looked at. This is not written down: each day it is done again."""
        for set_id in sets:
            self._asked += 1
            self._to_prune.setdefault(set_id, Request(set_id, "prune", -self._asked))

    def drop_prunes(self) -> None:
        """Drop all requests to remove older images: after an error of our own nothing more is removed."""
        self.finish([*(one for one in self.open.requests if one.verb == "prune"), *self._to_prune.values()])

    def confirm_removed(self, folder: Path, removed: Iterable[SetId]) -> None:
        """Note the sets of a folder whose files were certainly removed, as its last scan has found it."""
        others = (one for one in self._removed if one.folder != str(folder))
        self._removed = frozenset((*others, *removed))

    def drop_returned(self, names: Collection[SetId]) -> None:
        """Delete the requests made for removed files, of sets with files there again."""
        self.finish(one for one in self.open.requests if one.due is not None and one.set_id in names)

    def drop_impossible(
        self,
        folder: Path,
        assembly: FolderSets,
        running: Collection[SetId],
        can_be_tried: Callable[[ImageSet], bool],
    ) -> None:
        """Delete requests to retry sets that are held, waiting for a file or for clouds, or absent."""
        able = {found.name for found in assembly.ready if can_be_tried(found)}
        able |= {refused.name for refused in assembly.refused}
        able |= {waiting.name for waiting in assembly.waiting if waiting.ready_at is not None}
        able -= set(self.held_names(folder))
        for key in self.open.sets("retry"):
            if key.folder == str(folder) and key.name not in able and key not in running:
                self.finish(self.open.of(key, "retry"))

    def _forget_on_cloud(self, request: Request, listener: Listener) -> None:
        """Forget what is known of a set on one cloud, or leave the request open if that fails."""
        key, cloud = request.set_id, request.cloud
        with suppress(UecError):
            if record := self._states.get(key):
                self._states.put(forget_on_cloud(record, cloud, self._ledger))
            listener.tell(Event(Kind.ASKED, f"{key.name}: forgotten on cloud {cloud}, on request", key))
            self.finish([request])

    def _forget(self, key: SetId, listener: Listener, builds: Path) -> None:
        """Clear all traces of a set, or leave the request open if that fails, on a full disk for example."""
        if record := self._states.get(key):
            with suppress(UecError):
                clear_traces(record, self._ledger, builds=builds)
                self._states.drop(record)
        if self._states.get(key) is None:
            listener.tell(Event(Kind.ASKED, f"{key.name}: forgotten, on request", key))
            with suppress(UecError):
                clear_history(key, self._ledger)  # with the entry of this event
            self.finish(self.open.of(key, "forget"))

    def _read(self) -> OpenRequests:
        asked = self._ledger.asked()
        requests = tuple(r for r in asked.requests if r.number not in self._finished)
        return OpenRequests(requests, asked.holds, asked.cloud_holds)


def events_between(before: OpenRequests, after: OpenRequests) -> Iterator[Event]:
    """Report the difference, once for each set."""
    changes = (
        (after.holds.keys() - before.holds.keys(), "held back until it is released"),
        (before.holds.keys() - after.holds.keys(), "released"),
        (set(after.sets("retry")) - set(before.sets("retry")), "to be tried again"),
        (_asked_now(after, "withdraw") - _asked_now(before, "withdraw"), "to be withdrawn"),
        (_asked_now(after, "rollback") - _asked_now(before, "rollback"), "to be rolled back"),
    )
    for keys, word in changes:
        for key in sorted(keys):
            yield Event(Kind.ASKED, f"{key.name}: {word}, on request", key)
    held, holds = _held_on(before), _held_on(after)
    for word, pairs in (("held back until it is released", holds - held), ("released", held - holds)):
        for key, cloud in sorted(pairs):
            what = f"{key.name}: {word}, on cloud {cloud}, on request"
            yield Event(Kind.ASKED, what, key, fields={"cloud": cloud})


def _held_on(requests: OpenRequests) -> set[tuple[SetId, str]]:
    return {(key, cloud) for key, clouds in requests.cloud_holds.items() for cloud in clouds}


def _asked_now(requests: OpenRequests, verb: Verb) -> set[SetId]:
    """Return the sets that a person has asked this for."""
    return {one.set_id for one in requests.requests if one.verb == verb and one.due is None}
