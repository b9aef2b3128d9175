"""Blocks over a source: it reads as if they had been written to it."""

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.memory_source import MemorySource
from uecwatchd.images.block_source import read_exactly
from uecwatchd.images.prepare.overlay import OverlaidSource
from uecwatchd.system.extents import HOLE_BYTES, Extent

SIZE, STEP = 8 * HOLE_BYTES, 1024


@st.composite
def blocks(draw: st.DrawFn) -> dict[int, bytes]:
    places = draw(st.sets(st.integers(0, SIZE // STEP - 1), max_size=12))
    return {place * STEP: draw(st.binary(min_size=1, max_size=STEP)) for place in places}


@given(blocks(), st.integers(0, SIZE), st.integers(0, 3 * HOLE_BYTES))
@settings(max_examples=30)
def test_it_reads_as_if_the_blocks_were_written(over: dict[int, bytes], offset: int, length: int) -> None:
    below = bytes(range(256)) * (SIZE // 256)
    expected = bytearray(below)
    for start, block in over.items():
        expected[start : start + len(block)] = block
    source = OverlaidSource(MemorySource(below), over)
    assert source.size == SIZE
    assert read_exactly(source, offset, length) == bytes(expected[offset : offset + length])


@given(blocks(), st.sets(st.integers(0, 7)))
@settings(max_examples=30)
def test_its_extents_are_those_of_both(over: dict[int, bytes], stored: set[int]) -> None:
    there = tuple(Extent(number * HOLE_BYTES, HOLE_BYTES) for number in sorted(stored))
    found = OverlaidSource(MemorySource(bytes(SIZE), stored=there), over).extents()
    covered = [number for e in found for number in range(e.offset, e.offset + e.length, HOLE_BYTES)]
    wanted = {n * HOLE_BYTES for n in stored} | {start - start % HOLE_BYTES for start in over}
    assert covered == sorted(wanted)


def test_any_number_of_threads_can_read_it() -> None:
    over = {start: bytes([start // STEP % 251]) * STEP for start in range(0, SIZE, 2 * STEP)}
    source = OverlaidSource(MemorySource(bytes(SIZE)), over)
    whole = read_exactly(source, 0, SIZE)
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda at: read_exactly(source, at, 5 * STEP), range(0, SIZE, 3 * STEP))
        for at, piece in zip(range(0, SIZE, 3 * STEP), found, strict=True):
            assert piece == whole[at : at + 5 * STEP]


def test_closing_it_closes_what_is_below() -> None:
    below = MemorySource(bytes(STEP))
    OverlaidSource(below, {}).close()
    assert below.is_closed
