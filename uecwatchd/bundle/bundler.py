"""Bundling of an image in one pass, without a copy on disk.

    image's data → tar → gzip → AES-128-CBC → parts of 10 MiB

The archive is cut into blocks of 1 MiB. As many threads as there are processors each read a block and deflate
it. In order again, the blocks go through the steps that cannot run in parallel: the archive's SHA-1 and
CRC-32 and the image's digest, each in its own thread, and the cipher, in the thread that asks for parts.

The result depends only on the image and its holes, its name, the secret and the deflate library. With the
same secret, a second run makes the same parts. So after an interrupted upload, only the missing parts are
sent.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from secrets import token_bytes
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from uecwatchd.bundle import deflate, layout
from uecwatchd.bundle.compress import BLOCK_BYTES, ImageReader, StreamDigests, compress
from uecwatchd.bundle.deflate import choose_deflater
from uecwatchd.bundle.names import part_name
from uecwatchd.config.records import Compression
from uecwatchd.images.block_source import BlockSource
from uecwatchd.images.digests import Digest, FlatDigest
from uecwatchd.system import memory
from uecwatchd.system.extents import Extent
from uecwatchd.types import ContentDigest

# Eucalyptus nodes hold, verify and download again parts of up to 11 MiB; larger ones get no second try.
PART_SIZE = 10 * 1024 * 1024
# More threads would have no work: the cipher runs in one thread, and is four times as fast as one of these.
MAX_THREADS = 4
AES_BLOCK_BYTES = 16
SECRET_BYTES = 16
# Maximum that a tar adds to a file: its header, and blocks of NULs up to a full record of 20 blocks.
TAR_BYTES = 512 + 2 * 10240


@dataclass(frozen=True, slots=True)
class Secret:
    """AES-128 key and initialisation vector of a bundle. Never shown."""

    key: bytes = field(repr=False)
    iv: bytes = field(repr=False)

    @classmethod
    def random(cls) -> "Secret":
        return cls(token_bytes(SECRET_BYTES), token_bytes(SECRET_BYTES))


@dataclass(frozen=True, slots=True)
class Part:
    """One stored object of a bundle. Manifests contain no sizes: a part read from one has `size` 0."""

    index: int
    name: str
    size: int
    sha1: str  # of the encrypted bytes; nodes compare it before they decrypt


@dataclass(frozen=True, slots=True)
class PartData:
    """A finished part with its bytes, which are overwritten after it was released."""

    part: Part
    data: memoryview = field(repr=False)


@dataclass(frozen=True, slots=True)
class Totals:
    """Facts about an image and its bundle, complete after the last part. Sizes in bytes, digests in hex."""

    size: int
    bundled_size: int
    tar_sha1: str
    digest: ContentDigest  # of the image itself, of the requested kind
    parts: tuple[Part, ...]


class Bundling(Iterator[PartData]):
    """Iterator over the parts of a bundle, in order; `totals` is available after the last.

    Release each part when it is stored. Memory holds the parts that were not released, and a few blocks, for
    an image of any size. `sparse` leaves holes out of the archive. `sharers` returns how many bundles are
    being made now, including this one. `part_size` is a multiple of 16. `progress` is called with the number
    of bytes of the image that are done. Raises `Rejected` at once if `name` does not fit into a tar header;
    `Deferred` if the source is shorter or longer than its size, or cannot be read. Call `close` to give up
    before the end.
    """

    def __init__(
        self,
        source: BlockSource,
        *,
        name: str,
        prefix: str,
        secret: Secret,
        sparse: bool = True,
        digest: Digest | None = None,
        compression: Compression = "fast",
        threads: int | None = None,
        sharers: Callable[[], int] = lambda: 1,
        part_size: int = PART_SIZE,
        progress: Callable[[int], None] = lambda _done: None,
    ) -> None:
        deflater = choose_deflater(compression)
        self._size = source.size
        self._digest = digest or FlatDigest()
        self._digests = StreamDigests(self._digest, deflater.crc32)
        self._encryptor = PartEncryptor(secret, prefix, part_size)
        self._totals: Totals | None = None
        extents = source.extents() if sparse else (Extent(0, source.size),)
        self._stream = compress(
            layout.archive_blocks(name, size=source.size, extents=extents, block_bytes=BLOCK_BYTES),
            ImageReader(source, name),
            self._digests,
            deflater=deflater,
            threads=threads or min(MAX_THREADS, len(os.sched_getaffinity(0))),
            sharers=sharers,
            progress=progress,
        )
        self._parts = self._encryptor.encrypt(self._stream)

    def __next__(self) -> PartData:
        try:
            return next(self._parts)
        except StopIteration:
            self._totals = self._total()
            raise

    def release(self, part: PartData) -> None:
        """Make the memory of the part available again."""
        self._encryptor.release(part)

    def close(self) -> None:
        self._stream.close()

    @property
    def totals(self) -> Totals:
        if self._totals is None:
            raise RuntimeError("totals are known only after the last part")
        return self._totals

    def _total(self) -> Totals:
        parts = tuple(self._encryptor.parts)
        return Totals(
            size=self._size,
            bundled_size=sum(part.size for part in parts),
            tar_sha1=self._digests.sha1.hexdigest(),
            digest=ContentDigest(self._digest.text()),
            parts=parts,
        )


class PartEncryptor:
    """Encryption of a stream directly into the memory of its parts."""

    def __init__(self, secret: Secret, prefix: str, part_size: int) -> None:
        self._cipher = Cipher(AES(secret.key), CBC(secret.iv)).encryptor()
        self._prefix, self._part_size = prefix, part_size
        self._spare: Any = None  # one is enough: for the next part
        self.parts: list[Part] = []

    def encrypt(self, stream: Iterable[bytes]) -> Iterator[PartData]:
        """Yield parts of `part_size`; the last one has the rest, and is never empty."""
        # `taken` are the bytes of a part that went into the cipher, `given` those that came out: the cipher
        # keeps an incomplete block. The digest is updated in small pieces: during a whole part at once, the
        # deflating threads would have nothing to do.
        room, sha1, taken, given = self._buffer(), hashlib.sha1(), 0, 0
        for data in add_padding(stream):
            rest = memoryview(data)
            while rest:
                piece, rest = rest[: self._part_size - taken], rest[self._part_size - taken :]
                fresh = room[given : given + self._cipher.update_into(piece, room[given:])]
                sha1.update(fresh)
                taken, given = taken + len(piece), given + len(fresh)
                if taken == self._part_size:
                    yield self._finish(room[:given], sha1.hexdigest())
                    room, sha1, taken, given = self._buffer(), hashlib.sha1(), 0, 0
        if given:
            yield self._finish(room[:given], sha1.hexdigest())

    def release(self, part: PartData) -> None:
        self._spare = part.data.obj

    def _buffer(self) -> memoryview:
        # The cipher requires space for one block more than it fills.
        spare, self._spare = self._spare, None
        return (
            memory.allocate_pages(self._part_size + AES_BLOCK_BYTES) if spare is None else memoryview(spare)
        )

    def _finish(self, data: memoryview, sha1: str) -> PartData:
        index = len(self.parts)
        part = Part(index, part_name(self._prefix, index), len(data), sha1)
        self.parts.append(part)
        return PartData(part, data)


def add_padding(stream: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the stream, padded to whole blocks of the cipher: PKCS#7, RFC 5652 section 6.3."""
    length = 0
    for data in stream:
        length += len(data)
        yield data
    fill = AES_BLOCK_BYTES - length % AES_BLOCK_BYTES
    yield bytes([fill]) * fill


def max_bundled_bytes(size: int) -> int:
    """Return the maximum size of the bundle of an image of `size` bytes, if nothing can be compressed."""
    return deflate.max_deflated_bytes(size + TAR_BYTES, block=BLOCK_BYTES) + AES_BLOCK_BYTES


def max_parts(size: int) -> int:
    """Return the maximum number of parts for an image of `size` bytes."""
    return -(-max_bundled_bytes(size) // PART_SIZE)
