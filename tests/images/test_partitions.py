"""Partition tables, as real partitioners write them, and as somebody might damage them."""

import struct
import subprocess
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.memory_source import DamagedSource, MemorySource
from tests.support.sizes import MIB
from uecwatchd.images.partitions import BadPartitionTable, Partition, read_partitions

SECTOR = 512
DISK_BYTES = 64 * MIB
ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
MBR_SCRIPT = """\
label: dos
label-id: 0xcafebabe
size=8MiB, type=83, bootable
size=8MiB, type=82
size=32MiB, type=5
disk5 : size=4MiB, type=83
disk6 : size=4MiB, type=8e
"""
GPT_SCRIPT = f"""\
label: gpt
size=8MiB, type={ESP}, name="EFI System", uuid=11111111-2222-3333-4444-555555555555
size=16MiB, type={LINUX}, name="корень", attrs="LegacyBIOSBootable"
"""


def partitioned(folder: Path, script: str, *, size: int = DISK_BYTES) -> bytes:
    """Return a disk with the table that sfdisk writes."""
    disk = folder / "disk.img"
    with disk.open("wb") as file:
        file.truncate(size)
    subprocess.run(["/usr/sbin/sfdisk", "-q", str(disk)], input=script, text=True, check=True)
    return disk.read_bytes()


def found(disk: bytes) -> tuple[Partition, ...]:
    table = read_partitions(MemorySource(disk))
    return table.partitions if table else ()


