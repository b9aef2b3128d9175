"""RSA certificates and keys from files, and the encryption of a bundle's secret with them.

AES key and IV are encrypted separately, each as 32 lower-case hex digits, with RSA PKCS#1 v1.5. The result is
written in hex again.
"""

import re
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import Certificate, load_pem_x509_certificate

from uecwatchd.bundle.damage import Damaged
from uecwatchd.errors import Halted
from uecwatchd.system.file_errors import cannot_read
from uecwatchd.system.small_files import read_small
from uecwatchd.system.text import shell_word

HEX_PAIRS = re.compile(r"(?:[0-9A-Fa-f]{2})+")
_SECRET_TEXT = re.compile(rb"[0-9A-Fa-f]{32}")


def load_certificate(path: Path, *, whose: str) -> Certificate:
    """Load an X.509 certificate with an RSA key, PEM.

    `whose` names it in messages: "the cloud's certificate". Raises `Halted`, or `NotPermitted` if the file
    cannot be read.
    """
    what = f"{path} ({whose})"
    data = _read(path, what)
    try:
        certificate = load_pem_x509_certificate(data)
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise Halted(what, "it is not a certificate in PEM form", _certificate_hint(path, data)) from None
    if not isinstance(key, RSAPublicKey):
        _not_rsa(what, key)
    return certificate


def load_private_key(path: Path, *, whose: str) -> RSAPrivateKey:
    """Load an RSA private key, PEM, PKCS#8 or PKCS#1, without a passphrase.

    Raises like `load_certificate`.
    """
    what = f"{path} ({whose})"
    data = _read(path, what)
    try:
        # Checking that its numbers are primes takes fifty times as long as trying it.
        key = load_pem_private_key(data, password=None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        hint = f"A daemon cannot be asked for it. Try: {_openssl_command('rsa', path, 'open')}"
        raise Halted(what, "it is locked with a passphrase", hint) from None
    except (ValueError, UnsupportedAlgorithm):
        raise Halted(what, "it is not a private key in PEM form", _key_hint(path, data)) from None
    if not isinstance(key, RSAPrivateKey):
        _not_rsa(what, key)
    if not _works(key):
        hint = f"Copy the file again. To see what is wrong: openssl rsa -check -in {shell_word(str(path))}"
        raise Halted(what, "it is damaged: nothing can be signed with it", hint)
    return key


def _works(key: RSAPrivateKey) -> bool:
    """Tell if the private half of a key belongs to its public half."""
    with suppress(ValueError, InternalError, InvalidSignature):
        signature = key.sign(b"", padding.PKCS1v15(), SHA256())
        key.public_key().verify(signature, b"", padding.PKCS1v15(), SHA256())
        return True
    return False


def public_key(certificate: Certificate) -> RSAPublicKey:
    """Return the key of a certificate that `load_certificate` returned."""
    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey):
        _not_rsa("the certificate", key)
    return key


def is_key_pair(key: RSAPrivateKey, certificate: Certificate) -> bool:
    return key.public_key() == certificate.public_key()


def seal(secret: bytes, key: RSAPublicKey) -> str:
    """Encrypt 16 secret bytes for the owner of `key`; returns hex."""
    return key.encrypt(secret.hex().encode(), padding.PKCS1v15()).hex()


def unseal(sealed: str, key: RSAPrivateKey) -> bytes:
    """Return the 16 secret bytes inside. Raises `Damaged`.

    RSA decryption with a wrong key can return random bytes instead of an error, so the result is checked.
    """
    if not HEX_PAIRS.fullmatch(sealed):
        raise Damaged("its encrypted key is not hex digits")
    try:
        text = key.decrypt(bytes.fromhex(sealed), padding.PKCS1v15())
    except ValueError:
        text = b""
    if not _SECRET_TEXT.fullmatch(text):
        raise Damaged(
            "it was not encrypted for this key",
            "Open it with the private key of the user it was bundled for, or with that of the cloud.",
        )
    return bytes.fromhex(text.decode())


def _read(path: Path, what: str) -> bytes:
    try:
        return read_small(path)
    except PermissionError:
        raise cannot_read(path, what=what) from None
    except FileNotFoundError:
        hint = "Correct the path in the configuration or the eucarc, or put the file there."
        raise Halted(what, "there is no such file", hint) from None
    except OSError as fault:
        raise Halted(what, f"cannot read it: {fault.strerror}", "Give the path of a PEM file.") from fault


def _openssl_command(how: str, path: Path, ending: str) -> str:
    return f"openssl {how} -in {shell_word(str(path))} -out {shell_word(f'{path}.{ending}')}"


def _certificate_hint(path: Path, data: bytes) -> str:
    if b"PRIVATE KEY-----" in data:
        return "It holds a private key: certificate and key may have been exchanged."
    return f"If it is in DER form, try: {_openssl_command('x509 -inform DER', path, 'pem')}"


def _key_hint(path: Path, data: bytes) -> str:
    if b"CERTIFICATE-----" in data:
        return "It holds a certificate: certificate and key may have been exchanged."
    return f"If it is in DER form, try: {_openssl_command('rsa -inform DER', path, 'pem')}"


def _not_rsa(what: str, key: object) -> NoReturn:
    kind = type(key).__name__.removesuffix("PublicKey").removesuffix("PrivateKey")
    hint = "Use the RSA pair that came with the cloud's credentials."
    raise Halted(what, f"its key is {kind}, and bundles are encrypted and signed with RSA", hint)
