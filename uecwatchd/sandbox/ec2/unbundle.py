"""Unbundling as a node does it, with a check of every byte on the way from parts to image.

    parts → AES-128-CBC → PKCS#7 → one gzip member → SHA-1 → one tar member → image

Memory holds one part and a few buffers, whatever the image's size; nothing is written to disk unless the
image is to boot. Each stage pulls from the one before it, so a small bundle that would inflate to something
huge is left off at its declared size.
"""

import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, cast

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from uecwatchd.sandbox.ec2.image_content import HEAD, TAIL
from uecwatchd.sandbox.ec2.manifest import ManifestClaims, PartClaim, invalid
from uecwatchd.sandbox.state.store import S3Object

BLOCK = tarfile.BLOCKSIZE
RECORD = tarfile.RECORDSIZE
GNU_MAGIC = b"ustar  \x00"
CHUNK = 1 << 20  # large enough that Python's own work does not count
TRAILER = 2 * BLOCK  # zeros that end a tar, before it is filled up to a record


@dataclass(frozen=True, slots=True)
class BundleKey:
    """The AES key and IV of a bundle."""

    key: bytes
    iv: bytes


@dataclass(frozen=True, slots=True)
class ImageEnds:
    """The first and last bytes of an unbundled image."""

    head: bytes
    tail: bytes


def unbundle(
    claims: ManifestClaims, parts: Iterable[S3Object], *, secret: BundleKey, file: IO[bytes] | None = None
) -> ImageEnds:
    """Decrypt, inflate and unpack the parts; the data of the image go into `file`, if one is given.

    Raises `ApiError` (InvalidManifest): if they are not as said.
    """
    inflated = _inflate(_decrypt(_read_parts(claims.parts, parts), secret))
    stream = HashingReader(inflated)
    with io.BufferedReader(stream, CHUNK) as reader:
        image = _read_tar(reader, claims, file)
    if stream.sha1 != claims.tar_sha1:
        raise invalid("The tar's SHA-1 is not the one in the manifest")
    return image


def _read_parts(claims: Iterable[PartClaim], parts: Iterable[S3Object]) -> Iterator[bytes]:
    for claim, part in zip(claims, parts, strict=True):
        check_part(claim, data := part.path.read_bytes())
        yield data


def check_part(claim: PartClaim, data: bytes) -> None:
    if hashlib.sha1(data, usedforsecurity=False).hexdigest() != claim.sha1:
        raise invalid(f"Part {claim.filename} has not the SHA-1 the manifest gives")


def _decrypt(parts: Iterable[bytes], secret: BundleKey) -> Iterator[bytes]:
    decryptor = Cipher(algorithms.AES(secret.key), modes.CBC(secret.iv)).decryptor()
    unpadder = PKCS7(algorithms.AES.block_size).unpadder()
    for data in parts:
        yield unpadder.update(decryptor.update(data))
    try:
        yield unpadder.update(decryptor.finalize()) + unpadder.finalize()
    except ValueError as error:
        raise invalid("The decrypted bundle's padding is wrong") from error


def _inflate(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Inflate exactly one gzip member with nothing after it."""
    inflater = zlib.decompressobj(wbits=31)
    for chunk in chunks:
        yield from _inflate_chunk(inflater, chunk)
        if inflater.unused_data:
            raise invalid("Something follows the bundle's gzip member")
    if not inflater.eof:
        raise invalid("The bundle's gzip member is cut short")


def _inflate_chunk(inflater: "zlib._Decompress", chunk: bytes) -> Iterator[bytes]:
    """Inflate a chunk in pieces of bounded size.

    Output may still be pending when all input is taken; only a short piece tells that it is not.
    """
    more = True
    while more:
        try:
            piece = inflater.decompress(chunk, CHUNK)
        except zlib.error as error:
            raise invalid(f"The decrypted bundle is not gzip: {error}") from error
        chunk = inflater.unconsumed_tail
        more = bool(chunk) or len(piece) == CHUNK
        yield piece


class HashingReader(io.RawIOBase):
    """Chunks as a file, with the SHA-1 of all that was read so far."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")
        self._sha1 = hashlib.sha1(usedforsecurity=False)

    @property
    def sha1(self) -> str:
        return self._sha1.hexdigest()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed wants any Buffer
        """Fill the buffer unless the chunks end, so that one peek sees a whole tar header."""
        filled = 0
        while filled < len(buffer):
            if not self._rest:
                chunk = next(self._chunks, None)
                if chunk is None:
                    break
                self._sha1.update(chunk)
                self._rest = memoryview(chunk)
            count = min(len(self._rest), len(buffer) - filled)
            buffer[filled : filled + count] = self._rest[:count]
            self._rest = self._rest[count:]
            filled += count
        return filled


