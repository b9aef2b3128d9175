"""Events, and their listeners.

Stages never log: they send events to a listener. The journal, the files beside the image, systemd's STATUS=
and the terminal are listeners in a list.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

from uecwatchd.errors import UecError
from uecwatchd.types import SetId

Level = Literal["debug", "info", "warning", "error"]
Fields = Mapping[str, str | int | float]


class Kind(StrEnum):
    """The kind of an event. The journal has one fixed message id for each."""

    READY = "ready"
    FOUND = "found"
    WAITING = "waiting"
    WORKING = "working"
    BUNDLED = "bundled"
    UPLOADED = "uploaded"
    REGISTERED = "registered"
    ADOPTED = "adopted"
    BOOTED = "booted"
    CONSOLE = "console"
    WITHDRAWN = "withdrawn"
    ROLLED_BACK = "rolled_back"
    DONE = "done"
    DEFERRED = "deferred"
    REJECTED = "rejected"
    HALTED = "halted"
    RESUMED = "resumed"
    LEDGER_LOST = "ledger_lost"
    WATCH_LOST = "watch_lost"
    RELOAD = "reload"
    STOPPING = "stopping"
    ASKED = "asked"
    LEFT_OUT = "left_out"
    FAULT = "fault"
    MESSAGE = "message"


@dataclass(frozen=True, slots=True)
class Event:
    """One change of state, as one finished sentence without its full stop's trailing newline.

    `fields` repeat the sentence's data for machines; their names are lower case and without prefix:
    file, stage, emi, eki, eri, replaced, cloud, bucket, attempt, error, hint, request_id, bytes, seconds,
    instance.
    """

    kind: Kind
    sentence: str
    set: SetId | None = None  #: the set that it is about; journald's field has its name
    level: Level = "info"
    fields: Fields = field(default_factory=dict)


def error_event(error: UecError, set_id: SetId | None = None) -> Event:
    """Return the event of an error; the traceback of a fault of our own is a field of it."""
    fields = {"traceback": error.trace} if error.trace else {}
    return Event(Kind.FAULT, str(error), set_id, "error", fields)


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of one stage of one set. Sizes in bytes of the image; `part` counts from 1."""

    set: SetId
    stage: str
    file: str
    done: int
    total: int
    part: int = 0


class Listener(Protocol):
    def tell(self, event: Event) -> None: ...

    def progress(self, progress: Progress) -> None: ...


@dataclass(frozen=True, slots=True)
class Tee:
    """Listener that passes everything to several listeners, in order."""

    listeners: tuple[Listener, ...]

    def tell(self, event: Event) -> None:
        for listener in self.listeners:
            listener.tell(event)

    def progress(self, progress: Progress) -> None:
        for listener in self.listeners:
            listener.progress(progress)
