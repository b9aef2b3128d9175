"""A bundle's parts become the image again, in one pass, and everything that can be checked is.

    parts → their SHA-1s → AES-128-CBC → one gzip member → one tar member → the image's bytes and holes

Real servers check little of this: a bundle with a flipped bit or a missing part becomes "available" and fails
when it is first started. So we look ourselves, before anybody has to.
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
from uecwatchd.bundle.damage import HINT, Damaged, blamed_on
from uecwatchd.bundle.deflate import best_module
from uecwatchd.bundle.keys import unseal
from uecwatchd.bundle.manifest import Manifest
from uecwatchd.bundle.tar import Member, Tape, read_member
from uecwatchd.errors import Rejected
from uecwatchd.system.digests import Aside, Digest, Flat, fitting
from uecwatchd.system.extents import Extent

# A part is held back until its SHA-1 is seen to be right, so that damage is blamed on the part and not on
# what it does further down. Parts that are larger than a node would hold pass through as they come.
HELD_BYTES = 11 * 1024 * 1024
# Parts that are fetched at once: over any line, the next ones come while this one is taken apart.
FETCHES = 3
# What is handed on at once.
CHUNK_BYTES = 1024 * 1024
GZIP_WINDOW = 16 + 15  # deflate's largest window, in gzip's frame
AES_BLOCK_BITS = 128
# euca2ools 1.2 and 1.3 took the archive's digest from a pipe that they never read: it is that of nothing.
SHA1_OF_NOTHING = hashlib.sha1().hexdigest()
# Zlib copies what it could not use yet, once for each chunk it hands out: in small bites that costs nothing.
BITE_BYTES = 64 * 1024


class Hash(Protocol):
    """As hashlib has them."""

    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


class Sink(Protocol):
    """Where an image goes, in order. `skip` is a hole: so many bytes read as zeros and need not be stored."""

    def write(self, data: bytes, /) -> object: ...

    def skip(self, count: int, /) -> object: ...


class Nowhere:
    """The sink of those who only want to know whether a bundle is whole."""

    def write(self, data: bytes, /) -> None:
        pass

    def skip(self, count: int, /) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Unbundled:
    """What came out: the member's name, its size with holes, its digest, the parts with their sizes.

    `tar_checked` is whether the manifest had a digest of the archive; those of parts are always compared.
    """

    name: str
    size: int
    digest: str
    tar_sha1: str
    parts: tuple[Part, ...]
    tar_checked: bool = True


def open_secret(manifest: Manifest, key: RSAPrivateKey, *, side: Literal["user", "cloud"]) -> Secret:
    """Raises `Rejected` when this bundle was not sealed for the owner of `key`."""
    sealed = manifest.for_user if side == "user" else manifest.for_cloud
    with blamed_on(manifest.name):
        return Secret(unseal(sealed.key, key), unseal(sealed.iv, key))


def unbundle(
    manifest: Manifest,
    fetch: Callable[[Part], Iterable[bytes]],
    *,
    secret: Secret,
    sink: Sink,
    digest: Digest | None = None,
) -> Unbundled:
    """Fetches the parts in order and pours the image into `sink` and `digest`, by itself one that fits.

    Raises `Rejected` about the first part or, failing that, the bundle that is not as it should be.
    What the sink got until then is worth nothing: the last check comes after the last byte.
    """
    seen: list[Part] = []
    with blamed_on(manifest.name), ExitStack() as stack:
        stream = stack.enter_context(closing(verified(manifest, fetch, seen)))
        content = inflated(decrypted(stream, secret))
        tape = Tape(content, stack.enter_context(closing(Aside(Flat("sha1")))))

        member = read_member(tape)
        if member.size != manifest.size:
            raise Damaged(
                f"its archive holds {member.size} bytes of image, its manifest says {manifest.size}"
            )
        stored = sum(extent.length for extent in member.extents)
        taken = stack.enter_context(closing(Aside(digest or fitting(member.size, stored=stored))))
        pour(tape, member, sink, taken)
        tar_sha1, checked = tape.finish(), manifest.tar_sha1 != SHA1_OF_NOTHING
        if checked and tar_sha1 != manifest.tar_sha1:
            raise Damaged(f"its archive's SHA-1 is {tar_sha1}, its manifest says {manifest.tar_sha1}")
        return Unbundled(member.name, member.size, taken.text(), tar_sha1, tuple(seen), checked)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A part as far as it is held, and what there may be beyond that."""

    part: Part
    held: Sequence[bytes] = field(repr=False)
    size: int
    sha1: Hash
    rest: Iterator[bytes]


