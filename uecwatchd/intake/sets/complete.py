"""The complete set of a candidate: its files by role, each check that it must pass, and the result."""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from uecwatchd.errors import UecError
from uecwatchd.intake.sets.architecture import arch_of
from uecwatchd.intake.sets.archives import check_archive, packed_files
from uecwatchd.intake.sets.candidates import SetCandidate, named_files
from uecwatchd.intake.sets.checks import (
    check_is_one_set,
    check_known,
    check_outputs,
    check_readable,
    check_settled,
)
from uecwatchd.intake.sets.cloud_waits import all_roles, judged_by, waits_of
from uecwatchd.intake.sets.declared_sums import ChecksumLists, DeclaredSums, find_declared_sums
from uecwatchd.intake.sets.lone_sidecars import check_unnamed
from uecwatchd.intake.sets.loose_pairs import LoosePair, add_loose_pair
from uecwatchd.intake.sets.members import check_compatible, check_summed, members_of
from uecwatchd.intake.sets.name_claims import MemberFiles
from uecwatchd.intake.sets.owners import OwnerView
from uecwatchd.intake.sets.policy import check_policy
from uecwatchd.intake.sets.recipes import (
    BaseSets,
    check_alone,
    check_base,
    recipe_files,
    stamp_with_base,
)
from uecwatchd.intake.sets.records import (
    FromImage,
    ImageSet,
    Member,
    NotReady,
    RecipeFiles,
    Rules,
    WindowsBoot,
)
from uecwatchd.intake.sets.requirements import (
    boots_alone,
    check_complete,
    check_configured,
    check_identified,
    check_whole_disk,
    unidentified,
)
from uecwatchd.intake.sets.roles import named_path, roles_of
from uecwatchd.intake.sets.stamp import set_stamp
from uecwatchd.intake.sets.stray_metadata import NearbyFiles, check_nearby, unused_nearby
from uecwatchd.intake.sets.unread_files import check_whole
from uecwatchd.intake.sets.windows_boot import (
    BootFolders,
    boot_folder_of_set,
    plan_windows_boot,
    with_platform,
)
from uecwatchd.intake.sidecar import Sidecar, is_image_id, with_defaults
from uecwatchd.intake.spool.scan import Listing
from uecwatchd.types import Role


@dataclass(frozen=True, slots=True)
class FolderContents:
    """A folder as one owner sees it, the rules for it, and facts about its files, found once."""

    view: OwnerView
    rules: Rules
    near: NearbyFiles
    lists: ChecksumLists
    loose: Sequence[LoosePair] = ()
    halves: Set[str] = frozenset()
    folders: Sequence[str] = ()
    late: str | None = None  #: a sidecar that has not been read yet
    boot: BootFolders = BootFolders()  # noqa: RUF009 (it is frozen)
    taken_on: Mapping[str, Collection[str]] = field(default_factory=dict)  #: clouds, by finished set
    bases: BaseSets = BaseSets()  # noqa: RUF009 (it is frozen)


@dataclass(frozen=True, slots=True)
class ChosenFiles:
    """The files of one set by role."""

    candidate: SetCandidate  #: with the form "loose" if a loose kernel was added
    roles: Mapping[Role, str]
    judged: Sidecar  #: with the clouds that decide if it is complete
    alone: bool  #: the disk boots by itself
    is_finished: bool  #: the set is registered with these very files

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(self.roles.values())


def complete_set(
    folder: FolderContents, candidate: SetCandidate, owned: list[str], *, taken: MemberFiles | None
) -> ImageSet:
    """Return the complete set. Raises NotReady with a reason, or an error, if it is not complete.

    `taken` are the members of the finished set with this name.
    """
    view, listing, rules = folder.view, folder.view.listing, folder.rules
    sidecar = _checked_sidecar(folder, candidate, owned, is_new=taken is None)
    if sidecar.install:
        return _recipe_set(folder, candidate, sidecar, owned, is_new=taken is None)
    if candidate.form == "archive" and not candidate.base:
        return _archive_set(folder, candidate, sidecar, is_new=taken is None)
    chosen = _choose_files(folder, candidate, sidecar, owned, taken)
    candidate, paths = chosen.candidate, chosen.paths
    if not chosen.is_finished:
        _check_nearby_files(folder, candidate, paths)
    check_known(listing, paths, rules.settle)
    sums = find_declared_sums(
        listing, folder.lists, candidate, sidecar, paths, owned=owned, is_finished=chosen.is_finished
    )
    check_settled(listing, [*sums.files, *folder.boot.files_of(candidate)], rules.settle)
    # Existing files are checked first: a truncated disk is more important than a missing kernel.
    members = members_of(listing, chosen.roles, sidecar)
    windows_boot, from_image = _plan_missing_files(folder, chosen, members)
    _check_has_own_files(view, candidate, [] if "machine" in chosen.roles else paths)
    check_compatible(candidate, sidecar, members)
    unread = (*unused_nearby(listing, folder.near, candidate, paths), *sums.remarks)
    found = _image_set(
        view, candidate, sidecar, members, sums, alone=chosen.alone, unread=unread, boot=folder.boot
    )
    there = all_roles(chosen.roles, windows_boot, from_image)
    waits = waits_of(listing, candidate, sidecar, chosen.judged, there, rules, alone=chosen.alone)
    found = replace(found, windows_boot=windows_boot, waits=waits)
    return found if from_image is None else _asking_image(view, found, from_image)


