"""Results of the rules: sets (ready, waiting or refused), and files in no set."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from posixpath import basename
from typing import Literal

from uecwatchd.config.records import Policy
from uecwatchd.errors import UecError
from uecwatchd.images.file_facts import Facts
from uecwatchd.images.reading import guest_path
from uecwatchd.install.recipe import InstallRecipe
from uecwatchd.intake.sets.origin import BootFloppy, Origin
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool.scan import Listing
from uecwatchd.types import Arch, FileStamp, Reading, Role, SetId

Form = Literal["sidecar", "stem", "folder", "loose", "archive", "recipe"]

ROLES: tuple[Role, ...] = ("kernel", "ramdisk", "machine")
ROLE_WORDS: Mapping[Role, str] = {"kernel": "kernel", "ramdisk": "ramdisk", "machine": "machine image"}
# The files of a recipe, by its keys.
USE_WORDS: Mapping[str, str] = {
    "iso": "ISO image",
    "base": "base",
    "answers": "answers",
    "drivers": "drivers",
}


@dataclass(frozen=True, slots=True)
class FolderUsers:
    """Users of a folder whose members do not trust each other.

    Files of the uids in `common`, root's and the service's, are there for all. `name` returns the name of a
    uid.
    """

    common: frozenset[int]
    name: Callable[[int], str] = str


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules from the configuration.

    `settle` is how many seconds a file must be unchanged. `defaults` are for missing keys of sidecars.
    `needs` and `windows_needs` are the roles that each cloud requires beside a paravirtual and a Windows
    image; `disk_alone` are the clouds that boot a disk alone. `demands` are requirements of a cloud that no
    sidecar can switch off. `strange` are clouds with unknown requirements, each with a reason if there is
    one. `users` is None if members trust each other; `policy` limits what sidecars may ask for.
    """

    settle: float
    defaults: Sidecar
    needs: Mapping[str, frozenset[Role]]
    windows_needs: Mapping[str, frozenset[Role]]
    disk_alone: frozenset[str]
    strange: Mapping[str, str] = field(default_factory=dict)
    demands: Mapping[str, frozenset[Role]] = field(default_factory=dict)
    users: FolderUsers | None = None
    policy: Policy = field(default_factory=Policy)


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a set.

    `path` is relative to the spool folder, or to the work folder if it has an `origin`. `size` is that of the
    image in bytes, by its `reading`: of the file, of the disk in it, or of a part. Of a compressed file whose
    disk has an unknown size, it is that of the file.
    """

    role: Role
    path: str
    size: int
    stamp: FileStamp
    facts: Facts
    reading: Reading = "file"
    container: str = ""  #: the format of the file whose disk the image is; empty if the image is the file
    origin: Origin | None = None  #: of a member that is made for the set; None for a file of the spool folder

    @property
    def name(self) -> str:
        return basename(guest_path(self.reading) or self.path)


@dataclass(frozen=True, slots=True)
class FromImage:
    """Roles whose files are in the machine image itself.

    `otherwise` is what the set waits for if the image has none; empty if the sidecar demands them of it.
    """

    roles: frozenset[Role]
    otherwise: str = ""


@dataclass(frozen=True, slots=True)
class WindowsBoot:
    """Members of a Windows set that are made for it: memdisk as its kernel, a boot floppy as its ramdisk."""

    memdisk: bool
    floppy: BootFloppy | None = None

    @property
    def roles(self) -> Mapping[Role, str]:
        """The files to be made, by role, for sentences."""
        made: dict[Role, str] = {"kernel": "memdisk"} if self.memdisk else {}
        return made | ({"ramdisk": str(self.floppy)} if self.floppy else {})


@dataclass(frozen=True, slots=True)
class PackedFiles:
    """The archive with the files of a set, and what is needed to judge them once they are unpacked.

    `path` is relative to the spool folder. `listing` has the sidecar beside the archive, if there is one.
    """

    path: str
    stamp: FileStamp
    rules: Rules
    listing: Listing


@dataclass(frozen=True, slots=True)
class RecipeFiles:
    """The files of an installation, and what is needed to judge its disk once it is there.

    `files` are path and stamp by the keys of the recipe, `base_set` the set whose image is the base, empty
    without one. `listing` has the sidecar.
    """

    recipe: InstallRecipe
    files: Mapping[str, tuple[str, FileStamp]]
    base_set: str
    rules: Rules
    listing: Listing

    @property
    def source(self) -> str:
        """The name of the ISO image, or of the base."""
        return self.recipe.iso or self.recipe.base or ""


@dataclass(frozen=True, slots=True)
class ImageSet:
    """A complete set: at most one member of each role, in the order of registration.

    A set in an archive, `packed`, has no members until it is unpacked, and one with a `recipe` none until its
    system is installed.

    `left_out` are the paths of a kernel and a ramdisk that its clouds do not use. `kernel_id` and
    `ramdisk_id` are registered ids; `virtualization` is None if nothing determines it. `checksums` are the
    declared SHA-256 by file name. `shared` are lists of sums that also name other files, and files of root or
    the service for all. `unread` are sentences about files nearby that are not used. `files` are all paths of
    the set, with sidecar and sums. `stamp` changes whenever one of the files may have changed; `changed` is
    the time of the last change, in seconds of the epoch, by the clock of the host with the disk.
    `waits` are the clouds that it does not go to yet, each with what is waited for there.
    `arch_known_by` is how `arch` is known. `owner` is a uid, None if members trust each other. `from_image`
    is what is taken out of the machine image once it has been looked into, and `windows_boot` what is made
    for it after that. `boot_folder` is the folder of its boot files, used or not. `cloud` is the one at hand
    of its clouds, empty for the first.
    """

    name: str
    folder: Path
    form: Form
    members: tuple[Member, ...]
    left_out: tuple[str, ...]
    kernel_id: str | None
    ramdisk_id: str | None
    virtualization: Literal["paravirtual", "hvm"] | None
    arch: Arch
    sidecar: Sidecar
    checksums: Mapping[str, str]
    files: tuple[str, ...]
    stamp: str
    changed: float = 0.0
    arch_known_by: Literal["told", "content", "name", "nothing"] = "told"
    shared: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    owner: int | None = None
    from_image: FromImage | None = None
    packed: PackedFiles | None = None
    recipe: RecipeFiles | None = None
    windows_boot: WindowsBoot | None = None
    boot_folder: str = ""
    cloud: str = ""
    waits: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> SetId:
        return SetId(str(self.folder), self.name)

    @property
    def clouds(self) -> tuple[str, ...]:
        """The clouds that the set goes to."""
        return self.sidecar.clouds

    @property
    def target_cloud(self) -> str:
        """The cloud that is at hand."""
        return self.cloud or next((cloud for cloud in self.clouds if cloud not in self.waits), self.clouds[0])

    def on(self, cloud: str) -> "ImageSet":
        """Return the set as it goes to one of its clouds."""
        return replace(self, cloud=cloud)

    @property
    def sources(self) -> tuple[str, ...]:
        """The paths of its members, or of what they are made of first."""
        if self.packed and not self.members:
            return (self.packed.path,)
        if self.recipe and not self.members:
            return (*(path for path, _ in self.recipe.files.values()), *filter(None, [self.recipe.base_set]))
        return tuple(member.path for member in self.members)

    @property
    def is_made_first(self) -> bool:
        """True if there are no members yet, because they are in an archive or not installed."""
        return bool(self.packed or self.recipe) and not self.members

    @property
    def described(self) -> tuple[tuple[str, int], ...]:
        """The parts of the set, each with its size in bytes: "kernel karmic.vmlinuz"."""
        if self.packed and not self.members:
            return ((f"archive {self.packed.path}", self.packed.stamp.size),)
        if self.recipe and not self.members:
            files = self.recipe.files.items()
            parts = tuple((f"{USE_WORDS[key]} {path}", stamp.size) for key, (path, stamp) in files)
            return (*parts, *((f"base set {name}", 0) for name in [self.recipe.base_set] if name))
        return tuple((f"{member.role} {member.path}", member.size) for member in self.members)

    def member(self, role: Role) -> Member | None:
        return next((m for m in self.members if m.role == role), None)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A set that is not ready. `ready_at` is the monotonic time for another look, None without one.

    `files` are its existing files. `brief` marks the few seconds until a file has settled, which need no
    message. `unread` means that the scan had no time to read it: no change is known.
    """

    name: str
    reason: str
    ready_at: float | None = None
    files: tuple[str, ...] = ()
    brief: bool = False
    unread: bool = False
    owner: int | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A set that will never be ready with these files.

    `stamp` changes with one of the `files` that matter.
    """

    name: str
    error: UecError
    stamp: str
    files: tuple[str, ...] = ()
    owner: int | None = None


@dataclass(frozen=True, slots=True)
class UnmatchedFile:
    """A file in no set. `is_news` is True if somebody may expect it to be used."""

    path: str
    reason: str
    is_news: bool = False


@dataclass(frozen=True, slots=True)
class FolderSets:
    """The sets of a folder, and the files in no set."""

    ready: tuple[ImageSet, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    refused: tuple[Refused, ...] = ()
    unmatched: tuple[UnmatchedFile, ...] = ()


def defer_open_files(assembly: FolderSets, written: Mapping[str, str], *, ready_at: float) -> FolderSets:
    """Make sets wait while a process has one of their files open for writing.

    `written` has the path of the file by the name of the set.
    """
    whose = {one.name: one.owner for one in assembly.ready}
    whose |= {one.name: one.owner for one in assembly.refused}
    waits = tuple(
        replace(wait_for_writer(name, path, ready_at), owner=whose.get(name))
        for name, path in written.items()
    )
    ready = tuple(found for found in assembly.ready if found.name not in written)
    refused = tuple(one for one in assembly.refused if one.name not in written)
    return replace(assembly, ready=ready, waiting=(*assembly.waiting, *waits), refused=refused)


def wait_for_writer(name: str, path: str, ready_at: float) -> Waiting:
    return Waiting(name, f"{path} to be closed by the process that writes it", ready_at)


class NotReady(Exception):
    """Not an error: it carries the reason to wait up to `assemble`.

    `lacking` are the missing roles, `path` is the missing file.
    """

    def __init__(
        self,
        reason: str,
        ready_at: float | None = None,
        *,
        brief: bool = False,
        unread: bool = False,
        lacking: Iterable[Role] = (),
        path: str = "",
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.ready_at = ready_at
        self.brief = brief
        self.unread = unread
        self.lacking = frozenset(lacking)
        self.path = path
