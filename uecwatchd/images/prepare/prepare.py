"""Preparation of an image: look into its guest, plan, change a copy of its metadata, overlay the result.

The result is read as if the image had been changed, and its file never is. The same image gives the same
result on each host with the same version of debugfs, so an attempt that was interrupted finds its digest
again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from uecwatchd.errors import Rejected
from uecwatchd.images.block_source import BlockSource, View
from uecwatchd.images.guest.disk import (
    LinuxSystem,
    describe_place,
    find_linux,
    read_disk,
    unreadable_volumes,
)
from uecwatchd.images.guest.fstab import PlacedVolume
from uecwatchd.images.guest.guest_facts import gather_facts
from uecwatchd.images.guest.volumes import VolumeReader
from uecwatchd.images.prepare.diff import FileChange, describe_change
from uecwatchd.images.prepare.edits import MakeLink, WriteContent
from uecwatchd.images.prepare.ext_edit import ExtTarget, edit_ext
from uecwatchd.images.prepare.ext_state import BY_HAND, read_ext_state
from uecwatchd.images.prepare.guest_state import read_state
from uecwatchd.images.prepare.overlay import OverlaidSource
from uecwatchd.images.prepare.placing import PlacedEdit, place_edits
from uecwatchd.images.prepare.plan import Plan, make_plan
from uecwatchd.system.text import printable

EXT = ("ext2", "ext3", "ext4")


class CannotPrepare(Rejected):
    """An image that cannot be prepared."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image with the changes over it. Closing `source` closes the image."""

    source: OverlaidSource
    changes: tuple[FileChange, ...]
    remarks: tuple[str, ...]  #: what could not be done, and what is good to know


@dataclass(frozen=True, slots=True)
class ImageToPrepare:
    """An image with its name for messages. `check` may raise to stop."""

    source: BlockSource
    name: str
    check: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class _Work:
    """One preparation, and its place: the root's volume from `start` on, in bytes."""

    start: int
    target: ExtTarget
    edits: tuple[PlacedEdit, ...]


def prepare_image(image: ImageToPrepare, work_folder: Path) -> Prepared:
    """Make an image ready for a cloud. The work folder needs space for its file systems' metadata.

    Raises Rejected if the image does not allow it, Deferred if a program is missing or the work folder fails,
    OSError if the image does.
    """
    with VolumeReader(image.source, name=image.name, check=image.check) as reader:
        system, plan, is_labelled = _look(image, reader)
        edits = place_edits(system, plan.edits)
        if not edits:
            return Prepared(OverlaidSource(image.source, {}), (), plan.remarks)
        work = _find_work(image, reader, system, edits, has_selinux=is_labelled)
        remarks = (*plan.remarks, *filter(None, [reader.remark]))
    blocks = edit_ext(work.target, edits, work_folder)
    overlaid = OverlaidSource(image.source, {work.start + at: block for at, block in blocks.items()})
    _check_result(ImageToPrepare(overlaid, image.name, image.check), edits)
    return Prepared(overlaid, tuple(map(describe_change, edits)), remarks)


def _look(image: ImageToPrepare, reader: VolumeReader) -> tuple[LinuxSystem, Plan, bool]:
    disk = read_disk(image.source, reader)
    system = find_linux(disk)
    if system is None:
        raise _refuse(image, "; ".join(["there is no Linux found in it", *unreadable_volumes(disk)]))
    state = read_state(system.tree, gather_facts(disk, system, ()))
    return system, make_plan(state), state.has_selinux


def _find_work(
    image: ImageToPrepare,
    reader: VolumeReader,
    system: LinuxSystem,
    edits: tuple[PlacedEdit, ...],
    *,
    has_selinux: bool,
) -> _Work:
    root = system.root
    if root.volume.type not in EXT or root.volume.name:
        raise _refuse(
            image, f"its root is {describe_place(root)}, and only ext2, ext3 and ext4 can be prepared"
        )
    start, size = _find_place(image, root)
    view = View(image.source, start, size)
    state = read_ext_state(view)
    if state.problem:
        raise CannotPrepare(f"{printable(image.name)}: it cannot be prepared", state.problem, state.hint)
    paths = sorted({path for edit in edits for path in (edit.folder, edit.path)})
    metadata = reader.metadata(start, size, paths)
    return _Work(start, ExtTarget(view, image.name, state, metadata, has_selinux), edits)


def _find_place(image: ImageToPrepare, root: PlacedVolume) -> tuple[int, int]:
    if root.partition is None:
        return 0, image.source.size
    return root.partition.start, root.partition.size


def _check_result(image: ImageToPrepare, edits: tuple[PlacedEdit, ...]) -> None:
    """Read each changed file again. Raises CannotPrepare if it is not as it was wanted."""
    with VolumeReader(image.source, name=image.name, check=image.check) as reader:
        system = find_linux(read_disk(image.source, reader))
        for edit in edits:
            if system is None or not _is_done(system, edit):
                raise _refuse(image, f"{edit.path} was not changed as it should be")


def _is_done(system: LinuxSystem, placed: PlacedEdit) -> bool:
    files, edit = system.root.volume.files, placed.edit
    entry = files.entry(placed.path) if files else None
    if files is None or entry is None:
        return not isinstance(edit, WriteContent | MakeLink)
    if isinstance(edit, MakeLink):
        return entry.target == edit.target
    if not isinstance(edit, WriteContent):
        return False
    is_same = files.read(placed.path, 0, len(edit.content) + 1) == edit.content
    return is_same and entry.type == "file" and entry.mode == edit.mode


def _refuse(image: ImageToPrepare, why: str) -> CannotPrepare:
    return CannotPrepare(f"{printable(image.name)}: it cannot be prepared", why, BY_HAND)
