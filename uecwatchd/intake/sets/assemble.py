"""Assembly of sets from a listing: each candidate is a complete set, waits for something, or is refused."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from uecwatchd.errors import UecError, words_of
from uecwatchd.intake.sets.architecture import arch_of
from uecwatchd.intake.sets.archives import check_archive, packed_files
from uecwatchd.intake.sets.candidates import (
    SetCandidate,
    as_spelled,
    find_candidates,
    find_claims,
    own_paths,
)
from uecwatchd.intake.sets.checks import (
    check_is_one_set,
    check_known,
    check_outputs,
    check_readable,
    check_settled,
    planted_outputs,
)
from uecwatchd.intake.sets.declared_sums import (
    ChecksumLists,
    DeclaredSums,
    find_checksum_lists,
    find_declared_sums,
)
from uecwatchd.intake.sets.lone_sidecars import check_unnamed
from uecwatchd.intake.sets.loose_pairs import (
    LoosePair,
    add_loose_pair,
    boot_folders,
    find_halves,
    find_loose_pairs,
)
from uecwatchd.intake.sets.members import check_compatible, members_of
from uecwatchd.intake.sets.owners import (
    FilesOfSets,
    MemberFiles,
    OwnerView,
    ViewDecisions,
    join_views,
    views_of,
)
from uecwatchd.intake.sets.policy import check_policy
from uecwatchd.intake.sets.records import (
    FolderSets,
    FromImage,
    ImageSet,
    Member,
    NotReady,
    Refused,
    Rules,
    UnmatchedFile,
    Waiting,
)
from uecwatchd.intake.sets.requirements import (
    boots_alone,
    check_complete,
    check_configured,
    check_identified,
    check_whole_disk,
)
from uecwatchd.intake.sets.roles import roles_of
from uecwatchd.intake.sets.stamp import set_stamp
from uecwatchd.intake.sets.stray_metadata import NearbyFiles, check_nearby, find_nearby, unused_nearby
from uecwatchd.intake.sets.unmatched import find_unmatched
from uecwatchd.intake.sets.unread_files import check_read, check_whole, unread_sidecar
from uecwatchd.intake.sets.windows_boot import (
    BootFolders,
    boot_folder_of_set,
    find_boot_folders,
    plan_windows_boot,
    with_platform,
)
from uecwatchd.intake.sidecar import ForeignDocument, Sidecar, is_image_id, with_defaults
from uecwatchd.intake.spool.scan import Listing


@dataclass(frozen=True, slots=True)
class FolderContents:
    """Facts about everything beside the sets of a folder, found once."""

    near: NearbyFiles
    lists: ChecksumLists
    loose: Sequence[LoosePair]
    halves: Set[str]
    folders: Sequence[str]
    late: str | None  # a sidecar that has not been read yet
    boot: BootFolders = BootFolders()  # noqa: RUF009 (it is frozen)


def assemble(
    listing: Listing,
    *,
    rules: Rules,
    taken: FilesOfSets | None = None,
    holders: Mapping[str, int] | None = None,
    done: Mapping[str, str] | None = None,
    progressed: Callable[[], None] = lambda: None,
) -> FolderSets:
    """Decide about every name in a listing.

    `taken` has the members of finished sets, by name of the set: a loose kernel stays with the image it was
    registered with if another image arrives later. `holders` are the uids that own names, while their sets
    exist. `done` are the stamps of finished sets, which a later policy does not undo. `progressed` is called
    for each name and each set, as a sign of life.
    """
    taken = taken or {}
    views, left_out = [OwnerView(listing)], dict[str, UnmatchedFile]()
    if rules.users is not None:
        views, left_out = views_of(listing, rules.users, holders=holders or {}, taken=taken)
    return join_views([_decide_view(view, rules, taken, done or {}, progressed) for view in views], left_out)


def _decide_view(
    view: OwnerView, rules: Rules, taken: FilesOfSets, done: Mapping[str, str], progressed: Callable[[], None]
) -> ViewDecisions:
    """Decide about the sets that belong to a view."""
    taken = {name: files for name, files in taken.items() if view.decides(name)}
    listing = as_spelled(view.listing)
    view = replace(view, listing=listing)
    candidates = find_candidates(listing)
    claims = find_claims(listing, candidates, taken)
    owned_by = {candidate.name: own_paths(listing, candidate, claims) for candidate in candidates}
    around = FolderContents(
        find_nearby(listing, candidates, owned_by, progressed),
        find_checksum_lists(listing),
        find_loose_pairs(listing, candidates, claims, taken),
        find_halves(listing, candidates, claims),
        boot_folders(listing, candidates),
        unread_sidecar(listing),
        find_boot_folders(listing),
    )
    outcomes: list[ImageSet | Waiting | Refused] = []
    read = set[str]()
    for candidate in [candidate for candidate in candidates if view.decides(candidate.name)]:
        progressed()
        owned = owned_by[candidate.name]
        if not owned and candidate.form != "folder" and _is_for_others(listing, candidate, around.near):
            continue
        read.update(candidate.sidecars)
        outcomes.append(
            _decide_candidate(view, candidate, owned, around, rules, taken.get(candidate.name), done)
        )
    used = {path for outcome in outcomes for path in outcome.files}
    ready = tuple(one for one in outcomes if isinstance(one, ImageSet))
    waiting = tuple(one for one in outcomes if isinstance(one, Waiting))
    refused = tuple(one for one in outcomes if isinstance(one, Refused))
    left = find_unmatched(listing, used, read)
    return ViewDecisions(view, FolderSets(ready, waiting, refused, left), frozenset(used | read))


def _decide_candidate(
    view: OwnerView,
    candidate: SetCandidate,
    owned: list[str],
    around: FolderContents,
    rules: Rules,
    taken: MemberFiles | None,
    done: Mapping[str, str],
) -> ImageSet | Waiting | Refused:
    """Decide about one candidate: it is a set, waits for something, or is refused."""
    listing = view.listing
    files = (*candidate.sidecars, *owned, *around.lists.about(candidate, owned))
    files = tuple(dict.fromkeys([*files, *around.boot.files_of(candidate)]))
    owner = view.owner_among(files or (candidate.name,))
    try:
        if around.late and not candidate.sidecars and candidate.form != "folder":
            check_read(listing, [around.late])
        found = complete_set(view, candidate, owned, around, rules=rules, taken=taken)
        if found.stamp != done.get(found.name):
            _check_policy(listing, candidate, rules)
            view.check_exposure(found.files)
    except NotReady as wait:
        reason = wait.reason + view.note(candidate.name, wait)
        return Waiting(candidate.name, reason, wait.ready_at, files, wait.brief, wait.unread, owner)
    except UecError as error:
        # Marked, so that a set that was refused because of the configuration is new after a change of it.
        stamp = "refused-" + set_stamp(listing, (*files, *_obstacles(listing, candidate, owned, around.near)))
        return Refused(candidate.name, words_of(error), stamp, files, owner)
    return found


def _obstacles(
    listing: Listing, candidate: SetCandidate, owned: Iterable[str], near: NearbyFiles
) -> list[str]:
    """Return paths outside of sets that a set may be refused for."""
    strays = [stray.path for stray in near.of(candidate, owned) if not stray.hidden]
    return [*planted_outputs(listing, candidate), *strays]


def _is_for_others(listing: Listing, candidate: SetCandidate, near: NearbyFiles) -> bool:
    """Return True if a sidecar without files is not a set: it is for another program, or for another set."""
    sidecars = [listing.sidecars.get(path) for path in candidate.sidecars]
    return candidate.name in near.meant or all(isinstance(found, ForeignDocument) for found in sidecars)


def complete_set(
    view: OwnerView,
    candidate: SetCandidate,
    owned: list[str],
    around: FolderContents,
    *,
    rules: Rules,
    taken: MemberFiles | None,
) -> ImageSet:
    """Return the complete set. Raises NotReady with a reason, or an error, if it is not complete.

    `taken` are the members of the finished set with this name.
    """
    listing = view.listing
    sidecar = _checked_sidecar(view, candidate, owned, around, rules, is_new=taken is None)
    if candidate.form == "archive" and not candidate.base:
        return _archive_set(view, candidate, sidecar, around, rules, is_new=taken is None)
    roles = roles_of(listing, candidate, sidecar, owned, around.near.there)
    _check_has_own_files(view, candidate, [roles["machine"]] if "machine" in roles else [])
    is_finished = {(path, listing.entries[path].stamp) for path in roles.values()} <= set(taken or ())
    own = {role: path for role, path in roles.items() if path not in candidate.shared_boot_files}
    if alone := boots_alone(listing, sidecar, own, rules):
        roles = own
    else:
        candidate, roles = add_loose_pair(candidate, roles, sidecar, around.loose, rules)
    paths = tuple(roles.values())
    if not is_finished:
        _check_nearby_files(listing, candidate, paths, around.near, rules.settle)
    check_known(listing, paths, rules.settle)
    sums = find_declared_sums(
        listing, around.lists, candidate, sidecar, paths, owned=owned, is_finished=is_finished
    )
    check_settled(listing, [*sums.files, *around.boot.files_of(candidate)], rules.settle)
    # Existing files are checked first: a truncated disk is more important than a missing kernel.
    members = members_of(listing, roles, sidecar)
    windows_boot = from_image = None
    if alone:
        check_whole_disk(sidecar, members)
    else:
        windows_boot = plan_windows_boot(listing, candidate, sidecar, roles, rules, around.boot)
        there = {**roles, **(windows_boot.roles if windows_boot else {})}
        from_image = check_complete(
            listing, candidate, sidecar, there, rules, folders=around.folders, halves=around.halves
        )
    _check_has_own_files(view, candidate, [] if "machine" in roles else paths)
    check_compatible(candidate, sidecar, members)
    unread = (*unused_nearby(listing, around.near, candidate, paths), *sums.remarks)
    found = _image_set(view, candidate, sidecar, members, sums, alone=alone, unread=unread, boot=around.boot)
    found = replace(found, windows_boot=windows_boot)
    return found if from_image is None else _asking_image(view, found, from_image)


def _asking_image(view: OwnerView, found: ImageSet, wanted: FromImage) -> ImageSet:
    """Return a set that takes files out of its image, or waits as before if there are none in it."""
    if wanted.otherwise:
        wait = NotReady(wanted.otherwise, lacking=wanted.roles)
        wanted = replace(wanted, otherwise=wait.reason + view.note(found.name, wait))
    # Marked, so that a set whose image has nothing of use is new after a change of the configuration.
    return replace(found, from_image=wanted, stamp=f"from-image-{found.stamp}")


def _archive_set(
    view: OwnerView,
    candidate: SetCandidate,
    sidecar: Sidecar,
    around: FolderContents,
    rules: Rules,
    *,
    is_new: bool,
) -> ImageSet:
    """Return the set in an archive, without members. They are judged when it is unpacked."""
    listing, path = view.listing, candidate.paths[0]
    check_archive(listing, candidate)
    _check_has_own_files(view, candidate, [path])
    if is_new:
        _check_nearby_files(listing, candidate, (path,), around.near, rules.settle)
        check_identified(sidecar, rules)
    sums = find_declared_sums(
        listing, around.lists, candidate, sidecar, [path], owned=[path], is_finished=not is_new
    )
    check_settled(listing, sums.files, rules.settle)
    unread = (*unused_nearby(listing, around.near, candidate, [path]), *sums.remarks)
    found = _image_set(view, candidate, sidecar, (), sums, alone=False, unread=unread)
    return replace(found, packed=packed_files(listing, candidate, rules))


def _checked_sidecar(
    view: OwnerView,
    candidate: SetCandidate,
    owned: list[str],
    around: FolderContents,
    rules: Rules,
    *,
    is_new: bool,
) -> Sidecar:
    """Return the sidecar, once the files can be judged. Raises as `complete_set` does.

    A finished set is not new: it keeps its result files, and the policy may be newer than its image.
    """
    listing = view.listing
    check_is_one_set(listing, candidate)
    if is_new:
        check_outputs(view, candidate, owned)
    check_readable(listing, candidate, owned, around.lists)
    check_known(listing, (*candidate.sidecars, *owned), rules.settle)
    sidecar = _sidecar_of(listing, candidate, rules)
    if is_new:
        _check_policy(listing, candidate, rules)
    return with_platform(sidecar, candidate, boot_folder_of_set(listing, candidate, around.boot))


def _check_has_own_files(view: OwnerView, candidate: SetCandidate, leading: Iterable[str]) -> None:
    """Raise NotReady if a member's set would consist only of root's image or root's kernel."""
    if theirs := [path for path in leading if not view.is_own(path)]:
        raise NotReady(f"files of its own: {view.why_not(theirs, candidate.name)}")


