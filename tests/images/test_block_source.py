"""Rules for every block source, and for what reads one. A new kind of source gets a row in SOURCES."""

import hashlib
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.containers import CONTAINERS, Container
from tests.support.memory_source import MemorySource
from tests.support.reading import opened as open_disk
from tests.support.reading import read
from uecwatchd.bundle.bundler import Bundling, Secret, Totals
from uecwatchd.images.block_source import BlockSource, FileSource, View
from uecwatchd.images.digests import BlockDigest, FlatDigest, read_digest
from uecwatchd.system.extents import HOLE_BYTES, Extent

pytestmark = pytest.mark.exhaustive

PAGE_BYTES = 4096
THREADS = 8
SECRET = Secret(b"k" * 16, b"i" * 16)


@dataclass(frozen=True)
class Content:
    """An image with holes: what is written where, and its size."""

    pieces: tuple[tuple[int, bytes], ...]
    size: int

    @property
    def data(self) -> bytes:
        data = bytearray(self.size)
        for offset, piece in self.pieces:
            data[offset : offset + len(piece)] = piece
        return bytes(data)


@st.composite
def contents(draw: st.DrawFn) -> Content:
    end, pieces = 0, list[tuple[int, bytes]]()
    holes, lengths = st.integers(0, 60), st.integers(1, 3 * PAGE_BYTES)
    for hole, length in draw(st.lists(st.tuples(holes, lengths), max_size=8)):
        end += hole * PAGE_BYTES
        pieces.append((end, hashlib.shake_256(b"%d" % end).digest(length)))
        end += length
    return Content(tuple(pieces), end + draw(st.integers(0, 3 * HOLE_BYTES)))


def file_with(content: Content) -> FileSource:
    file = FileIO(os.memfd_create("image"), "r+b")
    for offset, piece in content.pieces:
        os.pwrite(file.fileno(), piece, offset)
    file.truncate(content.size)
    return FileSource(file)


def memory_with(content: Content) -> MemorySource:
    """Return a source of the same bytes with the same holes."""
    with closing(file_with(content)) as file:
        return MemorySource(content.data, stored=file.extents())


@dataclass(frozen=True)
class DiskOf:
    """Opens a container with the content as its disk, which consists of whole sectors."""

    container: Container

    def __call__(self, content: Content) -> BlockSource:
        return open_disk(self.container.make(self.padded(content).data)).source

    def padded(self, content: Content) -> Content:
        sector = self.container.sector
        return Content(content.pieces, max(sector, content.size + -content.size % sector))


def partition_with(content: Content) -> View:
    """Return the same bytes as a partition, which has other bytes before and behind it."""
    start = 63 * 512  # where old partitioners put the first one: no multiple of a page
    pieces = ((0, b"\x55" * start), *((start + at, piece) for at, piece in content.pieces))
    end = start + content.size
    return View(
        file_with(Content((*pieces, (end, b"\xaa" * PAGE_BYTES)), end + PAGE_BYTES)), start, content.size
    )


SOURCES: dict[str, Callable[[Content], BlockSource]] = {
    "file": file_with,
    "memory": memory_with,
    **{name: DiskOf(container) for name, container in CONTAINERS.items()},
    "partition": partition_with,
}
every_source = pytest.mark.parametrize("opened", SOURCES.values(), ids=SOURCES)


def fitting(content: Content, opened: Callable[[Content], BlockSource]) -> Content:
    """Return the content as a source has it."""
    return opened.padded(content) if isinstance(opened, DiskOf) else content


@every_source
@settings(max_examples=20, deadline=None)
@given(content=contents(), seed=st.integers(0, 1 << 32))
def test_any_thread_reads_the_same_bytes_at_any_offset(
    opened: Callable[[Content], BlockSource], content: Content, seed: int
) -> None:
    drawn, content = random.Random(seed), fitting(content, opened)  # noqa: S311 (not a secret)
    spans = [(drawn.randrange(content.size + 1), drawn.randrange(2 * HOLE_BYTES)) for _ in range(4 * THREADS)]
    with closing(opened(content)) as source, ThreadPoolExecutor(THREADS) as threads:
        assert source.size == content.size
        found = list(threads.map(lambda span: read(source, *span), spans))
    assert found == [content.data[offset : offset + length] for offset, length in spans]


@every_source
@settings(max_examples=20, deadline=None)
@given(content=contents())
def test_the_extents_are_in_order_and_hold_all_that_is_not_zero(
    opened: Callable[[Content], BlockSource], content: Content
) -> None:
    content = fitting(content, opened)
    rest = bytearray(content.data)
    with closing(opened(content)) as source:
        end = 0
        for extent in source.extents():
            assert end <= extent.offset
            end = extent.offset + extent.length
            rest[extent.offset : end] = bytes(extent.length)
        assert end <= source.size
        assert source.stored_bytes >= 0
    assert not any(rest)


