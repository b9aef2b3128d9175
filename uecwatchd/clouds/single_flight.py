"""Single flight: one request for all threads that ask the same question at about the same time."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class SingleFlight(Generic[Answer]):
    """The last answer to one question. One thread asks at a time; those that wait for it take its
    answer, if that was asked for late enough.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last: tuple[float, Answer] | None = None

    def answer(self, ask: Callable[[], Answer], *, age: float = 0.0) -> Answer:
        """Return the answer to a question asked no earlier than `age` seconds before this call.

        Raises what `ask` raises, to the thread that asked; the next one asks again.
        """
        earliest = self._clock() - age
        with self._lock:
            if self._last is None or self._last[0] <= earliest:
                asked = self._clock()
                self._last = asked, ask()
            return self._last[1]

    def amend(self, change: Callable[[Answer], Answer]) -> None:
        """Write into the last answer, if there is one, what is known to have changed since."""
        with self._lock:
            if self._last:
                asked, answer = self._last
                self._last = asked, change(answer)
