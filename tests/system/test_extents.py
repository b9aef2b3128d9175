import os
import random
import tracemalloc
from io import FileIO
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.sizes import MIB
from uecwatchd.system.extents import HOLE_BYTES, Extent, align_extents, find_extents, merge_extents


def written(path: Path, size: int, places: dict[int, bytes]) -> Path:
    with path.open("wb") as file:
        for offset, data in places.items():
            file.seek(offset)
            file.write(data)
        file.truncate(size)
    return path


def extents(path: Path) -> tuple[Extent, ...]:
    with path.open("rb", buffering=0) as file:
        return find_extents(file.fileno(), path.stat().st_size)


@pytest.mark.parametrize(
    ("size", "places", "expected"),
    [
        (0, {}, ()),
        (5 * MIB, {}, ()),
        (MIB + 5, {0: b"x" * (MIB + 5)}, (Extent(0, MIB + 5),)),
        (8 * MIB, {0: b"boot", 4 * MIB: b"x" * MIB}, (Extent(0, HOLE_BYTES), Extent(4 * MIB, MIB))),
        (8 * MIB, {8 * MIB - 1: b"x"}, (Extent(8 * MIB - HOLE_BYTES, HOLE_BYTES),)),
        (MIB, {0: b"x", 2 * HOLE_BYTES - 1: b"x"}, (Extent(0, 2 * HOLE_BYTES),)),
    ],
    ids=["empty", "all hole", "no hole", "two", "the end", "too short a hole"],
)
def test_what_is_stored_is_found(
    tmp_path: Path, size: int, places: dict[int, bytes], expected: tuple[Extent, ...]
) -> None:
    assert extents(written(tmp_path / "image", size, places)) == expected


def test_all_that_was_written_is_within_what_is_found(tmp_path: Path) -> None:
    chance = random.Random(4)  # noqa: S311 (the same on every run)
    for number in range(20):
        size = chance.randrange(64 * MIB)
        places = {chance.randrange(size): bytes([255]) * chance.randrange(1, 5000) for _ in range(50)}
        places = {at: data[: size - at] for at, data in places.items()}
        found = extents(written(tmp_path / str(number), size, places))
        for at, data in places.items():
            end = at + len(data)
            assert any(one.offset <= at and end <= one.offset + one.length for one in found)
        assert all(one.offset % HOLE_BYTES == 0 for one in found)
        assert sum(one.length for one in found) <= 50 * 3 * HOLE_BYTES


def test_where_the_system_cannot_tell_all_of_the_file_is_taken() -> None:
    with FileIO("/proc/self/maps") as file:
        assert find_extents(file.fileno(), 5000) == (Extent(0, 5000),)


def test_a_descriptor_that_is_none_is_an_error(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    os.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        find_extents(descriptor, 1)


@given(
    gaps=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), max_size=30), limit=st.integers(1, 12)
)
def test_too_many_extents_are_joined_over_the_shortest_holes(gaps: list[tuple[int, int]], limit: int) -> None:
    at, before = 0, []
    for hole, length in gaps:
        before.append(Extent(at + hole, length))
        at += hole + length
    after = merge_extents(before, limit)
    assert len(after) == min(len(before), limit)
    for one in before:
        assert any(n.offset <= one.offset and one.offset + one.length <= n.offset + n.length for n in after)
    filled = sum(n.length for n in after) - sum(one.length for one in before)
    holes = sorted(hole for hole, _ in gaps[1:])
    assert filled == sum(holes[: len(before) - len(after)])


@given(holes=st.lists(st.integers(1, 9), max_size=40), limit=st.integers(1, 12))
def test_which_holes_are_left_does_not_depend_on_how_many_are_known_at_once(
    holes: list[int], limit: int
) -> None:
    starts = [HOLE_BYTES * (number + place) for number, place in enumerate(accumulate(holes))]
    size = (starts or [0])[-1] + HOLE_BYTES
    whole = [Extent(start, HOLE_BYTES) for start in starts]
    assert align_extents(((start, start + 1) for start in starts), size, limit) == merge_extents(whole, limit)


def test_memory_stays_bounded_however_many_holes_a_file_has() -> None:
    stretches = ((at, at + 1) for at in range(0, 2 * HOLE_BYTES * 100_000, 2 * HOLE_BYTES))
    tracemalloc.start()
    assert len(align_extents(stretches, 2 * HOLE_BYTES * 100_000, 1000)) == 1000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
