"""Files that a scan did not read, for lack of time or memory.

A sidecar among them may name any file that has no sidecar of its own.
"""

from collections.abc import Iterable

from uecwatchd.intake.sets.records import NotReady
from uecwatchd.intake.spool.file_kinds import is_sidecar
from uecwatchd.intake.spool.scan import Listing


def unread_sidecar(listing: Listing) -> str | None:
    """Return a sidecar beside the sets that was not read: it may name any file without a sidecar."""
    unread = (listing.unread | listing.crowded) & listing.entries.keys()
    return min((path for path in unread if is_sidecar(path) and "/" not in path), default=None)


def check_whole(listing: Listing) -> None:
    """Raise NotReady if names were left out because of a limit: a sidecar may be among them."""
    if number := sum(listing.left_out.values()):
        reason = f"room for all names in this folder: {number} more are there than are looked at"
        raise NotReady(reason, brief=True, unread=True)


def check_read(listing: Listing, paths: Iterable[str]) -> None:
    """Raise NotReady for the first file that was not read."""
    for path in paths:
        if path in listing.unread:
            raise NotReady(f"{path} to be read: there is much to read", listing.now, brief=True, unread=True)
        if path in listing.crowded:
            reason = f"room for what {path} says: this folder has too much metadata"
            raise NotReady(reason, brief=True, unread=True)