def _choose_files(
    folder: FolderContents,
    candidate: SetCandidate,
    sidecar: Sidecar,
    owned: list[str],
    taken: MemberFiles | None,
) -> ChosenFiles:
    """Return the files of a set, with a loose kernel if it has none. Raises NotReady."""
    view, listing, rules = folder.view, folder.view.listing, folder.rules
    roles = roles_of(listing, candidate, sidecar, owned, folder.near.there)
    _check_has_own_files(view, candidate, [roles["machine"]] if "machine" in roles else [])
    is_finished = {(path, listing.entries[path].stamp) for path in roles.values()} <= set(taken or ())
    judged = judged_by(sidecar, rules, folder.taken_on.get(candidate.name, ()) if is_finished else ())
    own = {role: path for role, path in roles.items() if path not in candidate.shared_boot_files}
    if boots_alone(listing, judged, own, rules):
        return ChosenFiles(candidate, own, judged, alone=True, is_finished=is_finished)
    candidate, roles = add_loose_pair(candidate, roles, judged, folder.loose, rules)
    return ChosenFiles(candidate, roles, judged, alone=False, is_finished=is_finished)


def _plan_missing_files(
    folder: FolderContents, chosen: ChosenFiles, members: tuple[Member, ...]
) -> tuple[WindowsBoot | None, FromImage | None]:
    """Return the boot files to be made, and those to be taken out of the image."""
    sidecar, candidate = chosen.judged, chosen.candidate
    if chosen.alone:
        check_whole_disk(sidecar, members)
        return None, None
    listing, rules = folder.view.listing, folder.rules
    made = plan_windows_boot(listing, candidate, sidecar, chosen.roles, rules, folder.boot)
    there = {**chosen.roles, **(made.roles if made else {})}
    return made, check_complete(
        listing, candidate, sidecar, there, rules, folders=folder.folders, halves=folder.halves
    )


def _asking_image(view: OwnerView, found: ImageSet, wanted: FromImage) -> ImageSet:
    """Return a set that takes files out of its image, or waits as before if there are none in it."""
    if wanted.otherwise:
        wait = NotReady(wanted.otherwise, lacking=wanted.roles)
        wanted = replace(wanted, otherwise=wait.reason + view.note(found.name, wait))
    # Marked, so that a set whose image has nothing of use is new after a change of the configuration.
    return replace(found, from_image=wanted, stamp=f"from-image-{found.stamp}")


def _archive_set(
    folder: FolderContents, candidate: SetCandidate, sidecar: Sidecar, *, is_new: bool
) -> ImageSet:
    """Return the set in an archive, without members. They are judged when it is unpacked."""
    view, listing, rules, path = folder.view, folder.view.listing, folder.rules, candidate.paths[0]
    check_archive(listing, candidate)
    _check_has_own_files(view, candidate, [path])
    if is_new:
        _check_nearby_files(folder, candidate, (path,))
        check_identified(sidecar, rules)
    sums = find_declared_sums(
        listing, folder.lists, candidate, sidecar, [path], owned=[path], is_finished=not is_new
    )
    check_settled(listing, sums.files, rules.settle)
    unread = (*unused_nearby(listing, folder.near, candidate, [path]), *sums.remarks)
    found = _image_set(view, candidate, sidecar, (), sums, alone=False, unread=unread, sources=[path])
    packed = packed_files(listing, candidate, rules)
    return replace(found, packed=packed, waits=_unidentified_waits(sidecar, rules))


def _unidentified_waits(sidecar: Sidecar, rules: Rules) -> Mapping[str, str]:
    """Return the waits of a set with unknown content: each cloud has to tell first what it requires."""
    strange = [cloud for cloud in sidecar.clouds if cloud in rules.strange]
    return {cloud: unidentified(cloud, rules).reason for cloud in strange}


