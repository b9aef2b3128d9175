"""Ownership of sets, in a folder whose members do not trust each other.

Each member has a view of the folder: the member's own files, and files of root or the service for all. The
rules of sets use one view at a time, so that no file of one member is used for another's set, or blocks it. A
name is decided in one view only: that of the member whose set had it first.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from uecwatchd.images import file_names
from uecwatchd.intake.sets.candidates import (
    boot_file_key,
    is_loose,
    is_set_folder,
    key_of,
    role_of,
    set_keys,
    stem_of,
)
from uecwatchd.intake.sets.name_claims import (
    FilesOfSets,
    Owner,
    named_by,
    owner_of,
    owners_of_keys,
    owners_on,
    path_parts,
)
from uecwatchd.intake.sets.records import FolderSets, FolderUsers, NotReady, UnmatchedFile
from uecwatchd.intake.sets.stray_metadata import is_metadata
from uecwatchd.intake.spool.file_kinds import is_sums
from uecwatchd.intake.spool.scan import Listing
from uecwatchd.system.text import shell_word

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
        for path in dict.fromkeys(part for file in files for part in path_parts(file)):
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
    split = _split_folder(listing, users, holders=holders, taken=taken)
    loose = [path for path in sorted(listing.entries) if split.serves_any(path)]
    foreign, decided = split.foreign(), split.keys_by_owner()
    views = []
    for owner in split.paths:
        others = (path for path in loose if owner_of(listing.entries[path], users) not in (owner, None))
        seen = _seen_by(owner, split, decided[owner])
        views.append(OwnerView(seen, frozenset(decided[owner]), foreign, next(others, ""), users))
    names = split.names()
    return views, {
        path: _unmatched_file(listing, path, names[key], split.owners[key], users)
        for path, key in split.out.items()
    }


# --- files that are not used ------------------------------------------------------------------------------


def _is_foreign(listing: Listing, path: str, owner: Owner, users: FolderUsers) -> bool:
    """Return True if a file is not used for the set with its name, which belongs to `owner`.

    A sidecar, a kernel, a ramdisk or sums can be there for all; an image of root is not for a member's set.
    """
    if owners_on(listing, path, users) - {owner}:
        return True
    of_all = owner_of(listing.entries[path], users) is None
    return owner is not None and of_all and role_of(listing, path) == "machine"


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
            reason = f"it is in {top}/, which belongs to {users.name(folder.owner)}"
    if owner is not None and owner_of(entry, users) is None:
        remedy = f"try: chown {users.name(owner)} {shell_word(path)}"
    return UnmatchedFile(
        path, f"{reason}, and the set {name} to {_spelled(owner, users)}: {ONE_OWNER} ({remedy})"
    )


# --- what each owner sees ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Split:
    """A folder's paths by owner."""

    listing: Listing
    users: FolderUsers
    paths: Mapping[Owner, Sequence[str]]  #: of all owners of files; always with None
    keys: Mapping[str, str]  #: keys of sets by path
    owners: Mapping[str, Owner]  #: owners of sets by key
    out: Mapping[str, str]  #: keys by path, of files that are not used for the set with their name
    with_image: Collection[str]  #: keys of images that are there for all

    def keys_by_owner(self) -> Mapping[Owner, set[str]]:
        """Return the keys of the sets that belong to each owner of files."""
        found: dict[Owner, set[str]] = {owner: set() for owner in self.paths}
        for key, owner in self.owners.items():
            found.setdefault(owner, set()).add(key)
        return found

    def foreign(self) -> Mapping[str, Sequence[str]]:
        """Return the files that are not used for the set with their name, by its key."""
        found: dict[str, list[str]] = {}
        for path in sorted(self.out):
            found.setdefault(self.out[path], []).append(path)
        for path in sorted(self.listing.boot_files):
            key = boot_file_key(path)
            if owners_on(self.listing, path, self.users) - {self.owners.get(key)}:
                found.setdefault(key, []).append(path)
        return found

    def names(self) -> Mapping[str, str]:
        """Return the name of each set by its key, as its own files spell it if it has any."""
        found: dict[str, str] = {}
        for path in sorted(self.keys, key=lambda path: path in self.out):
            top = path.partition("/")[0]
            is_folder = is_set_folder(self.listing.entries[top])
            name = top if is_folder else stem_of(file_names.checksums_target(top) or top)
            found.setdefault(self.keys[path], name)
        return found

    def serves_any(self, path: str) -> bool:
        """Return True for a kernel or ramdisk without the name of a set, or a published one."""
        if "/" in path or (path in self.keys and not is_loose(path)):
            return False
        return is_loose(path) or role_of(self.listing, path) in BOOT_ROLES


def _split_folder(
    listing: Listing, users: FolderUsers, *, holders: Mapping[str, int], taken: FilesOfSets
) -> _Split:
    keys = set_keys(listing)
    owners = owners_of_keys(listing, users, keys, holders=holders, taken=taken)
    out = {path: key for path, key in keys.items() if _is_foreign(listing, path, owners[key], users)}
    paths: dict[Owner, list[str]] = {None: []}
    for path, entry in listing.entries.items():
        paths.setdefault(owner_of(entry, users), []).append(path)
    images = [path for path in paths[None] if path in keys and role_of(listing, path) == "machine"]
    return _Split(listing, users, paths, keys, owners, out, frozenset(keys[path] for path in images))


def _seen_by(owner: Owner, split: _Split, decided: Collection[str]) -> Listing:
    listing = split.listing
    seen = [path for path in split.paths[owner] if "/" not in path or path not in split.out]
    if owner is not None:
        # Of the files for all, only those that may matter here: there may be many of them, and many members.
        seen += [path for path in split.paths[None] if _matters(path, split, decided)]
        named = {name for path in seen for name in named_by(listing, path)}
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
            if owners_on(listing, path, split.users) <= {owner}
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
