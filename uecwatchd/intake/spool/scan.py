"""Scan of a folder: names, ages, metadata, and facts from the first bytes of the files."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from uecwatchd.errors import Rejected, UecError, words_of
from uecwatchd.intake.misnamed_sidecars import SidecarWords
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool.boot_folders import boot_folder_of, is_boot_folder
from uecwatchd.intake.spool.contents import Contents, FactsOrError, ReadBudget, Sums, read_contents
from uecwatchd.intake.spool.exposure import Exposure, exposure
from uecwatchd.intake.spool.ignored import ignored_by
from uecwatchd.intake.spool.name_limit import MOST_NAMES_IN_A_SET, names_in
from uecwatchd.intake.spool.output_files import MARK_NAME, SPOOL_LOCK, is_foreign, is_output
from uecwatchd.intake.spool.safe_open import (
    EntryKind,
    cannot_open,
    folder_descriptor,
    kind_of,
    open_folder_below,
)
from uecwatchd.system.text import spelled
from uecwatchd.types import FileStamp

NOT_UTF8 = "a name that is not UTF-8"  # in place of the pattern that a name matches


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a folder, as `lstat` sees it.

    `since` is our monotonic clock, in seconds, when this stamp was first seen: modification times are kept by
    `cp -p` and differ between NFS hosts. `owner` is a uid. `exposed` says how others may have changed it.
    """

    name: str
    kind: EntryKind
    size: int
    stamp: FileStamp
    since: float
    owner: int = 0
    exposed: Exposure | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """A folder and its sub-folders, one level deep, at one moment.

    Mappings have the path relative to `folder` as key: "karmic.img", "karmic/disk.img". If a file cannot be
    read, or a folder cannot be listed, its error is there instead. `words` are from small texts under other
    names that contain keys of a sidecar. `planted` are files with the name of a result file that the service
    did not put there; `ignored_of` has the owners of the other ignored names. `unread` files are read by the
    next scan; for `crowded` metadata there is no memory. `left_out` is the number of names of each owner
    beyond the limit. In a member's view of a folder, `owner` is the uid of the member, and `others` has the
    whole folder. `boot_files` are the folders of boot files for Windows, and what is in them: never read as
    anything else.
    """

    folder: Path
    now: float
    entries: Mapping[str, Entry] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, FactsOrError] = field(default_factory=dict)
    sidecars: Mapping[str, Sidecar | UecError] = field(default_factory=dict)
    checksums: Mapping[str, Sums | UecError] = field(default_factory=dict)
    planted: Mapping[str, Entry] = field(default_factory=dict)
    words: Mapping[str, SidecarWords] = field(default_factory=dict)
    unread: frozenset[str] = frozenset()
    crowded: frozenset[str] = frozenset()
    ignored_of: Mapping[str, int] = field(default_factory=dict)
    owner: int | None = None
    others: Mapping[str, Entry] = field(default_factory=dict)
    left_out: Mapping[int, int] = field(default_factory=dict)
    boot_files: Mapping[str, Entry] = field(default_factory=dict)

    def entry(self, path: str) -> Entry:
        """Return a file, a boot file, or a file in the place of a result file."""
        return self.entries.get(path) or self.boot_files.get(path) or self.planted[path]

    def stamp(self, path: str) -> FileStamp:
        return self.entry(path).stamp

    def keys_given(self, path: str) -> tuple[str, ...]:
        """Return the keys of a sidecar in a text with another name."""
        words = self.words.get(path)
        return words.keys if words else ()

    def top(self) -> list[Entry]:
        return [entry for path, entry in self.entries.items() if "/" not in path]


def scan(
    folder: Path,
    *,
    now: float,
    before: Listing | None = None,
    ignore: Sequence[str] = (),
    seen: float | None = None,
    owner: int | None = None,
    budget: ReadBudget | None = None,
    share: int = 0,
) -> Listing:
    """List a folder. Files with the same stamp as in the listing `before` are not read again.

    `seen` is the time when new files count as first seen; `now` by default. `owner` is the user of the
    service; that of this process by default. Files beyond the `budget` are listed as unread. `share` is for
    the stamps. Raises NotPermitted if the folder cannot be listed, Deferred if it is not there.
    """
    since, budget = now if seen is None else seen, budget or ReadBudget()
    names = _Names(ignore, since, budget, share)
    with folder_descriptor(folder) as descriptor:
        left_out = names.take(descriptor, "", budget.names)
        closed: dict[str, FactsOrError] = {}
        for path in chain(names.folders(), names.boot_folders()):
            try:
                names.take_below(descriptor, path)
            except OSError as error:
                closed[path] = words_of(cannot_open(descriptor, path, error))
            except Rejected as error:
                closed[path] = words_of(error)
        every = {path: _with_age(path, entry, before) for path, entry in names.entries.items()}
        entries = {path: entry for path, entry in every.items() if not _is_boot_file(path, every)}
        boot_files = {path: entry for path, entry in every.items() if path not in entries}
        service = os.geteuid() if owner is None else owner
        planted = _planted(descriptor, names.ignored, owner=service, since=since, share=share)
        whose = _owners(descriptor, names.ignored)
        found = Listing(folder, now, entries, names.ignored, closed, planted=planted, ignored_of=whose)
        found = replace(found, left_out=left_out, boot_files=boot_files)
        return _read_contents(descriptor, found, before or Listing(folder, now), budget)


