"""The facts about the disk in a container."""

import os

import pytest

from tests.support.containers import memory_file, write_qcow2
from tests.support.sizes import MIB
from uecwatchd.images.detect import HEAD_BYTES, detect
from uecwatchd.images.file_facts import Facts
from uecwatchd.images.formats.contained import describe_contained
from uecwatchd.images.suitability import reason_unsuitable

ENCRYPTION_AT = 32  # in the header of a qcow2
EFI_ENTRY = b"\x00\x00\x02\x00\x83\xff\xff\xff"


def disk_with_partition(sectors: int) -> bytes:
    entry = EFI_ENTRY + (8).to_bytes(4, "little") + sectors.to_bytes(4, "little")
    return (bytes(0x1BE) + entry + bytes(48) + b"\x55\xaa").ljust(MIB, b"\0")


def described(disk: bytes, *, patch: tuple[int, bytes] = (0, b"")) -> Facts:
    """Return the facts about a qcow2 with this disk, after bytes at an offset of the file were patched."""
    with memory_file() as file:
        write_qcow2(file, disk)
        os.pwrite(file.fileno(), patch[1], patch[0])
        head = os.pread(file.fileno(), HEAD_BYTES, 0)
        found = detect(head, b"", size=os.fstat(file.fileno()).st_size)
        return describe_contained(found, file, name="web.qcow2")


def test_layout_and_size_are_those_of_the_disk() -> None:
    facts = described(disk_with_partition(1000))
    assert (facts.format, facts.role, facts.layout, facts.inside) == ("qcow2", "machine", "disk", "mbr")
    assert facts.disk
    assert facts.disk.size == MIB
    assert reason_unsuitable("machine", facts, size=MIB) is None


@pytest.mark.parametrize(
    ("disk", "why"),
    [
        (disk_with_partition(4096), "its partition table claims 2.004 MiB, the disk in it has 1 MiB"),
        (bytes(MIB), "it is a qcow2 disk image, and inside are zeros where a header should be, not a disk"),
        (b"text\n" * 4096, "it is a qcow2 disk image with a text file inside"),
    ],
    ids=["cut", "empty", "no disk"],
)
def test_a_disk_that_cannot_boot_is_described_with_its_container(disk: bytes, why: str) -> None:
    found = reason_unsuitable("machine", described(disk), size=MIB)
    assert found
    assert found[0].startswith(why)


def test_an_unreadable_container_has_a_reason_and_can_still_be_kept() -> None:
    facts = described(disk_with_partition(1000), patch=(ENCRYPTION_AT, (1).to_bytes(4, "big")))
    assert facts.disk is None
    assert facts.unreadable
    assert "encrypt" in facts.unreadable[0]
    assert reason_unsuitable("machine", facts, size=MIB) == facts.unreadable
    assert reason_unsuitable("machine", facts, size=MIB, keep=True) is None
