"""Checks of a candidate, before its files are looked at as members of a set."""

from collections.abc import Iterable, Sequence
from posixpath import basename

from uecwatchd.errors import Rejected, UecError
from uecwatchd.intake.sets.candidates import SetCandidate, is_archive, is_set_folder, looks_like_a_member
from uecwatchd.intake.sets.declared_sums import ChecksumLists
from uecwatchd.intake.sets.owners import OwnerView
from uecwatchd.intake.sets.records import NotReady
from uecwatchd.intake.sets.unread_files import check_read
from uecwatchd.intake.spool.file_kinds import is_sidecar
from uecwatchd.intake.spool.output_files import OUTPUT_SUFFIXES, name_taken, output_stem
from uecwatchd.intake.spool.safe_open import not_regular
from uecwatchd.intake.spool.scan import Listing
from uecwatchd.system.text import file_word


def check_is_one_set(listing: Listing, candidate: SetCandidate) -> None:
    """Raise Rejected if a candidate has two sidecars, or is a folder and files."""
    if len(candidate.sidecars) > 1:
        raise Rejected(
            f"{candidate.name}: it has two sidecars",
            " and ".join(basename(path) for path in candidate.sidecars) + " are there",
            "Remove one of them.",
        )
    folders = [p for p in candidate.paths if candidate.form != "folder" and is_set_folder(listing.entries[p])]
    if folders:
        others = [p for p in (*candidate.sidecars, *candidate.paths) if p not in folders]
        raise Rejected(
            f"{candidate.name}: two sets have this name",
            f"the folder {'/ and '.join(folders)}/ and {', '.join(others)}",
            _into_the_folder(listing, folders[0], others),
        )


def _into_the_folder(listing: Listing, folder: str, others: Sequence[str]) -> str:
    """Suggest to move files. A sidecar beside the folder with its name is usually meant for that folder."""
    to = f"{folder}/image{others[0][-5:].lower()}"
    if len(others) == 1 and is_sidecar(others[0]) and to not in listing.entries:
        move = f"mv {file_word(others[0])} {file_word(to)}"
        return f"Move it into the folder, if it is meant for that. Try: {move}"
    return "Rename one of them, or move the files into the folder."


def check_outputs(view: OwnerView, candidate: SetCandidate, owned: Sequence[str]) -> None:
    """Raise NameTaken if the set's owner has put a file in the place of a result file."""
    owner = view.owner_among((*candidate.sidecars, *owned, candidate.name))
    for name in planted_outputs(view.listing, candidate):
        entry = view.listing.planted[name]
        if entry.owner == owner:
            raise name_taken(view.listing.folder, name, entry.kind, entry.owner)


def planted_outputs(listing: Listing, candidate: SetCandidate) -> list[str]:
    """Return files in the place of the set's result files that the service did not put there."""
    stem = output_stem(candidate.name)
    return [name for suffix in OUTPUT_SUFFIXES if (name := stem + suffix) in listing.planted]


def check_readable(
    listing: Listing, candidate: SetCandidate, owned: Iterable[str], lists: ChecksumLists
) -> None:
    """Check that the files can be read. For a folder that cannot be listed, the error is among the facts."""
    trouble = listing.facts.get(candidate.name) if candidate.form == "folder" else None
    if isinstance(trouble, UecError):
        raise trouble
    for path in (*candidate.sidecars, *lists.of(candidate, owned)):
        if (kind := listing.entries[path].kind) != "file":
            raise not_regular(path, kind)
    for path in owned:
        kind = listing.entries[path].kind
        if kind != "file" and (is_archive(path) or looks_like_a_member(basename(path))):
            raise not_regular(path, kind)


def check_known(listing: Listing, paths: Sequence[str], settle: float) -> None:
    """Raise NotReady if files are still being written, or have not been read."""
    check_settled(listing, paths, settle)
    check_read(listing, paths)


def check_settled(listing: Listing, paths: Iterable[str], settle: float) -> None:
    """Raise NotReady if files have changed within `settle` seconds."""
    for path in paths:
        ready_at = listing.entry(path).since + settle
        if listing.now < ready_at:
            raise NotReady(f"{path} to be unchanged for {settle:g} s", ready_at, brief=True)