class _Names:
    """The names in a folder and in its sub-folders, up to a limit."""

    def __init__(self, ignore: Sequence[str], since: float, budget: ReadBudget, share: int) -> None:
        self.entries: dict[str, Entry] = {}
        self.ignored: dict[str, str] = {}
        self._ignore = ignore
        self._since = since
        self._budget = budget
        self._share = share
        self._names_left: dict[int, int] = {}

    def folders(self) -> list[str]:
        """Return the sub-folders. Each of their owners has the same share of the limit for names in them."""
        found = {path: entry.owner for path, entry in self.entries.items() if entry.kind == "folder"}
        owners = set(found.values())
        self._names_left = {owner: self._budget.names // len(owners) for owner in owners}
        return list(found)

    def boot_folders(self) -> Iterator[str]:
        """Yield the folders of boot files in the sub-folders, once the names in these are known."""
        for path, entry in list(self.entries.items()):
            if entry.kind == "folder" and "/" in path and is_boot_folder(path):
                yield path

    def take_below(self, parent: int, path: str) -> None:
        """Add the names in a sub-folder.

        Raises Rejected if there are more than the limit, or than any set has.
        """
        owner, before = self.entries[path].owner, len(self.entries)
        left = self._names_left.get(owner, 0)
        most = min(MOST_NAMES_IN_A_SET, left)
        try:
            with open_folder_below(parent, path) as descriptor:
                if self.take(descriptor, f"{path}/", most):
                    why = f"it has more than the {most} files that there is room for"
                    hint = "Leave the files of one set alone in it, and remove folders that are done with."
                    raise Rejected(f"{path}/: it is not looked at", why, hint)
        finally:
            self._names_left[owner] = left - (len(self.entries) - before)

    def take(self, descriptor: int, prefix: str, most: int) -> Mapping[int, int]:
        """Add the names in one folder; returns how many of each owner are left out."""
        names, left_out = names_in(descriptor, most)
        if prefix and left_out:
            return left_out
        for name in names:
            self._budget.progressed()
            self._take(descriptor, prefix, name)
        return left_out

    def _take(self, descriptor: int, prefix: str, name: str) -> None:
        if name in (SPOOL_LOCK.name, MARK_NAME) and not prefix:
            return
        if not _is_text(name):  # no cloud, journal or ledger could store it
            self.ignored[prefix + spelled(name)] = NOT_UTF8
            return
        if pattern := ignored_by(name, self._ignore):
            self.ignored[prefix + name] = pattern
            return
        with suppress(FileNotFoundError):  # removed since it was listed
            entry = _entry(name, os.lstat(name, dir_fd=descriptor), self._since, self._share)
            if entry.kind == "folder" and (pattern := ignored_by(name, is_folder=True)):
                self.ignored[prefix + name] = pattern
            else:
                self.entries[prefix + name] = entry


def _planted(
    descriptor: int, ignored: Mapping[str, str], *, owner: int, since: float, share: int
) -> Mapping[str, Entry]:
    """Return files with names of result files that are not ours, beside the sets.

    The service writes no result files into a set's own folder.
    """
    planted: dict[str, Entry] = {}
    for name in (path for path in ignored if "/" not in path and is_output(path)):
        with suppress(FileNotFoundError):
            status = os.lstat(name, dir_fd=descriptor)
            if is_foreign(status, owner=owner):
                planted[name] = _entry(name, status, since, share)
    return planted


def _owners(descriptor: int, ignored: Iterable[str]) -> Mapping[str, int]:
    owners: dict[str, int] = {}
    for path in ignored:
        with suppress(OSError):  # gone by now, or a name that is no text
            if not is_output(path):
                owners[path] = os.lstat(path, dir_fd=descriptor).st_uid
    return owners


def _is_text(name: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in name)


def _entry(name: str, status: os.stat_result, since: float, share: int) -> Entry:
    kind, owner, exposed = kind_of(status.st_mode), status.st_uid, exposure(status)
    stamp = FileStamp.of(status, share=share)
    return Entry(name, kind, status.st_size, stamp, since, owner=owner, exposed=exposed)


def _with_age(path: str, entry: Entry, before: Listing | None) -> Entry:
    known = (before.entries.get(path) or before.boot_files.get(path)) if before else None
    if known is None or known.stamp != entry.stamp:
        return entry
    return replace(entry, since=known.since)


def _is_boot_file(path: str, entries: Mapping[str, Entry]) -> bool:
    folder = boot_folder_of(path)
    return folder is not None and entries[folder].kind == "folder"


def _read_contents(descriptor: int, listing: Listing, before: Listing, budget: ReadBudget) -> Listing:
    """Add facts from the contents of the files, from the listing before if nothing changed."""
    b = before
    known = {path: entry.stamp for path, entry in b.entries.items()}
    same = [path for path, entry in listing.entries.items() if known.get(path) == entry.stamp]
    earlier = Contents(b.facts, b.sidecars, b.checksums, b.words, b.unread, b.crowded)
    found = read_contents(descriptor, listing.entries, before=earlier, same=same, budget=budget)
    return replace(
        listing,
        facts={**listing.facts, **found.facts},
        sidecars=found.sidecars,
        checksums=found.checksums,
        words=found.words,
        unread=found.unread,
        crowded=found.crowded,
    )
