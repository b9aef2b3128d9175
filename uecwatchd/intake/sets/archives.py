"""Archives in the place of their sets, until they are unpacked.

A scan does not unpack: the files of an archive are only known after all of it was read. So the archive alone
is a set, by its name and its first bytes, and an attempt at it goes on from there.
"""

from collections.abc import Iterable
from dataclasses import replace

from uecwatchd.errors import Rejected, UecError
from uecwatchd.images.file_facts import Facts
from uecwatchd.images.suitability import COMPRESSORS, describe_content
from uecwatchd.intake.sets.candidates import SetCandidate
from uecwatchd.intake.sets.records import PackedFiles, Rules
from uecwatchd.intake.spool.scan import Listing

# What the beginning of an archive looks like; "unknown" is one of the time before ustar. None is known of
# what zstd compresses.
_PLAIN, _INSIDE = ("tar", "unknown"), ("tar", "unknown", None)


def check_archive(listing: Listing, candidate: SetCandidate) -> None:
    """Raise Rejected for two archives with one name, and for a file that is no archive."""
    path, *others = candidate.paths
    if others:
        names = " and ".join(candidate.paths)
        raise Rejected(f"{candidate.name}: two archives have this name", f"{names} are there", "Remove one.")
    content = listing.facts.get(path)
    if isinstance(content, UecError):
        raise content
    if content and not _may_be_archive(content):
        hint = "Look into it: it may be an error page, or have another name than it should."
        raise Rejected(f"{path}: it is no tar archive", describe_content(content), hint)


def _may_be_archive(content: Facts) -> bool:
    if content.format in COMPRESSORS:
        return content.inside in _INSIDE
    return content.format in _PLAIN


def packed_files(listing: Listing, candidate: SetCandidate, rules: Rules) -> PackedFiles:
    """Return what the rules need to judge the files of an archive later."""
    path = candidate.paths[0]
    return PackedFiles(path, listing.stamp(path), *kept_for_later(listing, candidate, rules))


def kept_for_later(
    listing: Listing,
    candidate: SetCandidate,
    rules: Rules,
    *,
    members: Iterable[str] = (),
    boot_files: Iterable[str] = (),
) -> tuple[Rules, Listing]:
    """Return the rules for files that nobody else writes, and a listing of the sidecar and of these files."""
    members = tuple(members)
    kept = Listing(
        listing.folder,
        listing.now,
        entries={path: listing.entries[path] for path in (*candidate.sidecars, *members)},
        facts={path: listing.facts[path] for path in members if path in listing.facts},
        sidecars={path: listing.sidecars[path] for path in candidate.sidecars},
        boot_files={path: listing.boot_files[path] for path in boot_files},
    )
    return replace(rules, settle=0.0, users=None), kept
