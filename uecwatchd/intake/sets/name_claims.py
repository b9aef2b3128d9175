"""Claims of owners to the names of sets.

The owner of the first files has a name, as long as its set exists.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from uecwatchd.images import file_names
from uecwatchd.intake.sets.candidates import all_named_files, role_of
from uecwatchd.intake.sets.records import FolderUsers
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool.file_kinds import is_sums
from uecwatchd.intake.spool.scan import Entry, Listing
from uecwatchd.types import FileStamp

MemberFiles = Sequence[tuple[str, FileStamp]]
FilesOfSets = Mapping[str, MemberFiles]
# None is root and the service, whose files are there for all.
Owner = int | None


def owner_of(entry: Entry, users: FolderUsers) -> Owner:
    return None if entry.owner in users.common else entry.owner


@dataclass(frozen=True, slots=True, order=True)
class _Claim:
    """One owner's claim to a name; the least of several is the best."""

    is_new: bool  # none of its files is in the finished set with this name
    no_machine: bool
    since: int  # change time of its oldest file, which no user can set
    uid: int

    def joined(self, other: "_Claim") -> "_Claim":
        return _Claim(
            self.is_new and other.is_new,
            self.no_machine and other.no_machine,
            min(self.since, other.since),
            self.uid,
        )


def owners_of_keys(
    listing: Listing,
    users: FolderUsers,
    keys: Mapping[str, str],
    *,
    holders: Mapping[str, int],
    taken: FilesOfSets,
) -> Mapping[str, Owner]:
    """Return the owner of each of `keys`, the keys of sets by path. See `views_of` for the others."""
    made_of = {(file_names.fold_name(name), file) for name, files in taken.items() for file in files}
    held = {file_names.fold_name(name): uid for name, uid in holders.items()}
    claims: dict[str, dict[Owner, _Claim]] = {key: {} for key in keys.values()}
    for key, path, by in _claiming(listing, users, keys):
        entry = listing.entries[path]
        owner = next(iter(owners_on(listing, path, users)), None)
        new = (key, (path, entry.stamp)) not in made_of
        no_machine = role_of(listing, path) != "machine" or owner_of(entry, users) != owner
        claim = _Claim(new, no_machine, listing.entries[by].stamp.ctime_ns, -1 if owner is None else owner)
        found = claims[key]
        found[owner] = found[owner].joined(claim) if owner in found else claim
    return {key: _owner_of_key(found, held.get(key), users) for key, found in claims.items()}


def _claiming(
    listing: Listing, users: FolderUsers, keys: Mapping[str, str]
) -> Iterator[tuple[str, str, str]]:
    """Yield (key, path, by): a file that supports its owner's claim to a key, and its link to the key.

    `by` is the file itself, or a sidecar that names it. Sums support no claim, and files that others put into
    a member's folder neither. A sidecar of root supports the claim of any owner.
    """
    for path, key in keys.items():
        owners = owners_on(listing, path, users)
        if is_sums(path) or len(owners) > 1:
            continue
        yield key, path, path
        for named in named_by(listing, path):
            if named in listing.entries and owners <= owners_on(listing, named, users):
                yield key, named, path


def owners_on(listing: Listing, path: str, users: FolderUsers) -> frozenset[int]:
    """Return the members among the owners of a path and of its folder."""
    owners = (owner_of(listing.entry(part), users) for part in path_parts(path))
    return frozenset(owner for owner in owners if owner is not None)


def path_parts(path: str) -> list[str]:
    """Return the folders that a path leads through, from the outermost in, and the path itself."""
    return [*(str(folder) for folder in reversed(PurePosixPath(path).parents) if folder.name), path]


def named_by(listing: Listing, path: str) -> Iterator[str]:
    """Yield the paths that a sidecar names."""
    found = listing.sidecars.get(path)
    folder, slash, _ = path.rpartition("/")
    if isinstance(found, Sidecar):
        yield from (f"{folder}{slash}{name}" for name in all_named_files(found))


def _owner_of_key(found: Mapping[Owner, _Claim], holder: int | None, users: FolderUsers) -> Owner:
    """Return the owner of a name.

    Root's own image belongs to no member; otherwise the first owner keeps the name while the set exists.
    """
    members = {owner: claim for owner, claim in found.items() if owner is not None}
    if holder is not None:
        gone = holder not in members and None in found
        return None if gone or holder in users.common else holder
    if not members or (None in found and not found[None].no_machine):
        return None
    return min(members.values()).uid
