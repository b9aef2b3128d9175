"""What a reader of bundles says when bytes are not what the format prescribes."""

from collections.abc import Iterator
from contextlib import contextmanager

from uecwatchd.errors import Rejected

HINT = "Fetch it again; if that does not help, bundle the image again."


class Damaged(Rejected):
    """Raised by the layers that see bytes but know no file name; `blamed_on` adds the name."""

    def __init__(self, why: str, hint: str = HINT) -> None:
        super().__init__("the bundle", why, hint)


@contextmanager
def blamed_on(what: str) -> Iterator[None]:
    """Gives damage found inside the name of the manifest or part that it was found in."""
    try:
        yield
    except Damaged as damage:
        raise Rejected(what, damage.why, damage.hint) from damage
