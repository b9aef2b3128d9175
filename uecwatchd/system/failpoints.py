"""Failpoints: the moments in the program when a crash would matter, each with a name.

Everything that outlives the process is done within `effect`: a row of the ledger, an object in a bucket, a
call that changes something in a cloud, a file beside the images. So a test can end the process just before or
just after it, as a power loss would.

This is a global variable, as `folder_lease` has one, and no other module: the effects are in modules that do
not know each other, and only tests listen.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Crossing = Callable[[str], None]


def _no_listener(moment: str) -> None:
    """Ignore the moment: no test listens."""


_listener: Crossing = _no_listener


def listen(listener: Crossing) -> None:
    """Call `listener` with the name of each moment: "before put part", "after put part"."""
    global _listener
    _listener = listener


@contextmanager
def effect(name: str) -> Iterator[None]:
    """Do something that outlives the process. An exception skips the moment after it."""
    _listener(f"before {name}")
    yield
    _listener(f"after {name}")
