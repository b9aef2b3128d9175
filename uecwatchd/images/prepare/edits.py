"""Changes of single files in a guest. Paths are as the guest sees them, and absolute."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WriteContent:
    """A file with this content, made or replaced. A link to a file is followed."""

    path: str
    content: bytes
    mode: int  #: permissions
    reason: str  #: as the end of a sentence: "so that …"


@dataclass(frozen=True, slots=True)
class RemoveEntry:
    """A file, or a symbolic link itself, that is removed."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class MakeLink:
    """A symbolic link in a place where nothing is."""

    path: str
    target: str
    reason: str


FileEdit = WriteContent | RemoveEntry | MakeLink
