"""Whom we believe to be the cloud."""

import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from uecwatchd.cloud.client import connect
from uecwatchd.cloud.credentials import Account
from uecwatchd.cloud.dialect import UEC
from uecwatchd.cloud.images import images
from uecwatchd.errors import Halted

NO_IMAGES = "<DescribeImagesResponse><imagesSet/></DescribeImagesResponse>"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory, user: Any) -> Iterator[tuple[str, Path]]:
    """A server with a certificate that no authority knows: its address, and the certificate's file."""
    certificate, key = user.write(tmp_path_factory.mktemp("tls"), "server")

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
    context.load_cert_chain(certificate, key)
    with Quiet(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}/services/Eucalyptus", certificate
        server.shutdown()
        thread.join()


def test_a_certificate_of_an_unknown_authority_halts(tls: tuple[str, Path], account: Account) -> None:
    with pytest.raises(Halted, match=r"certificate is not one that we trust.*Set ca_bundle"):
        images(connect(replace(account, ec2_url=tls[0]), UEC, uploads=1))


def test_a_private_cloud_is_trusted_through_its_ca_bundle(tls: tuple[str, Path], account: Account) -> None:
    url, certificate = tls
    assert images(connect(replace(account, ec2_url=url, ca_bundle=certificate), UEC, uploads=1)) == ()


def test_https_to_a_server_without_tls_halts(script: Any, account: Account) -> None:
    url = script.url.replace("http:", "https:")
    with pytest.raises(Halted, match=r"does not speak TLS.*http://"):
        images(connect(replace(account, ec2_url=url), UEC, uploads=1))
