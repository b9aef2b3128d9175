"""Names in sidecars and sums, spelled as the files are: there is more than one way to write an accent."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from uecwatchd.errors import UecError
from uecwatchd.images import file_names
from uecwatchd.intake.sets.candidates import all_named_files, named_files
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool.scan import Listing


def as_spelled(listing: Listing) -> Listing:
    """Return the listing with names in sidecars and sums spelled as the files are."""
    metadata = {**listing.sidecars, **listing.checksums}
    named = {path: _names_in(found) for path, found in metadata.items()}
    if all(_base(path) + name in listing.entries for path, names in named.items() for name in names):
        return listing
    spelled: dict[str, list[str]] = {}
    for path in listing.entries:
        spelled.setdefault(file_names.compose_accents(path), []).append(path)

    def found_as(path: str, name: str) -> str:
        there = spelled.get(file_names.compose_accents(_base(path) + name), ())
        exact = _base(path) + name in listing.entries
        return there[0].removeprefix(_base(path)) if len(there) == 1 and not exact else name

    sidecars = {path: _respelled(found, partial(found_as, path)) for path, found in listing.sidecars.items()}
    sums = {
        path: {found_as(path, name): digest for name, digest in read.items()}
        if isinstance(read, Mapping)
        else read
        for path, read in listing.checksums.items()
    }
    return replace(listing, sidecars=sidecars, checksums=sums)


def _base(path: str) -> str:
    return path[: path.rfind("/") + 1]


def _names_in(found: Sidecar | Mapping[str, str] | UecError) -> Iterable[str]:
    if isinstance(found, Sidecar):
        return (*all_named_files(found), *found.sha256)
    return () if isinstance(found, UecError) else found


def _respelled(found: Sidecar | UecError, spell: Callable[[str], str]) -> Sidecar | UecError:
    if isinstance(found, UecError):
        return found
    named: dict[str, Any] = {role: spell(name) for role, name in named_files(found).items()}
    sums = {spell(name): digest for name, digest in found.sha256.items()}
    if found.install:
        files: dict[str, Any] = {key: spell(name) for key, name in found.install.files.items()}
        named["install"] = replace(found.install, **files)
    return replace(found, **named, sha256=sums)
