"""Limits of clouds: parts sent and images registered at once, by this host or by all hosts together.

Slots come from the ledger: see `uecwatchd.ledger.slots`. The host keeps them between the members of a set,
and gives them back at its end, or with the next beat if they are not used until then. So a set costs two
statements for each limit. A thread that waits for a slot may have the claim on a bundle, and none that has a
slot waits for a claim: there is no deadlock.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from uecwatchd.bundle.upload_slots import UNLIMITED, Permits
from uecwatchd.delivery.slot_pool import ASK_SECONDS, SlotPool
from uecwatchd.errors import UecError
from uecwatchd.ledger.slots import OwnSlots, SlotKey, SlotLimit, Slots, Use, slots_to_keep

NOUNS: Mapping[Use, tuple[str, str]] = {
    "uploads": ("upload to", "uploads to"),
    "registrations": ("registration at", "registrations at"),
}


def waiting_words(key: SlotKey, limit: SlotLimit, *, held: int) -> str:
    """Return what a set waits for. `held` is how many of the slots its own host has."""
    one, many = NOUNS[key.use]
    if limit.most == 1:
        of, having = f"the one {one} cloud {key.cloud}", "another host has"
    else:
        of, having = f"one of the {limit.most} {many} cloud {key.cloud}", "other hosts have"
    return f"waits for {of}{'' if held else f' that {having}'}"


class CloudLimits:
    """The limits of all clouds, for the work of this host. Usable from several threads."""

    def __init__(
        self, slots: Slots | None = None, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._slots = slots or OwnSlots()
        self._monotonic = monotonic
        self._lock = threading.Lock()  # guards _pools
        self._pools: dict[SlotKey, SlotPool] = {}

    @contextmanager
    def used(
        self, key: SlotKey, *, most: int, check: Callable[[], None], waits: Callable[[str], None]
    ) -> Iterator[Permits]:
        """Use up to `most` slots of a limit, if there is one; yield the permits.

        While one is waited for, `check` is called about once a second and may raise to give up, and `waits`
        with a clause that says for what.
        """
        if key not in self._slots.limits:
            yield UNLIMITED
            return
        user = _User(self, key, self._pool(key), check, waits)
        user.pool.enter(user, most=most)
        try:
            yield user
        finally:
            user.pool.leave(user)
            self._after_use(key, user.pool)

    @contextmanager
    def one(self, key: SlotKey, *, check: Callable[[], None], waits: Callable[[str], None]) -> Iterator[None]:
        """Wait until the limit admits one request more, and use its slot; `check` and `waits` as above."""
        with self.used(key, most=1, check=check, waits=waits) as permits:
            while not permits.take():
                permits.wait()
            try:
                yield
            finally:
                permits.give_back()

    @contextmanager
    def of_a_set(self) -> Iterator[None]:
        """Give back what no set uses at the end of this one."""
        try:
            yield
        finally:
            for pool in self._all().values():
                if not pool.users:
                    pool.keep_at_most(0, largest=0)
            with suppress(UecError):
                self.give_back_excess()

    def beat(self) -> None:
        """Adjust the slots to the last look at the limits: give back what is not used or above the share.

        Raises what the ledger raises. The next beat goes on.
        """
        for key, pool in self._all().items():
            if limit := self._slots.limits.get(key):
                held, needed = pool.held, pool.needed()
                pool.keep_at_most(slots_to_keep(needed, limit), largest=limit.most)
                if needed >= held and not limit.waiting and limit.taken < limit.most:
                    self.ask(key, pool)
            if pool.is_marked and not pool.users:
                self._wait_no_more(key, pool)
        self.give_back_excess()

    def give_back_excess(self) -> None:
        """Give back the slots above what is kept. Raises what the ledger raises; call it again then."""
        gone = {key: numbers for key, pool in self._all().items() if (numbers := pool.take_out_excess())}
        if gone:
            self._give_back(gone)

    def limit(self, key: SlotKey) -> SlotLimit | None:
        return self._slots.limits.get(key)

    def ask(self, key: SlotKey, pool: SlotPool) -> None:
        """Ask for more slots, unless a thread does so, or there were none a moment ago."""
        if not pool.begin_asking(self._monotonic()):
            return
        next_ask = self._monotonic()
        try:
            limit, held = self.limit(key), pool.held
            wanted = min(pool.wanted(), limit.most) - held if limit else 0
            if wanted > 0 and not self._take(key, pool, wanted, held=held):
                next_ask = self._monotonic() + ASK_SECONDS
        finally:
            pool.end_asking(next_ask=next_ask)

    def _take(self, key: SlotKey, pool: SlotPool, wanted: int, *, held: int) -> bool:
        taken = self._slots.take(key, wanted, waits=not held)
        pool.add(taken)
        if taken and pool.is_marked:
            with suppress(UecError):  # the next beat tries again
                self._wait_no_more(key, pool)
        pool.is_marked |= not taken and not held
        return bool(taken)

    def _after_use(self, key: SlotKey, pool: SlotPool) -> None:
        limit = self.limit(key)
        if limit and limit.waiting and not pool.users:
            pool.keep_at_most(0, largest=0)
        with suppress(UecError):
            self.give_back_excess()

    def _wait_no_more(self, key: SlotKey, pool: SlotPool) -> None:
        self._slots.wait_no_more(key)
        pool.is_marked = False

    def _give_back(self, gone: Mapping[SlotKey, tuple[int, ...]]) -> None:
        try:
            self._slots.give_back(gone)
        except UecError:
            for key, numbers in gone.items():
                self._pool(key).put_back(numbers)
            raise

    def _pool(self, key: SlotKey) -> SlotPool:
        with self._lock:
            return self._pools.setdefault(key, SlotPool())

    def _all(self) -> Mapping[SlotKey, SlotPool]:
        with self._lock:
            return dict(self._pools)


@dataclass(frozen=True, slots=True, eq=False)
class _User:
    """The permits of one upload or registration."""

    limits: CloudLimits
    key: SlotKey
    pool: SlotPool
    check: Callable[[], None]
    waits: Callable[[str], None]

    def take(self) -> bool:
        return self.pool.take(self, forced=self.limits.limit(self.key) is None)

    def give_back(self) -> None:
        self.pool.put()
        with suppress(UecError):
            self.limits.give_back_excess()

    def wait(self) -> None:
        self.limits.ask(self.key, self.pool)
        is_next = self.pool.wait(self, ASK_SECONDS)
        self.check()
        limit = self.limits.limit(self.key)
        if limit and not is_next:
            self.waits(waiting_words(self.key, limit, held=self.pool.held))
