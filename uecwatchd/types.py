"""Nouns that the rooms share, and that none of them owns."""

from dataclasses import dataclass
from typing import NamedTuple


class SetId(NamedTuple):
    """Identifies a set: the spool folder that it lies in, and its name there."""

    folder: str
    name: str

    def __str__(self) -> str:
        return f"{self.folder}/{self.name}"


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