def _image_set(
    view: OwnerView,
    candidate: SetCandidate,
    sidecar: Sidecar,
    members: tuple[Member, ...],
    sums: DeclaredSums,
    *,
    alone: bool,
    unread: tuple[str, ...],
    boot: BootFolders = BootFolders(),  # noqa: B008 (it is frozen)
) -> ImageSet:
    listing = view.listing
    archives = () if candidate.base or candidate.form != "archive" else candidate.paths
    files = (*candidate.sidecars, *sums.files, *archives, *(member.path for member in members))
    files = (*files, *boot.files_of(candidate))
    arch, arch_known_by = arch_of(candidate, sidecar, members)
    return ImageSet(
        name=candidate.name,
        folder=listing.folder,
        form=candidate.form,
        members=tuple(member for member in members if not alone or member.role == "machine"),
        left_out=tuple(member.path for member in members if alone and member.role != "machine"),
        kernel_id=None if alone else _named_id(sidecar.kernel),
        ramdisk_id=None if alone else _named_id(sidecar.ramdisk),
        virtualization="hvm" if alone else sidecar.virtualization,
        arch=arch,
        arch_known_by=arch_known_by,
        sidecar=sidecar,
        checksums=sums.digests,
        shared=(*sums.shared, *view.common_files(files, candidate.name)),
        unread=(*unread, *view.left_out(candidate.name)),
        owner=view.owner_among([*archives, *(member.path for member in reversed(members))]),
        files=files,
        stamp=set_stamp(listing, files, sums),
        boot_folder=next(iter(boot.of(candidate)), ""),
        changed=max(listing.stamp(path).ctime_ns for path in files) / 1e9,
    )


def _check_nearby_files(
    listing: Listing, candidate: SetCandidate, paths: tuple[str, ...], near: NearbyFiles, settle: float
) -> None:
    check_whole(listing)
    if not candidate.sidecars and candidate.form != "folder":
        check_unnamed(listing, near.lone, paths, settle)
    strays = [stray.path for stray in near.of(candidate, paths) if not stray.hidden]
    check_known(listing, strays, settle)
    check_nearby(near, candidate, paths)


def _sidecar_of(listing: Listing, candidate: SetCandidate, rules: Rules) -> Sidecar:
    sidecar = rules.defaults
    if candidate.sidecars:
        found = listing.sidecars[candidate.sidecars[0]]
        if isinstance(found, UecError):
            raise found
        sidecar = with_defaults(found, rules.defaults)
    check_configured(candidate, sidecar, rules)
    return sidecar


def _check_policy(listing: Listing, candidate: SetCandidate, rules: Rules) -> None:
    for path in candidate.sidecars:
        found = listing.sidecars[path]
        if isinstance(found, Sidecar):
            check_policy(found, rules.defaults, rules.policy, file=path)


def _named_id(value: str | None) -> str | None:
    return value if value and is_image_id(value) else None
