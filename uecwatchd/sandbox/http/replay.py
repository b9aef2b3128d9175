"""Signatures that have been used up.

A version 2 signature covers a request and the second it was made in, so the same one again is taken for a
copy in somebody else's hands, whoever sends it.
"""

import threading
from collections import OrderedDict
from datetime import datetime, timedelta

from uecwatchd.sandbox.errors import ApiError

MEMORY = timedelta(minutes=15)  # after this its date is too old anyway
# The servers' own words, spaces included.
REPLAYED = "Message replay detected.  Same signature was used within the last 15 minutes"


class ReplayCache:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, datetime] = OrderedDict()  # the oldest first

    def remember(self, signature: str, *, now: datetime) -> None:
        """Raises `ApiError` (SignatureReplayed)."""
        with self._lock:
            while self._seen and now - next(iter(self._seen.values())) > MEMORY:
                self._seen.popitem(last=False)
            if signature in self._seen:
                raise ApiError("SignatureReplayed", REPLAYED)
            self._seen[signature] = now
