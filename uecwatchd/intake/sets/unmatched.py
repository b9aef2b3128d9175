"""Files in no set, each with the reason: users of drop folders complain most about silence."""

from collections.abc import Iterator
from posixpath import basename

from uecwatchd.errors import UecError
from uecwatchd.images import file_names
from uecwatchd.intake.sets.candidates import SetCandidate, is_set_folder, role_of, set_aside, stem_of
from uecwatchd.intake.sets.compressed import reason_packed
from uecwatchd.intake.sets.records import ROLE_WORDS, UnmatchedFile
from uecwatchd.intake.sets.requirements import place_for, sidecar_lines
from uecwatchd.intake.sets.roles import first_fitting
from uecwatchd.intake.sidecar import ForeignDocument, Sidecar
from uecwatchd.intake.spool.boot_folders import boot_folder_of, is_boot_folder, set_beside
from uecwatchd.intake.spool.file_kinds import is_sidecar, is_sums
from uecwatchd.intake.spool.safe_open import KIND_WORDS, user_name
from uecwatchd.intake.spool.scan import Entry, Listing
from uecwatchd.types import Role

NOT_CHECKED = "a kind that is not checked: SHA-256 is, as sha256sum writes it"


def find_unmatched(listing: Listing, used: set[str], read: set[str]) -> tuple[UnmatchedFile, ...]:
    """Return everything that is in no set, and not in `used` by an unfinished set.

    `read` are the sidecars of all sets, ready or not.
    """
    left = [UnmatchedFile(path, _planted_reason(entry)) for path, entry in listing.planted.items()]
    for path, entry in listing.entries.items():
        if path in read:
            continue
        if ("/" in path or not is_set_folder(entry)) and (path not in used or _is_of_no_use(listing, path)):
            left.append(UnmatchedFile(path, *_reason(listing, path, entry)))
    return (*left, *_unused_boot_folders(listing, used))


def _unused_boot_folders(listing: Listing, used: set[str]) -> Iterator[UnmatchedFile]:
    """Yield folders of boot files that no set uses or waits with. They are not news: the disk may follow."""
    in_use = {boot_folder_of(path) for path in used}
    for path in listing.boot_files:
        if is_boot_folder(path) and path not in in_use:
            beside = set_beside(path)
            name = f"{beside or 'NAME'}.img" if beside is not None else f"{path.rpartition('/')[0]}/"
            yield UnmatchedFile(path, f"boot files of no Windows set: they are for the disk in {name}")


def _is_of_no_use(listing: Listing, path: str) -> bool:
    """Return True if no set can use a file as it is, although it may be in the set's folder."""
    if is_sidecar(path):
        return True
    return role_of(listing, path) is None and reason_packed(listing, path) is not None


def _planted_reason(entry: Entry) -> str:
    what = f"{KIND_WORDS[entry.kind]} that is not the service's, under the name of something it writes"
    return f"{what}; it belongs to {user_name(entry.owner)}"


def _reason(listing: Listing, path: str, entry: Entry) -> tuple[str, bool]:
    """Return why a file is in no set, and True if the journal is to say so."""
    if entry.kind == "folder" and "/" in path:
        return "a folder in a folder: a set's files are side by side", False
    name = basename(path)
    if is_sidecar(path):
        return _unread(path, listing.sidecars.get(path)), True
    if is_sums(path):
        return _of_sums(listing, path), listing.checksums.get(path) != {}
    if entry.kind != "file":
        return f"it is {KIND_WORDS[entry.kind]}, and only regular files are taken", False
    if file_names.proof_target(name) is not None:
        return f"checksums or a signature of {NOT_CHECKED}", False
    if packed := reason_packed(listing, path):
        return packed
    role = role_of(listing, path)
    if role == "machine" and (more := set_aside(name)):
        why = f"its name goes on with {more} behind the ending; rename it if it is one"
        return f"not taken for an image: {why}", True
    keys = listing.keys_given(path)
    if keys == ("sha256",):
        return "SHA-256 that are not compared: a list of them ends in .sha256, or is called SHA256SUMS", True
    if keys:
        return f"not read, though it gives {', '.join(keys)}: a sidecar ends in .toml or .json", True
    return _of_role(listing, path, role), False


def _of_sums(listing: Listing, path: str) -> str:
    if listing.checksums.get(path) == {}:
        return f"checksums of {NOT_CHECKED}"
    return f"checksums of no set: there is none named {stem_of(path)}, and it names no file that is there"


def _of_role(listing: Listing, path: str, role: Role | None) -> str:
    if role in ("kernel", "ramdisk"):
        return f"a {ROLE_WORDS[role]} that no machine image has taken{_alone(listing, role, path)}"
    if role == "machine":
        return "a machine image that its set does not use"
    return "not a disk image, kernel, ramdisk, or sidecar"


def _alone(listing: Listing, role: Role, path: str) -> str:
    """Return what to write so that the file is registered alone."""
    if "/" in path or first_fitting(listing, role, [path]) is None:
        return ""
    candidate = SetCandidate(path, "stem", "")
    lines = sidecar_lines(candidate, {role: path})
    return f"; to register it alone, write {place_for(candidate)}, and in it: {lines}"


def _unread(path: str, found: Sidecar | UecError | None) -> str:
    if isinstance(found, ForeignDocument):
        return f"not a sidecar of uecwatchd: {found.why}"
    if "/" in path:
        return "not read: in a set's folder the sidecar is called image.toml or image.json"
    return "not read: a sidecar is called like its set, without the ending of an image, and ends in .toml"
