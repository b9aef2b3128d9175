"""What the rules say of a listing: sets that are ready, waiting or refused, and files that fit nowhere."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from uecwatchd.config.records import Policy
from uecwatchd.errors import UecError
from uecwatchd.images.facts import Arch, Facts, Role
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool.safe_open import Stamp
from uecwatchd.types import SetId

Form = Literal["sidecar", "stem", "folder", "loose"]

ROLES: tuple[Role, ...] = ("kernel", "ramdisk", "machine")
ROLE_WORDS: Mapping[Role, str] = {"kernel": "kernel", "ramdisk": "ramdisk", "machine": "machine image"}


@dataclass(frozen=True, slots=True)
class People:
    """Who is who in a folder whose members do not trust each other.

    Files of the uids in `common`, root's and the service's, count for everybody. `name` spells a uid out.
    """

    common: frozenset[int]
    name: Callable[[int], str] = str


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration has to say: seconds a file must lie still, values for absent sidecar keys, what
    each configured cloud wants beside a paravirtual and beside a Windows image, and which boot a disk alone.
    `demands` is what no sidecar can talk a cloud out of. `strange` are the clouds whose wants are not known
    yet, each with the reason, if there is one. `people` is None where members trust each other; `policy` is
    what their sidecars may ask for.
    """

    settle: float
    defaults: Sidecar
    needs: Mapping[str, frozenset[Role]]
    windows_needs: Mapping[str, frozenset[Role]]
    disk_alone: frozenset[str]
    strange: Mapping[str, str] = field(default_factory=dict)
    demands: Mapping[str, frozenset[Role]] = field(default_factory=dict)
    people: People | None = None
    policy: Policy = field(default_factory=Policy)


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a set. `path` is relative to the spool folder, `size` in bytes."""

    role: Role
    path: str
    size: int
    stamp: Stamp
    facts: Facts

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class ImageSet:
    """A complete set: at most one member of each role, in the order in which they are registered.

    `left_out` are the paths of a kernel and a ramdisk that its clouds have no use for. `kernel_id` and
    `ramdisk_id` are ids that are registered already; `virtualization` is None where nothing says it.
    `checksums` are the declared SHA-256 by file name. `shared` are lists of sums that name other files as
    well, and what root or the service has put there for all; `unread` are sentences about what lies near and
    is not heeded. `files` are all the paths it is made of, with sidecar and sums. `stamp` changes whenever
    one of them may have changed; `changed` is when the last of them did, in seconds of the epoch, by the
    clock of the host that has the disk. `arch_known_by` is how `arch` is. `owner` is the uid that it belongs
    to, None where members trust each other.
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

    @property
    def id(self) -> SetId:
        return SetId(str(self.folder), self.name)

    def member(self, role: Role) -> Member | None:
        return next((m for m in self.members if m.role == role), None)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not yet. `ready_at` is the monotonic time at which it is worth looking again, if it is by itself.

    `files` are what there is of it.

    `brief` is what every file waits for: that it lies still for a few seconds, of which nobody need be told.
    `unread` is that the look did not come to read it: nothing is known to have changed.
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
    """Will never be ready as it lies there. `stamp` changes when one of the `files` that matter does."""

    name: str
    error: UecError
    stamp: str
    files: tuple[str, ...] = ()
    owner: int | None = None


@dataclass(frozen=True, slots=True)
class Misfit:
    """A file in no set. `is_news` is whether somebody may wait for something to become of it."""

    path: str
    reason: str
    is_news: bool = False


@dataclass(frozen=True, slots=True)
class Assembly:
    ready: tuple[ImageSet, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    refused: tuple[Refused, ...] = ()
    misfits: tuple[Misfit, ...] = ()


def put_back(assembly: Assembly, written: Mapping[str, str], *, ready_at: float) -> Assembly:
    """Have sets wait of which somebody still has a file open for writing, whatever was made of them so far.

    `written` has the file's path by the name of the set.
    """
    whose = {one.name: one.owner for one in assembly.ready}
    whose |= {one.name: one.owner for one in assembly.refused}
    waits = tuple(
        replace(being_written(name, path, ready_at), owner=whose.get(name)) for name, path in written.items()
    )
    ready = tuple(found for found in assembly.ready if found.name not in written)
    refused = tuple(one for one in assembly.refused if one.name not in written)
    return replace(assembly, ready=ready, waiting=(*assembly.waiting, *waits), refused=refused)


def being_written(name: str, path: str, ready_at: float) -> Waiting:
    return Waiting(name, f"{path} to be closed by the process that writes it", ready_at)


class NotYet(Exception):
    """No error: it carries a waiting reason up to `assemble`.

    `lacking` are the roles that nothing fills, `path` is the file that is not there.
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
