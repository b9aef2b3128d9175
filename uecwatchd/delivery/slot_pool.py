"""Slots of one limit that this host has, shared by its threads.

A thread that has to wait is served before those that have a slot already, so that all uploads go on.
"""

import threading
from collections import deque

# Between two questions for free slots, while other hosts have them.
ASK_SECONDS = 1.0


class SlotPool:
    """Slots by their numbers, some of them in use. Usable from several threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards all below
        self._numbers: list[int] = []
        self._keep = 0  # how many of them may be in use; the others go back when their use ends
        self._in_use = 0
        self._peak = 0  # since the last measurement
        self._users: dict[object, int] = {}  # with the number of slots that each could use
        self._queue: deque[object] = deque()
        self._is_asking = False
        self._next_ask = float("-inf")
        self.is_marked = False  # as waiting in the ledger

    @property
    def held(self) -> int:
        return len(self._numbers)

    @property
    def users(self) -> int:
        return len(self._users)

    def wanted(self) -> int:
        """Return how many slots the users could use together: they share what one of them could."""
        with self._changed:
            return max(len(self._users), *self._users.values(), 0)

    def enter(self, user: object, *, most: int) -> None:
        with self._changed:
            self._users[user] = most

    def leave(self, user: object) -> None:
        with self._changed:
            self._users.pop(user, None)
            self._drop_from_queue(user)

    def take(self, user: object, *, forced: bool = False) -> bool:
        """Use one slot, unless all are in use or another thread has waited longer.

        `forced` uses one that there may not be, because the limit is gone.
        """
        with self._changed:
            first = not self._queue or self._queue[0] is user
            if not forced and (self._in_use >= self._keep or not first):
                return False
            self._drop_from_queue(user)
            self._in_use += 1
            self._peak = max(self._peak, self._in_use)
            return True

    def put(self) -> None:
        """End the use of one slot."""
        with self._changed:
            self._in_use -= 1
            self._changed.notify_all()

    def wait(self, user: object, seconds: float) -> bool:
        """Wait in the queue, at most for so long; return True if it is the turn of this thread."""
        with self._changed:
            if user not in self._queue:
                self._queue.append(user)
            return self._changed.wait_for(
                lambda: self._queue[0] is user and self._in_use < self._keep, seconds
            )

    def begin_asking(self, now: float) -> bool:
        """Return True for one thread at a time, and not before the time of the next question."""
        with self._changed:
            if self._is_asking or now < self._next_ask:
                return False
            self._is_asking = True
            return True

    def end_asking(self, *, next_ask: float) -> None:
        with self._changed:
            self._is_asking, self._next_ask = False, next_ask

    def add(self, numbers: tuple[int, ...]) -> None:
        with self._changed:
            self._numbers += numbers
            self._keep += len(numbers)
            self._changed.notify_all()

    def put_back(self, numbers: tuple[int, ...]) -> None:
        """Take slots back after a failure to give them back; they are not kept."""
        with self._changed:
            self._numbers += numbers

    def needed(self) -> int:
        """Return how many slots were needed since the last call: what was in use, and one for each user."""
        with self._changed:
            needed = max(self._peak, len(self._users))
            self._peak = self._in_use
            return needed

    def keep_at_most(self, number: int, *, largest: int) -> None:
        """Keep at most so many slots, and of those above the number `largest` none."""
        with self._changed:
            self._numbers.sort()
            allowed = sum(one <= largest for one in self._numbers)
            self._keep = min(self._keep, number, allowed)

    def take_out_excess(self) -> tuple[int, ...]:
        """Take out the slots that are not kept and not in use, those with the largest numbers first."""
        with self._changed:
            stay = max(self._keep, self._in_use)
            gone, self._numbers = self._numbers[stay:], self._numbers[:stay]
            return tuple(gone)

    def _drop_from_queue(self, user: object) -> None:
        if user in self._queue:
            self._queue.remove(user)
            self._changed.notify_all()
