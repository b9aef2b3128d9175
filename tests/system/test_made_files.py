"""Files that are made once: complete or not there, and only where the disk has space for them."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from uecwatchd.errors import Deferred, Stopped
from uecwatchd.system.disk_space import RESERVED_BYTES
from uecwatchd.system.made_files import find_file, make_file, remove_folder
from uecwatchd.types import FileStamp

PATH = "karmic.tar.gz/karmic.img"
WHAT = "the work folder"


def put(data: bytes) -> Callable[[BinaryIO], None]:
    def write(file: BinaryIO) -> None:
        file.write(data)

    return write


def refuse(_: BinaryIO) -> None:
    raise AssertionError("it is made again")


def test_a_file_is_made_once_and_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "work" / "set"
    assert find_file(folder, PATH) is None
    made = make_file(folder, PATH, put(b"image"), needs_bytes=5, what=WHAT)
    assert (folder / PATH).read_bytes() == b"image"
    assert make_file(folder, PATH, refuse, needs_bytes=5, what=WHAT) == made == find_file(folder, PATH)
    assert made == FileStamp.of((folder / PATH).stat())
    modes = [path.stat().st_mode & 0o777 for path in (folder, folder / PATH)]
    assert modes == [0o700, 0o600], "others cannot read it"


def test_a_file_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    def stop(file: BinaryIO) -> None:
        file.write(b"half")
        raise Stopped("karmic", "stopped", "It continues.")

    with pytest.raises(Stopped):
        make_file(tmp_path, PATH, stop, needs_bytes=5, what=WHAT)
    assert list((tmp_path / "karmic.tar.gz").iterdir()) == []


def test_a_file_that_is_larger_than_the_free_space_is_not_begun(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    with pytest.raises(Deferred) as caught:
        make_file(tmp_path, PATH, refuse, needs_bytes=free - RESERVED_BYTES + (1 << 30), what=WHAT)
    assert "no room in the work folder" in caught.value.what
    assert "GiB may be needed" in caught.value.why or "TiB may be needed" in caught.value.why


def test_a_full_disk_is_a_sentence(small_disk: Path) -> None:
    with pytest.raises(Deferred) as caught:
        make_file(small_disk, PATH, refuse, needs_bytes=0, what=WHAT)
    assert "a reserve of 64 MiB" in caught.value.why


def test_a_disk_that_fills_up_while_a_file_is_written_is_a_sentence_and_nothing_is_left(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    size = RESERVED_BYTES + (1 << 20)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        with pytest.raises(Deferred) as caught:
            make_file(folder, PATH, put(bytes(size + 1)), needs_bytes=0, what=WHAT)
        assert list((folder / "karmic.tar.gz").iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
    assert "No space left" in caught.value.why
    assert "Free some space" in caught.value.hint


def test_a_file_in_place_of_a_folder_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "karmic.tar.gz").write_bytes(b"")
    with pytest.raises(Deferred, match="cannot write there"):
        make_file(tmp_path, PATH, put(b"x"), needs_bytes=1, what=WHAT)


def test_a_folder_is_removed_with_all_that_is_in_it(tmp_path: Path) -> None:
    make_file(tmp_path / "set", PATH, put(b"x"), needs_bytes=1, what=WHAT)
    for _ in range(2):
        remove_folder(tmp_path / "set", what=WHAT)
    assert list(tmp_path.iterdir()) == []
