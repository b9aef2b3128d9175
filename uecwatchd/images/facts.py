"""The bytes that probes look at, and the facts that they return."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Role = Literal["machine", "kernel", "ramdisk"]
# Names as in the kernel's ports and in distributions. Little-endian ones are marked if both exist.
Arch = Literal[
    "i386", "x86_64", "arm64", "arm", "ppc64le", "ppc64", "ppc", "riscv64", "riscv32", "s390x", "s390",
    "ia64", "loongarch64", "mips64el", "mips64", "mipsel", "mips", "alpha", "arc", "parisc", "tilegx",
]  # fmt: skip
Layout = Literal["disk", "partition"]
SECTOR_BYTES = 512  # the unit of partition tables and of a node's block devices


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts from the content. `role` is its purpose; None if the content does not tell."""

    format: str
    role: Role | None = None
    arch: Arch | None = None
    layout: Layout | None = None
    claimed: int | None = None  # minimum size in bytes from the header; a smaller file is truncated
    version: str | None = None  # a kernel's own version, as `uname -r` would print it
    inside: str | None = None  # format of the content of a compressed file, if known


@dataclass(frozen=True, slots=True)
class Look:
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


Probe = Callable[[Look], Facts | None]
