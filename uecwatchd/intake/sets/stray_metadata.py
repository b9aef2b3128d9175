"""Stray metadata: files near a set that no set reads, although somebody meant them for something.

An image is never registered while there is such a file. A file with the name of the set and something before
or after it, or in the set's folder, makes the set wait until it is renamed or moved away. So does a sidecar
without an image whose name is similar to the set's, until its own image arrives; and so does the control file
of a download tool, beside a file that has its full size from the beginning.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from posixpath import basename

from uecwatchd.errors import Rejected, UecError
from uecwatchd.images import file_names
from uecwatchd.images.file_facts import Facts
from uecwatchd.intake.sets.candidates import (
    FOLDER_SIDECARS,
    SetCandidate,
    is_recipe,
    key_of,
    named_files,
    role_of,
)
from uecwatchd.intake.sets.lone_sidecars import LoneMetadata, index_lone_metadata, machines_named
from uecwatchd.intake.sets.metadata_names import is_metadata_name, names_meant, original_name
from uecwatchd.intake.sets.records import NotReady
from uecwatchd.intake.sets.requirements import sidecar_lines
from uecwatchd.intake.sets.similar_names import SimilarNames
from uecwatchd.intake.sidecar import ForeignDocument, Sidecar
from uecwatchd.intake.spool.file_kinds import is_sidecar, is_sums
from uecwatchd.intake.spool.ignored import SYSTEM_NAMES, UNFINISHED, ignored_by
from uecwatchd.intake.spool.output_files import is_output
from uecwatchd.intake.spool.scan import Listing
from uecwatchd.system.text import file_word

SWAP = (".swp", ".swo", ".swx")
# Sidecars with these names at the top of a folder may be meant for any image there.
GENERAL = frozenset({"image", "sidecar", "metadata", "meta", "uecwatchd"})


@dataclass(frozen=True, slots=True)
class Stray:
    """Metadata that no set reads: `hidden` is ignored by name, `right` only needs the right name.

    `ours` has a key of a sidecar, or may have one and is unreadable.
    """

    path: str
    hidden: bool = False
    ours: bool = False
    right: bool = False


@dataclass(frozen=True, slots=True)
class SimilarSidecar:
    """A sidecar without an image, or a similar text. `names_machine` is True if it names a missing image."""

    path: str
    stems: frozenset[str]
    names_machine: bool = False


@dataclass(frozen=True, slots=True)
class NearbyFiles:
    """Files near the sets, by the folded name of a set, path of a file, or folder.

    `alike` are sidecars without an image, by the name of a similar set. `meant` are candidates that are only
    a stray. `notes` are control files of download tools, by their file. `lone` is metadata that may name an
    image.
    """

    strays: Mapping[str, Sequence[Stray]] = field(default_factory=dict)
    alike: Mapping[str, SimilarSidecar] = field(default_factory=dict)
    meant: frozenset[str] = frozenset()
    notes: Mapping[str, str] = field(default_factory=dict)
    lone: LoneMetadata = LoneMetadata()  # noqa: RUF009 (it is frozen)
    there: Mapping[str, str] = field(default_factory=dict)
    proofs: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def of(self, candidate: SetCandidate, paths: Iterable[str]) -> Iterator[Stray]:
        """Return the strays in the folder of a set, or with its name or that of its file."""
        keys = _targets(candidate, paths) if self.strays else ()
        found = (stray for key in keys for stray in self.strays.get(key, ()))
        return (stray for stray in dict.fromkeys(found) if stray.path not in candidate.sidecars)

    def visible_of(self, candidate: SetCandidate, paths: Iterable[str]) -> list[str]:
        """Return the paths of these strays without hidden files."""
        return [stray.path for stray in self.of(candidate, paths) if not stray.hidden]


def find_nearby(
    listing: Listing,
    candidates: Sequence[SetCandidate],
    owned: Mapping[str, Sequence[str]],
    progressed: Callable[[], None] = lambda: None,
) -> NearbyFiles:
    """Find the files near the sets. `owned` are the paths of each candidate, by its name.

    `progressed` is called for each name, as a sign of life.
    """
    whole = [
        candidate
        for candidate in candidates
        if is_recipe(listing, candidate)
        or any(role_of(listing, path) == "machine" for path in owned[candidate.name])
    ]
    named = {candidate.name for candidate in whole}
    read = {path for candidate in whole for path in candidate.sidecars}
    lone = [
        candidate for candidate in candidates if candidate.form == "sidecar" and candidate.name not in named
    ]
    strays: dict[str, list[Stray]] = {}
    there = {file_names.fold_name(path): path for path in listing.entries}
    homes = {candidate.base for candidate in whole}
    for stray in _strays(listing, read, there, progressed):
        for key in _keys_of(stray, homes):
            strays.setdefault(key, []).append(stray)
    targets = {key for candidate in whole for key in _targets(candidate, owned[candidate.name])}
    meant = {d.name for d in lone if any(targets.intersection(names_meant(path)) for path in d.sidecars)}
    bare = [candidate for candidate in whole if not candidate.sidecars]
    others = [*_without_image(listing, [candidate for candidate in lone if candidate.name not in meant])]
    others += _texts_elsewhere(listing, targets)
    lone_paths = [
        path for d in candidates if d.form != "folder" and d.name not in named for path in d.sidecars
    ]
    lone_paths += [other.path for other in others if not is_sidecar(other.path)]
    alike, proofs = _alike(others, bare, progressed), _other_checksums(listing, there)
    lone_ones = index_lone_metadata(listing, lone_paths)
    return NearbyFiles(strays, alike, frozenset(meant), _control_files(listing), lone_ones, there, proofs)


def _texts_elsewhere(listing: Listing, targets: Collection[str]) -> Iterator[SimilarSidecar]:
    """Yield the texts with keys of a sidecar that have the name of no set."""
    for path, given in listing.words.items():
        if given.keys and "/" not in path and path in listing.entries:
            keys = names_meant(path)
            if keys.isdisjoint(targets):
                yield SimilarSidecar(path, frozenset((*keys, *map(key_of, machines_named(listing, path)))))


def _targets(candidate: SetCandidate, paths: Iterable[str]) -> list[str]:
    return [
        *{file_names.fold_name(candidate.name), file_names.fold_name(candidate.base or candidate.name)},
        *map(file_names.fold_name, paths),
    ]


# --- whose name it bears ----------------------------------------------------------------------------------


def _strays(
    listing: Listing, read: set[str], there: Mapping[str, str], progressed: Callable[[], None]
) -> Iterator[Stray]:
    for path, entry in listing.entries.items():
        progressed()
        if path in read or entry.kind == "folder":
            continue
        found, keys = listing.sidecars.get(path), listing.keys_given(path)
        right = (bool(keys) or isinstance(found, Sidecar)) and is_sidecar(original_name(path))
        if is_metadata(listing, path):
            is_list = "/" in path and keys == ("sha256",)  # from a mirror, or for one file: it is reported
            is_ours = (
                (bool(keys) and not is_list)
                or _speaks_to_us(found)
                or not (is_sidecar(path) or _is_text(listing, path))
            )
            yield Stray(path, ours=is_ours, right=right)
    for path in listing.ignored:
        progressed()
        if _is_hidden_metadata(path) and _beside(path, original_name(path)) not in there:
            yield Stray(path, hidden=True)


def is_metadata(listing: Listing, path: str) -> bool:
    """Return True if a file that is not ignored is metadata by its name or its text."""
    return bool(listing.keys_given(path)) or is_sidecar(path) or is_metadata_name(path)


def _is_hidden_metadata(path: str) -> bool:
    """Return True if an ignored name is the name of a sidecar with something before or after it.

    Names that the administrator ignores, and names that systems put into every folder, are for no set.
    """
    name = basename(path)
    if not is_metadata_name(path) or is_output(file_names.fold_name(name)) or ignored_by(name) is None:
        return False
    return file_names.fold_name(name) not in SYSTEM_NAMES and (
        "/" not in path or is_sidecar(original_name(path))
    )


def _speaks_to_us(found: Sidecar | UecError | None) -> bool:
    """Return True if a file reads like a sidecar, or may be one that is unreadable."""
    if isinstance(found, Sidecar):
        return bool(found.given)
    return isinstance(found, UecError) and not isinstance(found, ForeignDocument)


def _is_text(listing: Listing, path: str) -> bool:
    content = listing.facts.get(path)
    return isinstance(content, Facts) and content.format == "text"


def _beside(path: str, name: str) -> str:
    return file_names.fold_name(path[: path.rfind("/") + 1]) + name


def _keys_of(stray: Stray, homes: Collection[str]) -> set[str]:
    """Return the names that a stray may refer to; in a folder outside `homes`, also a set beside it."""
    folder, slash, name = stray.path.rpartition("/")
    if not slash:
        return names_meant(stray.path)
    elsewhere = (
        stray.ours and folder + slash not in homes and file_names.fold_name(name) not in FOLDER_SIDECARS
    )
    return {file_names.fold_name(folder + slash), *(names_meant(stray.path) if elsewhere else ())}


# --- whose name it nearly bears ---------------------------------------------------------------------------


def _without_image(listing: Listing, lone: Iterable[SetCandidate]) -> Iterator[SimilarSidecar]:
    """Yield sidecars without an image. One that names only an existing kernel or ramdisk is complete."""
    for candidate in lone:
        path = candidate.sidecars[0]
        found = listing.sidecars.get(path)
        named = named_files(found) if isinstance(found, Sidecar) else {}
        if isinstance(found, ForeignDocument) or (
            named and all(name in listing.entries for name in named.values())
        ):
            continue
        machines = [named["machine"]] if "machine" in named else machines_named(listing, path)
        yield SimilarSidecar(
            path, frozenset({file_names.fold_name(candidate.name), *map(key_of, machines)}), bool(machines)
        )


def _alike(
    others: Sequence[SimilarSidecar], bare: Sequence[SetCandidate], progressed: Callable[[], None]
) -> dict[str, SimilarSidecar]:
    """Return the others with a name similar to that of a set without a sidecar, by name of the set."""
    if not others or not bare:
        return {}
    by_stem: dict[tuple[str, bool], SimilarSidecar] = {}
    for other in others:
        for stem in other.stems:
            by_stem.setdefault((stem, stem in GENERAL and is_sidecar(other.path)), other)
    names = SimilarNames(
        {candidate.name: file_names.fold_name(candidate.name) for candidate in bare}, others=len(by_stem)
    )
    found: dict[str, SimilarSidecar] = {}
    for (stem, is_general), other in by_stem.items():
        progressed()
        found |= dict.fromkeys(names.take_all() if is_general else names.take_near(stem), other)
    return found


# --- downloads --------------------------------------------------------------------------------------------


def _control_files(listing: Listing) -> dict[str, str]:
    """Return the control files of download tools, by the file they belong to."""
    notes: dict[str, str] = {}
    for path in sorted((*listing.ignored, *listing.entries)):
        plain = file_names.fold_name(path)
        ending = next((end for end in UNFINISHED if plain.endswith(end)), None)
        if ending and not basename(plain).startswith("."):
            target = plain.removesuffix(ending)
            notes.setdefault(target, path)
            notes.setdefault(re.sub(r"\.[0-9a-f]{8}$", "", target), path)  # rclone's
    return notes


# --- what follows -----------------------------------------------------------------------------------------


def check_nearby(near: NearbyFiles, candidate: SetCandidate, paths: Sequence[str]) -> None:
    """Raise an error if something near a set must stop it. `paths` are the files of the set."""
    for path in (*paths, *candidate.sidecars):
        if note := near.notes.get(file_names.fold_name(path)):
            raise NotReady(
                f"{path} to be whole: {note} is beside it; remove that if nothing is copied any more"
            )
    for stray in near.of(candidate, paths):
        if not (stray.ours or stray.hidden or is_sidecar(stray.path)) or (
            candidate.sidecars and not stray.ours
        ):
            continue  # it has no key, or the set has its own sidecar: `unused_nearby` reports it
        if stray.hidden:
            name = sidecar_of(candidate)
            remedy = f"rename it to {name} or move it away"
            if stray.path.lower().endswith(SWAP):
                remedy = f"an editor keeps it while {name} is open: save that and close it, or remove this"
            raise NotReady(f"{name}: {stray.path} is there, which is not read; {remedy}")
        raise _not_read(candidate, stray)
    if not candidate.sidecars and (other := near.alike.get(candidate.name)):
        raise NotReady(
            f"a decision about {other.path}, which nearly has its name and is read for no image: "
            f"{_remedy_if_meant(other, candidate, paths)} if it is meant for this one, else move it away"
        )


def _remedy_if_meant(other: SimilarSidecar, candidate: SetCandidate, paths: Sequence[str]) -> str:
    """Return what to do with a sidecar of a set. The first of `paths` is the set's image."""
    if other.names_machine and not candidate.base:
        place = SetCandidate(other.path, "sidecar", "", (other.path,))
        return f"say {sidecar_lines(place, {'machine': paths[0]})} in it"
    if other.names_machine:
        return f"write what it says into {sidecar_of(candidate)}, but for `machine`,"
    if not is_sidecar(other.path):
        return f"write what it says into {sidecar_of(candidate)}, as TOML,"
    return f"rename it to {sidecar_of(candidate)}"


