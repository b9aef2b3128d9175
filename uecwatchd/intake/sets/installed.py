"""The disk that a recipe has made, judged by the rules of sets as if it had been dropped."""

from dataclasses import replace

from uecwatchd.errors import Rejected
from uecwatchd.images import file_names
from uecwatchd.intake.sets.candidates import SetCandidate
from uecwatchd.intake.sets.complete import FolderContents, complete_set
from uecwatchd.intake.sets.declared_sums import find_checksum_lists
from uecwatchd.intake.sets.origin import InstalledDisk
from uecwatchd.intake.sets.owners import OwnerView
from uecwatchd.intake.sets.records import ImageSet, NotReady, RecipeFiles
from uecwatchd.intake.sets.stray_metadata import NearbyFiles
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool.contents import FactsOrError
from uecwatchd.intake.spool.scan import Entry, Listing


def judge_installed(found: ImageSet, recipe: RecipeFiles, disk: Entry, facts: FactsOrError) -> ImageSet:
    """Return the set with its disk as machine image. Raises the error of the rules.

    The path of the disk has a folder and a name. What would be waited for in a folder is an error here,
    because nobody adds a file to an installation.
    """
    base, _, name = disk.name.rpartition("/")
    beside, sidecars = recipe.listing, tuple(recipe.listing.entries)
    # From here on the set has an image like any other; its sums are of the files that this was made of.
    meant = replace(found.sidecar, install=None, machine=name, sha256={})
    listing = Listing(
        beside.folder,
        beside.now,
        entries={**beside.entries, disk.name: disk},
        facts={disk.name: facts},
        sidecars={path: _as_image(beside, path, meant) for path in sidecars},
    )
    candidate = SetCandidate(found.name, "recipe", f"{base}/", sidecars, (disk.name,))
    there = {file_names.fold_name(path): path for path in listing.entries}
    near, lists = NearbyFiles(there=there), find_checksum_lists(listing)
    folder = FolderContents(OwnerView(listing), recipe.rules, near, lists)
    try:
        judged = complete_set(folder, candidate, [disk.name], taken=None)
    except NotReady as wait:
        what, why = f"{found.name}: the installed disk is not a complete set", f"it lacks {wait.reason}"
        hint = 'Say kernel = "from-image" in its sidecar, or where its cloud gets the kernel from.'
        raise Rejected(what, why, hint) from wait
    origin = InstalledDisk(recipe.source, is_layer=recipe.recipe.iso is None)
    # What is on it decides about clouds that were not identified, and not about those it is held for.
    held = {cloud: why for cloud, why in found.waits.items() if cloud not in recipe.rules.strange}
    return replace(
        judged,
        waits={**judged.waits, **held},
        folder=found.folder,
        members=tuple(replace(member, origin=origin) for member in judged.members),
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


def _as_image(beside: Listing, path: str, meant: Sidecar) -> Sidecar:
    """Return the sidecar of a recipe as that of its disk, with the keys that were set in it."""
    own = beside.sidecars[path]
    given = own.given if isinstance(own, Sidecar) else meant.given
    return replace(meant, given=(given - {"install", "sha256"}) | {"machine"})
