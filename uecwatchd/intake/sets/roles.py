"""Roles of a set's files: from its sidecar, then from content, then from names."""

from collections.abc import Iterable, Mapping, Sequence
from posixpath import basename

from uecwatchd.errors import Rejected
from uecwatchd.images import file_names, suitability
from uecwatchd.images.file_facts import Facts
from uecwatchd.intake.sets.candidates import SetCandidate, named_files, role_of
from uecwatchd.intake.sets.records import ROLE_WORDS, NotReady
from uecwatchd.intake.sets.requirements import place_for, sidecar_lines, sidecar_name
from uecwatchd.intake.sidecar import Sidecar, is_image_id
from uecwatchd.intake.spool.safe_open import not_regular
from uecwatchd.intake.spool.scan import Listing
from uecwatchd.types import Role


def roles_of(
    listing: Listing,
    candidate: SetCandidate,
    sidecar: Sidecar,
    owned: Iterable[str],
    there: Mapping[str, str],
) -> dict[Role, str]:
    """Return the file for each role. Raises NotReady for a missing named file, Rejected if two are possible.

    `there` is every path by its folded name.
    """
    named = _named(listing, candidate, sidecar, there)
    found = _candidates(listing, sidecar, named, owned)
    roles = dict(named)
    for role in ("machine", "kernel"):
        if role in found:
            roles[role] = _only(listing, candidate, role, found)
    if "ramdisk" in found and (
        paths := _that_go_with(listing, sidecar, roles.get("kernel"), found["ramdisk"])
    ):
        roles["ramdisk"] = _only(listing, candidate, "ramdisk", {**found, "ramdisk": paths})
    return roles


def _named(
    listing: Listing, candidate: SetCandidate, sidecar: Sidecar, there: Mapping[str, str]
) -> dict[Role, str]:
    roles: dict[Role, str] = {}
    for role, name in named_files(sidecar).items():
        roles[role] = named_path(listing, candidate, name, there)
    return roles


def named_path(listing: Listing, candidate: SetCandidate, name: str, there: Mapping[str, str]) -> str:
    """Return the path of a file that a sidecar names. Raises as `roles_of` does."""
    path = candidate.base + name
    if pattern := listing.ignored.get(path):
        raise Rejected(
            f"{sidecar_name(candidate)} names {name}",
            f"files with such names are passed over ({pattern})",
            "Give the file another name, in the sidecar as well.",
        )
    if path not in listing.entries:
        other = there.get(file_names.fold_name(path))
        but = f"; {other} is there: upper and lower case make different names" if other else ""
        raise NotReady(f"{name} (named in {sidecar_name(candidate)}{but})", path=path)
    if (kind := listing.entries[path].kind) != "file":
        raise not_regular(path, kind)
    return path


def _candidates(
    listing: Listing, sidecar: Sidecar, named: Mapping[Role, str], owned: Iterable[str]
) -> dict[Role, list[str]]:
    """Return files for the roles that the sidecar does not mention."""
    found: dict[Role, list[str]] = {}
    for path in owned:
        role = role_of(listing, path)
        if role is None or role in named or path in named.values() or _is_declined(sidecar, role):
            continue
        if role != "kernel" or not file_names.is_loader(path):
            found.setdefault(role, []).append(path)
    return found


def _is_declined(sidecar: Sidecar, role: Role) -> bool:
    """Return True if the sidecar fills this role with an id or with nothing."""
    value = {"kernel": sidecar.kernel, "ramdisk": sidecar.ramdisk, "machine": None}[role]
    return value is not None and (value == "none" or is_image_id(value))


def _that_go_with(listing: Listing, sidecar: Sidecar, kernel: str | None, paths: list[str]) -> list[str]:
    """Return the ramdisks without floppies, which only memdisk can start.

    One with the name of an initrd is kept, so that its problem is reported.
    """
    started = _facts(listing, kernel)
    if sidecar.platform == "windows" or (kernel and (not started or started.format == "memdisk")):
        return paths
    if kernel is None and sidecar.kernel and is_image_id(sidecar.kernel):
        return paths
    others = [path for path in paths if not _is_floppy(listing, path)]
    return others or [path for path in paths if file_names.role_by_name(basename(path)) == "ramdisk"]


def _is_floppy(listing: Listing, path: str) -> bool:
    facts = _facts(listing, path)
    return facts is not None and suitability.is_floppy(facts)


def _facts(listing: Listing, path: str | None) -> Facts | None:
    content = listing.facts.get(path) if path else None
    return content if isinstance(content, Facts) else None


def _only(listing: Listing, candidate: SetCandidate, role: Role, found: Mapping[Role, Sequence[str]]) -> str:
    if len(found[role]) == 1:
        return found[role][0]
    place = {"folder": candidate.base, "archive": candidate.base[:-1]}.get(candidate.form, candidate.name)
    names = " and ".join(basename(path) for path in found[role])
    count = "two" if len(found[role]) == 2 else f"{len(found[role])}"
    raise Rejected(
        f"{count} {ROLE_WORDS[role]}s in {place}",
        f"{names} could {'both' if count == 'two' else 'all'} be meant",
        _which(listing, candidate, role, found),
    )


def _which(listing: Listing, candidate: SetCandidate, role: Role, found: Mapping[Role, Sequence[str]]) -> str:
    """Suggest a usable file, and with a kernel the ramdisk of the same flavour, if there are several."""
    chosen = first_fitting(listing, role, found[role])
    if chosen is None:
        return "None of them can serve: remove all but one to see why."
    named = {role: chosen}
    if role == "kernel" and len(ramdisks := found.get("ramdisk", ())) > 1:
        cpios = [path for path in ramdisks if not _is_floppy(listing, path)]
        alike = sorted(cpios, key=lambda path: _flavour(path) != _flavour(chosen))
        if ramdisk := first_fitting(listing, "ramdisk", alike):
            named["ramdisk"] = ramdisk
    return f"Name one in {place_for(candidate)}: {sidecar_lines(candidate, named)}."


def _flavour(path: str) -> str:
    return file_names.flavour_by_name(basename(path))


def first_fitting(listing: Listing, role: Role, paths: Iterable[str]) -> str | None:
    """Return the first file that would be accepted as a member, by the same rules."""
    for path in paths:
        facts, size = _facts(listing, path), listing.entries[path].size
        if facts and not suitability.reason_unsuitable(role, facts, size=size):
            return path
    return None
