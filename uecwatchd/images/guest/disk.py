"""The volumes of a disk image, and the tree of files of the system that they hold."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from uecwatchd.errors import Rejected
from uecwatchd.images.block_source import BlockSource
from uecwatchd.images.detect import FLOPPY_MAX_BYTES
from uecwatchd.images.guest.fstab import FstabLine, PlacedVolume, is_meant, parse_fstab
from uecwatchd.images.guest.tree import GuestTree
from uecwatchd.images.guest.volumes import DamagedVolume, Volume, VolumeReader
from uecwatchd.images.partitions import MAX_PARTITIONS, PartitionTable, read_partitions

DiskLayout = Literal["disk", "partition", "floppy", "iso", "unknown"]

LINUX_ROOT = (
    "/etc/fstab",
    "/etc/os-release",
    "/usr/lib/os-release",
    "/etc/inittab",
    "/sbin/init",
    "/etc/passwd",
)
# Mount points with something that matters here.
USED_POINTS = ("/boot", "/boot/efi", "/efi", "/etc", "/usr", "/var", "/root", "/home", "/lib", "/opt")


class SeveralSystems(Rejected):
    """A disk with more than one operating system, so that it is not known which one is meant."""


@dataclass(frozen=True, slots=True)
class GuestDisk:
    """A disk image by its parts. `table` is None for a disk without partitions."""

    layout: DiskLayout
    table: PartitionTable | None
    volumes: tuple[PlacedVolume, ...]


@dataclass(frozen=True, slots=True)
class LinuxSystem:
    """The files of a Linux system, the volume of its root, and its fstab."""

    tree: GuestTree
    root: PlacedVolume
    fstab: tuple[FstabLine, ...]


def read_disk(source: BlockSource, reader: VolumeReader) -> GuestDisk:
    """Return the parts of a disk. What cannot be read has its problem as text.

    Raises BadPartitionTable, OSError.
    """
    table = read_partitions(source)
    if table is None:
        volumes = tuple(_volumes(reader, 0, source.size))
        placed = tuple(PlacedVolume(volume, None) for volume in volumes)
        return GuestDisk(_bare_layout(volumes, source.size), None, placed)
    found = (
        PlacedVolume(volume, partition)
        for partition in table.partitions[:MAX_PARTITIONS]
        for volume in _volumes(reader, partition.start, partition.size)
    )
    return GuestDisk("disk", table, tuple(found))


def _volumes(reader: VolumeReader, start: int, size: int) -> Iterable[Volume]:
    try:
        return reader.open(start, size)
    except DamagedVolume as error:
        return (Volume("unknown", size, "", "", "", error.why, None),)


def _bare_layout(volumes: tuple[Volume, ...], size: int) -> DiskLayout:
    type_ = volumes[0].type if len(volumes) == 1 else ""
    if type_ == "iso9660":
        return "iso"
    if type_ == "fat" and size <= FLOPPY_MAX_BYTES:
        return "floppy"
    return "partition" if any(volume.files for volume in volumes) or type_ not in UNKNOWN_TYPES else "unknown"


UNKNOWN_TYPES = ("", "unknown", "zeros", "text")


def find_linux(disk: GuestDisk) -> LinuxSystem | None:
    """Return the Linux system on a disk; None if there is none. Raises SeveralSystems, UnreadableVolume."""
    roots = [placed for placed in disk.volumes if _is_linux_root(placed)]
    if len(roots) > 1:
        names = " and ".join(describe_place(root) for root in roots[:2])
        raise SeveralSystems(
            "more than one operating system could be meant",
            f"{names} each have one",
            "Leave one of them in the image, or drop the kernel and ramdisk of the right one beside it.",
        )
    return _mounted(disk, roots[0]) if roots else None


def _is_linux_root(placed: PlacedVolume) -> bool:
    files = placed.volume.files
    if files is None:
        return False
    try:
        top = set(files.names("/"))
        if "etc" not in top or not top & {"bin", "sbin", "usr"}:
            return False
        return any(files.entry(path) for path in LINUX_ROOT)
    except DamagedVolume:
        return False


def _mounted(disk: GuestDisk, root: PlacedVolume) -> LinuxSystem:
    assert root.volume.files is not None  # noqa: S101 (as _is_linux_root says)
    alone = GuestTree({"/": root.volume.files})
    fstab = parse_fstab(alone.text("/etc/fstab"))
    mounts = {"/": root.volume.files}
    for point, placed in _mount_points(disk, root, fstab):
        if placed.volume.files is not None:
            mounts[point] = placed.volume.files
    return LinuxSystem(GuestTree(mounts), root, fstab)


def _mount_points(
    disk: GuestDisk, root: PlacedVolume, fstab: tuple[FstabLine, ...]
) -> Iterator[tuple[str, PlacedVolume]]:
    others = [placed for placed in disk.volumes if placed is not root]
    for line in fstab:
        point = line.point.rstrip("/")
        found = next((placed for placed in others if is_meant(line.device, placed)), None)
        if point in USED_POINTS and found is not None:
            yield point, found


def unreadable_volumes(disk: GuestDisk) -> tuple[str, ...]:
    """Return which volumes could not be read and why, for the end of a sentence about what was not found."""
    return tuple(
        f"{describe_place(placed)} could not be read: {placed.volume.problem}"
        for placed in disk.volumes
        if placed.volume.problem
    )


def describe_place(placed: PlacedVolume) -> str:
    """Return the place of a volume for a sentence: "partition 2 (ext4)"."""
    volume = placed.volume
    kind = volume.type if not volume.label else f"{volume.type}, {volume.label}"
    if volume.name:
        return f"logical volume {volume.name} ({kind})"
    return f"partition {placed.partition.number} ({kind})" if placed.partition else f"the disk ({kind})"
