"""The messenger: delivers what is in the outbox, on each way by itself, in a thread of its own.

At least once: a message leaves the outbox after its delivery. Each try is a process with a time limit, so a
server that hangs delays other messages for so long, and no set at all.
"""

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial

from uecwatchd.errors import Stopped, UecError
from uecwatchd.events import Event, Kind, Listener
from uecwatchd.ledger.outbox import NO_SET, Message, Outbox
from uecwatchd.outputs.notify.ways import URL_PREFIX, Undelivered, Way
from uecwatchd.service.conditions import Conditions, Key
from uecwatchd.system.signals import GRACE_SECONDS, Stop

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 10.0, 900.0
GIVE_UP_SECONDS = 86400.0
# Tries before a message is given up, which take some hours: it may be older than a day at its first one, if
# the machine was off.
LEAST_TRIES = 20
# Tries of a message for which later ones wait, some minutes. After them, the message may be at fault.
PATIENT_TRIES = 5
# Messages of one way that are passed at most. If more fail, the way is at fault, and each try is a process.
MOST_PASSED = 10
# Between two looks at an empty outbox: what is put there also wakes the messenger.
IDLE_SECONDS = 60.0


class Messenger:
    """Sends messages. `configure` may be called while it runs; `now` is the wall clock."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        ways: Sequence[Way],
        conditions: Conditions,
        listener: Listener,
        now: Callable[[], float],
        stopping: Stop,
    ) -> None:
        self._outbox = outbox
        self._conditions = conditions
        self._listener = listener
        self._now = now
        self._stopping = stopping
        self._ways = {way.name: way for way in ways}
        self._heir = heir_of(set(), ways)
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._delivered = set[int]()  #: numbers of messages that a full disk keeps in the outbox

    def configure(self, ways: Sequence[Way]) -> None:
        """Take other ways. What waits for an address that is gone goes to the only new one."""
        if {way.name for way in ways} != set(self._ways):
            self._heir = heir_of(self._ways, ways)
        self._ways = {way.name: way for way in ways}
        self.wake()

    def wake(self) -> None:
        """Look into the outbox now."""
        self._wake.set()

    def start(self) -> None:
        """Deliver in a thread until a stop is requested."""
        self._thread = threading.Thread(target=self._run, name="messenger", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait for the thread, after a stop was requested: a delivery may take some seconds to its end."""
        self.wake()
        if self._thread:
            self._thread.join(min(self._stopping.seconds_left(), GRACE_SECONDS) + 1.0)

    def _run(self) -> None:
        repeated = self._conditions.recurring("the messenger")
        while not self._stopping.is_set():
            self._wake.clear()
            pause = FIRST_PAUSE_SECONDS
            with repeated.attempt():
                pause = self._attempt()
            self._wake.wait(max(pause, repeated.pause))

    def _attempt(self) -> float:
        try:
            return self.deliver_due()
        except UecError:  # of the ledger, which sets report; or a stop
            return FIRST_PAUSE_SECONDS

    def deliver_due(self, *, until: Callable[[], bool] = lambda: False) -> float:
        """Deliver everything that is due; return the seconds until something else is.

        Ends early when a stop is requested, or `until` returns True. Raises what the ledger raises.
        """
        while not self._stopping.is_set() and not until():
            now = self._now()
            heads = [next_of(messages, now=now) for messages in self._by_way()]
            due = [message for message in heads if is_due(message, now=now)]
            if not due:
                return min((message.next_try - now for message in heads), default=IDLE_SECONDS)
            # The one that has waited longest: no way can keep the others from their turn.
            self._try(min(due, key=lambda message: (message.next_try, message.number)))
        return 0.0

    def _by_way(self) -> Collection[list[Message]]:
        """Return the messages of each way that has some, and care for those of unknown ways."""
        by_way: dict[str, list[Message]] = {}
        for message in self._outbox.messages():
            if message.number in self._delivered:
                self._drop(message)
            elif known := message if message.way in self._ways else self._inherited(message):
                by_way.setdefault(known.way, []).append(known)
        return by_way.values()

    def _inherited(self, message: Message) -> Message | None:
        """Hand a message of a way that is gone to its heir, or drop it if there is none."""
        if self._heir and message.way.startswith(URL_PREFIX):
            inherited = replace(message, way=self._heir, tries=0, next_try=0.0)
            self._outbox.put_message(inherited)
            return inherited
        what = f"not sent, because its way is no longer configured: {_sentence(message)}"
        self._tell(message, what, is_warning=True)
        self._drop(message)
        return None

    def _try(self, message: Message) -> None:
        way = self._ways.get(message.way)
        if way is None:  # another configuration was read just now: the next look finds its new way
            return
        try:
            problem = way.deliver(
                message.body,
                tell=partial(self._tell_line, message, way),
                check=self._check,
            )
        except Stopped:
            return
        if problem is None:
            self._delivered.add(message.number)
            self._end_failure(way)
            self._drop(message)
        else:
            self._fail(message, way, problem)

    def _end_failure(self, way: Way) -> None:
        """Report that a way works again, unless a message of it still fails."""
        if not self._conditions.lasts(_key(way)):
            return
        left = (one for one in self._outbox.messages() if one.number not in self._delivered)
        if not any(one.tries for one in left if one.way == way.name):
            self._conditions.clear(_key(way))
            self._listener.tell(Event(Kind.MESSAGE, f"{way.label}: messages are delivered again"))

    def _fail(self, message: Message, way: Way, problem: Undelivered) -> None:
        text = f"{way.label}: messages cannot be delivered: {problem.why}"
        fields = {"error": problem.why, "hint": problem.hint}
        self._conditions.set(_key(way), text, kind=Kind.MESSAGE, fields=fields, once=True)
        now = self._now()
        pause = pause_after(message.tries)
        tried = replace(message, tries=message.tries + 1, next_try=now + pause, problem=problem.why)
        if not is_given_up(tried, now=now):
            self._outbox.put_message(tried)
            return
        self._drop(message)
        self._tell(message, f"{way.label}: given up after a day: {_sentence(message)}", is_warning=True)

    def _drop(self, message: Message) -> None:
        self._outbox.drop_message(message)
        self._delivered.discard(message.number)

    def _check(self) -> None:
        """Raise Stopped if a delivery may not go on: it is repeated at the next start."""
        self._stopping.may_go_on()

    def _tell_line(self, message: Message, way: Way, line: str) -> None:
        self._tell(message, f"{way.label}: {line}")

    def _tell(self, message: Message, what: str, *, is_warning: bool = False) -> None:
        about = message.set_id if message.set_id != NO_SET else None
        self._listener.tell(Event(Kind.MESSAGE, what, about, "warning" if is_warning else "info"))


