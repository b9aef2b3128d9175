import gzip
import zlib
from secrets import token_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from uecwatchd.bundle.deflate import (
    HEADER,
    LIBRARIES,
    Deflater,
    choose_deflater,
    gzip_trailer,
    max_deflated_bytes,
)

BLOCKS = st.lists(
    st.one_of(
        st.binary(max_size=300),
        st.builds(lambda one, count: one * count, st.binary(min_size=1, max_size=9), st.integers(0, 60_000)),
    ),
    max_size=5,
)


@pytest.fixture(params=[(name, how) for name in LIBRARIES for how in ("fast", "small")], ids=str)
def library(request: pytest.FixtureRequest) -> Deflater:
    name, compression = request.param
    return choose_deflater(compression, [name])


def member(library: Deflater, blocks: list[bytes]) -> bytes:
    crc = 0
    for block in blocks:
        crc = library.crc32(block, crc)
    stretches = [library.block(block) for block in blocks]
    return b"".join((HEADER, *stretches, gzip_trailer(crc, sum(map(len, blocks)))))


@settings(max_examples=30)
@given(blocks=BLOCKS)
@example(blocks=[])
@example(blocks=[b""])
def test_blocks_that_were_deflated_apart_are_one_gzip_member(blocks: list[bytes]) -> None:
    for name, levels in LIBRARIES.items():
        for compression in levels:
            made = member(choose_deflater(compression, [name]), blocks)
            inflate = zlib.decompressobj(31)
            assert inflate.decompress(made) == b"".join(blocks) == gzip.decompress(made)
            assert inflate.eof
            assert not inflate.unused_data


def test_a_block_is_deflated_alike_whatever_precedes_it(library: Deflater) -> None:
    block = bytes(range(256)) * 4096
    alone = library.block(block)
    library.block(b"something else" * 100)
    assert library.block(block) == alone
    assert len(alone) < len(block) / 10


def test_incompressible_data_hardly_grows(library: Deflater) -> None:
    block = token_bytes(1 << 20)
    made = member(library, [block] * 3)
    assert len(made) <= max_deflated_bytes(3 << 20, block=1 << 20) < (3 << 20) * 1.002


def test_a_length_of_4_gib_and_more_is_written_as_gzip_does() -> None:
    assert gzip_trailer(0, (1 << 32) + 5) == gzip_trailer(0, 5)


def test_the_first_library_that_is_installed_is_taken() -> None:
    assert choose_deflater("fast", ["zlib"]).module is zlib
    with pytest.raises(LookupError, match="none of nothing"):
        choose_deflater("fast", ["nothing"])
