import hashlib
import threading
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from io import FileIO
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.memory_source import MemorySource
from uecwatchd.bundle.bundler import PART_SIZE, Bundling, Secret
from uecwatchd.bundle.compress import BLOCK_BYTES, SPARE_BLOCKS
from uecwatchd.errors import Deferred, Rejected
from uecwatchd.images.block_source import FileSource

DENSE = hashlib.shake_256(b"karmic").digest(3 * 1024 * 1024)  # does not deflate
EDGES = (
    0,
    1,
    511,
    512,
    513,
    10239,
    10240,
    10241,
    8 * 10240 - 1024,
    BLOCK_BYTES - 1,
    BLOCK_BYTES,
    BLOCK_BYTES + 1,
)


# Whole blocks of the cipher, as a part of 10 MiB is.
PART_SIZES = st.integers(1, 600).map(lambda blocks: 16 * blocks)


def bundling(source, *, part_size: int = 100_000, **more) -> Bundling:
    return Bundling(
        source,
        name="karmic.img",
        prefix="karmic",
        secret=Secret.random(),
        part_size=part_size,
        **more,
    )


@pytest.mark.parametrize("size", EDGES)
def test_an_image_of_any_odd_size_comes_back_unchanged(bundle: Callable, size: int) -> None:
    found, sink = bundle(DENSE[:size], part_size=65536).unbundle()
    assert sink.data == DENSE[:size]
    assert (found.name, found.size) == ("karmic.img", size)
    assert found.digest == hashlib.sha256(DENSE[:size]).hexdigest()


@settings(max_examples=80, deadline=None)
@given(
    image=st.binary(max_size=4000),
    repeat=st.integers(1, 40),
    part_size=st.integers(1, 600).map(lambda blocks: 16 * blocks),
)
@example(image=b"\0" * 512, repeat=40, part_size=16)
def test_any_image_with_any_part_size_comes_back_unchanged(
    bundle, image: bytes, repeat: int, part_size: int
) -> None:
    made = bundle(image * repeat, part_size=part_size)
    found, sink = made.unbundle()
    assert sink.data == image * repeat
    assert [part.size for part in found.parts] == [len(data) for data in made.objects.values()]


@pytest.mark.parametrize("pieces", [1, 2, 3])
@pytest.mark.parametrize("off", [-1, 0, 1])
def test_no_part_is_empty_and_all_but_the_last_are_equal(bundle: Callable, pieces: int, off: int) -> None:
    secret = Secret(b"k" * 16, b"i" * 16)
    whole = len(b"".join(bundle(DENSE[:300_000], secret=secret).objects.values()))
    while whole % (16 * pieces):
        pieces -= 1
    part_size = whole // pieces + 16 * off

    made = bundle(DENSE[:300_000], secret=secret, part_size=part_size)
    sizes = [len(data) for data in made.objects.values()]
    assert sum(sizes) == whole == made.manifest.bundled_size
    assert set(sizes[:-1]) <= {part_size}
    assert 0 < sizes[-1] <= part_size
    assert made.unbundle()[1].data == DENSE[:300_000]


@pytest.fixture(scope="module")
def of_bundled_size(bundle: Callable) -> Callable[[int], bytes]:
    """Makes an image whose ciphertext has just so many bytes: dense data, and digits enough behind it."""
    dense = hashlib.shake_256().digest(PART_SIZE - 2 * BLOCK_BYTES)
    digits = hashlib.shake_256(b"digits").digest(4 * BLOCK_BYTES).hex().encode()

    def make(size: int) -> bytes:
        count = 2 * (size - len(dense))
        for _ in range(40):
            image = dense + digits[:count]
            encrypted = bundle(image).manifest.bundled_size
            if encrypted == size:
                return image
            count += 2 * (size - encrypted)
        raise AssertionError(f"no image found that gives {size} bytes")

    return make


@pytest.mark.parametrize(
    ("more", "parts"), [(-16, 1), (0, 1), (16, 2)], ids=["one block less", "full", "one block more"]
)
def test_a_real_part_is_full_at_10_mib(
    bundle: Callable, of_bundled_size: Callable, more: int, parts: int
) -> None:
    image = of_bundled_size(PART_SIZE + more)
    made = bundle(image)
    assert len(made.objects) == parts
    assert made.unbundle()[1].data == image


def test_the_same_secret_gives_the_same_parts_so_that_an_upload_can_be_resumed(bundle: Callable) -> None:
    secret = Secret.random()
    assert bundle(DENSE, secret=secret).manifest == bundle(DENSE, secret=secret).manifest
    assert bundle(DENSE).objects != bundle(DENSE).objects


