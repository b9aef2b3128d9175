"""Threads of test boots, at most one for each account: a boot takes minutes, and no worker waits for it.

An attempt that comes to a boot prepares it, with the claim on the account's boots, and ends: its set waits.
The boot is started when the record of that wait is in the ledger. When the boot has ended, the set is due
again, and its next attempt finds the outcome here. An outcome that is lost with the process only costs
another boot.
"""

import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from uecwatchd.delivery.test_boot import BootResult
from uecwatchd.errors import Stopped, UecError, words_of
from uecwatchd.system.internal_errors import internal_error
from uecwatchd.types import SetId


@dataclass(frozen=True, slots=True)
class BootKey:
    """A boot of an image for a set on a cloud."""

    set_id: SetId
    cloud: str
    image_id: str


@dataclass(frozen=True, slots=True)
class EndedBoot:
    """A boot after its end. A stopped one has no outcome."""

    key: BootKey
    was_stopped: bool


class BootThreads:
    """The boots that are prepared, running, or ended. May be used by any thread.

    `ended` is called, in a thread of a boot, each time that one has ended.
    """

    def __init__(self, ended: Callable[[], None] = lambda: None) -> None:
        self._notify = ended
        self._changed = threading.Condition()  # guards all below
        self._prepared: dict[BootKey, Callable[[], BootResult]] = {}
        self._running: dict[BootKey, threading.Thread] = {}
        self._ended: list[EndedBoot] = []
        self._outcomes: dict[BootKey, BootResult | UecError] = {}
        self._unwanted: set[BootKey] = set()

    @property
    def open(self) -> tuple[BootKey, ...]:
        """Boots that the loop has not seen the end of."""
        with self._changed:
            return (*self._prepared, *self._running, *(one.key for one in self._ended))

    @property
    def sets(self) -> frozenset[SetId]:
        """Sets with a boot that the loop has not seen the end of."""
        return frozenset(key.set_id for key in self.open)

    def has(self, set_id: SetId, cloud: str) -> bool:
        """Tell if a set has such a boot on a cloud, or on any if that is empty."""
        return any(key.set_id == set_id and cloud in ("", key.cloud) for key in self.open)

    def stop(self, keys: Iterable[BootKey]) -> None:
        """Have running boots stopped whose outcome nobody needs any more."""
        with self._changed:
            self._unwanted |= self._running.keys() & set(keys)

    def is_unwanted(self, key: BootKey) -> bool:
        with self._changed:
            return key in self._unwanted

    def prepare(self, key: BootKey, boot: Callable[[], BootResult]) -> None:
        """Have a boot started by the next `start`."""
        with self._changed:
            older = [one for one in self._outcomes if one.set_id == key.set_id and one.cloud == key.cloud]
            for one in older:
                del self._outcomes[one]
            self._prepared[key] = boot

    def start(self, *, but: Collection[SetId]) -> None:
        """Start the prepared boots, except of sets that are still at work."""
        with self._changed:
            self._start([key for key in self._prepared if key.set_id not in but])

    def start_for(self, set_id: SetId) -> None:
        """Start the prepared boot of a set that goes on to another cloud, with the wait in the ledger."""
        with self._changed:
            self._start([key for key in self._prepared if key.set_id == set_id])

    def _start(self, keys: Iterable[BootKey]) -> None:
        for key in keys:
            work = (key, self._prepared.pop(key))
            self._running[key] = threading.Thread(target=self._run, args=work, name=f"boot {key.cloud}")
            self._running[key].start()

    def take_ended(self, *, but: Collection[SetId]) -> tuple[EndedBoot, ...]:
        """Return the ended boots, once each, except of sets at work."""
        with self._changed:
            ended = tuple(one for one in self._ended if one.key.set_id not in but)
            self._ended = [one for one in self._ended if one not in ended]
        return ended

    def take_outcome(self, key: BootKey) -> BootResult | None:
        """Return the result of a boot, once, or None if there is none. Raises the error that ended it."""
        with self._changed:
            outcome = self._outcomes.pop(key, None)
        if isinstance(outcome, UecError):
            raise outcome
        return outcome

    def wait(self) -> None:
        """Wait until some boot has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or not self._running)

    def close(self) -> None:
        """Wait until all boots have ended, after a stop was requested."""
        while True:
            with self._changed:
                thread = next(iter(self._running.values()), None)
            if thread is None:
                return
            thread.join()

    def _run(self, key: BootKey, boot: Callable[[], BootResult]) -> None:
        outcome: BootResult | UecError
        try:
            outcome = boot()
        except UecError as error:
            outcome = words_of(error)
        except Exception as error:  # noqa: BLE001 (or the set would be at work for ever)
            outcome = words_of(internal_error(key.set_id.name, error))
        with self._changed:
            del self._running[key]
            self._unwanted.discard(key)
            self._ended.append(EndedBoot(key, isinstance(outcome, Stopped)))
            if not isinstance(outcome, Stopped):
                self._outcomes[key] = outcome
            self._changed.notify_all()
        self._notify()
