"""Obstacles of a Windows on a disk before it is ready for a cloud, as far as its files tell.

The chapter on Windows of the UEC manual asks for a system that was shut down, a driver for the SCSI disk that
a node gives it, and one for its network card, the e1000.
"""

import re
from collections.abc import Iterator

from uecwatchd.images.guest.disk import describe_place
from uecwatchd.images.guest.files import FileSystem
from uecwatchd.images.guest.summary import ReadinessFinding
from uecwatchd.images.guest.volumes import DamagedVolume
from uecwatchd.images.guest.windows import WindowsSystem

DRIVERS = "System32/drivers"
# Intel's e1000 on Windows of 32 and 64 bits, and the card of virtio.
NETWORK_DRIVER = re.compile(r"(?:e1000.*|e1g[56].*|netkvm)\.sys", re.IGNORECASE)
# LSI's 53c8xx, which QEMU has as if=scsi, and the disks of virtio.
DISK_DRIVER = re.compile(r"(?:sym_hi|symc8xx|viostor|vioscsi)\.sys", re.IGNORECASE)
HIBERNATED = (b"hibr", b"rstr")  # how hiberfil.sys begins while it is of use; in capitals since Windows 8


def judge_windows(windows: WindowsSystem) -> tuple[ReadinessFinding, ...]:
    """Return what is wrong with a Windows, errors first. What cannot be read is not judged."""
    files = windows.placed.volume.files
    findings = list(_of_shutdown(windows))
    # Windows since Vista brings the drivers, and copies one when it first sees its device.
    if files and windows.folder and _has(files, "/ntldr"):
        findings += _of_drivers(files, f"/{windows.folder}/{DRIVERS}")
    return tuple(findings)


def _of_shutdown(windows: WindowsSystem) -> Iterator[ReadinessFinding]:
    place, files = describe_place(windows.placed).capitalize(), windows.placed.volume.files
    shut_down = "Start Windows once more, and shut it down."
    if files and _head(files, "/hiberfil.sys").lower() in HIBERNATED:
        sentence = f"{place} has a hibernated Windows, which wakes up only on the machine that it knows."
        yield ReadinessFinding("hibernated", "error", sentence, f"{shut_down} Try there: powercfg -h off")
    if windows.placed.volume.is_dirty:
        sentence = f"{place} was not shut down, so Windows checks it at its first start."
        yield ReadinessFinding("ntfs-dirty", "warning", sentence, shut_down)


def _of_drivers(files: FileSystem, folder: str) -> Iterator[ReadinessFinding]:
    try:
        names = files.names(folder)
    except DamagedVolume:
        return
    if not any(map(DISK_DRIVER.fullmatch, names)):
        sentence = "It has no driver for the SCSI disk of a node, and none for that of virtio."
        remedy = "Start it once with a second disk at if=scsi, so that Windows installs the driver."
        yield ReadinessFinding("disk-driver", "warning", sentence, remedy)
    if not any(map(NETWORK_DRIVER.fullmatch, names)):
        sentence = "It has no driver for the network card of a node: e1000, or virtio."
        remedy = "Install Intel's driver for the PRO/1000, with the machine started as -net nic,model=e1000."
        yield ReadinessFinding("network-driver", "warning", sentence, remedy)


def _has(files: FileSystem, path: str) -> bool:
    try:
        return files.entry(path) is not None
    except DamagedVolume:
        return False


def _head(files: FileSystem, path: str) -> bytes:
    try:
        return files.read(path, 0, len(HIBERNATED[0]))
    except DamagedVolume:
        return b""
