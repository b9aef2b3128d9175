"""The announcer: puts messages about outcomes into the outbox."""

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

from uecwatchd.config.records import NotifySettings, Outcome
from uecwatchd.errors import UecError
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.outbox import NO_SET, Message
from uecwatchd.ledger.records import SetRecord
from uecwatchd.outputs.notify.facts import Facts, complete
from uecwatchd.outputs.notify.ways import ways_of
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.messages.due import Announcements, Circumstances, announcements
from uecwatchd.system.clocks import Clocks
from uecwatchd.types import SetId

# Between two comparisons that find what only time brings: a set that is stale, a cloud that is away for long.
LOOK_SECONDS = 30.0
# Messages that may wait on one way: somebody could drop thousands of bad files while a mail server is away.
MOST_WAITING = 1000
# Entries of forgotten sets that are removed at once: each costs the disk a wait.
MOST_FORGOTTEN = 50
# With many thousand sets a comparison takes a while: then it takes at most a tenth of a processor.
QUICK_SECONDS, PAUSE_TIMES = 0.05, 9
FULL = ("messages", "left out")


class Announcer:
    """Compares states with what was announced. Belongs to the service's loop, except `note_resumed`.

    Of a set that is not `is_ours`, another host announces the states.
    """

    def __init__(
        self,
        settings: NotifySettings,
        *,
        ledger: Ledger,
        conditions: Conditions,
        clocks: Clocks,
        is_ours: Callable[[SetId], bool] = lambda _set_id: True,
    ) -> None:
        self._is_ours = is_ours
        self._ledger = ledger
        self._conditions = conditions
        self._clocks = clocks
        self._lock = threading.Lock()  # guards _resumed
        self._resumed: set[str] = set()
        self.configure(settings)

    def configure(self, settings: NotifySettings) -> None:
        """Take another configuration."""
        self._settings = settings
        self._ways = [way.name for way in ways_of(settings)]
        self._seen: dict[SetId, SetRecord] = {}
        self._next_look = self._not_before = float("-inf")
        self._is_off = False

    def note_resumed(self, cloud: str) -> None:
        """Note that a cloud has answered a probe."""
        with self._lock:
            self._resumed.add(cloud)

    def update(
        self, records: Collection[SetRecord], suspended: Iterable[str] = (), *, at_once: bool = False
    ) -> bool:
        """Announce what is due. Return True if there are messages to be delivered.

        Unless `at_once`, a comparison that takes long is made less often. What cannot be written is announced
        at a later call, because the states are still the same.
        """
        if not self._settings.is_on:
            self._end()
            return False
        began = self._clocks.monotonic()
        if (began < self._not_before and not at_once) or not self._is_due(records):
            return False
        with suppress(UecError):
            situation = self._situation(records, suspended)
            announced = self._announce(announcements(situation, self._settings))
            self._seen = {record.id: record for record in records}
            ended = self._clocks.monotonic()
            self._next_look = ended + LOOK_SECONDS
            self._not_before = (
                ended + PAUSE_TIMES * (ended - began) if ended - began > QUICK_SECONDS else ended
            )
            with self._lock:
                self._resumed -= set(situation.resumed)  # others may have been noted since
            return announced
        return False

    def tell(self, about: SetId, outcome: Outcome, facts: Facts) -> bool:
        """Announce something that no state of a set shows later. Return True if there is a message."""
        if not self._settings.is_on or outcome not in self._settings.outcomes:
            return False
        now = self._clocks.now()
        whole = complete(facts, about=about, outcome=outcome, since=now, now=now)
        with suppress(UecError):
            return self._announce(Announcements(((about, outcome, whole),), {}))
        return False

    def _end(self) -> None:
        """Forget since when outcomes are announced: those until messages are wanted again do not count."""
        if not self._is_off:
            with suppress(UecError):
                if NO_SET in self._ledger.outbox.announced():
                    self._ledger.outbox.drop_announced(NO_SET)
                self._is_off = True

    def _is_due(self, records: Collection[SetRecord]) -> bool:
        if self._clocks.monotonic() >= self._next_look or len(records) != len(self._seen):
            return True
        with self._lock:
            resumed = bool(self._resumed)
        return resumed or any(self._seen.get(record.id) is not record for record in records)

    def _situation(self, records: Collection[SetRecord], suspended: Iterable[str]) -> Circumstances:
        with self._lock:
            resumed = frozenset(self._resumed)
        return Circumstances(
            self._clocks.now(),
            records,
            {key: one for key, one in self._ledger.outbox.announced().items() if self._is_ours(key)},
            successes=self._ledger.history.successes(),
            suspended=frozenset(suspended),
            resumed=resumed,
        )

    def _announce(self, due: Announcements) -> bool:
        outbox, now = self._ledger.outbox, self._clocks.now()
        waiting = Counter(message.way for message in outbox.messages()) if due.messages else Counter[str]()
        room = {way: MOST_WAITING - waiting[way] for way in self._ways}
        messages = [
            Message(str(facts["id"]), about if about.folder else NO_SET, outcome, now, way, facts)
            for number, (about, outcome, facts) in enumerate(due.messages)
            for way in self._ways
            if number < room[way]
        ]
        if messages or due.entries:
            outbox.announce(messages, due.entries)
        for key in due.forgotten[:MOST_FORGOTTEN]:
            outbox.drop_announced(key)
        is_left_out = len(messages) < len(due.messages) * len(self._ways)
        text = f"{MOST_WAITING} messages wait on one way: further ones are in the journal only"
        self._conditions.set(FULL, text if is_left_out else "", once=True)
        return bool(messages)
