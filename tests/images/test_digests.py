import hashlib

from hypothesis import example, given, settings
from hypothesis import strategies as st

from uecwatchd.images.digests import (
    DIGEST_BLOCK_BYTES,
    FLAT_HOLES_LIMIT_BYTES,
    BlockDigest,
    FlatDigest,
    choose_digest,
    digest_like,
    json_fields,
    tag,
)
from uecwatchd.types import BLOCKS_MARK, ContentDigest

BYTES = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda count: b"\0" * count, st.integers(0, 3 * DIGEST_BLOCK_BYTES)),
    st.builds(lambda one, count: one * count, st.binary(min_size=1, max_size=8), st.integers(0, 400_000)),
)


def by_the_book(data: bytes) -> str:
    """Calculate the digest as the module's docstring describes it."""
    blocks = [data[at : at + DIGEST_BLOCK_BYTES] for at in range(0, len(data), DIGEST_BLOCK_BYTES)]
    digests = [hashlib.sha256(one).digest() if any(one) else bytes(32) for one in blocks]
    return BLOCKS_MARK + hashlib.sha256(b"".join(digests) + len(data).to_bytes(8)).hexdigest()


@settings(deadline=None)
@given(pieces=st.lists(BYTES, max_size=4))
@example(pieces=[b"\0" * (2 * DIGEST_BLOCK_BYTES)])
@example(pieces=[b"\0" * (DIGEST_BLOCK_BYTES - 1), b"\1"])
@example(pieces=[b"\1", b"\0" * DIGEST_BLOCK_BYTES])
def test_blocks_have_the_digest_that_is_written_down(pieces: list[bytes]) -> None:
    whole, cut = BlockDigest(), BlockDigest()
    whole.update(b"".join(pieces))
    for piece in pieces:
        cut.update(piece)
    assert whole.text() == cut.text() == by_the_book(b"".join(pieces))


@settings(deadline=None)
@given(pieces=st.lists(st.tuples(st.booleans(), BYTES), max_size=5))
def test_a_digest_does_not_depend_on_which_zeros_are_holes(pieces: list[tuple[bool, bytes]]) -> None:
    data = b"".join(bytes(len(piece)) if hole else piece for hole, piece in pieces)
    for kind in (FlatDigest, BlockDigest):
        read, skipped = kind(), kind()
        read.update(data)
        for hole, piece in pieces:
            skipped.skip(len(piece)) if hole else skipped.update(piece)
        assert read.text() == skipped.text()


def test_many_terabytes_of_hole_cost_nothing() -> None:
    digest = BlockDigest()
    digest.skip(16 << 40)
    tree = hashlib.sha256()
    for _ in range(16):
        tree.update(bytes(32 << 20))
    tree.update((16 << 40).to_bytes(8))
    assert digest.text() == BLOCKS_MARK + tree.hexdigest()


def test_the_plain_digest_is_that_of_sha256sum() -> None:
    digest = FlatDigest()
    digest.update(b"karmic")
    digest.skip(3 * DIGEST_BLOCK_BYTES + 1)
    assert digest.text() == hashlib.sha256(b"karmic" + bytes(3 * DIGEST_BLOCK_BYTES + 1)).hexdigest()


def test_only_what_is_mostly_holes_and_large_is_spared_the_plain_digest() -> None:
    assert isinstance(choose_digest(FLAT_HOLES_LIMIT_BYTES, stored=0), FlatDigest)
    assert isinstance(choose_digest(FLAT_HOLES_LIMIT_BYTES + 1, stored=0), BlockDigest)
    assert isinstance(
        choose_digest(10 * FLAT_HOLES_LIMIT_BYTES, stored=5 * FLAT_HOLES_LIMIT_BYTES), FlatDigest
    )
    assert isinstance(
        choose_digest(10 * FLAT_HOLES_LIMIT_BYTES, stored=4 * FLAT_HOLES_LIMIT_BYTES), BlockDigest
    )


def test_a_digest_tells_its_kind() -> None:
    for kind in (FlatDigest, BlockDigest):
        assert isinstance(digest_like(ContentDigest(kind().text())), kind)
    assert json_fields(ContentDigest(FlatDigest().text())) == {"sha256": hashlib.sha256().hexdigest()}
    assert json_fields(ContentDigest(BlockDigest().text())) == {
        "sha256": None,
        "digest": BlockDigest().text(),
    }
    assert json_fields(ContentDigest("")) == {"sha256": None}
    assert list(tag(ContentDigest(BlockDigest().text()))) == ["digest"]
