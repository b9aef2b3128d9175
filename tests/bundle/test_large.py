"""More than 8 GiB, where a tar header changes the way it writes numbers. Slow: half a minute of hashing."""

import io
import subprocess
from collections.abc import Callable
from pathlib import Path

from uecwatchd.bundle.stream import Bundling, Secret
from uecwatchd.bundle.tar import Tape, read_member
from uecwatchd.bundle.unbundle import Nowhere, unbundle

SIZE = 8 * 1024**3 + 512
MARKS = {0: b"first", 5 * 1024**3: b"middle", SIZE - 4: b"last"}


class Vast(io.RawIOBase):
    """Zeros but for the marks. A sparse file would do, and take twice as long to read."""

    at = 0

    def readinto(self, buffer) -> int:
        count = min(len(buffer), SIZE - self.at)
        buffer[:count] = bytes(count)
        for at, mark in MARKS.items():
            if self.at <= at < self.at + count:
                buffer[at - self.at : at - self.at + len(mark)] = mark
        self.at += count
        return count


def test_an_image_of_more_than_8_gib_comes_back_as_it_was(as_made: Callable) -> None:
    secret = Secret.random()
    bundling = Bundling(Vast(), name="vast.img", size=SIZE, prefix="v", secret=secret)
    made = as_made(bundling, secret)
    found = unbundle(made.manifest, made.fetch, secret=secret, sink=Nowhere())
    assert found.size == SIZE
    assert found.sha256 == bundling.totals.sha256


def test_gnu_tar_s_sparse_archive_of_more_than_8_gib_is_read(tmp_path: Path) -> None:
    path = tmp_path / "vast.img"
    with path.open("wb") as file:
        for at, mark in MARKS.items():
            file.seek(at)
            file.write(mark)
    command = ["tar", "--format=gnu", "-S", "-cf-", "-C", str(tmp_path), path.name]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    assert len(archive) < 100_000
    member = read_member(Tape(iter([archive])))
    assert (member.name, member.size) == ("vast.img", SIZE)
    for at in MARKS:
        assert any(extent.offset <= at < extent.offset + extent.length for extent in member.extents)
