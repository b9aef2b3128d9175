"""Metadata beside the sets that belongs to no image by name, and may name one without a sidecar.

It is indexed once for a folder, so that the time for each set does not grow with it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from posixpath import basename

from uecwatchd.errors import UecError
from uecwatchd.images import file_names
from uecwatchd.intake.sets.records import NotReady
from uecwatchd.intake.sidecar import ForeignDocument, UnusableSidecar
from uecwatchd.intake.spool.scan import Listing

# Names of images that are read from one text. A text that is meant for us has one.
MOST_NAMES = 10


@dataclass(frozen=True, slots=True)
class LoneMetadata:
    """`latest` is the one with the latest change, `unusable` one that cannot be read at all.

    `begun` are unusable ones, by the name of the image in them, which may be cut short; `others` are texts
    that are not a sidecar, by the name in them. Names are folded.
    """

    latest: str = ""
    unusable: str = ""
    begun: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)


def machines_named(listing: Listing, path: str) -> tuple[str, ...]:
    """Return the folded names of images in metadata that no set reads."""
    found, words = listing.sidecars.get(path), listing.words.get(path)
    source = found if isinstance(found, UnusableSidecar) else words
    names = source.machines if source else ()
    return tuple(file_names.fold_name(basename(name)) for name in names[:MOST_NAMES])


def index_lone_metadata(listing: Listing, paths: Sequence[str]) -> LoneMetadata:
    """Index the metadata at `paths`, which is beside the sets and belongs to no image by name."""
    begun: dict[str, str] = {}
    others: dict[str, str] = {}
    unusable = ""
    for path in paths:
        found = listing.sidecars.get(path)
        names = dict.fromkeys(machines_named(listing, path), path)
        if isinstance(found, UnusableSidecar):
            begun |= names
        elif isinstance(found, UecError) and not isinstance(found, ForeignDocument):
            unusable = path
        else:
            others |= names
    latest = max(paths, key=lambda path: listing.entries[path].since, default="")
    return LoneMetadata(latest, unusable, begun, others)


def check_unnamed(listing: Listing, lone: LoneMetadata, paths: Iterable[str], settle: float) -> None:
    """Raise NotReady if metadata may name one of the `paths` of a set without a sidecar."""
    if lone.latest and listing.now < (ready_at := listing.entries[lone.latest].since + settle):
        raise NotReady(f"{lone.latest} to be unchanged for {settle:g} s", ready_at, brief=True)
    names = [file_names.fold_name(basename(path)) for path in paths]
    begun = (name[:end] for name in names for end in range(len(name) + 1))
    if path := lone.unusable or next((lone.begun[part] for part in begun if part in lone.begun), ""):
        raise NotReady(f"{path} to be corrected or moved away: it cannot be used, and may name this image")
    if path := next((lone.others[name] for name in names if name in lone.others), ""):
        raise NotReady(f"{path} to be moved away: it is no sidecar, and may name this image")
