"""Messages of a running service: what is announced goes into the outbox, and from there to people."""

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

from uecwatchd.config.records import NotifySettings, Outcome
from uecwatchd.errors import UecError
from uecwatchd.ledger.records import SetRecord
from uecwatchd.outputs.notify.facts import Facts
from uecwatchd.outputs.notify.ways import ways_of
from uecwatchd.service.messages.announcer import Announcer
from uecwatchd.service.messages.messenger import Messenger
from uecwatchd.service.service_context import Shared
from uecwatchd.types import SetId

# `once` delivers messages before it ends, but a server that hangs must not keep it.
ONCE_DELIVERY_SECONDS = 120.0


class Messages:
    """The announcer and the messenger of one service. Belongs to its loop, except `note_resumed`."""

    def __init__(self, settings: NotifySettings, shared: Shared, *, is_ours: Callable[[SetId], bool]) -> None:
        self._monotonic = shared.clocks.monotonic
        self._announcer = Announcer(
            settings,
            ledger=shared.ledger,
            conditions=shared.conditions,
            clocks=shared.clocks,
            is_ours=is_ours,
        )
        self._messenger = Messenger(
            shared.ledger.outbox,
            ways=ways_of(settings),
            conditions=shared.conditions,
            listener=shared.reporting.listener,
            now=shared.clocks.now,
            stopping=shared.signals.stopping,
        )
        self.note_resumed = self._announcer.note_resumed

    def configure(self, settings: NotifySettings) -> None:
        """Take another configuration."""
        self._announcer.configure(settings)
        self._messenger.configure(ways_of(settings))

    def announce(
        self, records: Collection[SetRecord], suspended: Iterable[str], *, at_once: bool = False
    ) -> None:
        """Announce what is due by these states of all sets, and with these clouds suspended."""
        if self._announcer.update(records, suspended, at_once=at_once):
            self._messenger.wake()

    def tell(self, about: SetId, outcome: Outcome, facts: Facts) -> None:
        """Announce something that no state of a set shows later."""
        if self._announcer.tell(about, outcome, facts):
            self._messenger.wake()

    def start(self) -> None:
        """Deliver in a thread from now on."""
        self._messenger.start()

    def close(self) -> None:
        """Wait some seconds for the thread, after a stop was requested."""
        self._messenger.close()

    def deliver_now(self) -> None:
        """Deliver as far as it can be done now; the next run delivers the rest."""
        end = self._monotonic() + ONCE_DELIVERY_SECONDS
        with suppress(UecError):
            self._messenger.deliver_due(until=lambda: self._monotonic() >= end)
