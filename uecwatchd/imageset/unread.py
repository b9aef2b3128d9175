"""What a look does not know of a folder: files it did not come to read, has no room for, or cannot use.

A sidecar among them may name any file that has none of its own. No image goes up while it may be named by
what nobody has understood.
"""

from collections.abc import Iterable

from uecwatchd.errors import UecError
from uecwatchd.imageset.outcome import NotYet
from uecwatchd.sidecar import Foreign, Nameless
from uecwatchd.spool import Listing, is_sidecar


def unread_sidecar(listing: Listing) -> str | None:
    """A sidecar beside the sets that has not been read: it may name any file that has none of its own."""
    unread = (listing.unread | listing.crowded) & listing.entries.keys()
    return min((path for path in unread if is_sidecar(path) and "/" not in path), default=None)


def must_be_unnamed(listing: Listing, lone: Iterable[str], settle: float) -> None:
    """Raises NotYet where metadata may name the files of a set without a sidecar.

    `lone` are the paths of what lies beside the sets and belongs to no image by its name.
    """
    for path in lone:
        ready_at = listing.entries[path].since + settle
        if listing.now < ready_at:
            raise NotYet(f"{path} to lie still for {settle:g} s", ready_at, brief=True)
        found = listing.sidecars.get(path)
        if isinstance(found, UecError) and not isinstance(found, Foreign | Nameless):
            raise NotYet(f"{path} to be corrected: it cannot be used, and may name this image")
        if "machine" in listing.keys.get(path, ()):
            raise NotYet(f"{path} to be renamed or moved away: it is no sidecar, and may name this image")


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
