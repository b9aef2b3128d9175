"""Nouns that all wings share."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Self

Role = Literal["machine", "kernel", "ramdisk"]
# The words for the ids of images: EMI, EKI and ERI.
ID_WORDS: Mapping[Role, str] = {"machine": "emi", "ramdisk": "eri", "kernel": "eki"}
# Names as in the kernel's ports and in distributions. Little-endian ones are marked if both exist.
Arch = Literal[
    "i386", "x86_64", "arm64", "arm", "ppc64le", "ppc64", "ppc", "riscv64", "riscv32", "s390x", "s390",
    "ia64", "loongarch64", "mips64el", "mips64", "mipsel", "mips", "alpha", "arc", "parisc", "tilegx",
]  # fmt: skip
# How the bytes of an image are taken from a file: "file", as they are, "disk", those of the disk in it, if it
# is compressed or a container such as qcow2, or "prepared", that disk with changes over it. Then, after a
# space, a part of them: see `uecwatchd.images.reading`.
Reading = str
# What a digest is of: such a reading, the file as `sha256sum` prints it where its digest is another one
# ("plain"), or certain changes of a disk ("prepared 0123…").
DigestOf = str
BLOCKS_MARK = "blocks-"  # before the digest of the blocks, so that the two kinds are not mistaken
SHA256_DIGITS = re.compile(r"[0-9A-Fa-f]{64}")  # as people and programs write it
_DIGEST = re.compile(rf"(?:{BLOCKS_MARK})?[0-9a-f]{{64}}")


class SetId(NamedTuple):
    """Identity of a set: its spool folder, and its name there."""

    folder: str
    name: str

    def __str__(self) -> str:
        return f"{self.folder}/{self.name}"

    @property
    def is_elsewhere(self) -> bool:
        """True for a set of another host with the same ledger: its folder is HOST:FOLDER."""
        return not self.folder.startswith("/")

    @property
    def host(self) -> str:
        """The other host that has the set, empty for this one."""
        return self.folder.partition(":")[0] if self.is_elsewhere else ""

    @property
    def there(self) -> Self:
        """The set as its own host knows it."""
        folder = self.folder.partition(":")[2] if self.is_elsewhere else self.folder
        return type(self)(folder, self.name)

    def of_host(self, host: str) -> Self:
        """Return a set of this host as others know it; without a host, or elsewhere, as it is."""
        is_named = not host or self.is_elsewhere
        return self if is_named else type(self)(f"{host}:{self.folder}", self.name)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the id that `str` made. Raises ValueError if there is no name."""
        folder, slash, name = text.rpartition("/")
        if not (slash and name):
            raise ValueError(f"not a folder and a name: {text!r}")
        return cls(folder, name)


class FileStamp(NamedTuple):
    """Values from `fstat`: if the content of a file may have changed, at least one of them differs."""

    device: int  #: or a `share_number`
    inode: int
    size: int  #: bytes
    ctime_ns: int  #: last change of content or metadata; unlike the modification time, it cannot be set

    @classmethod
    def of(cls, status: os.stat_result, *, share: int = 0) -> Self:
        """Return the stamp in the status of a file; with a `share`, in a shared folder."""
        return cls(share or status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns)

    def is_of(self, status: os.stat_result) -> bool:
        """Tell if a file has this stamp."""
        return self == FileStamp.of(status, share=min(self.device, 0))


def share_number(folder: Path) -> int:
    """Return the number in place of the device in the stamps of a shared folder.

    The number of the device differs between hosts, and between two mounts. No device has a negative one.
    """
    return -1 - int.from_bytes(hashlib.sha256(os.fsencode(folder)).digest()[:6])


class ContentDigest(str):
    """Identity of a content: its SHA-256 in hex, or the digest of its blocks, marked as such.

    `uecwatchd.images.digests` makes both, and says which content has which. Empty before the content is read.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the digest that a text is. Raises ValueError if it is none."""
        if not _DIGEST.fullmatch(text):
            raise ValueError(f"not a digest of a content: {text!r}")
        return cls(text)

    @property
    def is_plain_sha256(self) -> bool:
        """Tell if it is the sum that `sha256sum` prints."""
        return not self.startswith(BLOCKS_MARK)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in a bucket. `size` in bytes; `etag` is its MD5 in hex unless the store encrypts."""

    key: str
    size: int
    etag: str


class BucketPlace(NamedTuple):
    """A bucket, or the keys in it that begin with `prefix`. The prefix is empty or ends with a slash."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


@dataclass(frozen=True, slots=True)
class DetectedCloud:
    """The detected generation of a cloud, by the name of its dialect, and the cloud's address."""

    dialect: str
    address: str
