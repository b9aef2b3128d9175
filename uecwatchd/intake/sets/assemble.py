"""Assembly of sets from a listing: each candidate is a complete set, waits for something, or is refused."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from uecwatchd.errors import UecError, words_of
from uecwatchd.intake.sets.candidates import SetCandidate, find_candidates, find_claims, own_paths
from uecwatchd.intake.sets.checks import planted_outputs
from uecwatchd.intake.sets.complete import FolderContents, check_sidecar_policy, complete_set
from uecwatchd.intake.sets.declared_sums import find_checksum_lists
from uecwatchd.intake.sets.loose_pairs import boot_folders, find_halves, find_loose_pairs
from uecwatchd.intake.sets.name_claims import FilesOfSets, MemberFiles
from uecwatchd.intake.sets.owners import OwnerView, ViewDecisions, join_views, views_of
from uecwatchd.intake.sets.recipes import find_bases
from uecwatchd.intake.sets.records import (
    FolderSets,
    ImageSet,
    NotReady,
    Refused,
    Rules,
    UnmatchedFile,
    Waiting,
)
from uecwatchd.intake.sets.spelling import as_spelled
from uecwatchd.intake.sets.stamp import set_stamp
from uecwatchd.intake.sets.stray_metadata import NearbyFiles, find_nearby
from uecwatchd.intake.sets.unmatched import find_unmatched
from uecwatchd.intake.sets.unread_files import check_read, unread_sidecar
from uecwatchd.intake.sets.windows_boot import find_boot_folders
from uecwatchd.intake.sidecar import ForeignDocument
from uecwatchd.intake.spool.scan import Listing


def assemble(
    listing: Listing,
    *,
    rules: Rules,
    taken: FilesOfSets | None = None,
    holders: Mapping[str, int] | None = None,
    done: Mapping[str, str] | None = None,
    taken_on: Mapping[str, Collection[str]] | None = None,
    progressed: Callable[[], None] = lambda: None,
) -> FolderSets:
    """Decide about every name in a listing.

    `taken` has the members of finished sets, by name of the set: a loose kernel stays with the image it was
    registered with if another image arrives later. `holders` are the uids that own names, while their sets
    exist. `done` are the stamps of finished sets, which a later policy does not undo. `taken_on` are the
    clouds that sets are finished on. `progressed` is called for each name and each set, as a sign of life.
    """
    taken = taken or {}
    history = SetHistory(taken, done or {}, taken_on or {})
    views, left_out = [OwnerView(listing)], dict[str, UnmatchedFile]()
    if rules.users is not None:
        views, left_out = views_of(listing, rules.users, holders=holders or {}, taken=taken)
    return join_views([_decide_view(view, rules, history, progressed) for view in views], left_out)


@dataclass(frozen=True, slots=True)
class SetHistory:
    """Earlier results for the sets of a folder; see `assemble`."""

    taken: FilesOfSets
    done: Mapping[str, str]
    taken_on: Mapping[str, Collection[str]]


def _decide_view(
    view: OwnerView, rules: Rules, history: SetHistory, progressed: Callable[[], None]
) -> ViewDecisions:
    """Decide about the sets that belong to a view."""
    taken = {name: files for name, files in history.taken.items() if view.decides(name)}
    listing = as_spelled(view.listing)
    view = replace(view, listing=listing)
    candidates = find_candidates(listing)
    claims = find_claims(listing, candidates, taken)
    owned_by = {candidate.name: own_paths(listing, candidate, claims) for candidate in candidates}
    folder = FolderContents(
        view,
        rules,
        find_nearby(listing, candidates, owned_by, progressed),
        find_checksum_lists(listing),
        find_loose_pairs(listing, candidates, claims, taken),
        find_halves(listing, candidates, claims),
        boot_folders(listing, candidates),
        unread_sidecar(listing),
        find_boot_folders(listing),
        history.taken_on,
        find_bases(
            listing, candidates, {name: stamp for name, stamp in history.done.items() if name in taken}
        ),
    )
    outcomes: list[ImageSet | Waiting | Refused] = []
    read = set[str]()
    for candidate in [candidate for candidate in candidates if view.decides(candidate.name)]:
        progressed()
        owned = owned_by[candidate.name]
        if not owned and candidate.form != "folder" and _is_for_others(listing, candidate, folder.near):
            continue
        read.update(candidate.sidecars)
        outcomes.append(_decide_candidate(folder, candidate, owned, taken.get(candidate.name), history.done))
    used = {path for outcome in outcomes for path in outcome.files}
    ready = tuple(one for one in outcomes if isinstance(one, ImageSet))
    waiting = tuple(one for one in outcomes if isinstance(one, Waiting))
    refused = tuple(one for one in outcomes if isinstance(one, Refused))
    left = find_unmatched(listing, used, read)
    return ViewDecisions(view, FolderSets(ready, waiting, refused, left), frozenset(used | read))


def _decide_candidate(
    folder: FolderContents,
    candidate: SetCandidate,
    owned: list[str],
    taken: MemberFiles | None,
    done: Mapping[str, str],
) -> ImageSet | Waiting | Refused:
    """Decide about one candidate: it is a set, waits for something, or is refused."""
    view, listing = folder.view, folder.view.listing
    files = (*candidate.sidecars, *owned, *folder.lists.about(candidate, owned))
    files = tuple(dict.fromkeys([*files, *folder.boot.files_of(candidate)]))
    owner = view.owner_among(files or (candidate.name,))
    try:
        if folder.late and not candidate.sidecars and candidate.form != "folder":
            check_read(listing, [folder.late])
        found = complete_set(folder, candidate, owned, taken=taken)
        if found.stamp != done.get(found.name):
            check_sidecar_policy(listing, candidate, folder.rules)
            view.check_exposure(found.files)
    except NotReady as wait:
        reason = wait.reason + view.note(candidate.name, wait)
        return Waiting(candidate.name, reason, wait.ready_at, files, wait.brief, wait.unread, owner)
    except UecError as error:
        obstacles = [*planted_outputs(listing, candidate), *folder.near.visible_of(candidate, owned)]
        # Marked, so that a set that was refused because of the configuration is new after a change of it.
        stamp = "refused-" + set_stamp(listing, (*files, *obstacles))
        return Refused(candidate.name, words_of(error), stamp, files, owner)
    return found


def _is_for_others(listing: Listing, candidate: SetCandidate, near: NearbyFiles) -> bool:
    """Return True if a sidecar without files is not a set: it is for another program, or for another set."""
    sidecars = [listing.sidecars.get(path) for path in candidate.sidecars]
    return candidate.name in near.meant or all(isinstance(found, ForeignDocument) for found in sidecars)