def heir_of(known: Collection[str], ways: Iterable[Way]) -> str | None:
    """Return the only address that is new: it may be a corrected one. At the start all are new."""
    new = [way.name for way in ways if way.url and way.name not in known]
    return new[0] if len(new) == 1 else None


def next_of(messages: Sequence[Message], *, now: float) -> Message:
    """Return the message of one way to be tried next.

    It is the first one that is due, unless an earlier one has not had its patient tries.
    """
    window = messages[: MOST_PASSED + 1]
    for message in window:
        if is_due(message, now=now) or message.tries < PATIENT_TRIES:
            return message
    return min(window, key=lambda message: message.next_try)


def is_due(message: Message, *, now: float) -> bool:
    """Tell if a message is to be tried now. A time beyond any pause was written by another clock."""
    return not now < message.next_try <= now + LONGEST_PAUSE_SECONDS


def is_given_up(message: Message, *, now: float) -> bool:
    """Tell if a message that has failed is not tried again."""
    return message.tries >= LEAST_TRIES and now - message.moment >= GIVE_UP_SECONDS


def pause_after(tries: int) -> float:
    """Return the seconds until a message is tried again, after so many tries before the last one."""
    return min(FIRST_PAUSE_SECONDS * 2.0 ** min(tries, 20), LONGEST_PAUSE_SECONDS)


def _key(way: Way) -> Key:
    return ("notify", way.name)


def _sentence(message: Message) -> str:
    return str(message.body.get("sentence", message.outcome))