@pytest.fixture(scope="module")
def mbr(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return partitioned(tmp_path_factory.mktemp("mbr"), MBR_SCRIPT)


@pytest.fixture(scope="module")
def gpt(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return partitioned(tmp_path_factory.mktemp("gpt"), GPT_SCRIPT)


def test_an_mbr_is_read_with_its_logical_partitions(mbr: bytes) -> None:
    expected = [
        (1, MIB, 8 * MIB, "83", True),
        (2, 9 * MIB, 8 * MIB, "82", False),
        (5, 18 * MIB, 4 * MIB, "83", False),
        (6, 23 * MIB, 4 * MIB, "8e", False),
    ]
    table = read_partitions(MemorySource(mbr))
    assert table
    assert (table.scheme, table.has_boot_code, table.remark) == ("mbr", False, "")
    assert [(p.number, p.start, p.size, p.type, p.is_bootable) for p in table.partitions] == expected
    assert table.partitions[0].uuid == "cafebabe-01"


def test_a_gpt_is_read_with_its_names(gpt: bytes) -> None:
    efi, root = found(gpt)
    uuid = "11111111-2222-3333-4444-555555555555"
    assert efi == Partition(1, MIB, 8 * MIB, ESP, is_bootable=False, name="EFI System", uuid=uuid)
    assert (root.number, root.start, root.size, root.type) == (2, 9 * MIB, 16 * MIB, LINUX)
    assert (root.is_bootable, root.name) == (True, "корень")


def test_a_gpt_of_a_disk_with_large_sectors_is_read(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    orders = "g\nn\n1\n256\n+8M\nn\n2\n\n\nw\n"
    subprocess.run(
        ["/usr/sbin/fdisk", "-b", "4096", str(disk)],
        input=orders,
        text=True,
        capture_output=True,
        check=False,
    )
    first, second = found(disk.read_bytes())
    assert (first.start, first.size) == (MIB, 8 * MIB)
    assert second.start == 9 * MIB
    assert second.start + second.size <= DISK_BYTES


def test_the_backup_of_a_damaged_gpt_is_used(gpt: bytes) -> None:
    damaged = bytearray(gpt)
    damaged[SECTOR + 72] ^= 1
    table = read_partitions(MemorySource(bytes(damaged)))
    assert table
    assert table.partitions == found(gpt)
    assert "backup was used" in table.remark


def test_a_gpt_without_an_intact_copy_is_refused(gpt: bytes) -> None:
    damaged = bytearray(gpt)
    damaged[SECTOR + 72] ^= 1
    damaged[-SECTOR + 72] ^= 1
    with pytest.raises(BadPartitionTable, match="both copies of its GPT are damaged"):
        read_partitions(MemorySource(bytes(damaged)))


def test_the_entries_of_a_gpt_are_part_of_its_sum(gpt: bytes) -> None:
    damaged = bytearray(gpt)
    damaged[2 * SECTOR + 40] ^= 1  # the end of the first partition, in the primary copy only
    assert found(bytes(damaged)) == found(gpt)


def test_a_gpt_left_from_an_earlier_use_does_not_count(gpt: bytes, mbr: bytes) -> None:
    assert found(mbr[:SECTOR] + gpt[SECTOR : 34 * SECTOR] + mbr[34 * SECTOR :]) == found(mbr)


@pytest.mark.parametrize("disk", [b"", bytes(SECTOR), bytes(MIB), b"\0" * 510 + b"\x55\xaa"])
def test_a_disk_without_a_table_has_none(disk: bytes) -> None:
    assert read_partitions(MemorySource(disk)) is None


def test_the_boot_sector_of_a_file_system_is_no_table(tmp_path: Path) -> None:
    disk = tmp_path / "fat.img"
    with disk.open("wb") as file:
        file.truncate(MIB)
    subprocess.run(["/usr/sbin/mkfs.fat", str(disk)], check=True, capture_output=True)
    assert read_partitions(MemorySource(disk.read_bytes())) is None


def test_a_partition_behind_the_end_of_the_disk_is_refused(mbr: bytes, gpt: bytes) -> None:
    with pytest.raises(BadPartitionTable, match="its partition 6 ends at 27 MiB, the disk has 24 MiB"):
        read_partitions(MemorySource(mbr[: 24 * MIB]))
    with pytest.raises(BadPartitionTable, match="its partition 2 ends at 25 MiB, the disk has 20 MiB"):
        read_partitions(MemorySource(gpt[: 20 * MIB]))


def with_chain(mbr: bytes, *, following: int) -> bytes:
    """Return the disk with another place for the second logical partition, in sectors of its container."""
    disk, first = bytearray(mbr), 17 * MIB
    struct.pack_into("<BxxxBxxxII", disk, first + 0x1CE, 0, 5, following, 8192)
    return bytes(disk)


def test_a_chain_of_logical_partitions_that_is_a_circle_is_refused(mbr: bytes) -> None:
    with pytest.raises(BadPartitionTable, match="is a circle"):
        read_partitions(MemorySource(with_chain(mbr, following=0)))


def test_a_chain_of_logical_partitions_that_is_cut_is_refused(mbr: bytes) -> None:
    with pytest.raises(BadPartitionTable, match="is cut at sector"):
        read_partitions(MemorySource(with_chain(mbr, following=1)))
    with pytest.raises(BadPartitionTable, match="is cut at sector"):
        read_partitions(MemorySource(with_chain(mbr, following=0xFFFFFFFF)))


def test_a_chain_of_logical_partitions_has_an_end(mbr: bytes) -> None:
    disk, first = bytearray(mbr), 17 * MIB // SECTOR
    for step in range(200):
        struct.pack_into("<BxxxBxxxII", disk, (first + step) * SECTOR + 0x1CE, 0, 5, step + 1, 1)
        disk[(first + step) * SECTOR + 0x1FE : (first + step + 1) * SECTOR] = b"\x55\xaa"
    with pytest.raises(BadPartitionTable, match="more than 128 logical partitions"):
        read_partitions(MemorySource(bytes(disk)))


HEADER_FIELDS = {
    "a size of its header": (12, "<I", 0xFFFFFFFF),
    "a place of its entries": (72, "<Q", 0xFFFFFFFFFFFFFFFF),
    "a number of entries": (80, "<I", 0xFFFFFFFF),
    "a size of an entry": (84, "<I", 1),
}


@pytest.mark.parametrize(("at", "form", "value"), HEADER_FIELDS.values(), ids=HEADER_FIELDS)
def test_a_gpt_with_a_right_sum_and_a_wrong_number_is_refused(
    gpt: bytes, at: int, form: str, value: int
) -> None:
    disk = bytearray(gpt)
    for place in (SECTOR, len(disk) - SECTOR):
        struct.pack_into(form, disk, place + at, value)
        disk[place + 16 : place + 20] = bytes(4)
        struct.pack_into("<I", disk, place + 16, zlib.crc32(disk[place : place + 92]))
    with pytest.raises(BadPartitionTable):
        read_partitions(MemorySource(bytes(disk)))


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_a_damaged_table_is_an_answer_or_a_sentence(gpt: bytes, mbr: bytes, data: st.DataObject) -> None:
    disk = DamagedSource(data.draw(st.sampled_from((gpt, mbr))))
    starts = st.sampled_from((0, 0x1BE, SECTOR, 2 * SECTOR, 17 * MIB + 0x1BE, DISK_BYTES - SECTOR))
    places = st.builds(int.__add__, starts, st.integers(0, 127))
    disk.changes = data.draw(st.dictionaries(places, st.integers(0, 255), max_size=20))
    with suppress(BadPartitionTable):
        table = read_partitions(disk)
        assert table is None or all(p.start + p.size <= disk.size for p in table.partitions)
