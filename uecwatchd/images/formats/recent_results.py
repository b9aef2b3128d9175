"""The last few results of something expensive, shared by threads.

Threads that read neighbouring pieces of an image need the same page of its map, and often two halves of one
compressed block, at the same moment. Each is made once, by the thread that comes first.
"""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Result = TypeVar("Result")


class SharedResult(Generic[Result]):
    """One result, and the lock that is held while it is made."""

    __slots__ = ("lock", "result")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.result: Result | None = None


class RecentResults(Generic[Key, Result]):
    """Function that keeps its last `limit` results. An error is not kept: the next call tries again."""

    def __init__(self, make: Callable[[Key], Result], *, limit: int) -> None:
        self._make, self._limit = make, limit
        self._lock = threading.Lock()  # guards _recent, and is held for moments
        self._recent: dict[Key, SharedResult[Result]] = {}  # the one that was used last is the last

    def __call__(self, key: Key) -> Result:
        with self._lock:
            shared = self._recent.pop(key, None) or SharedResult[Result]()
            self._recent[key] = shared
            if len(self._recent) > self._limit:
                del self._recent[next(iter(self._recent))]
        with shared.lock:
            if shared.result is None:
                shared.result = self._make(key)
            return shared.result
