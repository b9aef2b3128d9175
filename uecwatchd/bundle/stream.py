"""An image becomes a bundle's parts in one pass, without a byte of it copied to disk.

    image bytes → tar → gzip → AES-128-CBC → parts of 10 MiB

Each stage is a function from an iterator of chunks to an iterator of chunks; `Bundling` is the list of them.
What comes out depends on nothing but the image, its name, the secret, and the deflate library:
run once more with the same secret, it makes the same parts, so that of a bundle whose upload was interrupted
only those need to be sent that are not stored yet.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from secrets import token_bytes
from typing import Protocol

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from uecwatchd.bundle import tar
from uecwatchd.bundle.names import part_name
from uecwatchd.errors import Deferred

# Eucalyptus nodes hold, verify and fetch again parts of up to 11 MiB; larger ones get no second try.
PART_SIZE = 10 * 1024 * 1024
# Large enough that hashing and deflating run outside Python's lock nearly all the time, small beside a part.
CHUNK_BYTES = 1024 * 1024
# Deflate is nearly the whole cost of bundling. Programs and libraries on one core: level 1 does 74 MB/s
# and leaves 43 %, level 4 57 MB/s and 40 %, level 6 28 MB/s and 39 %. On a cloud's own network the bytes
# that a higher level saves are sent in less time than it takes to save them.
DEFLATE_LEVEL = 1
# 15 is deflate's largest window; 16 more make it gzip, whose header zlib writes with mtime 0 and no name.
GZIP_WINDOW = 16 + 15
AES_BLOCK_BITS = 128
SECRET_BYTES = 16
# What a tar adds to a file at most: its header, and blocks of NULs up to a full record of 20 blocks.
TAR_BYTES = 512 + 2 * 10240
# zlib's own bound for what it makes of n bytes has these besides n's own fractions, with gzip's frame.
GZIP_BYTES = 13 + 18


@dataclass(frozen=True, slots=True)
class Secret:
    """A bundle's AES-128 key and its initialisation vector. Never shown."""

    key: bytes = field(repr=False)
    iv: bytes = field(repr=False)

    @classmethod
    def random(cls) -> "Secret":
        return cls(token_bytes(SECRET_BYTES), token_bytes(SECRET_BYTES))


@dataclass(frozen=True, slots=True)
class Part:
    """What is stored as one object. Manifests do not tell sizes: in a part read from one, `size` is 0."""

    index: int
    name: str
    size: int
    sha1: str  # of what is stored; nodes compare it before they decrypt


@dataclass(frozen=True, slots=True)
class Slice:
    """A finished part and its bytes."""

    part: Part
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Totals:
    """What is known of an image and its bundle once all of it has passed. Sizes in bytes, digests in hex."""

    size: int
    bundled_size: int
    tar_sha1: str
    sha256: str  # of the image itself
    parts: tuple[Part, ...]


class Source(Protocol):
    """A binary file opened for reading."""

    def readinto(self, buffer: memoryview, /) -> int | None: ...


class Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


