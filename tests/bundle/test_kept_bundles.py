"""A bundle that is kept for the next cloud comes back part for part, or not at all, and leaves no file."""

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.memory_source import MemorySource
from uecwatchd.bundle.bundler import Bundling, Secret
from uecwatchd.bundle.kept_bundles import Content, KeptBundles, KeptParts, UnreadableParts
from uecwatchd.types import ContentDigest

PART_BYTES = 64 * 1024
IMAGE = random.Random(3).randbytes(3 * PART_BYTES)  # noqa: S311 (only not to be compressible)
SECRET = Secret(b"k" * 16, b"i" * 16)
CONTENT: Content = ("machine", ContentDigest("ab" * 32))
NAME = "karmic-1"


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[KeptBundles]:
    with closing(KeptBundles(tmp_path / "work")) as bundles:
        bundles.is_wanted = True
        yield bundles


def bundling(prefix: str = "first") -> Bundling:
    return Bundling(MemorySource(IMAGE), name=NAME, prefix=prefix, secret=SECRET, part_size=PART_BYTES)


def made(prefix: str) -> list[tuple[str, bytes]]:
    return [(piece.part.name, bytes(piece.data)) for piece in bundling(prefix)]


def keep(
    bundles: KeptBundles,
    *,
    content: Content = CONTENT,
    needs_bytes: int = 0,
    parts: int = 9,
    whole: bool = True,
) -> str:
    """Bundle the image as for the first cloud; return the problem that there was."""
    with bundles.keeping(content, cloud="lab", name=NAME, secret=SECRET, needs_bytes=needs_bytes) as keeper:
        pieces = bundling()
        with closing(pieces):
            for piece in pieces:
                if piece.part.index < parts:
                    keeper.keep(piece)
        if whole:
            keeper.finish(pieces.totals)
    return str(keeper.problem or "")


def read(bundles: KeptBundles, prefix: str) -> KeptParts:
    found = bundles.find(CONTENT)
    assert found
    return KeptParts(found, prefix, lambda _done: None)


def test_the_next_cloud_gets_the_bytes_that_a_bundle_of_its_own_would_have(kept: KeptBundles) -> None:
    assert not keep(kept)
    for prefix in ("second", "third"):
        parts, found = read(kept, prefix), list[tuple[str, bytes]]()
        for piece in parts:
            found.append((piece.part.name, bytes(piece.data)))
            parts.release(piece)
        own = bundling(prefix)
        assert found == made(prefix)
        assert list(own)
        assert parts.totals == own.totals


def test_progress_ends_at_the_size_of_the_image(kept: KeptBundles) -> None:
    keep(kept)
    bundle, steps = kept.find(CONTENT), list[int]()
    assert bundle
    assert len(list(KeptParts(bundle, "k", steps.append))) == len(steps)
    assert steps == sorted(steps)
    assert steps[-1] == len(IMAGE)


def test_what_is_kept_has_no_name_on_the_disk_and_gives_its_space_back(
    kept: KeptBundles, tmp_path: Path
) -> None:
    keep(kept)
    bundle = kept.find(CONTENT)
    assert bundle
    assert os.fstat(bundle.file.fileno()).st_size > len(IMAGE)
    assert not list((tmp_path / "work").iterdir())
    kept.close()
    assert bundle.file.closed
    assert kept.find(CONTENT) is None


def test_nothing_is_written_for_the_last_cloud(kept: KeptBundles, tmp_path: Path) -> None:
    kept.is_wanted = False
    assert not keep(kept, needs_bytes=1 << 60)
    assert kept.find(CONTENT) is None
    assert not (tmp_path / "work").exists()


def test_a_bundle_that_was_not_finished_is_not_kept(kept: KeptBundles) -> None:
    assert not keep(kept, whole=False)
    assert kept.find(CONTENT) is None


def test_each_content_is_kept_once(kept: KeptBundles) -> None:
    keep(kept)
    first = kept.find(CONTENT)
    keep(kept)
    assert kept.find(CONTENT) is first
    assert kept.find(("kernel", CONTENT[1])) is None


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_copy_is_never_sent(kept: KeptBundles, damage: str) -> None:
    keep(kept)
    bundle = kept.find(CONTENT)
    assert bundle
    if damage == "cut":
        bundle.file.truncate(1000)
    else:
        os.pwrite(bundle.file.fileno(), b"\0\1\2", 77)
    with pytest.raises(UnreadableParts, match="kept for the next cloud"):
        list(read(kept, "second"))


def test_without_room_nothing_is_kept_and_the_reason_is_said(kept: KeptBundles) -> None:
    assert "no room in the work folder" in keep(kept, needs_bytes=1 << 60)
    assert kept.find(CONTENT) is None
    assert not keep(kept, content=("kernel", CONTENT[1])), "it is not tried again for the next member"
    assert kept.find(("kernel", CONTENT[1])) is None


def test_a_folder_that_cannot_be_used_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with closing(KeptBundles(tmp_path / "file" / "work")) as bundles:
        bundles.is_wanted = True
        assert "cannot write there" in keep(bundles)


def test_a_disk_that_others_fill_ends_the_copy_and_has_its_space_again(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=66m", str(small_disk)], check=True)
    with closing(KeptBundles(small_disk)) as bundles:
        bundles.is_wanted = True
        keeping = bundles.keeping(CONTENT, cloud="lab", name=NAME, secret=SECRET, needs_bytes=len(IMAGE))
        with keeping as keeper:
            pieces = bundling()
            first, second, *_ = list(pieces)
            keeper.keep(first)
            assert not keeper.problem
            (small_disk / "filler").write_bytes(bytes(3 << 20))
            before = os.statvfs(small_disk).f_bfree
            keeper.keep(second)
            assert "no room in the work folder" in str(keeper.problem)
            assert os.statvfs(small_disk).f_bfree > before
            keeper.finish(pieces.totals)
        assert bundles.find(CONTENT) is None
