"""HTTP as it goes over the wire: what no client library would let one send."""

import base64
import hashlib
import hmac
import http.client
import re
import resource
import socket
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest

TIMEOUT = 10


@pytest.fixture
def wire(cloud: Any) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", cloud.port), timeout=TIMEOUT) as connection:
        yield connection


@pytest.fixture
def signed(cloud: Any) -> Callable[..., bytes]:
    """The head of an S3 request in version 2; the extra headers are not signed."""

    def head(method: str, path: str, **headers: str) -> bytes:
        date = formatdate(usegmt=True)
        text = f"{method}\n\n\n{date}\n/services/Walrus{path}"
        digest = hmac.digest(cloud.identity.secret_key.encode(), text.encode(), hashlib.sha1)
        lines = [
            f"{method} /services/Walrus{path} HTTP/1.1",
            f"Host: 127.0.0.1:{cloud.port}",
            f"Date: {date}",
            f"Authorization: AWS {cloud.identity.access_key}:{base64.b64encode(digest).decode()}",
            *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    return head


def answer(connection: socket.socket, *, method: str = "PUT") -> tuple[int, bytes, dict[str, str]]:
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    with response:
        return (
            response.status,
            response.read(),
            {name.lower(): value for name, value in response.getheaders()},
        )


def test_an_upload_without_content_length_is_refused(wire: socket.socket, signed: Any) -> None:
    wire.sendall(signed("PUT", "/images/k"))
    status, body, _ = answer(wire)
    assert (status, b"MissingContentLength" in body) == (411, True)


def test_a_chunked_upload_is_refused(wire: socket.socket, signed: Any, cloud: Any) -> None:
    wire.sendall(signed("PUT", "/images/chunked", Transfer_Encoding="chunked") + b"3\r\nabc\r\n0\r\n\r\n")
    status, body, headers = answer(wire)
    assert (status, b"MissingContentLength" in body, headers["connection"]) == (411, True, "close")
    assert "chunked" not in [stored.key for stored in cloud.objects("images")]


@pytest.mark.parametrize("length", ["-1", "abc", "1, 2", "1e3", "²"])
def test_a_content_length_that_is_no_number_is_refused(length: str, wire: socket.socket, signed: Any) -> None:
    wire.sendall(signed("PUT", "/images/k", Content_Length=length))
    assert answer(wire)[0] == 400


def test_an_upload_larger_than_s3_allows_is_refused_before_it_is_sent(
    wire: socket.socket, signed: Any
) -> None:
    wire.sendall(signed("PUT", "/images/k", Content_Length=str((5 << 30) + 1), Expect="100-continue"))
    status, body, headers = answer(wire)
    assert (status, b"EntityTooLarge" in body, headers["connection"]) == (400, True, "close")


def test_a_body_cut_short_leaves_nothing(wire: socket.socket, signed: Any, cloud: Any) -> None:
    wire.sendall(signed("PUT", "/images/short", Content_Length="100") + b"x" * 99)
    wire.shutdown(socket.SHUT_WR)
    status, body, _ = answer(wire)
    assert (status, b"IncompleteBody" in body) == (400, True)
    assert "short" not in [stored.key for stored in cloud.objects("images")]


def test_the_client_is_told_to_go_on_only_when_its_body_is_wanted(
    wire: socket.socket, signed: Any, s3: Any
) -> None:
    wire.sendall(signed("PUT", "/images/invited", Content_Length="4", Expect="100-continue"))
    assert wire.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.sendall(b"body")
    assert answer(wire)[0] == 200
    wire.sendall(signed("PUT", "/nowhere/k", Content_Length="4", Expect="100-continue"))
    status, body, _ = answer(wire)
    assert (status, b"NoSuchBucket" in body) == (404, True)
    assert s3.get_object(Bucket="images", Key="invited")["Body"].read() == b"body"


def test_a_refusal_reaches_a_client_that_is_still_sending(wire: socket.socket, signed: Any) -> None:
    size = 20 << 20
    wire.sendall(signed("PUT", "/nowhere/k", Content_Length=str(size)))
    wire.sendall(bytes(size))
    assert answer(wire)[0] == 404


def test_a_connection_serves_many_requests_and_is_closed_after_a_hundred(
    wire: socket.socket, signed: Any
) -> None:
    for number in range(1, 101):
        wire.sendall(signed("PUT", "/images/again", Content_Length="1") + b"x")
        status, _, headers = answer(wire)
        assert (status, headers.get("connection")) == (200, "close" if number == 100 else None)
    assert wire.recv(1) == b""


def test_requests_may_be_sent_ahead(wire: socket.socket, signed: Any) -> None:
    wire.sendall(signed("HEAD", "/images") + signed("GET", "/images/none") + signed("DELETE", "/images/none"))
    received = b""
    while not (statuses := re.findall(rb"HTTP/1.1 (\d+)", received))[2:]:
        received += wire.recv(1024)
    assert statuses == [b"200", b"404", b"204"]


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /nothing HTTP/1.1", 404),
        ("GET /services/Compute HTTP/1.1", 404),
        ("GET /services/WalrusX HTTP/1.1", 404),
        ("POST / HTTP/1.1", 404),
        ("PUT /services/Eucalyptus HTTP/1.1", 405),
        ("GET /services/Eucalyptus HTTP/1.1", 403),
        ("GET /services/Walrus HTTP/1.1", 403),
        ("GET / AND MORE HTTP/1.1", 400),
    ],
)
def test_what_is_asked_in_the_wrong_place_or_by_nobody_is_refused(
    request_line: str, status: int, wire: socket.socket
) -> None:
    wire.sendall(f"{request_line}\r\nHost: x\r\n\r\n".encode())
    assert answer(wire, method="GET")[0] == status


WRONG_QUERIES = {
    "a parameter twice": ("Content-Length: 17\r\n\r\nAction=a&Action=b", 400, "InvalidParameterCombination"),
    "a body cut short": ("Content-Length: 17\r\n\r\nAction=a", 400, "IncompleteBody"),
    "a chunked body": ("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411, "MissingContentLength"),
    "too long a body": ("Content-Length: 65537\r\n\r\n", 413, "RequestEntityTooLarge"),
}


@pytest.mark.parametrize("name", WRONG_QUERIES)
def test_a_query_nobody_could_sign_is_refused(name: str, wire: socket.socket) -> None:
    rest, status, code = WRONG_QUERIES[name]
    wire.sendall(f"POST /services/Eucalyptus HTTP/1.1\r\nHost: x\r\n{rest}".encode())
    wire.shutdown(socket.SHUT_WR)
    answered, body, _ = answer(wire, method="POST")
    assert (answered, code.encode() in body) == (status, True)


def test_bodies_of_other_s3_requests_are_bounded(wire: socket.socket, signed: Any) -> None:
    wire.sendall(signed("PUT", "/too-much-said", Content_Length="65537"))
    status, body, _ = answer(wire)
    assert (status, b"RequestEntityTooLarge" in body) == (413, True)


def test_a_large_upload_goes_to_disk_and_not_to_memory(
    wire: socket.socket, signed: Any, cloud: Any, s3: Any
) -> None:
    """The cloud is in this process, so the process must not grow by what is sent."""
    chunk, count = bytes(1 << 20), 200
    wire.sendall(signed("PUT", "/images/large", Content_Length=str(len(chunk) * count)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(count):
        wire.sendall(chunk)
    assert answer(wire)[0] == 200
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert grown < 50 << 10
    assert s3.head_object(Bucket="images", Key="large")["ContentLength"] == len(chunk) * count
    s3.delete_object(Bucket="images", Key="large")
