"""Keys of unfinished bundles, sealed before they reach a database.

A file can forget for good what is deleted from it. A database keeps it in its log, its standbys and its
backups, where a key would open the bundle that was made with it. So the keys are encrypted there, by a secret
that stays in the state directory of the host that made them. No other host needs them: it begins an upload
that it takes over again, with keys of its own. If the secret is lost, so does this host.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from uecwatchd.errors import Halted
from uecwatchd.system import failpoints
from uecwatchd.system.made_files import sync_folder
from uecwatchd.system.small_files import read_small

FILE_NAME = "bundle-keys.secret"
SECRET_BYTES = 32
NONCE_BYTES = 12  # of AES-GCM


class KeySeal:
    """Seals and opens the keys of this host's bundles. `secret` has 32 bytes at least."""

    def __init__(self, secret: bytes) -> None:
        derive = HKDF(SHA256(), SECRET_BYTES, salt=None, info=b"keys of unfinished bundles")
        self._cipher = AESGCM(derive.derive(secret))

    def seal(self, key: bytes, *, of: bytes) -> bytes:
        """Return a key as it may be stored. `of` is the bundle: sealed for one, it opens for no other."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, key, of)

    def open(self, sealed: bytes, *, of: bytes) -> bytes | None:
        """Return a key that was sealed here, and None for one of another host."""
        with suppress(InvalidTag, ValueError):
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], of)
        return None


def seal_of(folder: Path) -> KeySeal:
    """Return the seal of the host with a state directory; it is made at the first time.

    Raises OSError, and Halted for a file that is not the one that was made.
    """
    path = folder / FILE_NAME
    with suppress(FileNotFoundError):
        return _read(path)
    with failpoints.effect("make the secret of keys"):
        _make(path)
    return _read(path)


def find_seal(folder: Path) -> KeySeal | None:
    """Return the seal if this user can read it, else None: verbs that read the ledger need no keys."""
    with suppress(OSError, Halted):
        return _read(folder / FILE_NAME)
    return None


def _read(path: Path) -> KeySeal:
    secret = read_small(path)
    if len(secret) < SECRET_BYTES:
        raise Halted(
            f"{path}: cannot use it",
            f"it has {len(secret)} bytes instead of {SECRET_BYTES}",
            "Delete it: then another one is made, and unfinished uploads begin again.",
        )
    return KeySeal(secret)


def _make(path: Path) -> None:
    """Write a secret, and only then give it its name: of two processes, the second finds the first one's."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
