"""Places of edits: real folders of the root volume, without links in them."""

import posixpath
import re
from dataclasses import dataclass

from uecwatchd.errors import Rejected
from uecwatchd.images.guest.disk import LinuxSystem
from uecwatchd.images.guest.tree import GuestTree
from uecwatchd.images.prepare.edits import FileEdit, WriteContent
from uecwatchd.images.prepare.ext_state import BY_HAND
from uecwatchd.system.text import shorten

# Others would need quoting for debugfs; no distribution has such names in these places.
PLAIN = re.compile(r"/[A-Za-z0-9@._+/-]*")


@dataclass(frozen=True, slots=True)
class PlacedEdit:
    """An edit with its place. `before` is the content of the file up to now, None if there is none."""

    edit: FileEdit
    folder: str  #: that exists, without links
    new_folders: tuple[str, ...]  #: names of folders to be made in it, each in the one before
    name: str
    is_there: bool  #: something with this name is there, also a link to nothing
    before: bytes | None

    @property
    def path(self) -> str:
        return posixpath.join(self.folder, *self.new_folders, self.name)


def place_edits(system: LinuxSystem, edits: tuple[FileEdit, ...]) -> tuple[PlacedEdit, ...]:
    """Find the places of edits. A link that is already there is left out.

    Raises Rejected for a place that cannot be changed; UnreadableVolume, OSError.
    """
    placed = (_place(system, edit) for edit in edits)
    return tuple(each for each in placed if isinstance(each.edit, WriteContent) or not _is_done(each))


def _is_done(placed: PlacedEdit) -> bool:
    """Tell if there is a link already, or nothing to remove."""
    return hasattr(placed.edit, "target") == placed.is_there


def _place(system: LinuxSystem, edit: FileEdit) -> PlacedEdit:
    tree, path = system.tree, edit.path
    found = tree.find(path)
    before = tree.read(path) if found and found.entry.type == "file" else None
    if found and isinstance(edit, WriteContent):
        if found.entry.type != "file":
            raise _refuse(path, "it is no file")
        path = found.path
    *parents, name = [part for part in path.split("/") if part]
    folder, missing = _existing(tree, parents)
    for each in (folder, name, *missing):
        if not PLAIN.fullmatch(f"/{each.lstrip('/')}"):
            raise _refuse(path, f"there are unusual characters in {shorten(each)}")
    at = tree.find(folder)
    if at is None or at.entry.type != "folder":
        raise _refuse(path, f"{folder} is no folder")
    if at.files is not system.root.volume.files:
        raise _refuse(path, f"{folder} is not on the volume of the root")
    is_there = not missing and name in tree.names(folder)
    return PlacedEdit(edit, at.path, missing, name, is_there, before)


def _existing(tree: GuestTree, parents: list[str]) -> tuple[str, tuple[str, ...]]:
    """Return the deepest existing folder, and the missing names below it."""
    for depth in range(len(parents), -1, -1):
        found = tree.find("/" + "/".join(parents[:depth]))
        if found is not None:
            return found.path, tuple(parents[depth:])
    raise AssertionError("a guest has a root")


def _refuse(path: str, why: str) -> Rejected:
    return Rejected(f"{shorten(path)}: it cannot be changed", why, BY_HAND)
