"""What is left over, with the reason: silence about a file is what users of drop folders complain of."""

from collections.abc import Iterable

from uecwatchd.image import Role
from uecwatchd.imageset.draft import FOLDER_SIDECARS, Draft, is_a_set, role_of, set_aside, stem_of
from uecwatchd.imageset.needs import place_for, said
from uecwatchd.imageset.outcome import ROLE_WORDS, ImageSet, Misfit
from uecwatchd.imageset.roles import first_fitting
from uecwatchd.spool import CHECKSUM_SUFFIX, KIND_WORDS, SIDECAR_SUFFIXES, Entry, Listing

METADATA = (*SIDECAR_SUFFIXES, CHECKSUM_SUFFIX)


def misfits(listing: Listing, ready: Iterable[ImageSet], used: set[str]) -> tuple[Misfit, ...]:
    """Everything that is neither in a set nor claimed by one that is not ready (`used`)."""
    chosen = {member.path for found in ready for member in found.members}
    stems = {found.name for found in ready} | {stem_of(path) for path in used}
    left = [Misfit(path, _planted_reason(entry)) for path, entry in listing.planted.items()]
    for path, entry in listing.entries.items():
        if path in chosen or (path.endswith(METADATA) and _has_a_set(path, stems)):
            continue
        if ("/" in path or not is_a_set(entry)) and path not in used:
            left.append(Misfit(path, _reason(listing, path, entry)))
    return tuple(left)


def _planted_reason(entry: Entry) -> str:
    return f"{KIND_WORDS[entry.kind]} that is not the service's, under the name of something it writes"


def _has_a_set(path: str, stems: set[str]) -> bool:
    """Sidecars always make a set of their own; checksums belong to one, or to a folder's."""
    if "/" in path:
        return path.endswith(CHECKSUM_SUFFIX) or path.rsplit("/", 1)[-1] in FOLDER_SIDECARS
    if path.endswith(SIDECAR_SUFFIXES):
        return True
    return stem_of(path) in stems


def _reason(listing: Listing, path: str, entry: Entry) -> str:
    if entry.kind == "folder" and "/" in path:
        return "a folder in a folder: a set's files lie side by side"
    if path.endswith(SIDECAR_SUFFIXES):
        return "not read: in a set's folder the sidecar is called image.toml or image.json"
    if path.endswith(METADATA):
        return f"checksums of no set: there is none named {stem_of(path)}"
    if entry.kind != "file":
        return f"it is {KIND_WORDS[entry.kind]}, and only regular files are taken"
    role = role_of(listing, path)
    if role == "machine" and (more := set_aside(path.rsplit("/", 1)[-1])):
        return (
            f"not taken for an image: its name goes on with {more} behind the ending; rename it if it is one"
        )
    if role in ("kernel", "ramdisk"):
        return f"a {ROLE_WORDS[role]} that no machine image has taken{_alone(listing, role, path)}"
    if role == "machine":
        return "a machine image that its set does not use"
    return "not a disk image, kernel, ramdisk, or sidecar"


def _alone(listing: Listing, role: Role, path: str) -> str:
    """What to write for it to be registered as it is."""
    if "/" in path or first_fitting(listing, role, [path]) is None:
        return ""
    draft = Draft(path, "stem", "")
    return f"; to register it alone, write {place_for(draft)}, and in it: {said(draft, {role: path})}"
