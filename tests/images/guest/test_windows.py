"""Windows on real disks: where it is, and what it lacks."""

from contextlib import closing
from io import FileIO
from pathlib import Path

import pytest

from tests.support.guest_images import Content, disk, fat, fill, ntfs, run
from tests.support.sizes import MIB
from tests.support.windows_sets import KERNEL, MBR
from uecwatchd.images.block_source import FileSource
from uecwatchd.images.guest.inspection import Inspection, inspect_image

DRIVERS = "WINDOWS/system32/drivers"
NT5: dict[str, Content] = {"ntldr": b"loader", KERNEL: b"MZ", f"{DRIVERS}/disk.sys": b"", "pagefile.sys": b""}
READY: dict[str, Content] = {**NT5, f"{DRIVERS}/E1000325.SYS": b"", f"{DRIVERS}/Sym_Hi.sys": b""}
# Two primary partitions, and two logical ones in the third.
LOGICAL = (
    "label: dos\nstart=2048, size=2048, type=83\nstart=4096, size=2048, type=83\n"
    "start=6144, type=5\nstart=8192, size=2048, type=7\nstart=12288, size=131072, type=7\n"
)


def on_fat(folder: Path, files: dict[str, Content], script: str = MBR, number: int = 1) -> Path:
    inside = fat(folder / "fat", fill(folder / "files", files))
    sized = script.replace("size=32768", "size=131072")
    return disk(folder / "win.img", sized, (number, inside), size=80 * MIB)


def inspected(image: Path) -> Inspection:
    with closing(FileSource(FileIO(image))) as source:
        return inspect_image(source, name=image.name)


def keys(found: Inspection) -> dict[str, str]:
    assert all(finding.remedy for finding in found.findings)
    return {finding.key: finding.severity for finding in found.findings}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (READY, {}),
        (NT5, {"disk-driver": "warning", "network-driver": "warning"}),
        ({"bootmgr": b"", KERNEL: b"MZ"}, {}),
        ({**READY, "hiberfil.sys": b"HIBR" + bytes(100)}, {"hibernated": "error"}),
        ({**READY, "hiberfil.sys": b"wake" + bytes(100)}, {}),
    ],
    ids=["ready", "no drivers", "since Vista", "hibernated", "woken"],
)
def test_a_windows_is_judged_by_its_files(
    tmp_path: Path, files: dict[str, Content], expected: dict[str, str]
) -> None:
    found = inspected(on_fat(tmp_path, files))
    assert found.system
    assert found.system.id == "windows"
    assert keys(found) == expected
    assert found.is_ready == ("error" not in expected.values())


def test_boot_ini_counts_logical_partitions_after_the_primary_ones(tmp_path: Path) -> None:
    found = inspected(on_fat(tmp_path, {"WINNT/system32/ntoskrnl.exe": b"MZ"}, LOGICAL, number=6))
    assert found.windows
    assert found.windows.placed.partition
    assert found.windows.placed.partition.number == 6
    assert (found.windows.partition, found.windows.folder) == (4, "WINNT")
    assert (found.summary().windows_partition, found.summary().windows_folder) == (4, "WINNT")


def test_an_ntfs_that_was_not_shut_down_is_reported(tmp_path: Path) -> None:
    inside = ntfs(tmp_path / "ntfs", fill(tmp_path / "files", {"ntldr": b"loader"}))
    clean = disk(tmp_path / "clean.img", MBR, (1, inside), size=20 * MIB)
    assert keys(inspected(clean)) == {}
    run("ntfsfix", inside)
    found = inspected(disk(tmp_path / "dirty.img", MBR, (1, inside), size=20 * MIB))
    assert keys(found) == {"ntfs-dirty": "warning"}
    assert found.findings[0].sentence.startswith("Partition 1 (ntfs) was not shut down")


def test_without_an_mbr_no_partition_can_be_named(tmp_path: Path) -> None:
    gpt = "label: gpt\nstart=2048, size=131072, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7\n"
    found = inspected(on_fat(tmp_path, NT5, gpt))
    assert found.windows
    assert found.windows.partition is None
