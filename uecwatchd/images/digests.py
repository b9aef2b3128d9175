"""Digests that identify the content of an image.

The digest of a file is its SHA-256, as `sha256sum` prints it. For a file that is mostly holes this takes too
long: a terabyte of zeros takes as long as a terabyte of data. Such a file has the digest of its blocks
instead, and a block of zeros costs nothing:

    SHA-256 of the SHA-256s of its blocks of 1 MiB, where a block of nothing but zeros counts as 32 bytes of
    zero, followed by its length in bytes as a 64-bit number, big-endian

The result does not depend on which of the zeros are holes. A prefix distinguishes the two kinds.
"""

import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import cycle
from typing import Protocol

from uecwatchd.images.block_source import BlockSource
from uecwatchd.system import memory
from uecwatchd.system.extents import Extent
from uecwatchd.types import BLOCKS_MARK, ContentDigest

DIGEST_BLOCK_BYTES = 1024 * 1024
# Zeros that take half a second. Below that a SHA-256 is better: people compare it with `sha256sum`.
FLAT_HOLES_LIMIT_BYTES = 1 << 30
# A hole is digested in steps of this size, so that `close` need not wait for a large one.
SKIP_BYTES = 64 * 1024 * 1024
# Pieces in the queue of a digest: enough that reader and digest rarely wait for each other.
WAITING_LIMIT = 8
# Long enough that hashing runs outside Python's lock, short enough that a stop takes effect at once.
READ_BYTES = 1024 * 1024
ZEROS = bytes(DIGEST_BLOCK_BYTES)
ZERO_BLOCK_DIGEST = bytes(hashlib.sha256().digest_size)


class Digest(Protocol):
    """Digest of a content that arrives in order, with its holes."""

    def update(self, data: bytes | memoryview, /) -> None: ...

    def skip(self, count: int, /) -> None:
        """Add `count` bytes of zero."""

    def text(self) -> str: ...


def choose_digest(size: int, *, stored: int) -> Digest:
    """Return an empty digest of the kind for an image of `size` bytes with `stored` bytes on disk.

    A copy with other holes may get the other kind.
    """
    holes = size - stored
    return BlockDigest() if holes > max(FLAT_HOLES_LIMIT_BYTES, stored) else FlatDigest()


def digest_like(digest: ContentDigest) -> Digest:
    """Return an empty digest of the kind that produced this text."""
    return FlatDigest() if digest.is_plain_sha256 else BlockDigest()


def read_digest(
    source: BlockSource,
    digest: Digest | None = None,
    *,
    progress: Callable[[int], None] = lambda _done: None,
) -> ContentDigest:
    """Read all of `source` once and return its digest's text. Holes are not read.

    `digest` is an empty one; without it, one of the kind for this source is used. `progress` is called with
    the number of bytes done so far, and may raise to stop.
    """
    with closing(BackgroundDigest(digest or choose_digest(source.size, stored=source.stored_bytes))) as taken:
        _feed(source, taken, progress)
        return ContentDigest(taken.text())


def _feed(source: BlockSource, digest: "BackgroundDigest", progress: Callable[[int], None]) -> None:
    # One is read into while the others wait for the digest, which is about as fast as the reading.
    buffers, done = cycle([memory.allocate_pages(READ_BYTES) for _ in range(WAITING_LIMIT + 2)]), 0
    for extent in (*source.extents(), Extent(source.size, 0)):
        while hole := min(extent.offset - done, SKIP_BYTES):
            digest.skip(hole)
            done += hole
            progress(done)
        end, buffer = done + extent.length, next(buffers)
        while count := source.read_into(done, buffer[: end - done]):
            digest.update(buffer[:count])
            done, buffer = done + count, next(buffers)
            progress(done)


def json_fields(digest: ContentDigest) -> dict[str, str | None]:
    """Return a digest as it is written to JSON: `sha256` is always there, and null if it is not known."""
    if digest.is_plain_sha256:
        return {"sha256": digest or None}
    return {"sha256": None, "digest": digest}


def tag(digest: ContentDigest) -> dict[str, str]:
    """Return a digest as the tag of an image."""
    return {"sha256" if digest.is_plain_sha256 else "digest": digest}