class Bundling(Iterator[Slice]):
    """Iterate over it for the slices, in order; then `totals` is there.

    Holds two parts and a few chunks in memory, however large the image.
    `size` is what the image is known to have: raises `Deferred` when the source turns out shorter or longer.
    Raises `Rejected` at once when `name` cannot stand in a tar header.
    `progress` is called with the image bytes read so far.
    """

    def __init__(
        self,
        source: Source,
        *,
        name: str,
        size: int,
        prefix: str,
        secret: Secret,
        part_size: int = PART_SIZE,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._sha256 = hashlib.sha256()
        self._tar_sha1 = hashlib.sha1()
        self._size = size
        self._parts: list[Part] = []
        self._totals: Totals | None = None

        image = read(source, name=name, size=size, progress=progress)
        image = hashed(image, self._sha256)
        stream = archived(image, header=tar.header(name, size=size), trailer=tar.trailer(size))
        stream = hashed(stream, self._tar_sha1)
        stream = deflated(stream)
        stream = encrypted(stream, secret)
        self._slices = cut(stream, prefix=prefix, part_size=part_size)

    def __next__(self) -> Slice:
        try:
            slice_ = next(self._slices)
        except StopIteration:
            self._totals = self._sum_up()
            raise
        self._parts.append(slice_.part)
        return slice_

    @property
    def totals(self) -> Totals:
        if self._totals is None:
            raise RuntimeError("totals are known only after the last slice")
        return self._totals

    def _sum_up(self) -> Totals:
        return Totals(
            size=self._size,
            bundled_size=sum(part.size for part in self._parts),
            tar_sha1=self._tar_sha1.hexdigest(),
            sha256=self._sha256.hexdigest(),
            parts=tuple(self._parts),
        )


Chunks = Iterator[bytes | memoryview]


def read(source: Source, *, name: str, size: int, progress: Callable[[int], None] | None) -> Chunks:
    """The image's bytes. Each chunk is overwritten by the next: a stage that keeps one has to copy it."""
    buffer = memoryview(bytearray(CHUNK_BYTES))
    done = 0
    while count := _read_into(buffer, source, name):
        done += count
        if done > size:
            raise _changed(name, f"more than the {size} bytes it had")
        if progress is not None:
            progress(done)
        yield buffer[:count]
    if done < size:
        raise _changed(name, f"{done} bytes instead of {size}")


def hashed(chunks: Chunks, digest: Hash) -> Chunks:
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def archived(image: Chunks, *, header: bytes, trailer: bytes) -> Chunks:
    yield header
    yield from image
    yield trailer


def deflated(chunks: Chunks) -> Chunks:
    """One gzip member: readers in Java stop after the first, and take what they have for the whole."""
    deflate = zlib.compressobj(DEFLATE_LEVEL, zlib.DEFLATED, GZIP_WINDOW)
    for chunk in chunks:
        yield deflate.compress(chunk)
    yield deflate.flush()


def encrypted(chunks: Chunks, secret: Secret) -> Chunks:
    padder = PKCS7(AES_BLOCK_BITS).padder()
    encryptor = Cipher(AES(secret.key), CBC(secret.iv)).encryptor()
    for chunk in chunks:
        yield encryptor.update(padder.update(chunk))
    yield encryptor.update(padder.finalize()) + encryptor.finalize()


def cut(chunks: Chunks, *, prefix: str, part_size: int) -> Iterator[Slice]:
    """Slices of `part_size`; the last one is what is left, and never empty."""
    held = bytearray()
    index = 0
    for chunk in chunks:
        held += chunk
        while len(held) >= part_size:
            yield _slice(bytes(held[:part_size]), index=index, prefix=prefix)
            del held[:part_size]
            index += 1
    if held:
        yield _slice(bytes(held), index=index, prefix=prefix)


def _slice(data: bytes, *, index: int, prefix: str) -> Slice:
    sha1 = hashlib.sha1(data).hexdigest()
    return Slice(Part(index, part_name(prefix, index), len(data), sha1), data)


def most_parts(size: int) -> int:
    """How many parts an image of that many bytes can become at worst, when nothing of it can be deflated."""
    archived = size + TAR_BYTES
    deflated = archived + (archived >> 12) + (archived >> 14) + (archived >> 25) + GZIP_BYTES
    return -(-(deflated + AES_BLOCK_BITS // 8) // PART_SIZE)


def _read_into(buffer: memoryview, source: Source, name: str) -> int:
    try:
        return source.readinto(buffer) or 0
    except OSError as fault:
        hint = "It is tried again; look at the disk or the mount that it lies on."
        raise Deferred(name, f"cannot read on: {fault.strerror}", hint) from fault


def _changed(name: str, found: str) -> Deferred:
    hint = "Leave the file alone once it has been dropped; it is tried again."
    return Deferred(name, f"it changed while being read: {found}", hint)
