"""Nouns that all wings share, and that none of them owns."""

import os
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

Role = Literal["machine", "kernel", "ramdisk"]
# As the kernel's own ports and distributions call them, little-endian ones marked where both exist.
Arch = Literal[
    "i386", "x86_64", "arm64", "arm", "ppc64le", "ppc64", "ppc", "riscv64", "riscv32", "s390x", "s390",
    "ia64", "loongarch64", "mips64el", "mips64", "mipsel", "mips", "alpha", "arc", "parisc", "tilegx",
]  # fmt: skip


class SetId(NamedTuple):
    """Identifies a set: the spool folder that it lies in, and its name there."""

    folder: str
    name: str

    def __str__(self) -> str:
        return f"{self.folder}/{self.name}"


class FileStamp(NamedTuple):
    """What changes whenever a file's content may have, as `fstat` tells it."""

    device: int
    inode: int
    size: int  #: bytes
    ctime_ns: int  #: last change of content or metadata; unlike the modification time, it cannot be set

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """Return the stamp in the status of a file."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as the bucket has it. `size` in bytes; `etag` is its MD5 in hex unless the store encrypts."""

    key: str
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class DetectedCloud:
    """What a cloud was found to be, by its dialect's name, and the address where it was."""

    dialect: str
    address: str
