"""The moments at which a crash would matter, each with a name.

Whatever outlives the process is done within `effect`: a row of the ledger, an object in a bucket, a call that
changes something in a cloud, a file beside the images. So the moment before and the moment after each of them
can be named, and a test can end the process at just that moment, as a power cut would.

The one global of the program: the places are in rooms that know nothing of each other, and nobody but such a
test ever listens.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Crossing = Callable[[str], None]


def _unheard(moment: str) -> None:
    """Nobody listens."""


_listener: Crossing = _unheard


def listen(listener: Crossing) -> None:
    """Have `listener` called with the name of each moment: "before put part", "after put part"."""
    global _listener
    _listener = listener


@contextmanager
def effect(name: str) -> Iterator[None]:
    """Do something that outlives the process. The moment after is only reached when it came to no error."""
    _listener(f"before {name}")
    yield
    _listener(f"after {name}")
