"""More than 8 GiB, where a tar header changes the way it writes numbers."""

import subprocess
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from uecwatchd.bundle.bundler import Bundling, Secret
from uecwatchd.bundle.tar import TarReader, header, read_member
from uecwatchd.bundle.unbundle import NullSink, unbundle
from uecwatchd.images.block_source import FileSource
from uecwatchd.images.digests import BlockDigest, FlatDigest
from uecwatchd.system.extents import Extent

SIZE = 8 * 1024**3 + 512
MARKS = {0: b"first", 5 * 1024**3: b"middle", SIZE - 4: b"last"}


@pytest.fixture(scope="module")
def vast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vast") / "vast.img"
    with path.open("wb") as file:
        for at, mark in MARKS.items():
            file.seek(at)
            file.write(mark)
    return path


def test_an_image_of_more_than_8_gib_comes_back_as_it_was(vast: Path, as_made: Callable) -> None:
    secret = Secret.random()
    with closing(FileSource(vast.open("rb", buffering=0))) as source:
        bundling = Bundling(
            source,
            name="vast.img",
            prefix="v",
            secret=secret,
            digest=BlockDigest(),
        )
        made = as_made(bundling, secret)
    digest = BlockDigest()
    found = unbundle(made.manifest, made.fetch, secret=secret, sink=NullSink(), digest=digest)
    assert found.size == SIZE
    assert found.digest == bundling.totals.digest == digest.text()


def test_gnu_tar_s_sparse_archive_of_more_than_8_gib_is_read(vast: Path) -> None:
    command = ["tar", "--format=gnu", "-S", "-cf-", "-C", str(vast.parent), vast.name]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    assert len(archive) < 100_000
    member = read_member(TarReader(iter([archive]), FlatDigest("sha1")))
    assert (member.name, member.size) == ("vast.img", SIZE)
    for at in MARKS:
        assert any(extent.offset <= at < extent.offset + extent.length for extent in member.extents)


def test_a_header_gives_more_than_8_gib_without_a_hole_as_gnu_tar_does() -> None:
    block = header("vast.img", size=SIZE)
    assert tarfile.TarInfo.frombuf(block, "ascii", "strict").size == SIZE
    assert read_member(TarReader(iter([block]), FlatDigest("sha1"))).extents == (Extent(0, SIZE),)
    assert block[124:136] == b"\x80" + SIZE.to_bytes(11)
