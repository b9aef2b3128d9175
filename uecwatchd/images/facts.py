"""The bytes that a file is told by, and what they tell: the words that all probes share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Role = Literal["machine", "kernel", "ramdisk"]
# As the kernel's own ports and distributions call them, little-endian ones marked where both exist.
Arch = Literal[
    "i386", "x86_64", "arm64", "arm", "ppc64le", "ppc64", "ppc", "riscv64", "riscv32", "s390x", "s390",
    "ia64", "loongarch64", "mips64el", "mips64", "mipsel", "mips", "alpha", "arc", "parisc", "tilegx",
]  # fmt: skip
Layout = Literal["disk", "partition"]
SECTOR_BYTES = 512  # what partition tables count in, and what a node's block device is a multiple of


@dataclass(frozen=True, slots=True)
class Facts:
    """What content says about itself. `role` is what it is meant for; None where content cannot tell."""

    format: str
    role: Role | None = None
    arch: Arch | None = None
    layout: Layout | None = None
    claimed: int | None = None  # bytes it says it has at least; more than the file has = truncated
    version: str | None = None  # a kernel's own version, as `uname -r` would print it
    inside: str | None = None  # the format of what a compressed file holds, where that can be seen


@dataclass(frozen=True, slots=True)
class Look:
    """The bytes a probe may look at, and the size in bytes of the whole file."""

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
