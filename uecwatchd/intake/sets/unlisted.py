"""What a look does not know of a folder: files it did not come to read, or has no room for.

A sidecar among them may name any file that has none of its own.
"""

from collections.abc import Iterable

from uecwatchd.intake.sets.records import NotYet
from uecwatchd.intake.spool.file_kinds import is_sidecar
from uecwatchd.intake.spool.scan import Listing


def unread_sidecar(listing: Listing) -> str | None:
    """A sidecar beside the sets that has not been read: it may name any file that has none of its own."""
    unread = (listing.unread | listing.crowded) & listing.entries.keys()
    return min((path for path in unread if is_sidecar(path) and "/" not in path), default=None)


def must_be_whole(listing: Listing) -> None:
    """Raises NotYet where names were left out for want of room: a sidecar may be among them."""
    if number := sum(listing.left_out.values()):
        reason = f"room for all names in this folder: {number} more lie there than are looked at"
        raise NotYet(reason, brief=True, unread=True)


def must_have_been_read(listing: Listing, paths: Iterable[str]) -> None:
    """Raises NotYet for the first that was not."""
    for path in paths:
        if path in listing.unread:
            raise NotYet(f"{path} to be read: much lies there", listing.now, brief=True, unread=True)
        if path in listing.crowded:
            reason = f"room for what {path} says: too much metadata lies in this folder"
            raise NotYet(reason, brief=True, unread=True)
