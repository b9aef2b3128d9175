"""Servers that are believed to be the cloud, and the errors for those that are not."""

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from uecwatchd.clouds.client import make_cloud
from uecwatchd.clouds.credentials.account import Account
from uecwatchd.clouds.dialects import UEC
from uecwatchd.clouds.images import list_images
from uecwatchd.errors import Halted

NO_IMAGES = "<DescribeImagesResponse><imagesSet/></DescribeImagesResponse>"
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)

Setup = Callable[[ssl.SSLContext], object]


@contextmanager
def tls_server(certificate: Path, key: Path, setup: Setup = lambda _: None) -> Iterator[int]:
    """A server of no images; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(NO_IMAGES.encode())

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(HTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # a handshake that the client breaks off is what is tested

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(certificate, key)
    setup(context)
    with Quiet(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, user: Any) -> tuple[Path, Path]:
    """A certificate that no authority knows, and its key."""
    files: tuple[Path, Path] = user.write(tmp_path_factory.mktemp("tls"), "server")
    return files


@pytest.fixture(scope="module")
def tls(own: tuple[Path, Path]) -> Iterator[tuple[str, Path]]:
    """A server with that certificate: its address, and the certificate's file."""
    with tls_server(*own) as port:
        yield f"https://127.0.0.1:{port}/services/Eucalyptus", own[0]


def asked(account: Account, url: str, authorities: Path | None = None) -> object:
    return list_images(make_cloud(replace(account, ec2_url=url, ca_bundle=authorities), UEC, uploads=1))


def test_a_certificate_of_an_unknown_authority_halts(tls: tuple[str, Path], account: Account) -> None:
    with pytest.raises(Halted, match=r"certificate is not one that we trust.*Set ca_bundle"):
        asked(account, tls[0])


def test_a_private_cloud_is_trusted_through_its_ca_bundle(tls: tuple[str, Path], account: Account) -> None:
    url, certificate = tls
    assert asked(account, url, certificate) == ()


def test_https_to_a_server_without_tls_halts(script: Any, account: Account) -> None:
    url = script.url.replace("http:", "https:")
    with pytest.raises(Halted, match=r"does not speak TLS.*http://"):
        asked(account, url)


def write_certificate(
    folder: Path, *, bits: int = 2048, name: str = "127.0.0.1", starts: int = -1, ends: int = 30
) -> tuple[Path, Path]:
    """A certificate and its key, signed by itself; its days are counted from now."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    host = x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.add_extension(x509.SubjectAlternativeName([host]), critical=False)
    builder = builder.not_valid_before(NOW + starts * DAY).not_valid_after(NOW + ends * DAY)
    files = folder / "cert.pem", folder / "pk.pem"
    files[0].write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    return files


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"ends": 0}, r"has expired .*expired.*Ask its administrator for a new one"),
        ({"starts": 10}, r"is not valid yet .*not yet valid.*See by `date -u`"),
        ({"name": "cloud.example"}, r"for another host name .*'127\.0\.0\.1' doesn't match 'cloud\.example'"),
        ({"name": "127.0.0.2"}, r"for another host name .*Write a name that is in its certificate"),
        ({"bits": 1024}, r"a key of its TLS is too weak .*key too weak.*RSA key of 2048 bits"),
    ],
)
def test_a_wrong_certificate_is_reported_without_blaming_ca_bundle(
    wrong: dict[str, Any], said: str, account: Account, tmp_path: Path
) -> None:
    certificate, key = write_certificate(tmp_path, **wrong)
    with tls_server(certificate, key) as port, pytest.raises(Halted, match=said) as caught:
        asked(account, f"https://127.0.0.1:{port}/x", certificate)
    assert "ca_bundle" not in caught.value.hint


def only(version: ssl.TLSVersion) -> Setup:
    def setup(context: ssl.SSLContext) -> None:
        context.minimum_version = context.maximum_version = version

    return setup


def unknown_name(context: ssl.SSLContext) -> None:
    context.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME  # type: ignore[assignment]


def odd_cipher(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-RSA-NULL-SHA:@SECLEVEL=0")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(
    ("setup", "said"),
    [
        (only(ssl.TLSVersion.TLSv1), r"no newer TLS than 1\.1"),
        (only(ssl.TLSVersion.TLSv1_1), r"no newer TLS than 1\.1"),
        (unknown_name, "knows no host of that name"),
        (odd_cipher, "have nothing in common"),
    ],
    ids=["1.0", "1.1", "name", "cipher"],
)
def test_a_server_with_unsupported_tls_halts(
    setup: Setup, said: str, own: tuple[Path, Path], account: Account
) -> None:
    with tls_server(*own, setup) as port, pytest.raises(Halted, match=said) as caught:
        asked(account, f"https://127.0.0.1:{port}/x", own[0])
    assert "No action is needed" not in caught.value.hint
    assert "ca_bundle" not in caught.value.hint


@pytest.mark.parametrize("content", ["", "-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n"])
def test_a_ca_bundle_without_a_certificate_is_named(
    content: str, tls: tuple[str, Path], account: Account, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text(content)
    with pytest.raises(Halted, match=r"ca_bundle names holds no certificate"):
        asked(account, tls[0], tmp_path / "ca.pem")


def test_http_to_a_server_with_tls_halts(tls: tuple[str, Path], account: Account) -> None:
    with pytest.raises(Halted, match=r"it speaks TLS at that address.*https://"):
        asked(account, tls[0].replace("https:", "http:"))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"\x15\x03\x01\x00\x02\x02\x46", "it speaks TLS at that address"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (b"220 mail.example ESMTP\r\n", "does not speak HTTP"),
    ],
)
def test_a_server_without_http_halts(answer: bytes, said: str, account: Account) -> None:
    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            self.connection.recv(4096)
            self.wfile.write(answer)

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with pytest.raises(Halted, match=said):
            asked(account, f"http://127.0.0.1:{server.server_address[1]}/x")
        server.shutdown()
