"""The files out of an archive, judged by the rules of sets as if they were in a folder.

Published archives have their files in one folder, as Ubuntu's do, and those of Eucalyptus have kernel and
ramdisk once for each hypervisor, in `kvm-kernel/` and `xen-kernel/`. Apart from these two, folders make no
difference: the files are judged by their names alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from posixpath import basename
from typing import TypeVar

from uecwatchd.errors import Rejected
from uecwatchd.images import file_names
from uecwatchd.images.file_facts import Facts
from uecwatchd.intake.sets.candidates import FOLDER_SIDECARS, TAR_SUFFIXES, SetCandidate
from uecwatchd.intake.sets.complete import FolderContents, complete_set
from uecwatchd.intake.sets.declared_sums import find_checksum_lists
from uecwatchd.intake.sets.origin import ArchiveMember
from uecwatchd.intake.sets.owners import OwnerView
from uecwatchd.intake.sets.records import ImageSet, Member, NotReady, PackedFiles
from uecwatchd.intake.sets.stray_metadata import NearbyFiles
from uecwatchd.intake.sidecar import ForeignDocument, Sidecar, with_defaults
from uecwatchd.intake.spool.file_kinds import SIDECAR_SUFFIXES
from uecwatchd.intake.spool.scan import Listing

Found = TypeVar("Found")
HYPERVISORS = ("kvm", "xen")
_ARCHIVES = ("tar", "zip")


def judge_unpacked(found: ImageSet, packed: PackedFiles, unpacked: Listing) -> ImageSet:
    """Return the set with the members that the rules take from its archive.

    Paths in `unpacked` are those in the archive, behind that of the archive itself. Raises the error of the
    rules; what would be waited for in a folder is an error here, because nobody adds a file to an archive.
    """
    _check_not_nested(unpacked)
    sidecars = _sidecars(found, packed, unpacked)
    chosen = _choose(found, packed, unpacked, sidecars)
    listing = _flat_listing(packed, unpacked, {*chosen, *sidecars})
    base = f"{packed.path}/"
    flat = {_flattened(packed, path): path for path in chosen}
    named = tuple(path if path in packed.listing.entries else _flattened(packed, path) for path in sidecars)
    paths = tuple(sorted(flat.keys() - set(named)))
    candidate = SetCandidate(found.name, "archive", base, named, paths)
    judged = _judge(candidate, listing, packed)
    members = tuple(_unpacked_member(packed, member, flat[member.path]) for member in judged.members)
    # What is in it decides about clouds that were not identified, and not about those it is held for.
    held = {cloud: why for cloud, why in found.waits.items() if cloud not in packed.rules.strange}
    return replace(
        judged,
        waits={**judged.waits, **held},
        folder=found.folder,
        members=members,
        checksums={**found.checksums, **judged.checksums},
        files=found.files,
        stamp=found.stamp,
        changed=found.changed,
        shared=found.shared,
        unread=judged.unread,
        owner=found.owner,
        packed=packed,
    )


def _judge(candidate: SetCandidate, listing: Listing, packed: PackedFiles) -> ImageSet:
    there = {file_names.fold_name(path): path for path in listing.entries}
    near, lists = NearbyFiles(there=there), find_checksum_lists(listing)
    folder = FolderContents(OwnerView(listing), packed.rules, near, lists)
    try:
        return complete_set(folder, candidate, list(candidate.paths), taken=None)
    except NotReady as wait:
        hint = f"Pack it again with that, or drop the files themselves, in a folder {candidate.name}/."
        raise Rejected(f"{packed.path}: it is not a complete set", f"it lacks {wait.reason}", hint) from wait
    except Rejected as error:
        if "Try: " not in error.hint:
            raise
        hint = f"Unpack it, and drop the files. {error.hint.replace(candidate.base, '')}"
        raise Rejected(error.what, error.why, hint) from error


def _check_not_nested(unpacked: Listing) -> None:
    for path, content in unpacked.facts.items():
        formats = (content.format, content.inside) if isinstance(content, Facts) else ()
        if file_names.fold_name(path).endswith(TAR_SUFFIXES) or set(formats) & set(_ARCHIVES):
            why = "an archive in an archive is not unpacked"
            raise Rejected(f"{path}: it is an archive itself", why, "Drop the inner archive instead.")


def _sidecars(found: ImageSet, packed: PackedFiles, unpacked: Listing) -> list[str]:
    """Return the sidecar beside the archive, and those in it. More than one is an error of the rules."""
    names = {*FOLDER_SIDECARS, *(file_names.fold_name(found.name) + suffix for suffix in SIDECAR_SUFFIXES)}
    inside = [path for path in unpacked.entries if file_names.fold_name(basename(path)) in names]
    own = [path for path in inside if not isinstance(unpacked.sidecars.get(path), ForeignDocument)]
    return [*packed.listing.entries, *own]


def _choose(found: ImageSet, packed: PackedFiles, unpacked: Listing, sidecars: Iterable[str]) -> list[str]:
    """Return the files without those for another hypervisor. Raises Rejected if none is for the one."""
    read = (packed.listing.sidecars.get(path) or unpacked.sidecars.get(path) for path in sidecars)
    own = next((one for one in read if isinstance(one, Sidecar)), None)
    wanted = (with_defaults(own, packed.rules.defaults) if own else found.sidecar).hypervisor
    meant = {path: _hypervisor_of(path) for path in unpacked.entries}
    others = sorted({hypervisor for hypervisor in meant.values() if hypervisor not in ("", wanted)})
    if others and wanted not in meant.values():
        why = f"it has one for {' and '.join(others)} alone"
        hint = f'Say hypervisor = "{others[0]}" in {found.name}.toml, if your nodes have it.'
        raise Rejected(f"{packed.path}: it has no kernel for {wanted}", why, hint)
    return [path for path, hypervisor in meant.items() if hypervisor in ("", wanted)]


def _hypervisor_of(path: str) -> str:
    """Return the hypervisor that a file is for, by its folder; "" if it is for any."""
    folders = [file_names.fold_name(part) for part in path.split("/")[:-1]]
    return next((name for name in HYPERVISORS if f"{name}-kernel" in folders), "")


def _flat_listing(packed: PackedFiles, unpacked: Listing, used: Iterable[str]) -> Listing:
    """Return a listing of the chosen files, all in one folder, with the sidecar beside the archive.

    Raises Rejected if two have one name.
    """
    flat: dict[str, str] = {}
    for path in sorted(path for path in used if path in unpacked.entries):
        to = _flattened(packed, path)
        if to in flat:
            what = f"{packed.path}: two files in it are called {basename(path)}"
            raise Rejected(what, f"{flat[to]} and {path} are in different folders", "Pack one of them.")
        flat[to] = path
    beside = packed.listing
    return Listing(
        beside.folder,
        beside.now,
        entries={**beside.entries, **_renamed(flat, unpacked.entries)},
        facts=_renamed(flat, unpacked.facts),
        sidecars={**beside.sidecars, **_renamed(flat, unpacked.sidecars)},
        checksums=_renamed(flat, unpacked.checksums),
    )


def _renamed(flat: Mapping[str, str], found: Mapping[str, Found]) -> dict[str, Found]:
    return {to: found[path] for to, path in flat.items() if path in found}


def _flattened(packed: PackedFiles, path: str) -> str:
    return f"{packed.path}/{basename(path)}"


def _unpacked_member(packed: PackedFiles, member: Member, path: str) -> Member:
    origin = ArchiveMember(packed.path, packed.stamp, path.removeprefix(f"{packed.path}/"))
    return replace(member, path=path, origin=origin)
