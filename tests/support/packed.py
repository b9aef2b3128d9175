"""Compressed files made by the real programs, and the disk in them."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.containers import memory_file
from uecwatchd.images.formats.container_file import ContainerFile
from uecwatchd.images.formats.open import DiskAccess, OpenedDisk, open_disk
from uecwatchd.images.packed.open import open_packed
from uecwatchd.images.packed.segments import PackedFile

KIB, MIB = 1 << 10, 1 << 20
SKIPPED = r"printf '\x5a\x2a\x4d\x18\5\0\0\0hello'"  # a frame of zstd that is not content
# Shell commands that compress their input, by a name. With several segments, and with one.
COMMANDS = {
    "gzip": "gzip -1",
    "gzip of a name": "cat > named && gzip -1 named && cat named.gz",
    "pigz": "pigz -1 -b 256",
    "gzips": "(head -c 700001 | gzip -1; gzip -1; printf '' | gzip)",
    "gzip on a tape": "(gzip -1; head -c 5000 /dev/zero)",
    "bzip2": "bzip2 -1",
    "bzip2s": "(head -c 700001 | bzip2 -1; printf '' | bzip2; bzip2 -1)",
    "xz": "xz -1 -T1",
    "xz blocks": "xz -1 -T2 --block-size=256KiB",
    "xz without a sum": "xz -1 --check=none",
    "xz crc32": "xz -1 --check=crc32 --block-size=300001",
    "xzs": "(head -c 700001 | xz -1; head -c 8 /dev/zero; printf '' | xz; xz -1; head -c 12 /dev/zero)",
    "xz of programs": "xz --x86 --lzma2=preset=1",
    "zstd": "zstd -q",
    "zstd of a file": "cat > named && zstd -qc named",
    "zstd long": "zstd -q --long=24",
    "zstd without a sum": "zstd -q --no-check -19",
    "zstds": f"(head -c 700001 | zstd -q; {SKIPPED}; zstd -q; printf '' | zstd -q)",
}
KINDS = {"gzip": "gzip -1", "bzip2": "bzip2 -1", "xz": "xz -1 -T1", "zstd": "zstd -q"}


def make_disk(size: int = 3 * MIB, *, seed: bytes = b"disk") -> bytes:
    """Return a disk of data that does not compress, text, and holes of different lengths."""
    noise = hashlib.shake_128(seed).digest(size // 4)
    pieces = (bytes(90 * KIB), noise[: size // 8], b"text" * 20000, bytes(size // 3), noise[size // 8 :])
    return b"".join(pieces).ljust(size, b"\0")[:size]


def compress(content: bytes, command: str, folder: os.PathLike[str] | str = "/tmp") -> bytes:  # noqa: S108
    """Run a command of a shell on a content, and return what it prints."""
    return subprocess.run(
        ["bash", "-c", command], input=content, check=True, capture_output=True, cwd=folder
    ).stdout


@contextmanager
def opened(packed: bytes, *, limit: int | None = None) -> Iterator[OpenedDisk]:
    with memory_file(packed) as file:
        yield open_disk(file, name="web.img.xx", access=DiskAccess.limited_to(limit))


@contextmanager
def as_packed(packed: bytes, kind: str) -> Iterator[PackedFile]:
    with memory_file(packed) as file:
        yield open_packed(kind, ContainerFile.of(file, "web.img.xx", 1 << 40))
