"""The file system of a folder, and whether other hosts share it.

The kernel reports no events for writes of other hosts. Locks and shared memory work only within this host, if
at all.
"""

import re
from pathlib import Path

# Over a network, from the host of a virtual machine, or from a process behind FUSE.
SHARED = (
    *("nfs", "cifs", "smb", "9p", "afs", "coda", "ncpfs", "fuse", "virtiofs"),
    *("vboxsf", "vmhgfs", "prl_fs"),  # folders that a desktop's hypervisor lends
    *("ceph", "glusterfs", "lustre", "gpfs", "beegfs", "pvfs2", "orangefs", "panfs", "wekafs", "quobyte"),
    *("ocfs2", "gfs2", "acfs", "cvfs", "snfs", "vxfs"),  # one disk that several hosts have
)

MOUNTINFO = Path("/proc/self/mountinfo")
# Space, tab, newline and backslash are written there as a backslash and three octal digits.
OCTAL = re.compile(r"\\([0-7]{3})")


def is_shared(kind: str) -> bool:
    """Return True if others can write to this type of file system without the kernel of this host."""
    return kind.startswith(SHARED)


def type_of(folder: Path) -> str:
    """Return the type of the file system of a folder; empty if /proc is not mounted."""
    try:
        return file_system_type(folder, MOUNTINFO.read_text(errors="surrogateescape"))
    except OSError:
        return ""


def file_system_type(folder: Path, mountinfo: str) -> str:
    """Return the type of the file system of a folder, from the text of `/proc/self/mountinfo`.

    The fifth field of a line is the mount point, escaped; the type follows the single hyphen.
    """
    best, kind = "", ""
    path = str(folder.resolve())
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        point = OCTAL.sub(lambda found: chr(int(found[1], 8)), before.split(" ")[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # the later of two mounts on one point lies on top
            best, kind = point, after.split(" ")[0]
    return kind
