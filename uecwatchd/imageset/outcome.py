"""What the rules say of a listing: sets that are ready, waiting or refused, and files that fit nowhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from uecwatchd.errors import UecError
from uecwatchd.image import Arch, Facts, Role
from uecwatchd.sidecar import Sidecar
from uecwatchd.spool import Stamp

Form = Literal["sidecar", "stem", "folder", "loose"]

ROLES: tuple[Role, ...] = ("kernel", "ramdisk", "machine")
ROLE_WORDS: Mapping[Role, str] = {"kernel": "kernel", "ramdisk": "ramdisk", "machine": "machine image"}


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration has to say: seconds a file must lie still, values for absent sidecar keys, what
    each configured cloud wants beside a paravirtual and beside a Windows image, and which boot a disk alone.
    `strange` are the clouds whose wants are not known yet, each with the reason, if there is one.
    """

    settle: float
    defaults: Sidecar
    needs: Mapping[str, frozenset[Role]]
    windows_needs: Mapping[str, frozenset[Role]]
    disk_alone: frozenset[str]
    strange: Mapping[str, str] = field(default_factory=dict)


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
    `checksums` are the declared SHA-256 by file name. `files` are all the paths it is made of, with sidecar
    and sums. `stamp` changes whenever one of them may have changed.
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

    def member(self, role: Role) -> Member | None:
        return next((m for m in self.members if m.role == role), None)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not yet. `ready_at` is the monotonic time at which waiting ends by itself, if it does; `files` are what
    there is of it."""

    name: str
    reason: str
    ready_at: float | None = None
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """Will never be ready as it lies there. `stamp` changes when one of its `files` does."""

    name: str
    error: UecError
    stamp: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Misfit:
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Assembly:
    ready: tuple[ImageSet, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    refused: tuple[Refused, ...] = ()
    misfits: tuple[Misfit, ...] = ()


class NotYet(Exception):
    """No error: it carries a waiting reason up to `assemble`."""

    def __init__(self, reason: str, ready_at: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.ready_at = ready_at
