"""What a look does not know of a folder: files it did not come to read, has no room for, or cannot use.

A sidecar among them may name any file that has none of its own. No image goes up while it may be named by
what nobody has understood.
"""

from collections.abc import Iterable, Sequence

from uecwatchd import image
from uecwatchd.errors import UecError
from uecwatchd.imageset.draft import key_of
from uecwatchd.imageset.likeness import is_near
from uecwatchd.imageset.outcome import NotYet
from uecwatchd.sidecar import Foreign, Misread
from uecwatchd.spool import Listing, is_sidecar


def unread_sidecar(listing: Listing) -> str | None:
    """A sidecar beside the sets that has not been read: it may name any file that has none of its own."""
    unread = (listing.unread | listing.crowded) & listing.entries.keys()
    return min((path for path in unread if is_sidecar(path) and "/" not in path), default=None)


def must_be_unnamed(listing: Listing, lone: Iterable[str], paths: Sequence[str], settle: float) -> None:
    """Raises NotYet where metadata may name a file of a set without a sidecar. `paths` are the set's files.

    `lone` are the paths of what lies beside the sets and belongs to no image by its name.
    """
    for path in lone:
        ready_at = listing.entries[path].since + settle
        if listing.now < ready_at:
            raise NotYet(f"{path} to lie still for {settle:g} s", ready_at, brief=True)
        found = listing.sidecars.get(path)
        words = listing.words.get(path)
        if isinstance(found, Misread):
            may_name = _may_mean(found.machines, paths)
        else:
            may_name = isinstance(found, UecError) and not isinstance(found, Foreign)
        if may_name:
            raise NotYet(f"{path} to be corrected or moved away: it cannot be used, and may name this image")
        if words and _may_mean(filter(None, words.machines), paths):
            raise NotYet(f"{path} to be moved away: it is no sidecar, and may name this image")


def _may_mean(names: Iterable[str], paths: Sequence[str]) -> bool:
    """Whether one of the images that a text names may be one of these files.

    It is if it has that name, or nearly, or if the name is only begun: the text may be cut short.
    """
    named = [image.folded(name.rsplit("/", 1)[-1]) for name in names]
    there = [image.folded(path.rsplit("/", 1)[-1]) for path in paths]
    return any(t.startswith(n) or is_near(key_of(n), key_of(t)) for n in named for t in there)


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
