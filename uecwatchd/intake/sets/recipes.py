"""Recipes in the place of their sets, until their systems are installed.

A scan does not install: a recipe is a set by its sidecar and the files that it names, and an attempt goes on
from there. The image that a layer is added to is a file beside the recipe, or that of a finished set.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from uecwatchd.errors import Rejected
from uecwatchd.install.recipe import InstallRecipe
from uecwatchd.intake.sets.archives import kept_for_later
from uecwatchd.intake.sets.candidates import SetCandidate, role_of
from uecwatchd.intake.sets.records import ROLE_WORDS, NotReady, RecipeFiles, Rules
from uecwatchd.intake.sets.requirements import sidecar_name
from uecwatchd.intake.sets.roles import named_path
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool.scan import Listing

STAMP_OF_BASE_CHARS = 16


@dataclass(frozen=True, slots=True)
class BaseSets:
    """The sets of a folder that a layer can be added to.

    `bases` are the sets that recipes name, by the names of their own sets; `finished` the stamps of the sets
    that are done, and `names` those of all sets.
    """

    bases: Mapping[str, str] = field(default_factory=dict)
    finished: Mapping[str, str] = field(default_factory=dict)
    names: Collection[str] = ()


def find_bases(listing: Listing, candidates: Iterable[SetCandidate], finished: Mapping[str, str]) -> BaseSets:
    """Return the sets of a folder as bases. `finished` are the stamps of those that are done."""
    candidates, bases = tuple(candidates), dict[str, str]()
    for candidate in candidates:
        found = (listing.sidecars.get(path) for path in candidate.sidecars)
        for recipe in (one.install for one in found if isinstance(one, Sidecar) and one.install):
            if recipe.base and candidate.base + recipe.base not in listing.entries:
                bases[candidate.name] = recipe.base
    return BaseSets(bases, finished, {candidate.name for candidate in candidates})


def recipe_files(
    listing: Listing,
    candidate: SetCandidate,
    recipe: InstallRecipe,
    rules: Rules,
    *,
    there: Mapping[str, str],
    sets: BaseSets,
    members: Iterable[str],
    boot_files: Iterable[str],
) -> RecipeFiles:
    """Return the files of a recipe. `there` is every path by its folded name.

    `members` are other files that go with the image, and `boot_files` those for its boot floppy.
    Raises NotReady for a file or a base that is not there yet, Rejected for a base that needs itself.
    """
    files = {}
    base_set = sets.bases.get(candidate.name, "")
    for key, name in recipe.files.items():
        if key == "base" and base_set:
            continue
        path = named_path(listing, candidate, name, there)
        files[key] = (path, listing.stamp(path))
    if base_set:
        _check_circle(candidate, sets.bases)
    kept = kept_for_later(listing, candidate, rules, members=members, boot_files=boot_files)
    return RecipeFiles(recipe, files, base_set, *kept)


def check_base(candidate: SetCandidate, sets: BaseSets) -> None:
    """Raise NotReady if the set that a layer is added to is not done."""
    base = sets.bases.get(candidate.name, "")
    if not base or base in sets.finished:
        return
    if base in sets.names:
        raise NotReady(f"the set {base} to be done, its base")
    raise NotReady(f"{base} (the base in {sidecar_name(candidate)}): there is no such file or set")


def _check_circle(candidate: SetCandidate, bases: Mapping[str, str]) -> None:
    chain = [candidate.name]
    while (following := bases.get(chain[-1])) is not None:
        if following in chain:
            circle = [*chain[chain.index(following) :], following]
            raise Rejected(
                f"{candidate.name}: its base can never be done",
                f"the recipes are based on each other: {' on '.join(circle)}",
                f"Name another base in {sidecar_name(candidate)}, or an ISO image.",
            )
        chain.append(following)


def stamp_with_base(stamp: str, own: str | None, base: str, sets: BaseSets) -> str:
    """Return the stamp of a layer: it changes with its own files, and when its base becomes another image.

    `own` is the stamp of the layer when it was done. While its base is not, a finished layer keeps that.
    """
    if not base:
        return stamp
    if base not in sets.finished and own and own.startswith(f"{stamp}-"):
        return own
    return f"{stamp}-{sets.finished.get(base, '')[:STAMP_OF_BASE_CHARS]}"


def check_alone(
    listing: Listing, candidate: SetCandidate, used: Collection[str], owned: Sequence[str]
) -> None:
    """Raise Rejected for an image, a kernel or a ramdisk beside a recipe that the sidecar does not name."""
    for path in owned:
        role = role_of(listing, path)
        if path not in used and role is not None:
            raise Rejected(
                f"{candidate.name}: there is a recipe for it, and {path}",
                f"{sidecar_name(candidate)} installs the system, and {path} is a {ROLE_WORDS[role]} already",
                f"Move {path} away, or name it in the recipe; or take [install] out.",
            )