def unused_nearby(
    listing: Listing, near: NearbyFiles, candidate: SetCandidate, paths: Sequence[str]
) -> tuple[str, ...]:
    """Return sentences about files near a set that change nothing, for the log before the upload."""
    sentences = [
        f"{stray.path} is not read: the sidecar is {sidecar_of(candidate)}"
        for stray in near.of(candidate, paths)
        if not stray.hidden
    ]
    sentences += [
        f"{path}/ is not looked into: a set's files are side by side"
        for path in candidate.paths
        if candidate.base and listing.entries[path].kind == "folder"
    ]
    keys = {*_targets(candidate, paths), ""}
    proofs = [path for key in keys for path in near.proofs.get(key, ())]
    for path in sorted(set(proofs)):
        ignored = path in listing.ignored
        why = "its name is passed over" if ignored else "only SHA-256 is, as sha256sum writes it"
        sentences.append(f"{path} is not checked: {why}")
    return tuple(sentences)


def _other_checksums(listing: Listing, there: Mapping[str, str]) -> dict[str, list[str]]:
    """Return sums of other kinds, signatures and ignored lists, by the folded name they are for; "" is for
    all."""
    proofs: dict[str, list[str]] = {}
    for path in sorted(listing.entries):
        base, name = path[: path.rfind("/") + 1], basename(path)
        target = file_names.proof_target(name)
        if target is None and is_sums(path) and listing.checksums.get(path) == {}:
            target = file_names.checksums_target(name)
        if target is not None:
            proofs.setdefault(file_names.fold_name(base or target), []).append(path)
    known = {*there, *map(key_of, listing.entries)}
    for path in listing.ignored:
        core, base = original_name(path), path[: path.rfind("/") + 1]
        target = file_names.checksums_target(core)
        if target is not None and ignored_by(path[len(base) :]) and _beside(path, core) not in there:
            proofs.setdefault(file_names.fold_name(base or (target if target in known else "")), []).append(
                path
            )
    return proofs


def sidecar_of(candidate: SetCandidate) -> str:
    """Return the path of the sidecar that a set has, or would have."""
    if candidate.sidecars:
        return candidate.sidecars[0]
    return f"{candidate.name}/image.toml" if candidate.base else f"{candidate.name}.toml"


def _not_read(candidate: SetCandidate, stray: Stray) -> Rejected:
    name = sidecar_of(candidate)
    if candidate.base:
        why = "in a set's folder the sidecar is called image.toml or image.json"
    else:
        why = f"it is beside the set {candidate.name}, whose sidecar is called {name}"
    if candidate.sidecars:
        hint = f"Write what it says into {name}, and move it away."
    elif stray.right:
        to = name.removesuffix(".toml") + original_name(stray.path)[-5:]
        hint = f"Rename it. Try: mv {file_word(stray.path)} {file_word(to)}"
    elif stray.ours:
        hint = f"Write what it says into {name}, as TOML, and move it away."
    else:
        hint = f"Move it away; or write {name}, and it is left alone."
    return Rejected(f"{stray.path}: it is not read", why, hint)
