"""memdisk and syslinux's modules are found where distributions put them."""

from pathlib import Path

import pytest

from uecwatchd.errors import Deferred
from uecwatchd.images.detect import HEAD_BYTES, TAIL_BYTES, detect
from uecwatchd.images.floppy.syslinux import MODULES, find_memdisk, read_modules


def test_the_memdisk_of_this_host_is_one() -> None:
    content = find_memdisk().read_bytes()
    assert detect(content[:HEAD_BYTES], content[-TAIL_BYTES:], size=len(content)).format == "memdisk"


def test_the_first_memdisk_is_taken(tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("absent", "folder", "memdisk", "other")]
    places[1].mkdir()
    for place in places[2:]:
        place.write_bytes(b"")
    assert find_memdisk(places) == places[2]


def test_a_missing_memdisk_names_its_package_and_the_places(tmp_path: Path) -> None:
    with pytest.raises(
        Deferred, match=f"not at {tmp_path}/a or {tmp_path}/b.*apt-get install syslinux-common"
    ):
        find_memdisk([tmp_path / "a", tmp_path / "b"])


def test_all_modules_are_of_one_folder(tmp_path: Path) -> None:
    part, whole = tmp_path / "part", tmp_path / "whole"
    for folder, names in ((part, MODULES[:2]), (whole, MODULES)):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(f"{folder.name} {name}")
    assert read_modules([part, whole]) == {name: f"whole {name}".encode() for name in MODULES}


def test_missing_modules_name_their_package(tmp_path: Path) -> None:
    with pytest.raises(Deferred, match=r"chain\.c32.*apt-get install syslinux-common"):
        read_modules([tmp_path])
