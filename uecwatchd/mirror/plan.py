"""Differences between a bucket and its folder, and what to do about each: rules without I/O.

The bucket decides what is dropped, the service what becomes of that. So an object that is new or has changed
is fetched, and the file of one that was removed is removed. A file that the service removes takes its object
along only if the configuration wants it so; otherwise it is fetched again.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from uecwatchd.intake.spool.output_files import OUTPUT_STEM_BYTES, is_output
from uecwatchd.types import StoredObject

Names = tuple[str, ...]


class FileIdentity(NamedTuple):
    """Values of a file that a rename keeps: another content has another one of them."""

    inode: int
    size: int  #: bytes
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Noted:
    """Both sides of a name, as they were when it was fetched or sent."""

    etag: str
    size: int  #: of the object, in bytes
    file: FileIdentity
    is_placed: bool = True  #: the file was seen under its name, so that it has left if it is not there
    replaces: FileIdentity | None = None  #: of ours, under the name until the new file is placed

    def is_ours(self, file: FileIdentity) -> bool:
        """Tell if we have made a file, as it is now."""
        return file in (self.file, self.replaces)


@dataclass(frozen=True, slots=True)
class MirrorPlan:
    """Names by what is to be done. `foreign` files were not fetched, and have the name of an object."""

    confirm: Names = ()  #: to be noted as placed
    fetch: Names = ()  #: the smallest first, so that an image comes after the files that go with it
    remove_files: Names = ()
    remove_objects: Names = ()
    send: Names = ()
    forget: Names = ()
    foreign: Names = ()


@dataclass(frozen=True, slots=True)
class MirrorSides:
    """The two sides, by name in the folder, and what was noted of earlier looks."""

    objects: Mapping[str, StoredObject]
    files: Mapping[str, FileIdentity]
    notes: Mapping[str, Noted]
    ignores: Callable[[str], bool] = field(default=lambda _name: False)


def plan_mirror(
    sides: MirrorSides, *, removed_files_leave: bool, passing_over: Collection[str] = ()
) -> MirrorPlan:
    """Return what to do so that both sides agree, without some names.

    With `removed_files_leave`, the objects of files that have left the folder are removed.
    """
    found: dict[str, list[str]] = {}
    for name in sorted({*sides.objects, *sides.files, *sides.notes}.difference(passing_over)):
        rule = _of_result if is_output(name) else _of_dropped
        if action := rule(name, sides, removed_files_leave):
            found.setdefault(action, []).append(name)
    found.get("fetch", []).sort(key=lambda name: (sides.objects[name].size, name))
    return MirrorPlan(**{action: tuple(names) for action, names in found.items()})


def _of_dropped(name: str, sides: MirrorSides, removed_files_leave: bool) -> str:  # noqa: FBT001 (a rule)
    there, file, noted = sides.objects.get(name), sides.files.get(name), sides.notes.get(name)
    if there is None:
        return _of_removed(file, noted)
    if noted and is_as_noted(there, noted):
        if noted.is_placed and file is not None:
            return ""  # also if somebody has changed it here: the object has not changed
        if noted.is_placed and removed_files_leave:
            return "remove_objects"
        if file == noted.file:
            return "confirm"
    if file is not None and not (noted and noted.is_ours(file)):
        return "foreign"
    return "" if sides.ignores(name) else "fetch"


def _of_removed(file: FileIdentity | None, noted: Noted | None) -> str:
    """Return what to do about a name without an object. A file that nobody has fetched is none of ours."""
    if noted is None:
        return ""
    return "remove_files" if file is not None and noted.is_ours(file) else "forget"


def _of_result(name: str, sides: MirrorSides, _removed_files_leave: bool) -> str:  # noqa: FBT001 (a rule)
    there, file, noted = sides.objects.get(name), sides.files.get(name), sides.notes.get(name)
    if file is not None:
        return "" if noted and noted.file == file and there and is_as_noted(there, noted) else "send"
    if noted is None:
        return ""
    return "remove_objects" if there and is_as_noted(there, noted) else "forget"


def is_as_noted(there: StoredObject, noted: Noted) -> bool:
    """Tell if an object is the one that was fetched or sent."""
    return (there.etag, there.size) == (noted.etag, noted.size)


def names_of(objects: Iterator[StoredObject], prefix: str) -> tuple[dict[str, StoredObject], int]:
    """Return objects by their names in the folder, and how many have no such name.

    A name is the rest of a key after the prefix. One in a deeper folder is left out, and one that a file
    beside the results could not have.
    """
    named, others = {}, 0
    for one in objects:
        name = one.key.removeprefix(prefix)
        if _is_file_name(name):
            named[name] = one
        elif name:  # a console makes an object for the prefix itself
            others += 1
    return named, others


def _is_file_name(name: str) -> bool:
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return False
    is_one = bool(name) and "/" not in name and "\0" not in name and not name.startswith(".")
    return is_one and length <= OUTPUT_STEM_BYTES
