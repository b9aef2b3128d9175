"""Replay protection: version 2 signatures that were used already.

Such a signature covers a request and the second it was made in, so the same one again is taken for a copy in
other hands, even if its owner sends it.
"""

import threading
from collections import OrderedDict
from datetime import datetime, timedelta

from uecwatchd.sandbox.errors import ApiError

MEMORY = timedelta(minutes=15)  # after this its date is too old anyway
# The servers' own words, spaces included.
REPLAYED = "Message replay detected.  Same signature was used within the last 15 minutes"


class ReplayCache:
    """The signatures of the last fifteen minutes, safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, datetime] = OrderedDict()  # the oldest first

    def remember(self, signature: str, *, now: datetime) -> None:
        """Remember a signature. Raises `ApiError` (SignatureReplayed): if it was used before."""
        with self._lock:
            while self._seen and now - next(iter(self._seen.values())) > MEMORY:
                self._seen.popitem(last=False)
            if signature in self._seen:
                raise ApiError("SignatureReplayed", REPLAYED)
            self._seen[signature] = now
