"""Each refusal says what is the matter and what to do, before anything is uploaded."""

import pytest

from uecwatchd.images.file_facts import Facts
from uecwatchd.images.suitability import reason_unsuitable
from uecwatchd.types import Role

PARTITION = Facts("ext4", "machine", layout="partition", claimed=48 << 20)
KERNEL = Facts("bzimage", "kernel", "x86_64")
RAMDISK = Facts("gzip", "ramdisk", inside="cpio")

REFUSALS: dict[str, tuple[Role, Facts, int, str, str]] = {
    "an empty file": ("machine", Facts("empty"), 0, "the file is empty", "Copy it again."),
    "half a file system": (
        "machine",
        PARTITION,
        20 << 20,
        "its ext4 file system claims 48 MiB, the file has 20 MiB",
        "Copy it again: the end is missing.",
    ),
    "a file system short of a few bytes": (
        "machine",
        PARTITION,
        (48 << 20) - 512,
        "its ext4 file system claims 50331648 bytes, the file has 50331136 bytes",
        "Copy it again: the end is missing.",
    ),
    "half a kernel": (
        "kernel",
        Facts("bzimage", "kernel", claimed=14 << 20),
        1000,
        "its Linux kernel claims 14 MiB, the file has 1000 bytes",
        "Copy it again: the end is missing.",
    ),
    "a broken sector": (
        "machine",
        PARTITION,
        (48 << 20) + 3,
        "its size of 50331651 bytes is not a multiple of 512",
        "Try: truncate -s %512 my.img",
    ),
    "a kernel as machine": (
        "machine",
        KERNEL,
        1 << 20,
        "it is a Linux kernel, not a disk",
        "Name it as kernel in the sidecar.",
    ),
    "a ramdisk as machine": (
        "machine",
        RAMDISK,
        1 << 20,
        "it is gzip-compressed, with a cpio archive inside, not a disk",
        "Name it as ramdisk in the sidecar.",
    ),
    "a tarball as machine": (
        "machine",
        Facts("tar"),
        10240,
        "it is a tar archive, not a disk",
        "Try: tar -xf my.img",
    ),
    "a machine as kernel": (
        "kernel",
        PARTITION,
        48 << 20,
        "it is an ext4 file system, not a kernel",
        "A kernel is a bzImage (vmlinuz), an ELF vmlinux, or memdisk for Windows.",
    ),
    "a kernel as ramdisk": (
        "ramdisk",
        KERNEL,
        1 << 20,
        "it is a Linux kernel, not a ramdisk",
        "A ramdisk is a cpio archive, compressed or not, or a boot floppy for memdisk.",
    ),
}


@pytest.mark.parametrize(("role", "facts", "size", "why", "hint"), REFUSALS.values(), ids=REFUSALS)
def test_content_that_cannot_serve_is_refused_with_a_reason(
    role: Role, facts: Facts, size: int, why: str, hint: str
) -> None:
    assert reason_unsuitable(role, facts, size=size, name="my.img") == (why, hint)


@pytest.mark.parametrize(
    ("role", "facts"), [("machine", PARTITION), ("kernel", KERNEL), ("ramdisk", RAMDISK)]
)
def test_content_in_its_own_role_is_fit(role: Role, facts: Facts) -> None:
    assert reason_unsuitable(role, facts, size=48 << 20) is None


def test_what_is_kept_as_it_is_may_be_of_any_kind_but_must_be_whole() -> None:
    assert reason_unsuitable("machine", Facts("unknown"), size=1001, keep=True) is None
    assert reason_unsuitable("machine", PARTITION, size=1 << 20, keep=True) is not None
    assert reason_unsuitable("kernel", Facts("unknown"), size=1001, keep=True) is not None
