"""Sets whose files the last look did not come to read, or has no room for: they wait, and nobody is told."""

from collections.abc import Iterable

from uecwatchd.imageset.outcome import NotYet
from uecwatchd.spool import Listing, is_sidecar


def unread_sidecar(listing: Listing) -> str | None:
    """A sidecar beside the sets that has not been read yet: it may name any file that has none of its own."""
    paths = (path for path in listing.unread & listing.entries.keys() if is_sidecar(path) and "/" not in path)
    return min(paths, default=None)


def must_have_been_read(listing: Listing, paths: Iterable[str]) -> None:
    """Raises NotYet for the first that was not."""
    for path in paths:
        if path in listing.unread:
            raise NotYet(f"{path} to be read: much lies there", listing.now, brief=True, unread=True)
        if path in listing.crowded:
            reason = f"room for what {path} says: too much metadata lies in this folder"
            raise NotYet(reason, brief=True, unread=True)
