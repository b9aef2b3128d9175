import gzip
import hashlib
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.memory_source import MemorySource
from uecwatchd.bundle.bundler import Bundling, Secret
from uecwatchd.bundle.compress import ImageReader
from uecwatchd.bundle.layout import archive_blocks
from uecwatchd.images.digests import BlockDigest
from uecwatchd.system.extents import HOLE_BYTES, MAX_EXTENTS, Extent

# Stretches and holes in units of 512 bytes, and what an image has beyond them.
RUNS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=60)


def image_of(runs: list[tuple[int, int]], tail: int) -> tuple[bytes, tuple[Extent, ...]]:
    data, found = bytearray(), list[Extent]()
    for number, (hole, length) in enumerate(runs):
        data += bytes(512 * hole)
        if length:
            found.append(Extent(len(data), 512 * length))
        data += hashlib.shake_256(b"%d" % number).digest(512 * length)
    if tail:
        found.append(Extent(len(data), tail))
        data += b"t" * tail
    return bytes(data), tuple(found)


def archive(image: bytes, extents: tuple[Extent, ...], block_bytes: int) -> bytes:
    source, buffer = ImageReader(MemorySource(image), "karmic.img"), memoryview(bytearray(block_bytes))
    plan = archive_blocks("karmic.img", size=len(image), extents=extents, block_bytes=block_bytes)
    made = [bytes(source.fill(block, buffer)) for block in plan]
    assert {len(piece) for piece in made[:-1]} <= {block_bytes}
    assert 0 < len(made[-1]) <= block_bytes
    return b"".join(made)


@settings(max_examples=60)
@given(runs=RUNS, tail=st.integers(0, 511), block_bytes=st.integers(512, 30_000))
def test_any_layout_cut_into_any_blocks_is_read_back_by_tarfile(
    runs: list[tuple[int, int]], tail: int, block_bytes: int
) -> None:
    image, extents = image_of(runs, tail)
    made = archive(image, extents, block_bytes)
    assert made == archive(image, extents, 1 << 20), "blocks leave no trace"
    assert len(made) % 10240 == 0
    with tarfile.open(fileobj=BytesIO(made), mode="r|") as tar:
        (member,) = [(one, tar.extractfile(one).read()) for one in tar]
    assert member[0].name == "karmic.img"
    assert member[0].size == len(image)
    assert member[1] == image


@pytest.mark.parametrize("count", [0, 1, 4, 5, 25, 26, 300])
@pytest.mark.parametrize("ends", ["in data", "in a hole"])
def test_gnu_tar_unpacks_an_archive_with_holes(tmp_path: Path, count: int, ends: str) -> None:
    runs = [(3, 2)] * count + ([(7, 0)] if ends == "in a hole" else [(0, 1)])
    image, extents = image_of(runs, 0)
    (tmp_path / "made.tar").write_bytes(archive(image, extents, 8192))
    done = subprocess.run(
        ["tar", "-xvf", "made.tar"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("karmic.img\n", "")
    assert (tmp_path / "karmic.img").read_bytes() == image


@settings(max_examples=40, deadline=None)
@given(
    runs=RUNS,
    tail=st.integers(0, 511),
    threads=st.integers(1, 4),
    part_size=st.integers(1, 4000).map(lambda blocks: 16 * blocks),
)
def test_any_layout_in_any_number_of_threads_comes_back_as_it_was(
    as_made: Callable, runs: list[tuple[int, int]], tail: int, threads: int, part_size: int
) -> None:
    image, extents = image_of(runs, tail)
    secret = Secret(b"k" * 16, b"i" * 16)

    def made(threads: int) -> object:
        bundling = Bundling(
            MemorySource(image, stored=extents),
            name="karmic.img",
            prefix="k",
            secret=secret,
            digest=BlockDigest(),
            threads=threads,
            part_size=part_size,
        )
        return as_made(bundling, secret), bundling.totals

    bundle, totals = made(threads)
    assert (bundle, totals) == made(1)
    found, sink = bundle.unbundle()
    assert sink.data == image
    digest = BlockDigest()
    digest.update(image)
    assert totals.digest == digest.text()
    holes = [(at, count) for at, count in sink.holes if count]
    assert sum(count for _, count in holes) == len(image) - sum(one.length for one in extents)
    assert found.size == len(image)


def test_gunzip_and_tar_read_a_bundle_of_many_blocks(tmp_path: Path, a_file: Callable) -> None:
    """Decrypted by openssl, as the reference tools do it."""
    image = hashlib.shake_256(b"x").digest(3 << 20) + b"zeros" * 300_000
    secret = Secret.random()
    with a_file(image) as source:
        bundling = Bundling(source, name="karmic.img", prefix="k", secret=secret)
        sealed = b"".join(bytes(piece.data) for piece in bundling)
    command = ["openssl", "enc", "-d", "-aes-128-cbc", "-K", secret.key.hex(), "-iv", secret.iv.hex()]
    zipped = subprocess.run(command, input=sealed, check=True, capture_output=True).stdout
    plain = subprocess.run(["gunzip"], input=zipped, check=True, capture_output=True).stdout
    assert hashlib.sha1(plain).hexdigest() == bundling.totals.tar_sha1
    assert gzip.decompress(zipped) == plain
    subprocess.run(["tar", "-x"], input=plain, cwd=tmp_path, check=True)
    assert (tmp_path / "karmic.img").read_bytes() == image


def test_memory_stays_bounded_however_many_holes_an_image_has() -> None:
    tracemalloc.start()
    extents = tuple(Extent(2 * HOLE_BYTES * n, HOLE_BYTES) for n in range(MAX_EXTENTS))
    plan = archive_blocks(
        "karmic.img", size=2 * HOLE_BYTES * len(extents), extents=extents, block_bytes=1 << 20
    )
    assert sum(block.size for block in plan) > HOLE_BYTES * len(extents)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 << 20
