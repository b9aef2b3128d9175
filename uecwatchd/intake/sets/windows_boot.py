"""Boot files of Windows for a cloud that boots no disk: memdisk as the kernel, a floppy as the ramdisk.

Where the set lacks one of them, the service makes it: memdisk is a file of syslinux on this host, and the
floppy is made of a folder of boot files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from posixpath import basename

from uecwatchd.errors import Rejected, UecError
from uecwatchd.images import file_names
from uecwatchd.images.floppy.boot_files import missing_files
from uecwatchd.intake.sets.candidates import SetCandidate, key_of
from uecwatchd.intake.sets.origin import BootFloppy
from uecwatchd.intake.sets.records import NotReady, Rules, WindowsBoot
from uecwatchd.intake.sets.requirements import missing_roles, sidecar_name
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool.boot_folders import boot_folder_of, set_beside
from uecwatchd.intake.spool.safe_open import not_regular
from uecwatchd.intake.spool.scan import Listing
from uecwatchd.types import Role


@dataclass(frozen=True, slots=True)
class BootFolders:
    """The folders of boot files, and the files in each, by the folder's path.

    `sets` are the folders by their set: by its key, or by the path of the folder that the set is in.
    """

    files: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sets: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def of(self, candidate: SetCandidate) -> Sequence[str]:
        """Return the folders of a set: there should be one at most."""
        key = candidate.base if candidate.form == "folder" else file_names.fold_name(candidate.name)
        return self.sets.get(key, ())

    def files_of(self, candidate: SetCandidate) -> list[str]:
        return [path for folder in self.of(candidate) for path in self.files[folder]]


def find_boot_folders(listing: Listing) -> BootFolders:
    """Return the folders of boot files in a listing, found once for all sets."""
    files: dict[str, list[str]] = {}
    sets: dict[str, list[str]] = {}
    for path in sorted(listing.boot_files):
        folder = boot_folder_of(path)
        if folder is None:
            continue
        if path == folder:
            beside = set_beside(folder)
            key = f"{folder.partition('/')[0]}/" if beside is None else key_of(beside)
            sets.setdefault(key, []).append(folder)
        files.setdefault(folder, []).extend([path] if path != folder else [])
    return BootFolders(files, sets)


def boot_folder_of_set(listing: Listing, candidate: SetCandidate, around: BootFolders) -> str:
    """Return the folder of a set's boot files, "" if it has none.

    Raises Rejected for two of them, and the error of one that cannot be listed.
    """
    folder, *others = around.of(candidate) or ("",)
    if others:
        why = f"{folder}/ and {others[0]}/ could both be meant"
        raise Rejected(f"{candidate.name}: it has two folders of boot files", why, "Remove one of them.")
    trouble = listing.facts.get(folder)
    if isinstance(trouble, UecError):
        raise trouble
    return folder


def with_platform(sidecar: Sidecar, candidate: SetCandidate, folder: str) -> Sidecar:
    """Return the sidecar of a set with boot files: its disk has Windows.

    Raises Rejected if the sidecar says that it has Linux.
    """
    if not folder or sidecar.platform == "windows":
        return sidecar
    if "platform" in sidecar.given:
        raise Rejected(
            f"{folder}/: it has boot files of Windows",
            f"{sidecar_name(candidate)} says that the system is Linux",
            f"Remove the folder, or take platform out of {sidecar_name(candidate)}.",
        )
    return replace(sidecar, platform="windows")


def plan_windows_boot(
    listing: Listing,
    candidate: SetCandidate,
    sidecar: Sidecar,
    roles: Mapping[Role, str],
    rules: Rules,
    around: BootFolders,
) -> WindowsBoot | None:
    """Return what has to be made so that a Windows set boots; None if nothing has to.

    Raises NotReady without the boot files that every floppy needs, Rejected if both a floppy and its files
    are there.
    """
    if sidecar.platform != "windows" or "machine" not in roles:
        return None
    lacking = missing_roles(sidecar, roles, rules)
    folder = boot_folder_of_set(listing, candidate, around)
    floppy = None
    if folder and sidecar.ramdisk is None:
        _check_no_floppy(roles, folder)
        floppy = _floppy(listing, folder, around.files[folder])
    memdisk = "kernel" not in roles and sidecar.kernel is None and (floppy is not None or "kernel" in lacking)
    return WindowsBoot(memdisk, floppy) if memdisk or floppy else None


def _check_no_floppy(roles: Mapping[Role, str], folder: str) -> None:
    if "ramdisk" in roles:
        name = basename(roles["ramdisk"])
        raise Rejected(
            f"{folder}/: there is a ramdisk beside them",
            f"{name} and a floppy made of these boot files could both be meant",
            "Remove one of them, or name the ramdisk in the sidecar.",
        )


def _floppy(listing: Listing, folder: str, paths: Sequence[str]) -> BootFloppy:
    """Return the floppy of these files. Raises Rejected for a folder or link, NotReady if one is missing."""
    for path in paths:
        if (kind := listing.boot_files[path].kind) != "file":
            raise not_regular(path, kind)
    if missing := missing_files(basename(path) for path in paths):
        where = "from the folder I386 of the Windows CD, or from drive C: of the installed Windows"
        raise NotReady(f"{' and '.join(missing)} in {folder}/ (copy them {where})")
    return BootFloppy(folder, tuple((path, listing.stamp(path)) for path in paths))
