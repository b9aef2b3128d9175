"""The disk that a recipe has made, judged by the rules of sets as if it had been dropped."""

from collections.abc import Mapping
from dataclasses import replace
from posixpath import basename

from uecwatchd.errors import Rejected
from uecwatchd.images import file_names
from uecwatchd.intake.sets.candidates import SetCandidate
from uecwatchd.intake.sets.complete import FolderContents, complete_set
from uecwatchd.intake.sets.declared_sums import find_checksum_lists
from uecwatchd.intake.sets.origin import InstalledDisk
from uecwatchd.intake.sets.owners import OwnerView
from uecwatchd.intake.sets.records import ImageSet, NotReady, RecipeFiles
from uecwatchd.intake.sets.stray_metadata import NearbyFiles
from uecwatchd.intake.sets.windows_boot import find_boot_folders
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool.contents import FactsOrError
from uecwatchd.intake.spool.scan import Entry, Listing


def judge_installed(found: ImageSet, recipe: RecipeFiles, disk: Entry, facts: FactsOrError) -> ImageSet:
    """Return the set with its disk as machine image. Raises the error of the rules.

    The path of the disk has a folder and a name. What would be waited for in a folder is an error here,
    because nobody adds a file to an installation.
    """
    base, sidecars = disk.name.rpartition("/")[0], tuple(recipe.listing.sidecars)
    # Other members, such as a boot floppy: as if they were beside the disk.
    others = {f"{base}/{basename(path)}": path for path in recipe.listing.entries if path not in sidecars}
    listing = _listing(found, recipe, disk, facts, others)
    candidate = SetCandidate(found.name, "recipe", f"{base}/", sidecars, (disk.name, *others))
    origin = InstalledDisk(recipe.source, is_layer=recipe.recipe.iso is None)
    judged = _judge(candidate, listing, recipe, origin)
    # What is on it decides about clouds that were not identified, and not about those it is held for.
    held = {cloud: why for cloud, why in found.waits.items() if cloud not in recipe.rules.strange}
    return replace(
        judged,
        waits={**judged.waits, **held},
        folder=found.folder,
        members=tuple(
            replace(member, origin=origin)
            if member.path == disk.name
            else replace(member, path=others[member.path])
            for member in judged.members
        ),
        left_out=tuple(others[path] for path in judged.left_out),
        sidecar=replace(judged.sidecar, install=found.sidecar.install),
        checksums={},
        files=found.files,
        stamp=found.stamp,
        changed=found.changed,
        shared=found.shared,
        unread=found.unread,
        owner=found.owner,
        recipe=recipe,
    )


def _judge(candidate: SetCandidate, listing: Listing, recipe: RecipeFiles, origin: InstalledDisk) -> ImageSet:
    there = {file_names.fold_name(path): path for path in listing.entries}
    near, lists, boot = NearbyFiles(there=there), find_checksum_lists(listing), find_boot_folders(listing)
    boot = replace(boot, sets={file_names.fold_name(candidate.name): tuple(boot.files)})
    folder = FolderContents(OwnerView(listing), recipe.rules, near, lists, boot=boot)
    try:
        return complete_set(folder, candidate, list(candidate.paths), taken=None)
    except NotReady as wait:
        what = f"{candidate.name}: the installed disk is not a complete set"
        hint = 'Say kernel = "from-image" in its sidecar, or where its cloud gets the kernel from.'
        raise Rejected(what, f"it lacks {wait.reason}", hint) from wait
    except Rejected as error:  # in the place of the disk, which nobody knows by its path
        words = (
            text.replace(candidate.paths[0], str(origin)) for text in (error.what, error.why, error.hint)
        )
        raise Rejected(*words) from error


def _listing(
    found: ImageSet, recipe: RecipeFiles, disk: Entry, facts: FactsOrError, others: Mapping[str, str]
) -> Listing:
    """Return a listing of the disk, of the other members under their names beside it, and of the sidecar."""
    beside = recipe.listing
    # From here on the set has an image like any other; its sums are of the files that this was made of.
    meant = replace(found.sidecar, install=None, machine=basename(disk.name), sha256={})
    entries = {path: beside.entries[path] for path in beside.sidecars}
    entries |= {to: beside.entries[path] for to, path in others.items()}
    known = {to: beside.facts[path] for to, path in others.items() if path in beside.facts}
    return Listing(
        beside.folder,
        beside.now,
        entries={**entries, disk.name: disk},
        facts={**known, disk.name: facts},
        sidecars={path: _as_image(beside, path, meant) for path in beside.sidecars},
        boot_files=beside.boot_files,
    )


def _as_image(beside: Listing, path: str, meant: Sidecar) -> Sidecar:
    """Return the sidecar of a recipe as that of its disk, with the keys that were set in it."""
    own = beside.sidecars[path]
    given = own.given if isinstance(own, Sidecar) else meant.given
    return replace(meant, given=(given - {"install", "sha256"}) | {"machine"})
