import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPrivateNumbers
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.support.host import NOBODY
from uecwatchd.bundle.damage import Damaged
from uecwatchd.bundle.keys import is_key_pair, load_certificate, load_private_key, public_key, seal, unseal
from uecwatchd.errors import Halted, NotPermitted

SECRET = bytes(range(0x30, 0x40))


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One RSA pair in the usual forms of keys and certificates, made by openssl."""
    folder = tmp_path_factory.mktemp("pems")
    new = ("req", "-x509", "-nodes", "-subj", "/CN=admin", "-days", "9")
    key, cert = folder / "pkcs8.pem", folder / "plain.pem"
    openssl(*new, "-newkey", "rsa:2048", "-keyout", key, "-out", cert)
    openssl("rsa", "-traditional", "-in", key, "-out", folder / "pkcs1.pem")
    openssl(
        "rsa", "-traditional", "-aes128", "-passout", "pass:x", "-in", key, "-out", folder / "locked1.pem"
    )
    openssl("pkcs8", "-topk8", "-passout", "pass:x", "-in", key, "-out", folder / "locked8.pem")
    openssl("x509", "-text", "-in", cert, "-out", folder / "text.pem")
    openssl("x509", "-outform", "DER", "-in", cert, "-out", folder / "cert.der")
    openssl("rsa", "-outform", "DER", "-in", key, "-out", folder / "key.der")
    ec = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    openssl(*new, *ec, "-keyout", folder / "ec-key.pem", "-out", folder / "ec-cert.pem")

    pem = cert.read_bytes()
    (folder / "crlf.pem").write_bytes(pem.replace(b"\n", b"\r\n"))
    (folder / "x509.pem").write_bytes(pem.replace(b"CERTIFICATE", b"X509 CERTIFICATE"))
    (folder / "both.pem").write_bytes((folder / "pkcs1.pem").read_bytes() + pem)
    (folder / "bag.pem").write_bytes(b"Bag Attributes\n    localKeyID: 01\n" + key.read_bytes())
    (folder / "empty.pem").write_bytes(b"")
    (folder / "mixed.pem").write_bytes(with_other_exponents(key.read_bytes()))
    return folder


def with_other_exponents(pem: bytes) -> bytes:
    """Return a key whose private half is not that of its public half: it still has the form of one."""
    key = load_pem_private_key(pem, password=None)
    assert isinstance(key, RSAPrivateKey)
    n = key.private_numbers()
    mixed = RSAPrivateNumbers(n.p, n.q, n.d + 2, n.dmp1 + 2, n.dmq1 + 2, n.iqmp, n.public_numbers)
    made = mixed.private_key(unsafe_skip_rsa_key_validation=True)
    return made.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


@pytest.mark.parametrize("name", ["plain", "text", "crlf", "x509", "both"])
def test_a_certificate_is_read_in_every_usual_file_format(pems: Path, name: str) -> None:
    certificate = load_certificate(pems / f"{name}.pem", whose="the cloud's certificate")
    key = load_private_key(pems / "pkcs8.pem", whose="the user's key")
    assert public_key(certificate) == key.public_key()
    assert is_key_pair(key, certificate)


@pytest.mark.parametrize("name", ["pkcs8", "pkcs1", "both", "bag"])
def test_a_private_key_is_read_in_every_usual_file_format(pems: Path, name: str) -> None:
    key = load_private_key(pems / f"{name}.pem", whose="the user's key")
    assert is_key_pair(key, load_certificate(pems / "plain.pem", whose="the user's certificate"))


@pytest.mark.parametrize(
    ("name", "why", "hint"),
    [
        ("missing.pem", "there is no such file", "Correct the path"),
        ("empty.pem", "not a certificate in PEM form", "openssl x509 -inform DER"),
        ("cert.der", "not a certificate in PEM form", "openssl x509 -inform DER"),
        ("pkcs1.pem", "not a certificate in PEM form", "may have been exchanged"),
        (
            "ec-cert.pem",
            "its key is EC, and bundles are encrypted and signed with RSA",
            "RSA pair",
        ),
        (".", "cannot read it: Is a directory", "path of a PEM file"),
    ],
)
def test_an_unusable_certificate_halts_with_a_sentence(pems: Path, name: str, why: str, hint: str) -> None:
    with pytest.raises(Halted) as caught:
        load_certificate(pems / name, whose="the cloud's certificate")
    assert caught.value.what == f"{pems / name} (the cloud's certificate)"
    assert why in caught.value.why
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "why", "hint"),
    [
        ("missing.pem", "there is no such file", "Correct the path"),
        ("empty.pem", "not a private key in PEM form", "openssl rsa -inform DER"),
        ("key.der", "not a private key in PEM form", "openssl rsa -inform DER"),
        ("plain.pem", "not a private key in PEM form", "may have been exchanged"),
        ("mixed.pem", "it is damaged: nothing can be signed with it", "openssl rsa -check -in"),
        ("locked1.pem", "locked with a passphrase", "openssl rsa -in"),
        ("locked8.pem", "locked with a passphrase", "openssl rsa -in"),
        ("ec-key.pem", "its key is EC, and bundles are encrypted and signed with RSA", "RSA pair"),
    ],
)
def test_an_unusable_private_key_halts_with_a_sentence(pems: Path, name: str, why: str, hint: str) -> None:
    with pytest.raises(Halted) as caught:
        load_private_key(pems / name, whose="the user's key")
    assert caught.value.what == f"{pems / name} (the user's key)"
    assert why in caught.value.why
    assert hint in caught.value.hint


@contextmanager
def as_somebody_else() -> Iterator[None]:
    """Root may read everything; the rule is about those who may not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())  # not tmp_path, which is in a folder that is closed to others
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_an_unreadable_file_is_reported_with_mode_and_owner_and_the_chmod(public_folder: Path) -> None:
    path = public_folder / "cloud.pem"
    path.write_bytes(b"")
    path.chmod(0)
    owner = path.owner()
    with as_somebody_else(), pytest.raises(NotPermitted) as caught:
        load_certificate(path, whose="the cloud's certificate")
    assert caught.value.why == f"cannot read it (mode 0000, owner {owner})"
    assert f"chmod g+r {path}" in caught.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_an_unreadable_folder_is_distinguished_from_an_unreadable_file(public_folder: Path) -> None:
    inner = public_folder / "keys"
    inner.mkdir(mode=0o700)
    with as_somebody_else(), pytest.raises(NotPermitted, match=r"cannot read it: .*/keys is closed to us"):
        load_private_key(inner / "pk.pem", whose="the user's key")


