"""The list of mounts, the file system of a folder, and whether other hosts share it.

The kernel reports no events for writes of other hosts. Locks and shared memory work only within this host, if
at all.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from uecwatchd.system.text import unescape_octal

# Over a network, from the host of a virtual machine, or from a process behind FUSE.
SHARED = (
    *("nfs", "cifs", "smb", "9p", "afs", "coda", "ncpfs", "fuse", "virtiofs"),
    *("vboxsf", "vmhgfs", "prl_fs"),  # folders that a desktop's hypervisor lends
    *("ceph", "glusterfs", "lustre", "gpfs", "beegfs", "pvfs2", "orangefs", "panfs", "wekafs", "quobyte"),
    *("ocfs2", "gfs2", "acfs", "cvfs", "snfs", "vxfs"),  # one disk that several hosts have
)

MOUNTINFO = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of `/proc/self/mountinfo`, as proc(5) describes it."""

    number: str  #: `mnt_id` in `/proc/self/fdinfo`
    device: str  #: such as `8:1`
    root: str  #: the mounted part of the file system
    point: str
    file_system: str  #: type, such as `ext4`

    def holds(self, path: str) -> bool:
        """Return True if an absolute path without links is the mount point, or is below it."""
        return path == self.point or path.startswith(self.point.rstrip("/") + "/")


def parse_mounts(mountinfo: str) -> tuple[Mount, ...]:
    """Read the text of `/proc/self/mountinfo`."""
    return tuple(_parse_line(line) for line in mountinfo.split("\n") if line)


def _parse_line(line: str) -> Mount:
    """Read the first, third, fourth and fifth field, and the type, which follows a single hyphen."""
    before, _, after = line.partition(" - ")
    number, _, device, root, point = before.split(" ")[:5]
    return Mount(number, device, unescape_octal(root), unescape_octal(point), after.split(" ")[0])


def read_mounts() -> tuple[Mount, ...]:
    """Return the mounts that this process sees; none if /proc is not mounted."""
    with suppress(OSError):
        return parse_mounts(os.fsdecode(MOUNTINFO.read_bytes()))
    return ()


def find_mount(path: Path, mounts: Sequence[Mount]) -> Mount | None:
    """Return the mount of an absolute path without links."""
    above = (mount for mount in reversed(mounts) if mount.holds(str(path)))
    return max(above, key=lambda mount: len(mount.point), default=None)  # of two on one point, the later


def is_shared(file_system: str) -> bool:
    """Return True if others can write to this type of file system without the kernel of this host."""
    return file_system.startswith(SHARED)


def file_system_of(folder: Path) -> str:
    """Return the type of the file system of a folder; empty if /proc is not mounted."""
    with suppress(OSError):
        mount = find_mount(folder.resolve(), read_mounts())
        return mount.file_system if mount else ""
    return ""


def file_system_of_open(descriptor: int) -> str:
    """Return the type of the file system of an open file; empty if /proc does not say.

    It is found by the number of the mount: on btrfs the device of a file is not in the list of mounts.
    """
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
        number = next(line.split()[1] for line in lines if line.startswith("mnt_id:"))
        return next(mount.file_system for mount in read_mounts() if mount.number == number)
    return ""
