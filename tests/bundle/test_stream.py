import hashlib
import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from uecwatchd.bundle.stream import CHUNK_BYTES, PART_SIZE, Bundling, Secret
from uecwatchd.errors import Deferred, Rejected

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
    CHUNK_BYTES - 1,
    CHUNK_BYTES,
    CHUNK_BYTES + 1,
)


class Counting(io.BytesIO):
    """A source that knows how much was asked of it."""

    taken = 0

    def readinto(self, buffer):
        count = super().readinto(buffer)
        self.taken += count
        return count


def bundling(source, *, size: int, part_size: int = 100_000, progress=None, secret=None) -> Bundling:
    return Bundling(
        source,
        name="karmic.img",
        size=size,
        prefix="karmic",
        secret=secret or Secret.random(),
        part_size=part_size,
        progress=progress,
    )


@pytest.mark.parametrize("size", EDGES)
def test_an_image_of_an_awkward_size_comes_back_as_it_was(bundle: Callable, size: int) -> None:
    found, sink = bundle(DENSE[:size], part_size=65536).unbundle()
    assert sink.data == DENSE[:size]
    assert (found.name, found.size) == ("karmic.img", size)
    assert found.sha256 == hashlib.sha256(DENSE[:size]).hexdigest()


@settings(max_examples=80, deadline=None)
@given(image=st.binary(max_size=4000), repeat=st.integers(1, 40), part_size=st.integers(1, 9000))
@example(image=b"\0" * 512, repeat=40, part_size=1)
def test_any_image_cut_at_any_size_comes_back_as_it_was(
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
    while whole % pieces:
        pieces -= 1
    part_size = whole // pieces + off

    made = bundle(DENSE[:300_000], secret=secret, part_size=part_size)
    sizes = [len(data) for data in made.objects.values()]
    assert sum(sizes) == whole == made.manifest.bundled_size
    assert set(sizes[:-1]) <= {part_size}
    assert 0 < sizes[-1] <= part_size
    assert made.unbundle()[1].data == DENSE[:300_000]


@pytest.fixture(scope="module")
def brimful(bundle: Callable) -> int:
    """An image size at which the ciphertext of dense data fills one real part to the last byte."""
    dense = hashlib.shake_256().digest(PART_SIZE)
    size = PART_SIZE - 30_000
    for _ in range(20):
        encrypted = bundle(dense[:size]).manifest.bundled_size
        if encrypted == PART_SIZE:
            return size
        size += PART_SIZE - encrypted
    raise AssertionError("no image size gives a ciphertext of exactly one part")


@pytest.mark.parametrize(
    ("more", "parts"), [(-16, 1), (0, 1), (16, 2)], ids=["one block less", "full", "one block more"]
)
def test_a_real_part_is_full_at_10_mib(bundle: Callable, brimful: int, more: int, parts: int) -> None:
    image = hashlib.shake_256().digest(PART_SIZE)[: brimful + more]
    made = bundle(image)
    assert len(made.objects) == parts
    assert made.manifest.bundled_size == PART_SIZE + more
    assert made.unbundle()[1].data == image


def test_the_same_secret_gives_the_same_parts_so_that_an_upload_can_be_resumed(bundle: Callable) -> None:
    secret = Secret.random()
    assert bundle(DENSE, secret=secret).manifest == bundle(DENSE, secret=secret).manifest
    assert bundle(DENSE).objects != bundle(DENSE).objects


def test_nothing_is_read_before_the_first_slice_is_asked_for() -> None:
    source = Counting(DENSE)
    bundling(source, size=len(DENSE))
    assert source.taken == 0


def test_no_more_is_read_than_the_next_slice_needs() -> None:
    source = Counting(DENSE)
    slices = bundling(source, size=len(DENSE), part_size=100_000)
    for count in range(1, 25):
        next(slices)
        assert source.taken <= count * 100_000 + 2 * CHUNK_BYTES


def test_memory_stays_at_two_parts_however_large_the_image(tmp_path: Path) -> None:
    image = tmp_path / "dense.img"
    with image.open("wb") as file:
        for _ in range(8):
            file.write(DENSE)
    part_size = 2 * 1024 * 1024
    with image.open("rb") as source:
        tracemalloc.start()
        for slice_ in bundling(source, size=image.stat().st_size, part_size=part_size):
            del slice_
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 2 * part_size + 8 * CHUNK_BYTES < image.stat().st_size / 2 + 1


def test_totals_are_there_only_after_the_last_slice() -> None:
    slices = bundling(io.BytesIO(DENSE), size=len(DENSE))
    next(slices)
    with pytest.raises(RuntimeError, match="after the last slice"):
        _ = slices.totals
    rest = list(slices)
    assert slices.totals.size == len(DENSE)
    assert slices.totals.sha256 == hashlib.sha256(DENSE).hexdigest()
    assert slices.totals.parts[1:] == tuple(piece.part for piece in rest)
    assert slices.totals.bundled_size == sum(part.size for part in slices.totals.parts)


def test_parts_are_numbered_from_zero_and_named_after_the_prefix() -> None:
    slices = list(bundling(io.BytesIO(DENSE[:250_000]), size=250_000))
    assert [piece.part.name for piece in slices] == ["karmic.part.0", "karmic.part.1", "karmic.part.2"]
    assert [piece.part.index for piece in slices] == [0, 1, 2]
    assert all(piece.part.sha1 == hashlib.sha1(piece.data).hexdigest() for piece in slices)


@pytest.mark.parametrize("size", [len(DENSE) - 1, len(DENSE) + 1, 0], ids=["longer", "shorter", "was empty"])
def test_a_source_of_another_length_than_announced_is_deferred(size: int) -> None:
    with pytest.raises(Deferred, match=r"karmic\.img: it changed while being read"):
        list(bundling(io.BytesIO(DENSE), size=size))


def test_a_disk_that_fails_while_being_read_is_deferred() -> None:
    class Failing(io.BytesIO):
        def readinto(self, buffer):
            raise OSError(5, "Input/output error")

    with pytest.raises(Deferred, match="Input/output error"):
        list(bundling(Failing(), size=1))


def test_progress_counts_the_image_up_to_its_size() -> None:
    heard: list[int] = []
    list(bundling(io.BytesIO(DENSE), size=len(DENSE), progress=heard.append))
    assert heard == sorted(heard)
    assert heard[-1] == len(DENSE)


@pytest.mark.parametrize("name", ["", "..", "a/b", "naïve.img", "x" * 101, "a\nb"])
def test_a_name_that_readers_could_stumble_over_is_rejected_at_once(name: str) -> None:
    with pytest.raises(Rejected, match="plain ASCII"):
        Bundling(io.BytesIO(), name=name, size=0, prefix="k", secret=Secret.random())


def test_a_secret_never_shows() -> None:
    secret = Secret.random()
    for text in (repr(secret), str(secret), f"{secret}"):
        assert text == "Secret()"
    assert len(secret.key) == len(secret.iv) == 16
    assert secret != Secret.random()
