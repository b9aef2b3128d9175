"""Conditions: what lasts, such as a folder that cannot be read, and is reported once while it does.

A service has one instance. What depends on the configuration is reported again after another one was read.
"""

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator
from typing import Literal

from uecwatchd.errors import UecError
from uecwatchd.events import Event, Fields, Kind, Level, Listener, error_event
from uecwatchd.ledger.api import LedgerAway
from uecwatchd.system.internal_errors import RepeatedWork, as_internal_error

# Suspensions of a cloud in a row that are reported. More would fill the journal with one that comes and goes.
REPORTED_SUSPENSIONS = 3
# How much of a suspension is reported: of the last one in a row, not its end.
Reported = Literal["all", "beginning", "nothing"]

FAULT = "fault"  # the topic of work that is repeated and fails

# A topic, then what the condition is about: `("slow", "/srv/images")`.
Key = tuple[str, ...]
OUTAGE: Key = ("ledger",)  # that of the ledger, for all that meet it


class Conditions:
    """The conditions that last now, each with its text. Safe to use from several threads."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._lock = threading.Lock()  # guards _lasting
        self._lasting: dict[Key, str] = {}

    def set(
        self,
        key: Key,
        text: str,
        *,
        kind: Kind = Kind.FAULT,
        level: Level = "warning",
        fields: Fields | None = None,
        once: bool = False,
        quiet: bool = False,
    ) -> bool:
        """Note that a condition lasts, and tell its text if that is new. Return True if it was.

        An empty text clears the condition. `once`: do not tell another text of the same condition either.
        `quiet`: tell nothing.
        """
        if not text:
            self.clear(key)
            return False
        reported = self._begins(key, text, once=once) and not quiet
        if reported:
            self._listener.tell(Event(kind, text, level=level, fields=fields or {}))
        return reported

    def set_error(self, key: Key, error: UecError) -> None:
        """Note that an error lasts, and tell it if it is another one than before.

        If the ledger is away, each folder and thread finds that out, with one reason after the other: a
        database shuts down, refuses, and starts. That is one condition, and told once.
        """
        is_outage = isinstance(error, LedgerAway)
        if self._begins(OUTAGE if is_outage else key, str(error), once=is_outage):
            self._listener.tell(error_event(error))

    def clear(self, key: Key) -> bool:
        """Forget a condition; return True if it lasted until now."""
        with self._lock:
            return self._lasting.pop(key, None) is not None

    def clear_others(self, topic: Key, keys: Collection[Key]) -> None:
        """Forget the conditions whose key begins with `topic`, but for `keys`."""
        with self._lock:
            gone = [key for key in self._lasting if key[: len(topic)] == topic and key not in keys]
            for key in gone:
                del self._lasting[key]

    def keep_only(self, keep: Callable[[Key], bool]) -> None:
        """Forget all conditions but those that `keep` returns True for."""
        with self._lock:
            self._lasting = {key: text for key, text in self._lasting.items() if keep(key)}

    def lasts(self, key: Key, text: str | None = None) -> bool:
        """Return True if a condition lasts, with this very text if one is given."""
        with self._lock:
            known = self._lasting.get(key)
        return known is not None and text in (None, known)

    @contextlib.contextmanager
    def guard(self, key: Key, what: str) -> Iterator[None]:
        """Do something to one thing; an error of it becomes a condition, and is not raised."""
        try:
            with as_internal_error(what):
                yield
        except UecError as error:
            self.set_error(key, error)
        else:
            self.clear(key)

    def recurring(self, what: str) -> RepeatedWork:
        """Return the guard of repeated work, with its faults as conditions."""
        key = (FAULT, what)
        return RepeatedWork(
            what, failed=lambda fault: self.set_error(key, fault), worked=lambda: self.clear(key)
        )

    def _begins(self, key: Key, text: str, *, once: bool = False) -> bool:
        """Note a condition. Return True if it is new."""
        with self._lock:
            before = self._lasting.get(key)
            self._lasting[key] = text
        return before is None or (before != text and not once)


def reported_part(suspensions: int) -> Reported:
    """Return how much of a suspension is reported, by its number in a row."""
    if suspensions < REPORTED_SUSPENSIONS:
        return "all"
    return "beginning" if suspensions == REPORTED_SUSPENSIONS else "nothing"
