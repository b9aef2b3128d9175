"""File systems by their types: ext and btrfs through our own readers, others through those of libyal.

These libraries read any Python object that is like a file. This module runs in the confined process only. It
imports all of them first, because the process cannot do so later; those that are missing are reported when a
disk needs them.
"""

import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from uecwatchd.images.block_source import BlockSource, View
from uecwatchd.images.guest.btrfs import Btrfs
from uecwatchd.images.guest.ext import Ext
from uecwatchd.images.guest.files import ENTRY_TYPES, MAX_NAMES, FileEntry, FileSystem, Unsupported
from uecwatchd.images.guest.served_disk import SourceFile
from uecwatchd.images.guest.superblocks import Superblock, read_superblock
from uecwatchd.system.extents import Extent

# By type of file system: the module, and the distribution that has it.
LIBRARIES: Mapping[str, tuple[str, str]] = {
    "xfs": ("pyfsxfs", "libfsxfs-python"),
    "fat": ("pyfsfat", "libfsfat-python"),
    "ntfs": ("pyfsntfs", "libfsntfs-python"),
    "lvm2": ("pyvslvm", "libvslvm-python"),
}
OWN_READERS: Mapping[str, Callable[[BlockSource], FileSystem]] = {
    "ext2": Ext,
    "ext3": Ext,
    "ext4": Ext,
    "btrfs": Btrfs,
}
FOLDER_FLAG = 0x10  # FAT's attribute of a folder
# The file $Volume, its attribute with the flags of the file system, and the flag "dirty" (libfsntfs, NTFS).
NTFS_VOLUME_ENTRY, NTFS_VOLUME_INFORMATION, NTFS_DIRTY = 3, 0x70, 0x0001
KEPT_ENTRIES = 8  # files that are read piece by piece


@dataclass(frozen=True, slots=True)
class OpenedVolume:
    """A file system, or why there is none. `name` is the logical volume's, such as "vg0/root"."""

    superblock: Superblock
    size: int
    name: str = ""
    files: FileSystem | None = None
    problem: str = ""
    is_dirty: bool = False  #: it was not unmounted, as it says itself; known for NTFS only


def load_libraries() -> Mapping[str, Any]:
    """Return the modules that are installed, by name."""
    found = dict[str, Any]()
    for module in sorted({module for module, _ in LIBRARIES.values()}):
        try:
            found[module] = import_module(module)
        except ImportError:
            continue
    return found


class VolumeOpener:
    """Opens what a stretch of a disk has, with the libraries that there are."""

    def __init__(self, libraries: Mapping[str, Any]) -> None:
        self._libraries = libraries
        self._handles = list[Any]()  # of volume groups: their volumes are read through them

    def open(self, source: BlockSource, start: int, size: int) -> Iterator[OpenedVolume]:
        """Yield the file system in a stretch, or those in its logical volumes."""
        view = View(source, start, size)
        superblock = read_superblock(view)
        if superblock.type != "lvm2":
            yield self._open_one(superblock, view)
            return
        try:
            group = self._volume_group(view)
        except (Unsupported, OSError, MemoryError) as error:
            yield OpenedVolume(superblock, view.size, problem=_why(error))
            return
        for index in range(min(group.number_of_logical_volumes, MAX_NAMES)):
            volume = LogicalVolume(group.get_logical_volume(index))
            name = f"{group.name}/{volume.name}"
            try:
                yield self._open_one(read_superblock(volume), volume, name)
            except OSError as error:
                yield OpenedVolume(Superblock("unknown"), volume.size, name, problem=_why(error))

    def _volume_group(self, view: BlockSource) -> Any:
        handle, file = self._library("lvm2").handle(), SourceFile(view)
        handle.open_file_object(file)
        handle.open_physical_volume_files_as_file_objects([file])
        self._handles.append(handle)
        group = handle.get_volume_group()
        if group.number_of_physical_volumes > 1:
            raise Unsupported(f"its volume group {group.name} needs more disks than this one")
        return group

    def _open_one(self, superblock: Superblock, view: BlockSource, name: str = "") -> OpenedVolume:
        try:
            files = self._file_system(superblock.type, view)
            is_dirty = isinstance(files, VolumeFiles) and superblock.type == "ntfs" and files.is_dirty_ntfs()
        except (Unsupported, OSError, MemoryError, ValueError) as error:
            return OpenedVolume(superblock, view.size, name, problem=_why(error))
        return OpenedVolume(superblock, view.size, name, files, is_dirty=is_dirty)

    def _file_system(self, type_: str, view: BlockSource) -> FileSystem | None:
        if type_ == "luks":
            raise Unsupported("it is encrypted (LUKS)")
        if type_ in OWN_READERS:
            return OWN_READERS[type_](view)
        if type_ not in LIBRARIES:
            return None
        volume = self._library(type_).volume()
        volume.open_file_object(SourceFile(view))
        return VolumeFiles(volume, "\\" if type_ in ("fat", "ntfs") else "/")

    def _library(self, type_: str) -> Any:
        module, distribution = LIBRARIES[type_]
        if module not in self._libraries:
            raise Unsupported(f"{distribution} is not installed, which reads {type_}")
        return self._libraries[module]


