"""Errors of a bundle's reader, for bytes that violate the format."""

from collections.abc import Iterator
from contextlib import contextmanager

from uecwatchd.errors import Rejected

HINT = "Fetch it again; if that does not help, bundle the image again."


class Damaged(Rejected):
    """Damage found in a layer that knows no file name; `damage_in` adds the name."""

    def __init__(self, why: str, hint: str = HINT) -> None:
        super().__init__("the bundle", why, hint)


@contextmanager
def damage_in(what: str) -> Iterator[None]:
    """Raise damage found inside as an error about this manifest or part."""
    try:
        yield
    except Damaged as damage:
        raise Rejected(what, damage.why, damage.hint) from damage
