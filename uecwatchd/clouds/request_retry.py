"""Retries of a request, and looks at a pending image, before the work on a set is deferred.

A cloud that answers 503 or drops a connection is usually itself again within seconds. To give up at the first
such answer throws away what has been made for it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from uecwatchd.errors import CloudAway, Deferred, StillAway

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Pauses in seconds. To those between tries up to as much again is added by chance, so that several
    requests refused in one moment do not come back in one moment."""

    tries: tuple[float, ...] = (1.0, 2.0, 4.0)  #: before a request without a good answer is made again
    looks: tuple[float, ...] = (1.0, 2.0, 3.0)  #: between looks at an image that is pending


def retry(
    ask: Callable[[], Answer],
    *,
    patience: RetryPolicy,
    sleep: Callable[[float], None],
    spread: Callable[[], float],
) -> Answer:
    """Ask, and ask again after a passing trouble, as often as `patience` says. Only for what may be repeated.

    Raises what `ask` raises in the end, with `StillAway` in place of `CloudAway`; and what `sleep` raises,
    which is how it is stopped. `spread` gives numbers from 0 to 1.
    """
    for pause in patience.tries:
        try:
            return ask()
        except Deferred:
            sleep(pause * (1 + spread()))
    try:
        return ask()
    except CloudAway as error:
        raise StillAway(error.what, error.why, error.hint, request_id=error.request_id) from error
