"""Stamps of files."""

import os
from pathlib import Path

import pytest

from tests.support.two_mounts import mounted, needs_bindfs
from uecwatchd.types import FileStamp, share_number


def test_a_stamp_in_a_shared_folder_has_no_device(tmp_path: Path) -> None:
    status = tmp_path.stat()
    share = share_number(Path("/srv/images"))
    assert FileStamp.of(status, share=share) == FileStamp.of(status)._replace(device=share)
    assert share < 0
    assert share != share_number(Path("/srv/other"))


@pytest.mark.parametrize("share", [0, share_number(Path("/srv/images"))])
def test_a_stamp_is_that_of_the_file_until_it_changes(tmp_path: Path, share: int) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"1")
    stamp = FileStamp.of(file.stat(), share=share)
    assert stamp.is_of(file.stat())
    file.write_bytes(b"22")
    assert not stamp.is_of(file.stat())


@needs_bindfs
def test_two_hosts_see_one_stamp_of_a_shared_file(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "file").write_bytes(b"1")
    places = tmp_path / "a", tmp_path / "b"
    share = share_number(Path("/srv/images"))
    with mounted(tmp_path / "server", *places):
        one, other = (os.stat(place / "file") for place in places)  # noqa: PTH116 (as the scan does)
        assert FileStamp.of(one) != FileStamp.of(other)
        stamp = FileStamp.of(one, share=share)
        assert stamp == FileStamp.of(other, share=share)
        assert stamp.is_of(other)