def test_a_key_does_not_fit_another_certificate(user, cloud) -> None:
    assert is_key_pair(user.key, user.certificate)
    assert not is_key_pair(user.key, cloud.certificate)


def test_the_encrypted_text_is_the_secret_itself(user) -> None:
    sealed = seal(SECRET, public_key(user.certificate))
    opened = user.key.decrypt(bytes.fromhex(sealed), padding.PKCS1v15())
    assert opened == b"303132333435363738393a3b3c3d3e3f"
    assert unseal(sealed, user.key) == SECRET


def test_another_key_does_not_open_a_sealed_secret(user, cloud) -> None:
    with pytest.raises(Damaged, match="not encrypted for this key"):
        unseal(seal(SECRET, public_key(cloud.certificate)), user.key)


@pytest.mark.parametrize(
    "text",
    [b"", b"0" * 31, b"0" * 33, b"0" * 31 + b"g", b" " + b"0" * 31, SECRET, b"0" * 32 + b"\n"],
    ids=["empty", "31 digits", "33 digits", "not hex", "blank", "raw bytes", "newline"],
)
def test_only_exactly_32_hex_digits_are_a_key(user, text: bytes) -> None:
    sealed = user.key.public_key().encrypt(text, padding.PKCS1v15()).hex()
    with pytest.raises(Damaged, match="not encrypted for this key"):
        unseal(sealed, user.key)


@pytest.mark.parametrize("sealed", ["", "abc", "zz", "ab cd", "ab" * 10])
def test_bytes_that_were_never_sealed_are_refused(user, sealed: str) -> None:
    with pytest.raises(Damaged):
        unseal(sealed, user.key)
