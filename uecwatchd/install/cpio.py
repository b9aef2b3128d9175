"""The archive of an initrd: cpio in the format "newc", which the kernel unpacks.

The kernel takes several archives behind each other, compressed or not, so files are added to an initrd
without unpacking it (Linux: driver-api/early-userspace/buffer-format.rst).
"""

from collections.abc import Iterable, Iterator

# Each archive begins at such a place, and zeros before it are skipped.
ALIGNMENT_BYTES = 4


def cpio(files: Iterable[tuple[str, int, bytes]]) -> Iterator[bytes]:
    """Yield an archive of (path, mode, content); the content of a symbolic link is its target."""
    for inode, (name, mode, data) in enumerate(files, start=1):
        yield _entry(name, mode=mode, inode=inode, data=data)
    yield _entry("TRAILER!!!", mode=0, inode=0, data=b"")


def padding(size: int) -> bytes:
    """Return the zeros after so many bytes."""
    return bytes(-size % ALIGNMENT_BYTES)


def _entry(name: str, *, mode: int, inode: int, data: bytes) -> bytes:
    path = name.encode() + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields) + path
    return header + padding(len(header)) + data + padding(len(data))
