"""Ownership of sets, in a folder whose members do not trust each other.

Each member has a view of the folder: the member's own files, and files of root or the service for all. The
rules of sets use one view at a time, so that no file of one member is used for another's set, or blocks it. A
name is decided in one view only: that of the member whose set had it first.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from uecwatchd.images import file_names
from uecwatchd.intake.sets.candidates import (
    boot_file_key,
    is_loose,
    is_set_folder,
    key_of,
    named_files,
    role_of,
    set_keys,
    stem_of,
)
from uecwatchd.intake.sets.records import FolderSets, FolderUsers, NotReady, UnmatchedFile
from uecwatchd.intake.sets.stray_metadata import is_metadata
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool.file_kinds import is_sums
from uecwatchd.intake.spool.scan import Entry, Listing
from uecwatchd.system.text import shell_word
from uecwatchd.types import FileStamp

MemberFiles = Sequence[tuple[str, FileStamp]]
FilesOfSets = Mapping[str, MemberFiles]
# None stands for root and the service, whose files are there for all.
Owner = int | None
BOOT_ROLES = ("kernel", "ramdisk")

ONE_OWNER = "only files of one owner make a set"
FOREIGN_SHOWN = 2


@dataclass(frozen=True, slots=True)
class OwnerView:
    """One owner's view of a folder. Only sets with `keys` are decided in it; None means all.

    `foreign` are files that have the name of a set and are not used for it, by its key. `loose` is a kernel
    or ramdisk of another member without the name of a set. `users` is None if all files are used.
    """

    listing: Listing
    keys: frozenset[str] | None = None
    foreign: Mapping[str, Sequence[str]] = field(default_factory=dict)
    loose: str = ""
    users: FolderUsers | None = None

    def decides(self, name: str) -> bool:
        return self.keys is None or file_names.fold_name(name) in self.keys

    def is_own(self, path: str) -> bool:
        """Return True if this view reports that no set uses the file."""
        entry = self.listing.entries.get(path) or self.listing.boot_files.get(path)
        if self.users is None or entry is None:
            return self.listing.owner is None
        return owner_of(entry, self.users) == self.listing.owner

    def owner_among(self, paths: Sequence[str]) -> int | None:
        """Return the owner of a set: the member of this view, or else the owner of its first file."""
        if self.users is None or self.listing.owner is not None:
            return self.listing.owner
        return self.listing.entries[paths[0]].owner

    def check_exposure(self, files: Sequence[str]) -> None:
        """Raise NotReady for a file that others than its owner may have written or named."""
        if self.users is None:
            return
        for path in dict.fromkeys(part for file in files for part in _parts(file)):
            if found := self.listing.entry(path).exposed:
                where = shell_word(str(self.listing.folder / path))
                remedy = f"try: {found.command} {where}" if found.command else "copy it again"
                raise NotReady(f"{path} to be its owner's alone: {found.why} ({remedy})")

    def common_files(self, files: Sequence[str], name: str) -> tuple[str, ...]:
        """Return the files of a set that are there for all, unless they have its name."""
        key = file_names.fold_name(name)
        return tuple(path for path in files if not self.is_own(path) and key not in _set_names(path))

    def left_out(self, name: str) -> tuple[str, ...]:
        """Return a sentence about unused files with the name of a set, if there are any."""
        paths = self.foreign.get(file_names.fold_name(name), ())
        return (f"left out: {self.why_not(paths, name)}",) if paths else ()

    def note(self, name: str, wait: NotReady) -> str:
        """Return a clause about files of others that a set waits for; empty if there are none."""
        if self.users is None or wait.brief:
            return ""
        paths = [*self.foreign.get(file_names.fold_name(name), ())]
        if wait.path and wait.path in self.listing.others:
            paths = [wait.path]
        elif not paths and wait.lacking.intersection(BOOT_ROLES) and self.loose:
            paths = [self.loose]
        return f"; {self.why_not(paths, name)}" if paths else ""

    def why_not(self, paths: Sequence[str], name: str) -> str:
        """Return why files are not used for a set: "a.vmlinuz belongs to bob, the set a to alice: …"."""
        users, whole = self.users or FolderUsers(frozenset()), self.listing.others or self.listing.entries
        owned = [f"{path} belongs to {users.name(whole[path].owner)}" for path in paths[:FOREIGN_SHOWN]]
        more = " (and others)" if len(paths) > FOREIGN_SHOWN else ""
        owner = _spelled(self.listing.owner, users)
        return f"{', '.join(owned)}{more}, the set {name} to {owner}: {ONE_OWNER}"


@dataclass(frozen=True, slots=True)
class ViewDecisions:
    """Decisions of one view, and the files that its sets use or wait with."""

    view: OwnerView
    assembly: FolderSets
    used: frozenset[str]


def join_views(parts: Sequence[ViewDecisions], left_out: Mapping[str, UnmatchedFile]) -> FolderSets:
    """Merge the decisions of all views. A file for all owners is in use if any set uses it."""
    if len(parts) == 1 and not left_out:
        return parts[0].assembly
    unmatched = {m.path: m for part in parts for m in part.assembly.unmatched if part.view.is_own(m.path)}
    common_files = {path for part in parts for path in part.used if not part.view.is_own(path)}
    used = {path for part in parts for path in part.used}
    unmatched = {path: file for path, file in unmatched.items() if path not in common_files}
    unmatched |= {path: file for path, file in left_out.items() if path not in used}
    return FolderSets(
        tuple(sorted((one for part in parts for one in part.assembly.ready), key=lambda one: one.name)),
        tuple(sorted((one for part in parts for one in part.assembly.waiting), key=lambda one: one.name)),
        tuple(sorted((one for part in parts for one in part.assembly.refused), key=lambda one: one.name)),
        tuple(unmatched[path] for path in sorted(unmatched)),
    )


def owner_of(entry: Entry, users: FolderUsers) -> Owner:
    return None if entry.owner in users.common else entry.owner


def _spelled(owner: Owner, users: FolderUsers) -> str:
    return "root or the service" if owner is None else users.name(owner)


def _set_names(path: str) -> Collection[str]:
    top, slash, _ = path.partition("/")
    target = file_names.checksums_target(top) if is_sums(top) else top
    return (
        (file_names.fold_name(top),) if slash else (key_of(target or ""), file_names.fold_name(target or ""))
    )


def views_of(
    listing: Listing, users: FolderUsers, *, holders: Mapping[str, int], taken: FilesOfSets
) -> tuple[list[OwnerView], dict[str, UnmatchedFile]]:
    """Return each owner's view, and the files that are not used for the set with their name.

    `holders` are the uids that own the names of known sets, `taken` the files of finished sets.
    """
    keys = set_keys(listing)
    owners = _owners_of_keys(listing, users, keys, holders=holders, taken=taken)
    out = {path: key for path, key in keys.items() if _is_foreign(listing, path, owners[key], users)}
    paths: dict[Owner, list[str]] = {None: []}
    for path, entry in listing.entries.items():
        paths.setdefault(owner_of(entry, users), []).append(path)
    decided: dict[Owner, set[str]] = {owner: set() for owner in paths}
    for key, owner in owners.items():
        decided.setdefault(owner, set()).add(key)
    foreign: dict[str, list[str]] = {}
    for path in sorted(out):
        foreign.setdefault(out[path], []).append(path)
    for path in sorted(listing.boot_files):
        key = boot_file_key(path)
        if _owners_on(listing, path, users) - {owners.get(key)}:
            foreign.setdefault(key, []).append(path)
    images = [path for path in paths[None] if path in keys and role_of(listing, path) == "machine"]
    split = _Split(listing, users, paths, keys, out, frozenset(keys[path] for path in images))
    loose = [path for path in sorted(listing.entries) if split.serves_any(path)]
    views = [
        OwnerView(
            _seen_by(owner, split, decided[owner]),
            frozenset(decided[owner]),
            foreign,
            next((path for path in loose if owner_of(listing.entries[path], users) not in (owner, None)), ""),
            users,
        )
        for owner in paths
    ]
    shown: dict[str, str] = {}
    for path in sorted(keys, key=lambda path: path in out):
        shown.setdefault(keys[path], _stem(listing, path))
    return views, {
        path: _unmatched_file(listing, path, shown[key], owners[key], users) for path, key in out.items()
    }


# --- whose a name is --------------------------------------------------------------------------------------


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


def _owners_of_keys(
    listing: Listing,
    users: FolderUsers,
    keys: Mapping[str, str],
    *,
    holders: Mapping[str, int],
    taken: FilesOfSets,
) -> Mapping[str, Owner]:
    made_of = {(file_names.fold_name(name), file) for name, files in taken.items() for file in files}
    held = {file_names.fold_name(name): uid for name, uid in holders.items()}
    claims: dict[str, dict[Owner, _Claim]] = {key: {} for key in keys.values()}
    for key, path, by in _claiming(listing, users, keys):
        entry = listing.entries[path]
        owner = next(iter(_owners_on(listing, path, users)), None)
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
        owners = _owners_on(listing, path, users)
        if is_sums(path) or len(owners) > 1:
            continue
        yield key, path, path
        for named in _named_by(listing, path):
            if named in listing.entries and owners <= _owners_on(listing, named, users):
                yield key, named, path


def _owners_on(listing: Listing, path: str, users: FolderUsers) -> frozenset[int]:
    """Return the members among the owners of a path and of its folder."""
    owners = (owner_of(listing.entry(part), users) for part in _parts(path))
    return frozenset(owner for owner in owners if owner is not None)


def _parts(path: str) -> list[str]:
    """Return the folders that a path leads through, from the outermost in, and the path itself."""
    return [*(str(folder) for folder in reversed(PurePosixPath(path).parents) if folder.name), path]


def _named_by(listing: Listing, path: str) -> Iterator[str]:
    """Yield the paths that a sidecar names."""
    found = listing.sidecars.get(path)
    folder, slash, _ = path.rpartition("/")
    if isinstance(found, Sidecar):
        yield from (f"{folder}{slash}{name}" for name in named_files(found).values())


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


def _is_foreign(listing: Listing, path: str, owner: Owner, users: FolderUsers) -> bool:
    """Return True if a file is not used for the set with its name, which belongs to `owner`.

    A sidecar, a kernel, a ramdisk or sums can be there for all; an image of root is not for a member's set.
    """
    if _owners_on(listing, path, users) - {owner}:
        return True
    of_all = owner_of(listing.entries[path], users) is None
    return owner is not None and of_all and role_of(listing, path) == "machine"


def _stem(listing: Listing, path: str) -> str:
    top = path.partition("/")[0]
    return top if is_set_folder(listing.entries[top]) else stem_of(file_names.checksums_target(top) or top)


def _unmatched_file(
    listing: Listing, path: str, name: str, owner: Owner, users: FolderUsers
) -> UnmatchedFile:
    """Return why a file is not used, and what to do about it."""
    top, slash, _ = path.partition("/")
    folder, entry = listing.entries[top], listing.entries[path]
    reason, remedy = f"it belongs to {users.name(entry.owner)}", "give it another name"
    if slash:
        remedy = "put it into a folder of its owner's"
        if owner_of(entry, users) == owner and owner_of(folder, users) not in (owner, None):
            reason = f"it lies in {top}/, which belongs to {users.name(folder.owner)}"
    if owner is not None and owner_of(entry, users) is None:
        remedy = f"try: chown {users.name(owner)} {shell_word(path)}"
    return UnmatchedFile(
        path, f"{reason}, and the set {name} to {_spelled(owner, users)}: {ONE_OWNER} ({remedy})"
    )


# --- what each owner sees ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Split:
    """A folder's paths by owner.

    `keys` are the keys of sets by path, `out` those of paths that are not used; `with_image` are the keys of
    images that are there for all.
    """

    listing: Listing
    users: FolderUsers
    paths: Mapping[Owner, Sequence[str]]
    keys: Mapping[str, str]
    out: Mapping[str, str]
    with_image: Collection[str]

    def serves_any(self, path: str) -> bool:
        """Return True for a kernel or ramdisk without the name of a set, or a published one."""
        if "/" in path or (path in self.keys and not is_loose(path)):
            return False
        return is_loose(path) or role_of(self.listing, path) in BOOT_ROLES


def _seen_by(owner: Owner, split: _Split, decided: Collection[str]) -> Listing:
    listing = split.listing
    seen = [path for path in split.paths[owner] if "/" not in path or path not in split.out]
    if owner is not None:
        # Of the files for all, only those that may matter here: there may be many of them, and many members.
        seen += [path for path in split.paths[None] if _matters(path, split, decided)]
        named = {name for path in seen for name in _named_by(listing, path)}
        seen += [path for path in split.paths[None] if path in named] if named else []
    entries = {path: listing.entries[path] for path in sorted(set(seen))}
    ignored = {path: why for path, why in listing.ignored.items() if _may_see_ignored(path, owner, split)}
    uids = split.users.common if owner is None else split.users.common | {owner}
    return replace(
        listing,
        entries=entries,
        ignored=ignored,
        unread=listing.unread & entries.keys(),
        crowded=listing.crowded & entries.keys(),
        left_out={uid: number for uid, number in listing.left_out.items() if uid in uids},
        owner=owner,
        others={**listing.entries, **listing.boot_files} if listing.boot_files else listing.entries,
        boot_files={
            path: entry
            for path, entry in listing.boot_files.items()
            if _owners_on(listing, path, split.users) <= {owner}
        },
    )


def _matters(path: str, split: _Split, decided: Collection[str]) -> bool:
    if path in split.out:
        return False
    key = split.keys.get(path)
    if key in decided or split.serves_any(path):
        return True
    if "/" not in path and key not in split.with_image and is_metadata(split.listing, path):
        return True  # because of a misspelt name it may not match its set
    stems = file_names.stems_by_name(path) if "/" not in path else []
    return (is_sums(path) and "/" not in path) or any(file_names.fold_name(stem) in decided for stem in stems)


def _may_see_ignored(path: str, owner: Owner, split: _Split) -> bool:
    """Return True if an ignored file may hold the owner's sets by its name: it must have the same owner."""
    uid, top = split.listing.ignored_of.get(path), path.partition("/")[0]
    folder = split.listing.entries.get(top)
    uids = {uid, folder.owner if folder else None} - split.users.common - {None}
    return uids <= {owner}
