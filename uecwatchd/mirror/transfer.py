"""Transfer of single objects: into a file of the spool folder, and of a result into the bucket."""

import hashlib
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.errors.source_table import SOURCE_ROWS
from uecwatchd.clouds.objects import MD5, fetch_piece, put_object
from uecwatchd.errors import Deferred
from uecwatchd.intake.spool.output_files import OUTPUT_MODE, is_foreign
from uecwatchd.mirror.notes import MirrorNotes
from uecwatchd.mirror.plan import FileIdentity, Noted
from uecwatchd.system import failpoints
from uecwatchd.system.disk_space import check_space_for
from uecwatchd.types import BucketPlace, StoredObject

# Of one request, so that each ends soon enough for a stop, and a slow line does not need a day for one.
PIECE_BYTES = 8 << 20
# Of a result file; a log of a set has less.
RESULT_BYTES = 64 << 20


def identity_of(status: os.stat_result) -> FileIdentity:
    """Return the identity of a file. What is no regular file is in the way, and equal to nothing noted."""
    if not stat.S_ISREG(status.st_mode):
        return FileIdentity(status.st_ino, -1, 0)
    return FileIdentity(status.st_ino, status.st_size, status.st_mtime_ns)


def file_identity(descriptor: int, name: str) -> FileIdentity | None:
    """Return the identity of what has a name in a folder, None if nothing has it."""
    with suppress(FileNotFoundError):
        return identity_of(os.lstat(name, dir_fd=descriptor))
    return None


def fetch_file(
    cloud: Cloud,
    place: BucketPlace,
    stored: StoredObject,
    folder: Path,
    notes: MirrorNotes,
    *,
    check: Callable[[], None],
) -> None:
    """Fetch an object into its file, in place of an older one. `check` is called often, and raises to stop.

    A file that somebody has dropped under the name meanwhile stays, and nothing is noted.
    Raises OSError for the folder, Deferred without space, and the errors of `clouds`.
    """
    check_space_for(folder, stored.size, "the spool folder")
    name = stored.key.removeprefix(place.prefix)
    temporary = f".{name}.uec.{secrets.token_hex(4)}"
    descriptor = notes.descriptor
    try:
        with failpoints.effect("fetch a file"):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            opened = os.open(temporary, flags, OUTPUT_MODE, dir_fd=descriptor)
            with os.fdopen(opened, "wb") as file:
                _write_pieces(cloud, place.bucket, stored, file.write, check)
                file.flush()
                os.fsync(opened)
                new = identity_of(os.fstat(opened))
        old, before = file_identity(descriptor, name), notes.known.get(name)
        if old and not (before and before.is_ours(old)):
            return
        noted = Noted(stored.etag, stored.size, new, is_placed=False, replaces=old)
        notes.put(name, noted)
        with failpoints.effect("place a fetched file"):
            os.rename(temporary, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
            os.fsync(descriptor)
        notes.put(name, replace(noted, is_placed=True, replaces=None))
    finally:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=descriptor)


def _write_pieces(
    cloud: Cloud,
    bucket: str,
    stored: StoredObject,
    write: Callable[[bytes], object],
    check: Callable[[], None],
) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    for begin in range(0, stored.size, PIECE_BYTES):
        check()
        piece = fetch_piece(
            cloud, bucket, stored, begin, min(PIECE_BYTES, stored.size - begin), first=SOURCE_ROWS
        )
        digest.update(piece)
        write(piece)
    # That of an object in parts is no MD5, nor is one of a store that encrypts; those have another form.
    if MD5.fullmatch(stored.etag) and stored.etag != digest.hexdigest():
        what = f"cloud {cloud.name}, fetching {bucket}/{stored.key}"
        why = f"other bytes came than are stored (MD5 {digest.hexdigest()}, stored {stored.etag})"
        raise Deferred(what, why, "It is fetched again; if that goes on, suspect a proxy on the way.")


def send_result(cloud: Cloud, place: BucketPlace, name: str, notes: MirrorNotes) -> None:
    """Send a result file, if it is one of ours. Raises OSError, and as `put_object` does."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        opened = os.open(name, flags, dir_fd=notes.descriptor)
    except FileNotFoundError:  # since the look
        return
    with os.fdopen(opened, "rb") as file:
        status = os.fstat(opened)
        if is_foreign(status, owner=os.geteuid()):
            return
        data = file.read(RESULT_BYTES)
    with failpoints.effect("send a result"):
        stored = put_object(cloud, place.bucket, place.prefix + name, data, is_for_cloud=False)
    notes.put(name, Noted(stored.etag, stored.size, identity_of(status)))
