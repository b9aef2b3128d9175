"""Declared SHA-256: the lists of sums that apply to a set, and their sums for its files.

A list applies by its name, karmic.sha256 and karmic.img.sha256, if it is in the set's folder, or if it names
one of its files, as SHA256SUMS does, also with the folder: karmic/disk.img. An unreadable list may be meant
for any set beside it.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from posixpath import basename

from uecwatchd.errors import Rejected, UecError
from uecwatchd.images import file_names
from uecwatchd.intake.sets.candidates import SetCandidate
from uecwatchd.intake.sets.compressed import COMPRESSIONS
from uecwatchd.intake.sets.unread_files import check_read
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool.file_kinds import is_sums
from uecwatchd.intake.spool.safe_open import not_regular
from uecwatchd.intake.spool.scan import Listing
from uecwatchd.system.text import quoted

NAMES_SHOWN = 3
# A name without mistakes at its ends: spaces, quotes, a second asterisk, a full stop.
_NAME = re.compile(r"[\w.~(){}\[\]](?:.*[\w.~(){}\[\]])?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ChecksumLists:
    """The lists in a spool folder.

    `own` has them by the folded path, set or folder in their names. `naming` has those that name a file, with
    the name as written, by the folded path of the file. `broken` ones cannot be read.
    """

    own: Mapping[str, Sequence[str]] = field(default_factory=dict)
    naming: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    broken: Sequence[str] = ()

    def of(self, candidate: SetCandidate, paths: Iterable[str]) -> list[str]:
        """Return the lists that belong to the set; a mistake in one of them affects the set."""
        if not self.own:
            return []
        keys = [candidate.base or candidate.name, candidate.name, *paths]
        return list(
            dict.fromkeys(found for key in keys for found in self.own.get(file_names.fold_name(key), ()))
        )

    def about(self, candidate: SetCandidate, paths: Sequence[str]) -> list[str]:
        """Return the lists of the set, and the lists that name one of its files."""
        naming = [where for path in paths for where, _ in self.naming.get(file_names.fold_name(path), ())]
        return list(dict.fromkeys([*self.of(candidate, paths), *naming]))


@dataclass(frozen=True, slots=True)
class DeclaredSums:
    """Declared sums of a set's files, by name, with the lists they come from.

    `shared` lists name other files too. `idle` ones are in the set's folder, but name none of its files.
    """

    digests: Mapping[str, str]
    files: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()

    @property
    def remarks(self) -> Sequence[str]:
        return [f"{path} is not compared: it names no file of this set" for path in self.idle]


def find_checksum_lists(listing: Listing) -> ChecksumLists:
    own: dict[str, list[str]] = {}
    naming: dict[str, list[tuple[str, str]]] = {}
    broken: list[str] = []
    there = {file_names.fold_name(path) for path in listing.entries}
    for path in sorted(path for path in listing.entries if is_sums(path)):
        base, name = path[: path.rfind("/") + 1], basename(path)
        target, read = file_names.checksums_target(name), listing.checksums.get(path)
        if base or target:
            own.setdefault(file_names.fold_name(base or target or ""), []).append(path)
        if not base and not isinstance(read, Mapping) and (not target or "256" not in name):
            broken.append(path)
        names = read if isinstance(read, Mapping) else ()
        for listed in names:
            if named := next((name for name in _possible_paths(base, listed) if name in there), None):
                naming.setdefault(named, []).append((path, listed))
    return ChecksumLists(own, naming, broken)


def _possible_paths(base: str, listed: str) -> Iterator[str]:
    """Yield the folded paths that a name in a list may mean, the likeliest first."""
    yield file_names.fold_name(base + listed)
    last = re.split(r"[/\\]", listed)[-1]  # Windows writes the backslash
    yield file_names.fold_name(base + last)
    if found := _NAME.search("".join(filter(str.isprintable, last))):
        yield file_names.fold_name(base + found[0])


def find_declared_sums(
    listing: Listing,
    lists: ChecksumLists,
    candidate: SetCandidate,
    sidecar: Sidecar,
    paths: Sequence[str],
    *,
    owned: Sequence[str],
    is_finished: bool,
) -> DeclaredSums:
    """Return the declared sums of the files at `paths`. Raises the error of a list that applies.

    `is_finished` is True if the set was registered with these files: later lists are for other sets.
    """
    own = lists.of(candidate, (*owned, *paths))
    reads = {path: _read(listing, path) for path in own}
    names = {path: path[len(candidate.base) :] for path in paths}
    idle = [where for where, read in reads.items() if read and names and not {*names.values()} & read.keys()]
    for where in idle:
        if _is_named_after(where, candidate, names.values()):
            raise _names_no_file(where, reads[where], names.values())
    reads |= {path: _read(listing, path) for path in _naming(lists, paths) if path not in reads}
    digests = dict(sidecar.sha256)
    says = dict.fromkeys(digests, candidate.sidecars[0] if candidate.sidecars else "[defaults]")
    for where, read in reads.items():
        for path, name in names.items():
            listed = name if where in own else path
            if listed in read and digests.setdefault(name, read[listed]) != read[listed]:
                raise _contradiction(name, says[name], where)
            says.setdefault(name, where)
    if lists.broken and not digests and not is_finished:
        _read(listing, lists.broken[0])
    shared = tuple(where for where, read in reads.items() if where not in own and not read.keys() <= {*paths})
    return DeclaredSums(digests, tuple(where for where in reads if where not in idle), shared, tuple(idle))


def _is_named_after(where: str, candidate: SetCandidate, names: Iterable[str]) -> bool:
    """Return True if a list is named after a set or its file; otherwise a mirror may have it."""
    target = file_names.fold_name(file_names.checksums_target(basename(where)) or "")
    return target in {file_names.fold_name(candidate.name), *map(file_names.fold_name, names)}


def _read(listing: Listing, path: str) -> Mapping[str, str]:
    if (kind := listing.entries[path].kind) != "file":
        raise not_regular(path, kind)
    check_read(listing, [path])
    read = listing.checksums[path]
    if isinstance(read, UecError):
        raise read
    return read


def _naming(lists: ChecksumLists, paths: Iterable[str]) -> list[str]:
    """Return the lists that name a file. Raises Rejected if a list only has another spelling of its name."""
    found: list[str] = []
    for path in paths:
        listed = lists.naming.get(file_names.fold_name(path), ())
        exact = [where for where, as_listed in listed if where[: where.rfind("/") + 1] + as_listed == path]
        for where, as_listed in listed:
            if where not in exact:
                raise Rejected(
                    f"{path}: {where} names {quoted(as_listed)}",
                    "that may be this file, whose name is written otherwise",
                    f"Write {path[where.rfind('/') + 1 :]} there, or take the line out.",
                )
        found += exact
    return list(dict.fromkeys(found))


def _names_no_file(path: str, read: Collection[str], names: Collection[str]) -> Rejected:
    packed = {file_names.fold_name(name) + ending for name in names for ending in COMPRESSIONS}
    hint = "Correct the names in it, or move it away."
    if any(file_names.fold_name(name) in packed for name in read):
        hint = "That is the sum of the packed image, and cannot be compared with the unpacked: move it away."
    return Rejected(
        f"{path}: it names no file of this set",
        f"it has sums of {_listed(read)}, and the set has {', '.join(sorted(names))}",
        hint,
    )


def _listed(names: Iterable[str]) -> str:
    first, more = [*names][:NAMES_SHOWN], len([*names]) - NAMES_SHOWN
    return ", ".join(first) + (f" and {more} more" if more > 0 else "")


def _contradiction(name: str, first: str, second: str) -> Rejected:
    return Rejected(
        f"{name}: two SHA-256 are declared",
        f"{first} and {second} say different ones",
        "Correct one of them, or move it away.",
    )
