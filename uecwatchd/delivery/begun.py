"""Bundles of a set in the ledger: read once for all members, and again after a change.

A look needs no claim, so what it says may be over a moment later. It is enough to choose between members that
are registered and those that are to be claimed; under the claim, the ledger is asked again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from uecwatchd.ledger.records import BegunBundles
from uecwatchd.types import ContentDigest


@dataclass(slots=True)
class BegunLook:
    """The last look, until it is forgotten. `contents` are those of all members of the set."""

    contents: tuple[ContentDigest, ...] = ()
    _found: BegunBundles | None = field(default=None, init=False)

    def found(self, read: Callable[[tuple[ContentDigest, ...]], BegunBundles]) -> BegunBundles:
        """Return the last look, or what `read` returns for these contents."""
        if self._found is None:
            self._found = read(self.contents)
        return self._found

    def forget(self) -> None:
        self._found = None
