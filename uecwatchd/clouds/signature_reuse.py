"""No signature is sent twice, where a server takes the second one for a replay.

A V2 signature holds the time in whole seconds, and Eucalyptus 3.0 to 4.1 takes the second of two equal ones
for a replay, for 15 minutes. So what was signed is looked at before it leaves, and signed again in
another second when the same signature has gone out already: from another thread or another client, or to ask
once more.
"""

import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

# Two equal signatures are made in one second of the clock. Longer than any thread is kept waiting between
# signing and sending, and than a clock is set back in daily life.
REMEMBERED_SECONDS = 60.0

# The clock that dates a signature moves only with the kernel's timer, up to 10 ms behind the one we read.
TICK_SECONDS = 0.02

_SIGNER = "uecwatchd signer"
READS = re.compile("Get|Head|List|Describe")


class UniqueSignatures:
    """Listens to the events of any number of clients; may be shared by threads."""

    def __init__(
        self, *, clock: Callable[[], float] = time.time, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._sent: dict[str, float] = {}

    def listen(self, events: Any, *, reads: bool) -> None:
        """Hear of every request of one more client: when it is about to be signed, and when it has been.

        Without `reads`, of those alone that may change something: to be kept from asking the same question
        twice in a second would cost every set some of its time.
        """
        events.register("before-sign", self._about_to_sign)
        events.register_last("request-created", self._signed if reads else self._signed_change)

    def _about_to_sign(self, *, request: Any, request_signer: Any, **_: object) -> None:
        request.context[_SIGNER] = request_signer

    def _signed(self, *, request: Any, operation_name: str, **_: object) -> None:
        while not self.is_new(signature(request)):
            self._sleep(1 - self._clock() % 1 + TICK_SECONDS)
            request.context[_SIGNER].sign(operation_name, request)

    def _signed_change(self, *, request: Any, operation_name: str, **_: object) -> None:
        if not READS.match(operation_name):
            self._signed(request=request, operation_name=operation_name)

    def is_new(self, made: str) -> bool:
        """Tell whether a signature was not seen before, and remember it."""
        now = self._clock()
        with self._lock:
            self._sent = {old: at for old, at in self._sent.items() if abs(now - at) < REMEMBERED_SECONDS}
            is_new = made not in self._sent
            self._sent.setdefault(made, now)
        return is_new


def signature(request: Any) -> str:
    """Return the signature of a request: from a header for S3, from the form for EC2."""
    form = request.data if isinstance(request.data, Mapping) else {}
    return str(form.get("Signature") or request.headers.get("Authorization"))
