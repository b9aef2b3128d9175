"""RSA pairs, and bundles made in memory: by our code, or from any bytes by cryptography and gzip alone."""

import gzip
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from io import FileIO

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256

from uecwatchd.bundle.bundler import PART_SIZE, Bundling, Part, Secret
from uecwatchd.bundle.manifest import Manifest, SealedSecret
from uecwatchd.bundle.unbundle import Unbundled, unbundle
from uecwatchd.images.block_source import FileSource


@dataclass(frozen=True)
class Pair:
    key: rsa.RSAPrivateKey
    certificate: x509.Certificate


@dataclass
class Memory:
    """A sink that keeps everything, and where the holes were."""

    data: bytearray = field(default_factory=bytearray)
    holes: list[tuple[int, int]] = field(default_factory=list)

    def write(self, data: bytes) -> None:
        self.data += data

    def skip(self, count: int) -> None:
        self.holes.append((len(self.data), count))
        self.data += bytes(count)


@dataclass(frozen=True)
class Made:
    """A bundle in memory."""

    manifest: Manifest
    objects: dict[str, bytes]
    secret: Secret

    def fetch(self, part: Part) -> Iterator[bytes]:
        """In pieces that divide nothing evenly."""
        data = self.objects[part.name]
        return (data[at : at + 4093] for at in range(0, len(data), 4093))

    def unbundle(self) -> tuple[Unbundled, Memory]:
        sink = Memory()
        return unbundle(self.manifest, self.fetch, secret=self.secret, sink=sink), sink

    def but(self, **changes: object) -> "Made":
        """The same bundle with something else in its manifest."""
        return replace(self, manifest=replace(self.manifest, **changes))


Bundle = Callable[..., Made]


@contextmanager
def in_memory(image: bytes) -> Iterator[FileSource]:
    """Makes a file with these bytes."""
    with FileIO(os.memfd_create("image"), "r+b") as file:
        file.write(image)
        yield FileSource(file)


@pytest.fixture(scope="session")
def a_file() -> Callable[[bytes], AbstractContextManager[FileSource]]:
    return in_memory


def new_pair(name: str) -> Pair:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256())
    )
    return Pair(key, certificate)


@pytest.fixture(scope="session")
def user() -> Pair:
    return new_pair("user")


@pytest.fixture(scope="session")
def cloud() -> Pair:
    return new_pair("cloud")


@pytest.fixture(scope="session")
def as_made() -> Callable[[Bundling, Secret], Made]:
    return keep


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """Bundles bytes with the code under test."""

    def make(image: bytes, *, part_size: int = PART_SIZE, secret: Secret | None = None) -> Made:
        secret = secret or Secret.random()
        with in_memory(image) as source:
            return keep(
                Bundling(
                    source,
                    name="karmic.img",
                    prefix="k",
                    secret=secret,
                    part_size=part_size,
                ),
                secret,
            )

    return make


@pytest.fixture(scope="session")
def wrap() -> Bundle:
    """Makes a bundle of any tar or gzip stream or plaintext, with fitting digests, by none of our code."""

    def make(
        archive: bytes = b"",
        *,
        size: int = 0,
        zipped: bytes | None = None,
        plaintext: bytes | None = None,
        cut_off: int = 0,
    ) -> Made:
        secret = Secret.random()
        zipped = gzip.compress(archive, mtime=0) if zipped is None else zipped
        fill = 16 - len(zipped) % 16
        plaintext = zipped + bytes([fill]) * fill if plaintext is None else plaintext
        encryptor = Cipher(algorithms.AES(secret.key), modes.CBC(secret.iv)).encryptor()
        data = encryptor.update(plaintext) + encryptor.finalize()
        data = data[: len(data) - cut_off]
        part = Part(0, "k.part.0", 0, hashlib.sha1(data).hexdigest())
        manifest = a_manifest(size, len(data), hashlib.sha1(archive).hexdigest(), (part,))
        return Made(manifest, {part.name: data}, secret)

    return make


def keep(bundling: Bundling, secret: Secret) -> Made:
    """Runs a bundling to its end."""
    objects = {}
    for piece in bundling:
        objects[piece.part.name] = bytes(piece.data)
        bundling.release(piece)
    totals = bundling.totals
    manifest = a_manifest(totals.size, totals.bundled_size, totals.tar_sha1, totals.parts)
    return Made(manifest, objects, secret)


def a_manifest(size: int, bundled_size: int, tar_sha1: str, parts: tuple[Part, ...]) -> Manifest:
    return Manifest(
        name="karmic.img",
        user="000100000001",
        kind="machine",
        arch="x86_64",
        tar_sha1=tar_sha1,
        size=size,
        bundled_size=bundled_size,
        for_cloud=SealedSecret("00", "00"),
        for_user=SealedSecret("00", "00"),
        parts=parts,
    )