def describe(digest: ContentDigest) -> str:
    """Return a digest as part of a sentence."""
    return f"SHA-256 {digest}" if digest.is_plain_sha256 else f"digest {digest}"


class FlatDigest:
    """SHA-256 in hex, or another standard algorithm."""

    def __init__(self, algorithm: str = "sha256") -> None:
        self._hash = hashlib.new(algorithm)
        self.update = self._hash.update

    def skip(self, count: int, /) -> None:
        for at in range(0, count, DIGEST_BLOCK_BYTES):
            self.update(memoryview(ZEROS)[: count - at])

    def text(self) -> str:
        return self._hash.hexdigest()


class BlockDigest:
    """Digest of the blocks, as described above."""

    def __init__(self) -> None:
        self._tree = hashlib.sha256()
        self._block = hashlib.sha256()
        self._is_zero = True  # only zeros have arrived for the current block
        self._length = 0

    def update(self, data: bytes | memoryview, /) -> None:
        data = memoryview(data)
        while data:
            piece = data[: DIGEST_BLOCK_BYTES - self._length % DIGEST_BLOCK_BYTES]
            self._take(piece, is_zero=self._is_zero and _is_zero(piece))
            data = data[len(piece) :]

    def skip(self, count: int, /) -> None:
        while count:
            room = DIGEST_BLOCK_BYTES - self._length % DIGEST_BLOCK_BYTES
            if room == DIGEST_BLOCK_BYTES and count >= DIGEST_BLOCK_BYTES:
                self._skip_blocks(count // DIGEST_BLOCK_BYTES)
                count %= DIGEST_BLOCK_BYTES
                continue
            piece = memoryview(ZEROS)[: min(room, count)]
            self._take(piece, is_zero=self._is_zero)
            count -= len(piece)

    def text(self) -> str:
        tree = self._tree.copy()
        if self._length % DIGEST_BLOCK_BYTES:
            tree.update(ZERO_BLOCK_DIGEST if self._is_zero else self._block.digest())
        tree.update(self._length.to_bytes(8))
        return BLOCKS_MARK + tree.hexdigest()

    def _take(self, piece: memoryview, *, is_zero: bool) -> None:
        self._is_zero = is_zero
        if not (is_zero and len(piece) == DIGEST_BLOCK_BYTES):
            self._block.update(piece)
        self._length += len(piece)
        if self._length % DIGEST_BLOCK_BYTES == 0:
            self._tree.update(ZERO_BLOCK_DIGEST if is_zero else self._block.digest())
            self._block, self._is_zero = hashlib.sha256(), True

    def _skip_blocks(self, count: int) -> None:
        at_once = DIGEST_BLOCK_BYTES // len(ZERO_BLOCK_DIGEST)
        for done in range(0, count, at_once):
            self._tree.update(memoryview(ZEROS)[: len(ZERO_BLOCK_DIGEST) * min(at_once, count - done)])
        self._length += count * DIGEST_BLOCK_BYTES


class BackgroundDigest:
    """Digest that is computed in another thread, while the caller reads the next piece.

    Do not write to a piece after passing it here. At most WAITING_LIMIT pieces wait. Call `close` at the end.
    """

    def __init__(self, digest: Digest) -> None:
        self._digest = digest
        self._waiting: deque[Future[None]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="digest")

    def update(self, data: bytes | memoryview, /) -> None:
        self._append(self._thread.submit(self._digest.update, data))

    def skip(self, count: int, /) -> None:
        for done in range(0, count, SKIP_BYTES):
            self._append(self._thread.submit(self._digest.skip, min(SKIP_BYTES, count - done)))

    def text(self) -> str:
        while self._waiting:
            self._waiting.popleft().result()
        return self._digest.text()

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _append(self, done: Future[None]) -> None:
        self._waiting.append(done)
        if len(self._waiting) > WAITING_LIMIT:
            self._waiting.popleft().result()


def _is_zero(piece: memoryview) -> bool:
    # The first and last byte nearly always decide. Comparing memoryviews is slow, comparing bytes is fast.
    return not piece[0] and not piece[-1] and bytes(piece) == ZEROS[: len(piece)]
