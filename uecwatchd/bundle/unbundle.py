"""Unbundling: from the parts back to the image, in one pass, with all checks that are possible.

    parts → their SHA-1s → AES-128-CBC → one gzip member → one tar member → the image's bytes and holes

Real servers check little of this: a bundle with a flipped bit or a missing part becomes "available", and
fails when it is first started. So this is checked before.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Literal, Protocol

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from uecwatchd.bundle.bundler import Part, Secret
from uecwatchd.bundle.damage import HINT, Damaged, damage_in
from uecwatchd.bundle.deflate import fastest_library
from uecwatchd.bundle.keys import unseal
from uecwatchd.bundle.manifest import Manifest
from uecwatchd.bundle.tar import TarMember, TarReader, read_member
from uecwatchd.errors import Rejected
from uecwatchd.images.digests import BackgroundDigest, Digest, FlatDigest, choose_digest
from uecwatchd.system.extents import Extent, data_bytes
from uecwatchd.types import ContentDigest

# A part is held until its SHA-1 is known to be right, so that damage is reported for the part and not for
# later effects. Parts that are larger than a node would hold are passed on at once.
HELD_BYTES = 11 * 1024 * 1024
# Parts that are downloaded at once: on any network, the next ones arrive while one is unpacked.
FETCHES = 3
# Bytes that are passed on at once.
CHUNK_BYTES = 1024 * 1024
GZIP_WINDOW = 16 + 15  # deflate's largest window, in gzip's frame
AES_BLOCK_BITS = 128
# euca2ools 1.2 and 1.3 took the archive's digest from a pipe that they never read: it is the digest of no
# data.
SHA1_OF_NOTHING = hashlib.sha1().hexdigest()
# zlib copies the input that it has not used yet, once for each chunk of output: with small input this is
# cheap.
PIECE_BYTES = 64 * 1024


class Hash(Protocol):
    """A hash as in hashlib."""

    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


class Sink(Protocol):
    """The destination of an image, in order. `skip` is a hole: `count` zeros that need not be stored."""

    def write(self, data: bytes, /) -> object: ...

    def skip(self, count: int, /) -> object: ...


class NullSink:
    """A sink for checks of a bundle: it drops everything."""

    def write(self, data: bytes, /) -> None:
        pass

    def skip(self, count: int, /) -> None:
        pass


class CountingSink:
    """A sink that passes an image on, and reports how many of its bytes have passed."""

    def __init__(self, sink: Sink, report: Callable[[int], None]) -> None:
        self._sink = sink
        self._report = report
        self._done = 0

    def write(self, data: bytes, /) -> None:
        self._sink.write(data)
        self._count(len(data))

    def skip(self, count: int, /) -> None:
        self._sink.skip(count)
        self._count(count)

    def _count(self, count: int) -> None:
        self._done += count
        self._report(self._done)


@dataclass(frozen=True, slots=True)
class Unbundled:
    """The result: name of the member, size with holes, digest, and the parts with their sizes.

    `tar_checked` is False if the manifest had no digest of the archive; digests of parts are always compared.
    """

    name: str
    size: int
    digest: ContentDigest
    tar_sha1: str
    parts: tuple[Part, ...]
    tar_checked: bool = True


def open_secret(manifest: Manifest, key: RSAPrivateKey, *, side: Literal["user", "cloud"]) -> Secret:
    """Decrypt the secret. Raises `Rejected` if this bundle was not made for the owner of `key`."""
    sealed = manifest.for_user if side == "user" else manifest.for_cloud
    with damage_in(manifest.name):
        return Secret(unseal(sealed.key, key), unseal(sealed.iv, key))


def unbundle(
    manifest: Manifest,
    fetch: Callable[[Part], Iterable[bytes]],
    *,
    secret: Secret,
    sink: Sink,
    digest: Digest | None = None,
) -> Unbundled:
    """Fetch the parts in order, and write the image into `sink` and `digest` (by default one that fits).

    Raises `Rejected` about the first bad part or, failing that, about the bundle. Until this returns, the
    data in the sink is not reliable: the last check comes after the last byte.
    """
    seen: list[Part] = []
    with damage_in(manifest.name), ExitStack() as stack:
        stream = stack.enter_context(closing(verify_parts(manifest, fetch, seen)))
        content = inflate(decrypt(stream, secret))
        reader = TarReader(content, stack.enter_context(closing(BackgroundDigest(FlatDigest("sha1")))))

        member = read_member(reader)
        if member.size != manifest.size:
            raise Damaged(
                f"its archive holds {member.size} bytes of image, its manifest says {manifest.size}"
            )
        stored = data_bytes(member.extents)
        taken = stack.enter_context(
            closing(BackgroundDigest(digest or choose_digest(member.size, stored=stored)))
        )
        copy_image(reader, member, sink, taken)
        tar_sha1, checked = reader.finish(), manifest.tar_sha1 != SHA1_OF_NOTHING
        if checked and tar_sha1 != manifest.tar_sha1:
            raise Damaged(f"its archive's SHA-1 is {tar_sha1}, its manifest says {manifest.tar_sha1}")
        return Unbundled(
            member.name, member.size, ContentDigest(taken.text()), tar_sha1, tuple(seen), checked
        )


@dataclass(frozen=True, slots=True)
class FetchedPart:
    """The beginning of a part in memory, and an iterator over the rest."""

    part: Part
    held: Sequence[bytes] = field(repr=False)
    size: int
    sha1: Hash
    rest: Iterator[bytes]


def verify_parts(
    manifest: Manifest, fetch: Callable[[Part], Iterable[bytes]], seen: list[Part]
) -> Generator[bytes]:
    """Yield the encrypted bytes of each part after checking its SHA-1. Appends parts with sizes to `seen`."""
    total = 0
    for fetched in _fetch_ahead(manifest.parts, fetch):
        part, size = fetched.part, fetched.size
        for chunk in fetched.rest:
            if size == fetched.size:
                yield from fetched.held
            fetched.sha1.update(chunk)
            size += len(chunk)
            yield chunk
        if (found := fetched.sha1.hexdigest()) != part.sha1:
            raise Rejected(part.name, f"its SHA-1 is {found}, the manifest says {part.sha1}", HINT)
        if size == fetched.size:
            yield from fetched.held
        seen.append(replace(part, size=size))
        total += size
    if total != manifest.bundled_size:
        raise Damaged(f"its parts are {total} bytes together, its manifest says {manifest.bundled_size}")


def _fetch_ahead(parts: Iterable[Part], fetch: Callable[[Part], Iterable[bytes]]) -> Iterator[FetchedPart]:
    """Yield the parts in order, while the next ones are being downloaded.

    `fetch` is called in this thread, and not before a part's turn; its result is read in other threads.
    """
    ahead: deque[Future[FetchedPart]] = deque()
    pool = ThreadPoolExecutor(FETCHES, thread_name_prefix="fetch")
    try:
        for part in parts:
            ahead.append(pool.submit(_fetch_part, part, iter(fetch(part))))
            if len(ahead) > FETCHES:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _fetch_part(part: Part, chunks: Iterator[bytes]) -> FetchedPart:
    sha1, held, size = hashlib.sha1(), list[bytes](), 0
    for chunk in chunks:
        sha1.update(chunk)
        held.append(chunk)
        size += len(chunk)
        if size > HELD_BYTES:
            break
    return FetchedPart(part, held, size, sha1, chunks)


def decrypt(chunks: Iterator[bytes], secret: Secret) -> Iterator[bytes]:
    decryptor = Cipher(AES(secret.key), CBC(secret.iv)).decryptor()
    unpadder = PKCS7(AES_BLOCK_BITS).unpadder()
    for chunk in chunks:
        yield unpadder.update(decryptor.update(chunk))
    try:
        last = unpadder.update(decryptor.finalize()) + unpadder.finalize()
    except ValueError:
        raise Damaged("its encryption does not end in proper padding") from None
    yield last


def inflate(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the content of the single gzip member. zlib checks its CRC and length."""
    module = fastest_library()
    inflate = module.decompressobj(GZIP_WINDOW)
    for chunk in chunks:
        for at in range(0, len(chunk), PIECE_BYTES):
            yield from _inflate_piece(inflate, chunk[at : at + PIECE_BYTES], module.error)
    if not inflate.eof:
        raise Damaged("its gzip member is cut off")


def _inflate_piece(inflate: Any, piece: bytes, error: type[Exception]) -> Iterator[bytes]:
    """Yield the content of a piece of input, at most one chunk at a time."""
    while True:
        try:
            chunk = inflate.decompress(piece, CHUNK_BYTES)
        except error as fault:
            raise Damaged(f"what was decrypted is not gzip, or not with this key: {fault}") from None
        if inflate.unused_data:
            raise Damaged("something follows its gzip member")
        yield chunk
        if len(chunk) < CHUNK_BYTES:
            return
        piece = inflate.unconsumed_tail


def copy_image(reader: TarReader, member: TarMember, sink: Sink, digest: Digest) -> None:
    """Pass the member's extents and holes to `sink` and `digest`."""
    at = 0
    for extent in chain(member.extents, [Extent(member.size, 0)]):
        if hole := extent.offset - at:
            sink.skip(hole)
            digest.skip(hole)
        for chunk in reader.take(extent.length):
            digest.update(chunk)
            sink.write(chunk)
        at = extent.offset + extent.length