def _read_tar(
    reader: "io.BufferedReader[HashingReader]", claims: ManifestClaims, file: IO[bytes] | None
) -> ImageEnds:
    _check_header(reader.peek(BLOCK)[:BLOCK])
    try:
        with tarfile.open(fileobj=reader, mode="r|", bufsize=CHUNK) as tar:
            member = next(iter(tar))
            _check_member(member, claims)
            image = _read_member(tar, member, file)
            _check_trailer(tar)
            return image
    except tarfile.TarError as error:
        raise invalid(f"The bundle's tar cannot be read: {error}") from error


def _check_header(header: bytes) -> None:
    """Refuse PAX headers and long names, which tarfile follows and some nodes do not."""
    kind = header[156:157]
    if kind in (b"x", b"g"):
        raise invalid("The bundle's tar has PAX headers")
    if header[257:265] != GNU_MAGIC:
        raise invalid("The bundle's tar is not in GNU format")
    if kind not in (tarfile.REGTYPE, tarfile.GNUTYPE_SPARSE):
        raise invalid(
            f"The bundle's tar begins with a member of type {kind.decode('latin-1')!r}, not with a file"
        )


def _check_member(member: tarfile.TarInfo, claims: ManifestClaims) -> None:
    if member.name != claims.name:
        raise invalid(f"The tar's member is {member.name!r}, the manifest's image {claims.name!r}")
    if member.size != claims.size:
        raise invalid(f"The tar's member has {member.size} bytes, the manifest's image {claims.size}")


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo, file: IO[bytes] | None) -> ImageEnds:
    """Read all data of the member except its holes, which may span terabytes.

    tarfile itself raises if there is less than the header says.
    """
    head = CapturedRange(0, bytearray(min(HEAD, member.size)))
    tail = CapturedRange(max(0, member.size - TAIL), bytearray(min(TAIL, member.size)))
    # Its buffer wants to know whether a stream can seek; what is below the buffer just goes on reading.
    content = cast(io.BufferedReader, tar.extractfile(member)).detach()  # None only for what is no file
    for start, size in _extents(member):
        content.seek(start)
        for at in range(start, start + size, CHUNK):
            chunk = content.read(min(CHUNK, start + size - at)) or b""
            head.take(chunk, at)
            tail.take(chunk, at)
            if file:
                file.seek(at)
                file.write(chunk)
    return ImageEnds(bytes(head.content), bytes(tail.content))


def _extents(member: tarfile.TarInfo) -> list[tuple[int, int]]:
    """List where a member has data: offset and length of each piece, in bytes."""
    sparse = cast(list[tuple[int, int]] | None, member.sparse)
    return [(0, member.size)] if sparse is None else sparse


@dataclass(frozen=True, slots=True)
class CapturedRange:
    """A range of an image's bytes, beginning at `start`; zero until they are copied."""

    start: int
    content: bytearray

    def take(self, chunk: bytes, at: int) -> None:
        """Copy the part of the range in `chunk`. `at` is the offset of the chunk in the image."""
        low, high = max(at, self.start), min(at + len(chunk), self.start + len(self.content))
        if low < high:
            self.content[low - self.start : high - self.start] = chunk[low - at : high - at]


def _check_trailer(tar: tarfile.TarFile) -> None:
    """Check that only zeros up to a full record follow the member."""
    stream = cast(IO[bytes], tar.fileobj)
    stream.seek(tar.offset)
    rest = b""
    while len(rest) < RECORD + TRAILER and (piece := stream.read(RECORD + TRAILER - len(rest))):
        rest += piece
    if rest.strip(b"\x00"):
        raise invalid("Something follows the first member of the bundle's tar")
    if not TRAILER <= len(rest) < RECORD + TRAILER or (tar.offset + len(rest)) % RECORD:
        raise invalid(f"The bundle's tar does not end with zeros up to a multiple of {RECORD} bytes")