def _recipe_set(
    folder: FolderContents, candidate: SetCandidate, sidecar: Sidecar, owned: list[str], *, is_new: bool
) -> ImageSet:
    """Return the set of a recipe, without members. They are judged when its system is installed."""
    assert sidecar.install  # noqa: S101 (the caller has looked)
    view, listing, rules, sets = folder.view, folder.view.listing, folder.rules, folder.bases
    there, boot_files = folder.near.there, folder.boot.files_of(candidate)
    roles = {role: named_path(listing, candidate, name, there) for role, name in named_files(sidecar).items()}
    files = recipe_files(
        listing,
        candidate,
        sidecar.install,
        rules,
        there=there,
        sets=sets,
        members=roles.values(),
        boot_files=[*folder.boot.of(candidate), *boot_files],
    )
    paths = [*(path for path, _ in files.files.values()), *roles.values()]
    check_alone(listing, candidate, paths, owned)
    if is_new:
        _check_nearby_files(folder, candidate, tuple(paths))
        check_identified(sidecar, rules)
    check_known(listing, paths, rules.settle)
    sums = find_declared_sums(
        listing, folder.lists, candidate, sidecar, paths, owned=owned, is_finished=not is_new
    )
    check_settled(listing, [*sums.files, *boot_files], rules.settle)
    check_summed(candidate, sidecar, {path[len(candidate.base) :] for path in paths})
    _check_around_disk(folder, candidate, sidecar, roles)
    unread = (*unused_nearby(listing, folder.near, candidate, paths), *sums.remarks)
    found = _image_set(
        view, candidate, sidecar, (), sums, alone=False, unread=unread, sources=paths, boot=folder.boot
    )
    stamp = _stamp_over_base(found.stamp, candidate, files, sets)
    waits = _unidentified_waits(sidecar, rules)
    return replace(found, form="recipe", recipe=files, stamp=stamp, waits=waits)


def _stamp_over_base(stamp: str, candidate: SetCandidate, files: RecipeFiles, sets: BaseSets) -> str:
    """Return the stamp of a recipe over that of its base.

    Raises NotReady if the recipe is new and its base waits.
    """
    before = sets.finished.get(candidate.name)
    stamp = stamp_with_base(stamp, before, files.base_set, sets)
    if stamp != before:
        check_base(candidate, sets)
    return stamp


def _check_around_disk(
    folder: FolderContents, candidate: SetCandidate, sidecar: Sidecar, roles: Mapping[Role, str]
) -> None:
    """Check what goes with a disk that is not installed yet, so that it is not installed in vain.

    Raises NotReady or the error of an unsuitable file. A Linux has its kernel in itself.
    """
    listing, rules = folder.view.listing, folder.rules
    members_of(listing, roles, sidecar)
    with_disk: dict[Role, str] = {"machine": candidate.name, **roles}
    if sidecar.platform != "windows" or boots_alone(listing, sidecar, with_disk, rules):
        return
    made = plan_windows_boot(listing, candidate, sidecar, with_disk, rules, folder.boot)
    there = {**with_disk, **(made.roles if made else {})}
    check_complete(listing, candidate, sidecar, there, rules, folders=folder.folders, halves=folder.halves)


def _checked_sidecar(
    folder: FolderContents, candidate: SetCandidate, owned: list[str], *, is_new: bool
) -> Sidecar:
    """Return the sidecar, once the files can be judged. Raises as `complete_set` does.

    A finished set is not new: it keeps its result files, and the policy may be newer than its image.
    """
    view, listing, rules = folder.view, folder.view.listing, folder.rules
    check_is_one_set(listing, candidate)
    if is_new:
        check_outputs(view, candidate, owned)
    check_readable(listing, candidate, owned, folder.lists)
    check_known(listing, (*candidate.sidecars, *owned), rules.settle)
    sidecar = _sidecar_of(listing, candidate, rules)
    if is_new:
        check_sidecar_policy(listing, candidate, rules)
    return with_platform(sidecar, candidate, boot_folder_of_set(listing, candidate, folder.boot))


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
    sources: Sequence[str] = (),
    boot: BootFolders = BootFolders(),  # noqa: B008 (it is frozen)
) -> ImageSet:
    """Return the set. `sources` are the files that its members are made of, if there are no members yet."""
    listing = view.listing
    files = (*candidate.sidecars, *sums.files, *sources, *(member.path for member in members))
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
        owner=view.owner_among(
            [*sources, *(member.path for member in reversed(members)), *candidate.sidecars]
        ),
        files=files,
        stamp=set_stamp(listing, files, sums),
        boot_folder=next(iter(boot.of(candidate)), ""),
        changed=max(listing.stamp(path).ctime_ns for path in files) / 1e9,
    )


def _check_nearby_files(folder: FolderContents, candidate: SetCandidate, paths: tuple[str, ...]) -> None:
    listing, near, settle = folder.view.listing, folder.near, folder.rules.settle
    check_whole(listing)
    if not candidate.sidecars and candidate.form != "folder":
        check_unnamed(listing, near.lone, paths, settle)
    check_known(listing, near.visible_of(candidate, paths), settle)
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


def check_sidecar_policy(listing: Listing, candidate: SetCandidate, rules: Rules) -> None:
    for path in candidate.sidecars:
        found = listing.sidecars[path]
        if isinstance(found, Sidecar):
            check_policy(found, rules.defaults, rules.policy, file=path)


def _named_id(value: str | None) -> str | None:
    return value if value and is_image_id(value) else None
