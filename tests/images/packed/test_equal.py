"""A compressed file reads as the data that its program was given."""

import bz2
import gzip
import hashlib
import lzma
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.containers import CONTAINERS, content_of, memory_file
from tests.support.packed import COMMANDS, KIB, KINDS, MIB, as_packed, compress, make_disk, opened
from uecwatchd.bundle.bundler import Bundling, Secret
from uecwatchd.errors import Rejected
from uecwatchd.images.block_source import BlockSource, read_exactly
from uecwatchd.images.digests import read_digest
from uecwatchd.images.formats.container_file import ContainerFile
from uecwatchd.images.formats.open import DiskAccess, open_disk
from uecwatchd.images.packed.flow import Flow, SeekPoint
from uecwatchd.images.packed.segments import PackedFile, Segment, Stream
from uecwatchd.images.packed.source import KEPT_BLOCKS, PackedSource
from uecwatchd.images.packed.survey import SurveyReader, survey
from uecwatchd.system.extents import HOLE_BYTES

pytestmark = pytest.mark.exhaustive

DISK = make_disk()


def zeros_between(source: BlockSource, content: bytes) -> Iterator[bytes]:
    end = 0
    for extent in source.extents():
        yield content[end : extent.offset]
        end = extent.offset + extent.length
    yield content[end:]


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_content_size_holes_and_digest_are_those_of_the_disk(command: str, tmp_path: Path) -> None:
    with opened(compress(DISK, command, tmp_path)) as disk:
        source = disk.source
        assert isinstance(source, PackedSource)
        assert disk.format == command_kind(command)
        assert (source.size, read_exactly(source, 0, 2 * source.size)) == (len(DISK), DISK)
        assert not any(piece.strip(b"\0") for piece in zeros_between(source, DISK))
        assert source.stored_bytes <= len(DISK) - 13 * HOLE_BYTES
        assert source.survey
        assert source.survey.digest == hashlib.sha256(DISK).hexdigest()
        assert read_digest(source) == source.survey.digest
        places = [at * 7919 * 37 % len(DISK) for at in range(20)]
        assert all(read_exactly(source, at, 5000) == DISK[at : at + 5000] for at in places)
        assert read_exactly(source, len(DISK), 1) == b""


def command_kind(command: str) -> str:
    return next(kind for kind in ("gzip", "bzip2", "xz", "zstd", "pigz") if kind in command).replace(
        "pigz", "gzip"
    )


