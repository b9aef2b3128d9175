"""Identity of the cloud and its one user: keys, certificates, account, and the eucarc with all of them.

Made on the first start and kept in the folder, readable by its owner only:

    cloud-pk.pem          the cloud's key: opens what bundles are sealed with
    cloud-cert.pem        its certificate, given to users (EUCALYPTUS_CERT)
    euca2-admin-pk.pem    the user's key and certificate (EC2_PRIVATE_KEY, EC2_CERT)
    euca2-admin-cert.pem
    identity.json         {version, account, access_key, secret_key}; written last, when the rest is there
    dialect               the generation that the cloud plays, for good: a word and a line end
    eucarc                rewritten at each start, since the port may be another
"""

import hashlib
import json
import secrets
import string
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.x509.oid import NameOID

from uecwatchd.errors import Halted

VERSION = 1
CLOUD_KEY, CLOUD_CERTIFICATE = "cloud-pk.pem", "cloud-cert.pem"
USER_KEY, USER_CERTIFICATE = "euca2-admin-pk.pem", "euca2-admin-cert.pem"
IDENTITY, DIALECT, EUCARC = "identity.json", "dialect", "eucarc"

KEY_BITS = 2048  # what every generation issued
LIFETIME = timedelta(days=3650)  # ten years, as in Eucalyptus
ACCESS_KEY_LETTERS = 20  # lengths of today's access and secret keys
SECRET_KEY_LETTERS = 40


@dataclass(frozen=True, slots=True)
class Identity:
    """Account, keys and certificates of the cloud and its user."""

    account: str
    access_key: str
    secret_key: str = field(repr=False)
    cloud_key: RSAPrivateKey = field(repr=False)
    user_key: RSAPrivateKey = field(repr=False)
    cloud_certificate: bytes  # PEM, both
    user_certificate: bytes


def ensure_dialect(folder: Path, dialect: str) -> None:
    """Bind the folder to one generation for good. Raises `Halted`: if it is another's."""
    path = folder / DIALECT
    if not path.exists():
        write_private(path, f"{dialect}\n".encode())
    before = path.read_text(errors="replace").strip()
    if before != dialect:
        raise Halted(
            f"{folder}: cannot play {dialect} there",
            f"it was made as {before}, and generations do not take each other's ids",
            f"Try: --dialect {before}, or another folder.",
        )


def ensure_identity(folder: Path, *, now: datetime) -> Identity:
    """Return the folder's identity, made on its first start. Raises `Halted`: if it is unusable."""
    if not (folder / IDENTITY).exists():
        _make(folder, now=now)
    return read_identity(folder)


def read_identity(folder: Path) -> Identity:
    try:
        words = json.loads((folder / IDENTITY).read_text())
        if words["version"] != VERSION:
            raise ValueError(f"version {words['version']}, this program knows {VERSION}")
        return Identity(
            account=words["account"],
            access_key=words["access_key"],
            secret_key=words["secret_key"],
            cloud_key=_read_key(folder / CLOUD_KEY),
            user_key=_read_key(folder / USER_KEY),
            cloud_certificate=(folder / CLOUD_CERTIFICATE).read_bytes(),
            user_certificate=(folder / USER_CERTIFICATE).read_bytes(),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Halted(
            f"{folder}: cannot use it as a test cloud",
            str(error).rstrip("."),
            "Give another folder, or an empty one.",
        ) from error


def _read_key(path: Path) -> RSAPrivateKey:
    # It was made here, and checking its numbers is most of what a start takes.
    key = serialization.load_pem_private_key(
        path.read_bytes(), password=None, unsafe_skip_rsa_key_validation=True
    )
    if not isinstance(key, RSAPrivateKey):
        raise TypeError(f"{path.name} is not an RSA key")
    return key


def _make(folder: Path, *, now: datetime) -> None:
    _make_pair(folder / CLOUD_KEY, folder / CLOUD_CERTIFICATE, name="uecwatchd sandbox cloud", now=now)
    _make_pair(folder / USER_KEY, folder / USER_CERTIFICATE, name="admin", now=now)
    words = {
        "version": VERSION,
        "account": f"{secrets.randbelow(10**12):012}",
        "access_key": _letters(string.ascii_uppercase + string.digits, ACCESS_KEY_LETTERS),
        "secret_key": _letters(string.ascii_letters + string.digits, SECRET_KEY_LETTERS),
    }
    write_private(folder / IDENTITY, json.dumps(words, indent=1).encode())


def _letters(alphabet: str, count: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(count))


def _make_pair(key_path: Path, certificate_path: Path, *, name: str, now: datetime) -> None:
    key = generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    write_private(key_path, pem)
    certificate = _self_signed(key, name=name, now=now)
    write_private(certificate_path, certificate.public_bytes(serialization.Encoding.PEM))


def _self_signed(key: RSAPrivateKey, *, name: str, now: datetime) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(
        issuer_name=subject,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - timedelta(days=1),  # another host's clock may be behind ours
        not_valid_after=now + LIFETIME,
    )
    return builder.sign(key, hashes.SHA256())


def write_eucarc(
    folder: Path, identity: Identity, *, template: str, url: str, ec2_url: str, s3_url: str
) -> Path:
    text = template.format(
        url=url,
        ec2_url=ec2_url,
        s3_url=s3_url,
        user_key=USER_KEY,
        user_certificate=USER_CERTIFICATE,
        cloud_certificate=CLOUD_CERTIFICATE,
        access_key=identity.access_key,
        secret_key=identity.secret_key,
        account=identity.account,
        user_number=_user_number(identity.account),
    )
    write_private(folder / EUCARC, text.encode())
    return folder / EUCARC


def _user_number(account: str) -> str:
    """Return 38 digits, as UEC and Eucalyptus 1.6 number their users."""
    return f"{int(hashlib.sha256(account.encode()).hexdigest(), 16) % 10**38:038}"


def write_private(path: Path, data: bytes) -> None:
    """Replace the file atomically, with mode 0600."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600, exist_ok=False)
    fresh.write_bytes(data)
    fresh.replace(path)
