"""Wait for what another thread or process does by itself."""

import time
from collections.abc import Callable

# Longer than anything takes on a busy machine, so that a hang becomes a failure.
PATIENCE_SECONDS = 120.0
POLL_SECONDS = 0.02


def until(
    happened: Callable[[], object],
    what: str = "it to happen",
    *,
    patience: float = PATIENCE_SECONDS,
    pause: float = POLL_SECONDS,
    detail: Callable[[], str] = str,
) -> None:
    """Wait until `happened` returns something true, asking each `pause` seconds.

    Raises AssertionError after `patience` seconds, with the text that `detail` gives then, such as a log.
    """
    end = time.monotonic() + patience
    while not happened():
        assert time.monotonic() < end, f"waited too long for {what}\n{detail()}"
        time.sleep(pause)


def no_stop() -> None:
    """Stop nothing: the check of work that may go on."""
