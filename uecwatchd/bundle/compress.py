"""Parallel compression: blocks of an archive are read and deflated by several threads, and come out in order.

The digests need the blocks in order. Each runs in its own thread while later blocks are being deflated.
Memory holds the blocks ahead, in the deflating threads, and the blocks behind, which a digest has not taken
yet. Both are limited, and their buffers are used again.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

from uecwatchd.bundle.deflate import HEADER, Deflater, gzip_trailer
from uecwatchd.bundle.layout import Block
from uecwatchd.errors import Deferred
from uecwatchd.images.block_source import BlockSource
from uecwatchd.images.digests import Digest
from uecwatchd.system import memory

# Large enough that nearly all work is done outside Python's global lock, and that a separate block compresses
# as well as the whole; small compared with a part.
BLOCK_BYTES = 1024 * 1024
# Blocks that wait, in addition to one for each thread, so that all threads have work while the oldest block
# or a digest is slow. Bundles that are made at the same time share them: each uses the processors that
# another leaves free.
SPARE_BLOCKS = 4


@dataclass(frozen=True, slots=True)
class ImageReader:
    """An image to read, and its name in messages."""

    source: BlockSource = field(repr=False)
    name: str

    def fill(self, block: Block, buffer: memoryview) -> memoryview:
        """Fill `buffer` with the bytes of a block. Raises Deferred if they cannot be read, or end early."""
        at = len(block.before)
        buffer[:at] = block.before
        for piece in block.pieces:
            self._read(buffer[at : at + piece.length], piece.offset)
            at += piece.length
        buffer[at : block.size] = block.after
        return buffer[: block.size]

    def check_end(self) -> None:
        """Raise Deferred if the image is longer than expected."""
        if self._read_some(memoryview(bytearray(1)), self.source.size):
            raise self._changed(f"more than the {self.source.size} bytes it had")

    def _read(self, target: memoryview, offset: int) -> None:
        while target:
            count = self._read_some(target, offset)
            if not count:
                raise self._changed(f"{offset} bytes instead of {self.source.size}")
            target, offset = target[count:], offset + count

    def _read_some(self, target: memoryview, offset: int) -> int:
        try:
            return self.source.read_into(offset, target)
        except OSError as fault:
            hint = "It is tried again; check its disk or mount."
            raise Deferred(self.name, f"cannot read on: {fault.strerror}", hint) from fault

    def _changed(self, found: str) -> Deferred:
        hint = "Leave the file alone once it has been dropped; it is tried again."
        return Deferred(self.name, f"it changed while being read: {found}", hint)


class StreamDigests:
    """Digests of the whole stream: SHA-1, CRC-32 and length of the archive, and the digest of the image."""

    def __init__(self, digest: Digest, crc32: Callable[[bytes | memoryview, int], int]) -> None:
        self.archive_bytes = self.crc = self.image_bytes = 0
        self.sha1 = hashlib.sha1()
        self._digest, self._crc32 = digest, crc32

    def take_archive(self, data: memoryview) -> None:
        self.sha1.update(data)
        self.crc = self._crc32(data, self.crc)
        self.archive_bytes += len(data)

    def take_image(self, block: Block, data: memoryview) -> None:
        at = len(block.before)
        for piece in block.pieces:
            self.skip_to(piece.offset)
            self._digest.update(data[at : at + piece.length])
            at, self.image_bytes = at + piece.length, piece.offset + piece.length

    def skip_to(self, offset: int) -> None:
        self._digest.skip(offset - self.image_bytes)
        self.image_bytes = offset


@dataclass(frozen=True, slots=True)
class DeflatingBlock:
    """A block that is being deflated, and its buffer."""

    block: Block
    buffer: memoryview = field(repr=False)
    deflated: Future[bytes]


@dataclass(frozen=True, slots=True)
class DigestedBuffer:
    """A buffer, and the digests that are still reading it."""

    buffer: memoryview = field(repr=False)
    digests: tuple[Future[None], ...]


class DigestThreads:
    """A thread for each digest of the stream. Each takes the blocks in order."""

    def __init__(self, digests: StreamDigests) -> None:
        self._digests = digests
        self._archive = ThreadPoolExecutor(1, thread_name_prefix="sha1")
        self._image = ThreadPoolExecutor(1, thread_name_prefix="digest")

    def submit(self, block: Block, data: memoryview) -> tuple[Future[None], ...]:
        archive = self._archive.submit(self._digests.take_archive, data)
        return archive, self._image.submit(self._digests.take_image, block, data)

    def close(self) -> None:
        for pool in (self._archive, self._image):
            pool.shutdown(cancel_futures=True)


class CompressionPipeline:
    """Blocks in progress, with their threads.

    `ahead` blocks are being deflated, with a thread for each processor. `behind` blocks are read by one
    thread for each digest, in order.
    """

    def __init__(
        self,
        deflate_block: Callable[[Block, memoryview], bytes],
        digests: DigestThreads,
        *,
        threads: int,
        sharers: Callable[[], int],
    ) -> None:
        self._deflate_block, self._digests = deflate_block, digests
        self._ahead: deque[DeflatingBlock] = deque()
        self._behind: deque[DigestedBuffer] = deque()
        self._free: memoryview | None = None  # one is enough: for the next block
        self._threads, self._sharers = threads, sharers
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="deflate")

    def close(self) -> None:
        """Wait for the running steps, and drop the rest."""
        self._pool.shutdown(cancel_futures=True)
        self._digests.close()

    @property
    def is_full(self) -> bool:
        return len(self._ahead) >= self._threads + self._spare

    @property
    def _spare(self) -> int:
        return max(1, SPARE_BLOCKS // self._sharers())

    @property
    def is_empty(self) -> bool:
        return not self._ahead

    def begin(self, block: Block) -> None:
        buffer, self._free = self._free or memory.allocate_pages(BLOCK_BYTES), None
        deflated = self._pool.submit(self._deflate_block, block, buffer)
        self._ahead.append(DeflatingBlock(block, buffer, deflated))

    def finish(self) -> tuple[Block, bytes]:
        """Return the oldest block, deflated. Raises Deferred if it could not be read."""
        oldest = self._ahead.popleft()
        deflated = oldest.deflated.result()
        digests = self._digests.submit(oldest.block, oldest.buffer[: oldest.block.size])
        self._behind.append(DigestedBuffer(oldest.buffer, digests))
        while len(self._behind) > self._spare:
            self._wait_for_digests()
        return oldest.block, deflated

    def settle(self) -> None:
        """Wait until the digests have read everything."""
        while self._behind:
            self._wait_for_digests()

    def _wait_for_digests(self) -> None:
        """Make the memory of the oldest block available again."""
        oldest = self._behind.popleft()
        for digest in oldest.digests:
            digest.result()
        self._free = oldest.buffer


def compress(
    blocks: Iterable[Block],
    image: ImageReader,
    digests: StreamDigests,
    *,
    deflater: Deflater,
    threads: int,
    sharers: Callable[[], int],
    progress: Callable[[int], None],
) -> Generator[bytes]:
    """Yield an archive as one gzip member, in pieces. With the last piece, `digests` are complete.

    Raises Deferred if the image cannot be read, or is shorter or longer than expected.
    """

    def deflate_block(block: Block, buffer: memoryview) -> bytes:
        return deflater.block(image.fill(block, buffer))

    def finish_oldest() -> bytes:
        block, deflated = pipeline.finish()
        if block.pieces:
            progress(block.pieces[-1].offset + block.pieces[-1].length)
        return deflated

    pipeline = CompressionPipeline(deflate_block, DigestThreads(digests), threads=threads, sharers=sharers)
    with closing(pipeline):
        yield HEADER
        for block in blocks:
            pipeline.begin(block)
            while pipeline.is_full:
                yield finish_oldest()
        while not pipeline.is_empty:
            yield finish_oldest()
        pipeline.settle()
    image.check_end()
    digests.skip_to(image.source.size)
    progress(image.source.size)
    yield gzip_trailer(digests.crc, digests.archive_bytes)
