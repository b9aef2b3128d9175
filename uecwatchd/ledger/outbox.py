"""The outbox: messages about outcomes that wait until they are delivered.

A message is written in the same transaction as the note that its outcome was announced. So after a crash it
is neither lost nor made twice. Delivery is at least once: a crash between delivery and removal repeats it,
with the same id.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from uecwatchd.types import SetId

# In place of a set, in a message about the service itself.
NO_SET = SetId("", "")


@dataclass(frozen=True, slots=True)
class Announced:
    """The last outcome of a set that was put into the outbox."""

    outcome: str
    since: float  #: when the state began that it is about, in seconds of the epoch


@dataclass(frozen=True, slots=True)
class Message:
    """A message on one of its ways. `number` gives the order; it is 0 before it is stored."""

    id: str  #: the same for one outcome on all ways, and at each repetition
    set_id: SetId
    outcome: str
    moment: float  #: seconds of the epoch
    way: str  #: how it is delivered: a name that the sender knows
    body: Mapping[str, Any]  #: as JSON
    tries: int = 0
    next_try: float = 0.0  #: seconds of the epoch
    problem: str = ""  #: of the last try
    number: int = 0


class Outbox(Protocol):
    """The operations on the outbox, for any store. They raise what those of the ledger raise."""

    def announced(self) -> Mapping[SetId, Announced]:
        """Return the last announced outcome of each set."""

    def announce(self, messages: Iterable[Message], announced: Mapping[SetId, Announced]) -> None:
        """Add messages, and write what they announce, in one transaction."""

    def drop_announced(self, set_id: SetId) -> None:
        """Forget what was announced about a set."""

    def messages(self) -> tuple[Message, ...]:
        """Return the messages that are not delivered, in order."""

    def put_message(self, message: Message) -> None:
        """Write a stored message again, after a try or with another way. It may be lost in a power cut."""

    def drop_message(self, message: Message) -> None:
        """Remove a message that was delivered or given up, if it is there."""