@pytest.mark.parametrize("kind", KINDS)
@given(
    pieces=st.lists(st.tuples(st.integers(1, 3 * HOLE_BYTES), st.booleans()), min_size=1, max_size=6),
    cuts=st.lists(st.integers(0, 12), max_size=3),
)
@settings(max_examples=6, deadline=None)
def test_any_disk_in_any_number_of_segments_is_read_back(
    kind: str, pieces: list[tuple[int, bool]], cuts: list[int]
) -> None:
    content = b"".join(b"x" * size if is_data else bytes(size) for size, is_data in pieces)
    content = content.ljust(-(-len(content) // 512) * 512, b"\0")
    places = sorted({0, len(content), *(cut * len(content) // 12 for cut in cuts)})
    segments = [pack_here(content[a:b], kind) for a, b in pairwise(places)]
    with opened(b"".join(segments)) as disk:
        assert read_exactly(disk.source, 0, len(content) + 1) == content
        assert read_digest(disk.source) == hashlib.sha256(content).hexdigest()


def pack_here(content: bytes, kind: str) -> bytes:
    """Compress in this process: a program for each example takes too long."""
    packers: Mapping[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.compress,
        "bzip2": bz2.compress,
        "xz": lzma.compress,
        "zstd": zstandard.ZstdCompressor().compress,
    }
    return packers[kind](content)


class CountingFile:
    """A compressed file that counts how often unpacking begins somewhere."""

    def __init__(self, inner: PackedFile) -> None:
        self._inner, self.begun = inner, 0
        self.file = inner.file
        self.find_segment, self.known_segments = inner.find_segment, inner.known_segments

    def open(self, segment: Segment) -> Stream:
        self.begun += 1
        return self._inner.open(segment)


@contextmanager
def counting(packed: bytes, kind: str) -> Iterator[tuple[CountingFile, PackedSource]]:
    with as_packed(packed, kind) as inner:
        file = CountingFile(inner)
        found = survey(
            file, SeekPoint(0, Segment(0) if kind != "xz" else file.known_segments()[0]), limit=1 << 40
        )
        file.begun = 0
        yield file, PackedSource(file, found.points, found.size, found)


def test_threads_that_make_a_bundle_unpack_a_file_once() -> None:
    """The disk is larger than what is kept, and full of holes, so that a block of the bundle is scattered."""
    size = 3 * KEPT_BLOCKS * HOLE_BYTES
    block = hashlib.shake_128(b"block").digest(HOLE_BYTES)
    disk = b"".join(block if n % 3 or n % 100 < 50 else bytes(HOLE_BYTES) for n in range(size // HOLE_BYTES))
    with counting(pack_here(disk, "zstd"), "zstd") as (file, source):
        bundling = Bundling(source, name="web", prefix="web", secret=Secret(bytes(16), bytes(16)), threads=4)
        for part in bundling:
            bundling.release(part)
        assert bundling.totals.digest == hashlib.sha256(disk).hexdigest()
        assert file.begun == 1


def test_neighbours_of_many_threads_come_from_one_unpacking() -> None:
    disk = make_disk(8 * MIB)
    with counting(pack_here(disk, "zstd"), "zstd") as (file, source), ThreadPoolExecutor(4) as pool:
        pieces = pool.map(lambda at: read_exactly(source, at, 100_000), range(0, len(disk), 100_000))
        assert b"".join(pieces) == disk
        assert file.begun == 1


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("xz", "xz -0 -T2 --block-size=20MiB"),
        ("zstd", "(head -c 20M | zstd -q; head -c 20M | zstd -q; zstd -q)"),
        ("gzip", "(head -c 20M | gzip -1; head -c 20M | gzip -1; gzip -1)"),
    ],
)
def test_an_earlier_place_is_reached_from_the_nearest_point_before_it(kind: str, command: str) -> None:
    disk = bytes(20 * MIB) + b"a" * MIB + bytes(29 * MIB) + make_disk(4 * MIB)
    with counting(compress(disk, command), kind) as (file, source):
        assert read_exactly(source, 51 * MIB, MIB) == disk[51 * MIB : 52 * MIB]
        began = file.begun
        assert read_exactly(source, 20 * MIB, MIB) == disk[20 * MIB : 21 * MIB]
        assert file.begun <= began + 2, "and not all segments up to it"


def test_a_gzip_in_one_piece_is_read_at_any_place_and_not_from_its_beginning() -> None:
    noise = make_disk(4 * MIB)
    disk = noise + bytes(60 * MIB) + noise[::-1] + b"text" * (10 * MIB) + noise
    with counting(compress(disk, "gzip -1"), "gzip") as (file, source):
        assert source.is_seekable
        for place in (60, 108, 1, 104, 65, 20, 66, 64):
            assert read_exactly(source, place * MIB, MIB) == disk[place * MIB : (place + 1) * MIB]
        assert file.begun == 1, "for the first places only"


def test_snapshots_are_thinned_out_when_there_are_too_many() -> None:
    content = hashlib.shake_128(b"snapshots").digest(32 * MIB)
    reader = SurveyReader(snapshot_bytes=MIB // 2, max_snapshots=8)
    with as_packed(pack_here(content, "gzip"), "gzip") as file, closing(reader):
        flow = Flow(file, SeekPoint(0, Segment(0)))
        while not flow.is_done:
            reader.note(flow)
            reader.take(flow.read(64 * KIB))
        found = reader.result()
        starts = [point.offset for point in found.points]
        assert 4 <= len(starts) - 1 <= 8
        assert max(b - a for a, b in pairwise([*starts, found.size])) <= 8 * MIB + 64 * KIB
        source = PackedSource(file, found.points, found.size, found)
        for place in range(31, 0, -5):
            assert read_exactly(source, place * MIB, MIB) == content[place * MIB : (place + 1) * MIB]


@pytest.mark.parametrize("name", ["qcow2-zlib", "vmdk-stream", "vhdx"])
@pytest.mark.parametrize("command", [COMMANDS["xz"], COMMANDS["xz blocks"], COMMANDS["zstd of a file"]])
def test_the_disk_in_a_container_is_read_through_the_index(name: str, command: str, tmp_path: Path) -> None:
    kind = CONTAINERS[name]
    with opened(compress(content_of(kind.make(DISK)), command, tmp_path)) as disk:
        assert disk.format == f"{kind.format} in {command_kind(command)}"
        assert disk.source.size == len(DISK)
        assert read_exactly(disk.source, 0, len(DISK)) == DISK
        assert disk.source.is_unchanged()


@pytest.mark.parametrize("kind", KINDS)
def test_a_fixed_vhd_is_known_by_its_last_bytes_in_any_compression(kind: str) -> None:
    packed = compress(content_of(CONTAINERS["vhd-fixed"].make(DISK)), KINDS[kind])
    with opened(packed) as disk:
        assert (disk.format, disk.source.size) == (f"vhd in {kind}", len(DISK))
        assert read_exactly(disk.source, 0, len(DISK)) == DISK


@pytest.mark.parametrize("kind", ["gzip", "bzip2"])
def test_a_container_that_cannot_be_read_in_any_order_is_refused_with_the_command(kind: str) -> None:
    packed = compress(content_of(CONTAINERS["qcow2"].make(DISK)), KINDS[kind])
    with pytest.raises(Rejected) as caught, opened(packed):
        pass
    assert "qcow2" in caught.value.why
    assert f"{kind} -dc < web.img.xx" in caught.value.hint


def test_reading_in_order_returns_pieces_up_to_the_end() -> None:
    with as_packed(pack_here(DISK, "gzip"), "gzip") as file:
        flow = Flow(file, SeekPoint(0, Segment(0)))
        assert flow.read_exactly(100) == DISK[:100]
        assert flow.read_exactly(len(DISK)) == DISK[100:]
        assert flow.is_done
        assert flow.read_exactly(KIB) == b""


def test_a_place_after_a_long_run_of_zeros_is_reached_at_once() -> None:
    """Few places in there allow a copy of the decompressor: an input of 32 KiB has 33 MiB of zeros."""
    with counting(compress(b"begin" * MIB + bytes(160 * MIB) + b"end", "gzip -1"), "gzip") as (file, source):
        assert source.is_seekable
        assert read_exactly(source, 165 * MIB, 3) == b"end"
        assert file.begun == 0


def test_a_file_that_is_opened_again_is_read_from_the_places_of_the_first_opening() -> None:
    """The file of the first opening is closed by then."""
    disk = b"begin" * MIB + bytes(160 * MIB) + b"more" * MIB
    access = DiskAccess()
    with memory_file(pack_here(disk, "gzip")) as file:
        for place in (0, 166 * MIB, 168 * MIB):
            again = os.fdopen(os.dup(file.fileno()), "rb", buffering=0)
            with closing(open_disk(again, name="web.img.gz", access=access).source) as source:
                assert read_exactly(source, place, 100) == disk[place : place + 100]


class Uncopied:
    """A stream that cannot be copied."""

    is_done, place = False, 0

    def read(self, limit: int, /) -> bytes:
        return bytes(limit)

    def copy(self, file: ContainerFile, /) -> None:
        del file


def test_unpacking_does_not_begin_elsewhere_when_a_place_cannot_be_used() -> None:
    point = SeekPoint(5, Segment(0), Uncopied())
    with as_packed(pack_here(DISK, "gzip"), "gzip") as file, pytest.raises(RuntimeError, match="byte 5"):
        Flow(file, point)
