"""Windows on a disk: its place, by its files, and as its Boot.ini counts partitions."""

from dataclasses import dataclass

from uecwatchd.images.guest.disk import GuestDisk
from uecwatchd.images.guest.files import FileSystem
from uecwatchd.images.guest.fstab import PlacedVolume
from uecwatchd.images.guest.operating_system import OperatingSystem
from uecwatchd.images.guest.volumes import DamagedVolume

# Of NT 5 and of what came after it. Both file systems compare names without case.
LOADERS = ("/ntldr", "/bootmgr")
SYSTEM_FOLDERS = ("WINDOWS", "WINNT")
KERNEL = "System32/ntoskrnl.exe"


@dataclass(frozen=True, slots=True)
class WindowsSystem:
    """A Windows on a disk. `folder` is "" if only its loader is found; `partition` is that of ARC paths."""

    placed: PlacedVolume
    folder: str
    partition: int | None

    @property
    def system(self) -> OperatingSystem:
        return OperatingSystem("windows", "", "Windows", None)


def find_windows(disk: GuestDisk) -> WindowsSystem | None:
    """Return the Windows on a disk, the one with its system folder first; None if there is none."""
    found = [
        WindowsSystem(placed, folder, arc_partition(disk, placed))
        for placed in disk.volumes
        if (folder := _system_folder(placed)) is not None
    ]
    return next((one for one in found if one.folder), found[0] if found else None)


def arc_partition(disk: GuestDisk, placed: PlacedVolume) -> int | None:
    """Return the number of a partition in an ARC path: primary partitions first, then logical ones, from 1.

    Returns None without an MBR. NTLDR knows no other partition table (Microsoft, "Boot.ini file reference").
    """
    if disk.table is None or disk.table.scheme != "mbr" or placed.partition is None:
        return None
    return disk.table.partitions.index(placed.partition) + 1


def _system_folder(placed: PlacedVolume) -> str | None:
    """Return the system folder of a volume, "" if it has only the loader, None if it has no Windows."""
    files = placed.volume.files
    if files is None or placed.volume.type not in ("ntfs", "fat"):
        return None
    try:
        return _find_folder(files)
    except DamagedVolume:
        return None


def _find_folder(files: FileSystem) -> str | None:
    for folder in SYSTEM_FOLDERS:
        if files.entry(f"/{folder}/{KERNEL}"):
            return folder
    return "" if any(files.entry(path) for path in LOADERS) else None