class VolumeFiles:
    """A file system of one of the libraries, which have the same functions."""

    def __init__(self, volume: Any, separator: str) -> None:
        self._volume, self._separator = volume, separator
        self._kept = dict[str, Any]()

    def entry(self, path: str) -> FileEntry | None:
        found = self._find(path)
        return None if found is None else _describe(found)

    def names(self, path: str) -> tuple[str, ...]:
        found = self._find(path)
        if found is None or _describe(found).type != "folder":
            return ()
        count = min(found.number_of_sub_file_entries, MAX_NAMES)
        return tuple(filter(None, (found.get_sub_file_entry(index).name for index in range(count))))

    def read(self, path: str, offset: int, length: int) -> bytes:
        found = self._kept.pop(path, None) or self._find(path)
        if found is None:
            return b""
        self._kept[path] = found
        if len(self._kept) > KEPT_ENTRIES:
            del self._kept[next(iter(self._kept))]
        left = max(0, found.size - offset)
        return bytes(found.read_buffer_at_offset(min(length, left), offset)) if left else b""

    def is_dirty_ntfs(self) -> bool:
        """Return True for an NTFS that Windows would check at its next start."""
        attributes = self._volume.get_file_entry(NTFS_VOLUME_ENTRY).attributes
        found = (one.flags for one in attributes if one.attribute_type == NTFS_VOLUME_INFORMATION)
        return any(flags & NTFS_DIRTY for flags in found)

    def _find(self, path: str) -> Any:
        plain = path.rstrip("/") or "/"
        return self._volume.get_file_entry_by_path(plain.replace("/", self._separator))


def _describe(entry: Any) -> FileEntry:
    """Return an entry of any library: XFS has modes, FAT and NTFS have flags."""
    mode = getattr(entry, "file_mode", None)
    if mode is not None:
        type_ = ENTRY_TYPES.get(stat.S_IFMT(mode), "other")
        target = (entry.symbolic_link_target or "") if type_ == "link" else ""
        return FileEntry(type_, entry.size, stat.S_IMODE(mode), target)
    if hasattr(entry, "has_directory_entries_index"):
        is_folder = entry.has_directory_entries_index()
    else:  # the root of a FAT has no attributes
        is_folder = entry.file_attribute_flags is None or bool(entry.file_attribute_flags & FOLDER_FLAG)
    return FileEntry("folder") if is_folder else FileEntry("file", entry.size, 0o755)


class LogicalVolume:
    """A logical volume as a block source."""

    def __init__(self, volume: Any) -> None:
        self._volume = volume
        self.name: str = volume.name
        self.size: int = volume.size
        self.stored_bytes = self.size

    def extents(self) -> tuple[Extent, ...]:
        return (Extent(0, self.size),)

    def read_into(self, offset: int, buffer: memoryview, /) -> int:
        count = max(0, min(len(buffer), self.size - offset))
        data = self._volume.read_buffer_at_offset(count, offset) if count else b""
        buffer[: len(data)] = data
        return len(data)

    def is_unchanged(self) -> bool:
        return True

    def close(self) -> None:
        """Do nothing: the disk belongs to somebody else."""


def _why(error: BaseException) -> str:
    """Return the last reason of a library's error, which lists its functions from the outermost in."""
    if isinstance(error, Unsupported):
        return str(error)
    words = str(error).replace("\n", " ").strip().rstrip(".") or type(error).__name__
    return f"it is damaged ({words[:200]})"