@every_source
def test_there_is_nothing_to_read_at_the_end(opened: Callable[[Content], BlockSource]) -> None:
    content = fitting(Content(((0, b"karmic"),), 6), opened)
    with closing(opened(content)) as source:
        assert source.read_into(content.size, memoryview(bytearray(1))) == 0
        assert source.read_into(content.size + 1, memoryview(bytearray(1))) == 0
        assert read(source, 4, 2 * PAGE_BYTES) == content.data[4:]


@every_source
def test_an_unmodified_file_counts_as_unchanged(opened: Callable[[Content], BlockSource]) -> None:
    with closing(opened(Content((), HOLE_BYTES))) as source:
        read(source, 0, HOLE_BYTES)
        assert source.is_unchanged()


@every_source
def test_a_closed_source_is_not_read(opened: Callable[[Content], BlockSource]) -> None:
    source = opened(Content((), 1))
    source.close()
    with pytest.raises(ValueError, match="closed"):
        source.read_into(0, memoryview(bytearray(1)))


def test_a_modified_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "karmic.img"
    path.write_bytes(b"karmic")
    with closing(FileSource(FileIO(path))) as source:
        assert source.is_unchanged()
        path.write_bytes(b"karmic koala")
        assert not source.is_unchanged()
        assert source.size == 6
        assert read(source, 6, 10) == b" koala", "what has grown can be seen"


def test_a_view_ends_where_its_source_ends() -> None:
    with closing(View(MemorySource(b"karmic"), 2, 100)) as view:
        assert view.size == 4
        assert read(view, 0, 100) == b"rmic"
        assert View(view, 9, 1).size == 0


def test_holes_of_a_disk_are_holes_of_its_partitions() -> None:
    stored = tuple(Extent(at * HOLE_BYTES, HOLE_BYTES) for at in (0, 4, 9))
    disk = MemorySource(bytes(10 * HOLE_BYTES), stored=stored)
    assert View(disk, 2 * HOLE_BYTES, 4 * HOLE_BYTES).extents() == (Extent(2 * HOLE_BYTES, HOLE_BYTES),)


# What reads a source


class Counting(MemorySource):
    """Remembers how much was read of it."""

    count = 0

    def read_into(self, offset: int, buffer: memoryview, /) -> int:
        count = super().read_into(offset, buffer[: 3 * PAGE_BYTES])  # less than was asked for
        self.count += count
        return count


def bundled(source: BlockSource) -> tuple[bytes, Totals]:
    bundling = Bundling(source, name="karmic.img", prefix="k", secret=SECRET, digest=BlockDigest())
    return b"".join(bytes(piece.data) for piece in bundling), bundling.totals


@settings(max_examples=30, deadline=None)
@given(content=contents())
def test_a_source_is_bundled_as_the_file_with_the_same_content(content: Content) -> None:
    with closing(file_with(content)) as file:
        assert bundled(memory_with(content)) == bundled(file)


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_is_bundled_with_the_digest_of_its_disk(name: str) -> None:
    content = Content(((HOLE_BYTES, os.urandom(200_000)), (3 << 20, b"x")), 5 << 20)
    expected = BlockDigest()
    expected.update(content.data)
    with closing(SOURCES[name](content)) as source:
        _, totals = bundled(source)
    assert (totals.size, totals.digest) == (content.size, expected.text())


@every_source
@settings(max_examples=10, deadline=None)
@given(content=contents())
def test_a_digest_is_that_of_the_bytes_in_any_extents(
    opened: Callable[[Content], BlockSource], content: Content
) -> None:
    for kind in (FlatDigest, BlockDigest):
        expected = kind()
        expected.update(fitting(content, opened).data)
        with closing(opened(content)) as source:
            assert read_digest(source, kind()) == expected.text()


@pytest.mark.parametrize("work", [bundled, read_digest])
def test_holes_are_not_read(work: Callable[[BlockSource], object]) -> None:
    stored = (Extent(2 * HOLE_BYTES, HOLE_BYTES), Extent(90 * HOLE_BYTES, 3))
    source = Counting(bytes(100 * HOLE_BYTES), stored=stored)
    work(source)
    assert source.count == HOLE_BYTES + 3


def test_progress_of_a_digest_ends_with_all_of_it_and_may_stop_it() -> None:
    content, heard = Content(((HOLE_BYTES, b"x"),), 5 * HOLE_BYTES), list[int]()
    read_digest(memory_with(content), progress=heard.append)
    assert heard == sorted(heard)
    assert heard[-1] == content.size

    def stop(_: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        read_digest(memory_with(content), progress=stop)
