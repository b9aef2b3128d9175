"""Samples of a file for the probes, and the facts that they return."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from uecwatchd.types import Arch, Role

Layout = Literal["disk", "partition"]
Reason = tuple[str, str]  # why something is refused, as in an error, and a hint
SECTOR_BYTES = 512  # the unit of partition tables and of a node's block devices


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts from the content. `role` is its purpose; None if the content does not tell.

    `arch` and `layout` of a container or a compressed file are those of the disk in it.
    """

    format: str
    role: Role | None = None
    arch: Arch | None = None
    layout: Layout | None = None
    claimed: int | None = None  # minimum size in bytes from the header; a smaller file is truncated
    version: str | None = None  # a kernel's own version, as `uname -r` would print it
    inside: str | None = None  # format of the content of a compressed file or a container, if known
    disk: "ContainedDisk | None" = None  # the disk in a container or a compressed file
    unreadable: Reason | None = None  # why that disk cannot be read


@dataclass(frozen=True, slots=True)
class ContainedDisk:
    """The disk in a container or a compressed file: its size in bytes, and the facts about its content.

    `size` is what a node sees. It is None for a compressed file that must be read to know it.
    """

    size: int | None
    facts: Facts


@dataclass(frozen=True, slots=True)
class Sample:
    """The bytes for a probe, and the size in bytes of the whole file."""

    head: bytes
    tail: bytes
    size: int

    def has(self, at: int, magic: bytes) -> bool:
        return self.head.startswith(magic, at)

    def le(self, at: int, width: int) -> int:
        return int.from_bytes(self.head[at : at + width], "little")

    def be(self, at: int, width: int) -> int:
        return int.from_bytes(self.head[at : at + width], "big")


Probe = Callable[[Sample], Facts | None]