def verified(
    manifest: Manifest, fetch: Callable[[Part], Iterable[bytes]], seen: list[Part]
) -> Generator[bytes]:
    """The encrypted bytes, each part's once its SHA-1 was found right. Appends parts with sizes to `seen`."""
    total = 0
    for fetched in _fetched(manifest.parts, fetch):
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


def _fetched(parts: Iterable[Part], fetch: Callable[[Part], Iterable[bytes]]) -> Iterator[Fetched]:
    """Parts in order, the next ones already being fetched. `fetch` is called in this thread, and not before a
    part's turn; what it returns is read in others."""
    ahead: deque[Future[Fetched]] = deque()
    pool = ThreadPoolExecutor(FETCHES, thread_name_prefix="fetch")
    try:
        for part in parts:
            ahead.append(pool.submit(_hold, part, iter(fetch(part))))
            if len(ahead) > FETCHES:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _hold(part: Part, chunks: Iterator[bytes]) -> Fetched:
    sha1, held, size = hashlib.sha1(), list[bytes](), 0
    for chunk in chunks:
        sha1.update(chunk)
        held.append(chunk)
        size += len(chunk)
        if size > HELD_BYTES:
            break
    return Fetched(part, held, size, sha1, chunks)


def decrypted(chunks: Iterator[bytes], secret: Secret) -> Iterator[bytes]:
    decryptor = Cipher(AES(secret.key), CBC(secret.iv)).decryptor()
    unpadder = PKCS7(AES_BLOCK_BITS).unpadder()
    for chunk in chunks:
        yield unpadder.update(decryptor.update(chunk))
    try:
        last = unpadder.update(decryptor.finalize()) + unpadder.finalize()
    except ValueError:
        raise Damaged("its encryption does not end in proper padding") from None
    yield last


def inflated(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The content of the one gzip member that there may be. zlib checks its CRC and length."""
    module = best_module()
    inflate = module.decompressobj(GZIP_WINDOW)
    for chunk in chunks:
        for at in range(0, len(chunk), BITE_BYTES):
            yield from _inflate(inflate, chunk[at : at + BITE_BYTES], module.error)
    if not inflate.eof:
        raise Damaged("its gzip member is cut off")


def _inflate(inflate: Any, bite: bytes, error: type[Exception]) -> Iterator[bytes]:
    """What one bite expands to, at most a chunk at a time however much that is."""
    while True:
        try:
            chunk = inflate.decompress(bite, CHUNK_BYTES)
        except error as fault:
            raise Damaged(f"what was decrypted is not gzip, or not with this key: {fault}") from None
        if inflate.unused_data:
            raise Damaged("something follows its gzip member")
        yield chunk
        if len(chunk) < CHUNK_BYTES:
            return
        bite = inflate.unconsumed_tail


def pour(tape: Tape, member: Member, sink: Sink, digest: Digest) -> None:
    """Hands the member's stored stretches and its holes to `sink` and `digest`."""
    at = 0
    for extent in chain(member.extents, [Extent(member.size, 0)]):
        if hole := extent.offset - at:
            sink.skip(hole)
            digest.skip(hole)
        for chunk in tape.take(extent.length):
            digest.update(chunk)
            sink.write(chunk)
        at = extent.offset + extent.length