def test_nothing_is_read_before_the_first_slice_is_asked_for() -> None:
    source = MemorySource(DENSE)
    source.announced = len(DENSE)
    slices = bundling(source)
    source.data = b""
    with pytest.raises(Deferred, match="0 bytes instead of"):
        next(slices)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_memory_stays_bounded_however_large_the_image(tmp_path: Path, threads: int) -> None:
    image = tmp_path / "dense.img"
    with image.open("wb") as file:
        for _ in range(16):
            file.write(DENSE)
    part_size = 2 * 1024 * 1024
    with closing(FileSource(image.open("rb", buffering=0))) as source:
        tracemalloc.start()
        slices = bundling(source, part_size=part_size, threads=threads)
        for slice_ in slices:
            slices.release(slice_)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    ahead_and_behind = 2 * (threads + SPARE_BLOCKS) + 1
    assert peak < 2 * part_size + (2 * ahead_and_behind + 2) * BLOCK_BYTES


def test_the_memory_of_a_slice_is_reused_after_its_release(a_file: Callable) -> None:
    with a_file(DENSE) as source:
        slices = bundling(source)
        places = set()
        for slice_ in slices:
            places.add(id(slice_.data.obj))
            slices.release(slice_)
    assert len(slices.totals.parts) > 20
    assert len(places) <= 2


def test_a_slice_that_is_not_released_never_changes(a_file: Callable) -> None:
    with a_file(DENSE) as source:
        kept = list(bundling(source))
    assert all(hashlib.sha1(piece.data).hexdigest() == piece.part.sha1 for piece in kept)


def test_an_abandoned_bundle_leaves_no_thread(a_file: Callable) -> None:
    before = threading.active_count()
    with a_file(DENSE) as source:
        slices = bundling(source)
        next(slices)
        assert threading.active_count() > before
        slices.close()
    assert threading.active_count() == before


def test_totals_are_known_only_after_the_last_slice(a_file: Callable) -> None:
    with a_file(DENSE) as source:
        slices = bundling(source)
        next(slices)
        with pytest.raises(RuntimeError, match="after the last part"):
            _ = slices.totals
        rest = list(slices)
    assert slices.totals.size == len(DENSE)
    assert slices.totals.digest == hashlib.sha256(DENSE).hexdigest()
    assert slices.totals.parts[1:] == tuple(piece.part for piece in rest)
    assert slices.totals.bundled_size == sum(part.size for part in slices.totals.parts)


def test_parts_are_numbered_from_zero_and_named_after_the_prefix(a_file: Callable) -> None:
    with a_file(DENSE[:250_000]) as source:
        slices = list(bundling(source))
    assert [piece.part.name for piece in slices] == ["karmic.part.0", "karmic.part.1", "karmic.part.2"]
    assert [piece.part.index for piece in slices] == [0, 1, 2]


@pytest.mark.parametrize("size", [len(DENSE) - 1, len(DENSE) + 1, 0], ids=["longer", "shorter", "was empty"])
def test_a_source_of_another_length_than_announced_is_deferred(size: int) -> None:
    source = MemorySource(DENSE, announced=size)
    with pytest.raises(Deferred, match=r"karmic\.img: it changed while being read"):
        list(bundling(source))


def test_a_file_that_cannot_be_read_is_deferred(tmp_path: Path) -> None:
    path = tmp_path / "karmic.img"
    path.write_bytes(b"x")
    with FileIO(path, "ab") as file, pytest.raises(Deferred, match="Bad file descriptor"):
        list(bundling(FileSource(file)))


def test_progress_counts_the_image_up_to_its_size(a_file: Callable) -> None:
    heard: list[int] = []
    with a_file(DENSE) as source:
        list(bundling(source, progress=heard.append))
    assert heard == sorted(heard)
    assert heard[-1] == len(DENSE)


@pytest.mark.parametrize("name", ["", "..", "a/b", "naïve.img", "x" * 101, "a\nb"])
def test_an_unusual_name_is_rejected_before_any_work(name: str) -> None:
    with pytest.raises(Rejected, match="plain ASCII"):
        Bundling(MemorySource(b""), name=name, prefix="k", secret=Secret.random())


def test_a_secret_is_not_in_a_representation() -> None:
    secret = Secret.random()
    for text in (repr(secret), str(secret), f"{secret}"):
        assert text == "Secret()"
    assert len(secret.key) == len(secret.iv) == 16
    assert secret != Secret.random()
