"""Bundles in folders, for work by hand, without a cloud.

A file that appears under its name is complete: it is written to a temporary file in the same folder, flushed
to disk, and linked to its name. A link fails instead of replacing a file. The manifest comes last.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO, Literal

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.x509 import Certificate

from uecwatchd.bundle.bundler import Bundling, Part, PartData, Secret, Totals
from uecwatchd.bundle.keys import is_key_pair, public_key
from uecwatchd.bundle.manifest import (
    LIMIT_BYTES,
    BlockDevice,
    Manifest,
    check_signature,
    read_manifest,
    seal_secret,
    write_manifest,
)
from uecwatchd.bundle.names import bundle_prefix, manifest_name, portable_name
from uecwatchd.bundle.unbundle import CHUNK_BYTES, CountingSink, Unbundled, open_secret, unbundle
from uecwatchd.bundle.upload_slots import UploadSlots, store_parts
from uecwatchd.errors import Deferred, Halted, Rejected
from uecwatchd.images.block_source import FileSource
from uecwatchd.images.digests import choose_digest
from uecwatchd.images.formats.open import open_disk
from uecwatchd.system.extents import HOLE_BYTES
from uecwatchd.system.file_errors import NoOutput, cannot_write, open_for_reading
from uecwatchd.types import ContentDigest, FileStamp, Reading, Role

FILE_MODE = 0o640  # an image may contain secrets; the group of people who drop images may read it
WRITERS = 4  # a disk flushes several parts in hardly more time than one
TOKEN_CHARS = 16  # 64 bits: enough to make names unique


@dataclass(frozen=True, slots=True)
class ImageProperties:
    """Facts in a manifest that are not in the bytes.

    The ids are registered ones, and only machines have them. `root` is the device for a whole disk, `sda`. A
    paravirtual machine without it is a partition.
    """

    kind: Role
    arch: str  # as the cloud names it
    kernel_id: str | None = None
    ramdisk_id: str | None = None
    root: str | None = None


@dataclass(frozen=True, slots=True)
class BundleCredentials:
    """The user with an account number, and the cloud that may open the bundle."""

    user: str
    user_key: RSAPrivateKey = field(repr=False)
    user_cert: Certificate
    cloud_cert: Certificate


@dataclass(frozen=True, slots=True)
class WrittenBundle:
    """A bundle in a folder: its manifest with path, and the digest of the image."""

    path: Path
    manifest: Manifest
    digest: ContentDigest


def bundle_to_folder(
    source: Path,
    folder: Path,
    properties: ImageProperties,
    credentials: BundleCredentials,
    *,
    how: Reading = "file",
    progress: Callable[[int], None] = lambda _done: None,
) -> WrittenBundle:
    """Bundle a file, or the disk in it, in one read. After a failure the folder has nothing new."""
    _check_key_pair(credentials)
    secret = Secret.random()
    with open_for_reading(source) as file, ExitStack() as undo:
        _make_folder(folder)
        # The same until the file is written to; a digest would take a read of its own.
        stamp = FileStamp.of(os.fstat(file.fileno()))
        token = hashlib.sha256(repr(tuple(stamp)).encode()).hexdigest()[:TOKEN_CHARS]
        image = FileSource(file) if how == "file" else open_disk(file, name=source.name).source
        if not image.size:
            raise Rejected(source.name, "it is empty", "Copy it here again.")
        prefix = bundle_prefix(properties.kind, source.name, token=token)
        path = folder / manifest_name(prefix)
        _check_free(path)
        name = portable_name(source.name)
        bundling = Bundling(
            image,
            name=name,
            prefix=prefix,
            secret=secret,
            digest=choose_digest(image.size, stored=image.stored_bytes),
            progress=progress,
        )
        totals = _write_parts(bundling, folder, undo)
        if not image.is_unchanged():
            why, hint = "it changed while being read", "Leave the file alone, and try again."
            raise Deferred(source.name, why, hint)
        manifest = make_manifest(name, totals, secret, properties, credentials)
        _write_file(path, write_manifest(manifest, key=credentials.user_key), undo)
        undo.pop_all()
    return WrittenBundle(path, manifest, totals.digest)


def unbundle_to_folder(
    manifest: Path,
    folder: Path,
    *,
    key: RSAPrivateKey,
    side: Literal["user", "cloud"],
    signer: RSAPublicKey | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[Path, Unbundled]:
    """Unbundle the parts beside `manifest` into a file with the image's name in the bundle.

    `key` is the private key of that `side`. If `signer` is given, its owner must have signed the manifest.
    `progress` is called with the bytes of the image that are done, and with its size.
    Zeros become holes. After a failure the folder contains nothing new.
    """
    with open_for_reading(manifest, follow=False) as file:
        data = file.read(LIMIT_BYTES + 1)
    listed = read_manifest(data, name=manifest.name)
    secret = open_secret(listed, key, side=side)  # first: another user's bundle explains an unknown signature
    if signer is not None:
        check_signature(data, signer, name=manifest.name)
    _make_folder(folder)
    with _temporary_file(folder) as file:
        fetch = _part_reader(manifest.parent)
        sink = CountingSink(SparseFile(file), lambda done: progress(done, listed.size))
        found = unbundle(listed, fetch, secret=secret, sink=sink)
        file.truncate(found.size)
        path = folder / found.name
        _publish(file, path)
    return path, found


class SparseFile:
    """A sink that writes zeros as holes. Afterwards, truncate the file to its size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._zeros = bytes(HOLE_BYTES)

    def write(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            piece = data[at : at + HOLE_BYTES - self._file.tell() % HOLE_BYTES]
            if piece == self._zeros[: len(piece)]:
                self.skip(len(piece))
            else:
                self._file.write(piece)
            at += len(piece)

    def skip(self, count: int) -> None:
        self._file.seek(count, os.SEEK_CUR)


def _check_key_pair(credentials: BundleCredentials) -> None:
    if not is_key_pair(credentials.user_key, credentials.user_cert):
        hint = "Name a key and a certificate that were issued together."
        raise Halted("the user's private key", "it does not belong to the user's certificate", hint)


def _write_parts(bundling: Bundling, folder: Path, undo: ExitStack) -> Totals:
    def write(part: PartData) -> None:
        _write_file(folder / part.part.name, part.data, undo)

    with closing(bundling):
        store_parts(bundling, write, slots=UploadSlots(WRITERS), done=bundling.release)
    return bundling.totals


def make_manifest(
    name: str, totals: Totals, secret: Secret, properties: ImageProperties, credentials: BundleCredentials
) -> Manifest:
    """Return the manifest of a bundle after its last part. `name` is that of the tar member."""
    return Manifest(
        name=name,
        user=credentials.user,
        kind=properties.kind,
        arch=properties.arch,
        tar_sha1=totals.tar_sha1,
        size=totals.size,
        bundled_size=totals.bundled_size,
        for_cloud=seal_secret(secret, public_key(credentials.cloud_cert)),
        for_user=seal_secret(secret, public_key(credentials.user_cert)),
        parts=totals.parts,
        kernel_id=properties.kernel_id,
        ramdisk_id=properties.ramdisk_id,
        block_devices=(BlockDevice("ami", properties.root),) if properties.root else (),
    )


def _part_reader(folder: Path) -> Callable[[Part], Iterator[bytes]]:
    def fetch(part: Part) -> Iterator[bytes]:
        with open_for_reading(folder / part.name, follow=False) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    return fetch


def _write_file(path: Path, data: bytes | memoryview, undo: ExitStack) -> None:
    with _temporary_file(path.parent) as file:
        file.write(data)
        _publish(file, path)
    undo.callback(path.unlink)


@contextmanager
def _temporary_file(folder: Path) -> Iterator[BinaryIO]:
    """Create a file in `folder`, removed afterwards unless `_publish` has given it a second name."""
    with _translate_errors(folder):
        path = folder / f".uecwatchd-{token_hex(8)}.part"
        try:
            with open(path, "xb", opener=_open_private) as file:
                yield file
        finally:  # also if a signal came right behind `open`
            path.unlink(missing_ok=True)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, FILE_MODE)


def _publish(file: BinaryIO, path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # By descriptor, because somebody else may have put another file under its name. Without a descriptor
        # of the folder, Python would link the symbolic link in /proc instead of the file.
        os.link(f"/proc/self/fd/{file.fileno()}", path.name, dst_dir_fd=folder, follow_symlinks=True)
        os.fsync(folder)
    except FileExistsError:
        raise _name_taken(path) from None
    finally:
        os.close(folder)


def _make_folder(folder: Path) -> None:
    with _translate_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _check_free(path: Path) -> None:
    with _translate_errors(path.parent):
        if path.exists() or path.is_symlink():
            raise _name_taken(path)


def _name_taken(path: Path) -> NoOutput:
    return NoOutput(
        path.name, f"there is one in {path.parent} already", "Name another folder, or move it away."
    )


@contextmanager
def _translate_errors(folder: Path) -> Iterator[None]:
    """Raise failures to write as a UecError."""
    try:
        yield
    except OSError as fault:
        raise cannot_write(folder, fault) from fault
