"""Each exchange with a cloud has an end in bytes and in seconds, whatever the server does."""

import contextlib
import gzip
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError, HTTPClientError, ReadTimeoutError
from botocore.httpsession import URLLib3Session

from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.clouds.exchange_limits import AnswerTooLong, BoundedSession, allow_seconds
from uecwatchd.errors import Stopped
from uecwatchd.system.signals import Stop

Act = Callable[["Rude", socket.socket], None]

SECONDS = 0.25
GRACE_SECONDS = 0.4
# What a busy machine may add to that.
LATE_SECONDS = 3.0
LIMIT = 200_000
# What the kernel takes of an endless answer on its way.
BUFFERS = 16 << 20
DRIP_SECONDS = 0.02
OK = b"HTTP/1.1 200 OK\r\n"
PLENTY = b"a" * 65536


@dataclass
class Rude:
    """A server that does one thing with each client."""

    act: Act
    listener: socket.socket
    sent: int = 0
    met: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def serve(self) -> None:
        while not self.over.is_set():
            try:
                caller, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.treat, args=[caller], daemon=True).start()

    def treat(self, caller: socket.socket) -> None:
        self.met.set()
        with caller, contextlib.suppress(OSError):
            self.act(self, caller)

    def send(self, caller: socket.socket, data: bytes) -> None:
        caller.sendall(data)
        self.sent += len(data)


@pytest.fixture
def rude() -> Iterator[Callable[[Act], Rude]]:
    made: list[Rude] = []

    def make(act: Act) -> Rude:
        made.append(Rude(act, socket.create_server(("127.0.0.1", 0))))
        threading.Thread(target=made[-1].serve, daemon=True).start()
        return made[-1]

    yield make
    for each in made:
        each.over.set()
        each.listener.close()


def wire(*, seconds: float = SECONDS, most: int = 4, stop: Stop | None = None) -> BoundedSession:
    session = URLLib3Session(timeout=(PATIENCE_SECONDS, PATIENCE_SECONDS))
    return BoundedSession(session, seconds=seconds, limit=LIMIT, most=most, stop=stop or Stop())


def ask(
    line: BoundedSession, port: int, method: str = "GET", *, scheme: str = "http", body: bytes = b""
) -> bytes:
    request = AWSRequest(method, f"{scheme}://127.0.0.1:{port}/", data=body).prepare()
    return bytes(line.send(request).content)


def await_the_last() -> None:
    """Wait until each thread that asked has come to its end."""
    until(lambda: all(thread.name != "exchange" for thread in threading.enumerate()))


def read_head(caller: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data and (chunk := caller.recv(65536)):
        data += chunk
    return data


def drip(server: Rude, caller: socket.socket, data: bytes) -> None:
    while not server.over.wait(DRIP_SECONDS):
        server.send(caller, data)


def says_nothing(server: Rude, caller: socket.socket) -> None:
    server.over.wait(PATIENCE_SECONDS)


def drips_its_head(server: Rude, caller: socket.socket) -> None:
    read_head(caller)
    server.send(caller, OK)
    drip(server, caller, b"X")


def drips_its_body(server: Rude, caller: socket.socket) -> None:
    read_head(caller)
    server.send(caller, OK + b"Content-Length: 100000\r\n\r\n")
    drip(server, caller, b"<")


def drips_chunks(server: Rude, caller: socket.socket) -> None:
    read_head(caller)
    server.send(caller, OK + b"Transfer-Encoding: chunked\r\n\r\n")
    drip(server, caller, b"1\r\n<\r\n")


def says_continue_for_ever(server: Rude, caller: socket.socket) -> None:
    read_head(caller)
    drip(server, caller, b"HTTP/1.1 100 Continue\r\n\r\n")


def drips_an_error(server: Rude, caller: socket.socket) -> None:
    read_head(caller)
    server.send(caller, b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
    drip(server, caller, b"<")


@pytest.mark.parametrize(
    "act",
    [
        says_nothing,
        drips_its_head,
        drips_its_body,
        drips_chunks,
        says_continue_for_ever,
        drips_an_error,
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_exchange_has_a_deadline_also_while_bytes_arrive(
    act: Act, method: str, rude: Callable[[Act], Rude]
) -> None:
    began = time.monotonic()
    with pytest.raises(ReadTimeoutError):
        ask(wire(), rude(act).port, method, body=b"Action=DescribeImages" if method == "POST" else b"")
    assert time.monotonic() - began < SECONDS + LATE_SECONDS
    await_the_last()


def test_an_unfinished_tls_handshake_is_abandoned(rude: Callable[[Act], Rude]) -> None:
    began = time.monotonic()
    with pytest.raises(ReadTimeoutError):
        ask(wire(), rude(says_nothing).port, scheme="https")
    assert time.monotonic() - began < SECONDS + LATE_SECONDS
    await_the_last()


def test_a_very_slow_tls_handshake_is_abandoned(rude: Callable[[Act], Rude]) -> None:
    def act(server: Rude, caller: socket.socket) -> None:
        server.send(caller, b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb\x03\x03")
        drip(server, caller, b"\x00")

    with pytest.raises(ReadTimeoutError):
        ask(wire(), rude(act).port, scheme="https")
    await_the_last()


def test_a_host_without_connections_is_abandoned() -> None:
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # they are not accepted, and the queue has no place for another
            caller = stack.enter_context(socket.socket())
            caller.settimeout(0)
            caller.connect_ex(full.getsockname())
        began = time.monotonic()
        with pytest.raises(ReadTimeoutError):
            ask(wire(), full.getsockname()[1])
        assert time.monotonic() - began < SECONDS + LATE_SECONDS


def test_an_upload_that_is_read_a_byte_at_a_time_is_abandoned(rude: Callable[[Act], Rude]) -> None:
    def act(server: Rude, caller: socket.socket) -> None:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while not server.over.wait(DRIP_SECONDS):
            caller.recv(1)

    server, data = rude(act), bytes(16 << 20)
    slow = wire(seconds=SECONDS - len(data) / (16 * 1024))  # what the bytes themselves may take, taken off
    began = time.monotonic()
    with pytest.raises(ReadTimeoutError):
        ask(slow, server.port, "PUT", body=data)
    assert time.monotonic() - began < SECONDS + LATE_SECONDS
    await_the_last()


def test_a_large_upload_over_a_slow_line_has_the_time_that_it_needs(rude: Callable[[Act], Rude]) -> None:
    data = os.urandom(1 << 20)
    got = bytearray()

    def act(server: Rude, caller: socket.socket) -> None:
        body = caller.recv(4096).partition(b"\r\n\r\n")[2]
        got.extend(body)
        time.sleep(2 * SECONDS)
        while len(got) < len(data):
            got.extend(caller.recv(65536))
        server.send(caller, OK + b"Content-Length: 2\r\n\r\nok")

    assert ask(wire(), rude(act).port, "PUT", body=data) == b"ok"
    assert bytes(got) == data


def answers_a_post_late(server: Rude, caller: socket.socket) -> None:
    """Answer a POST after the usual deadline, and no other request."""
    is_post = read_head(caller).startswith(b"POST")
    if not server.over.wait(3 * SECONDS if is_post else PATIENCE_SECONDS):
        server.send(caller, OK + b"Content-Length: 2\r\n\r\nok")


def test_a_slow_kind_of_request_has_a_longer_deadline(rude: Callable[[Act], Rude]) -> None:
    server, line = rude(answers_a_post_late), wire()
    request = AWSRequest("POST", f"http://127.0.0.1:{server.port}/").prepare()
    allow_seconds(PATIENCE_SECONDS)(request=request)
    assert line.send(request).content == b"ok"
    with pytest.raises(ReadTimeoutError):
        ask(line, server.port)


# --- bytes ------------------------------------------------------------------------------------------------


def endless(head: bytes, more: bytes = PLENTY) -> Act:
    def act(server: Rude, caller: socket.socket) -> None:
        read_head(caller)
        server.send(caller, head)
        while not server.over.is_set():
            server.send(caller, more)

    return act


ENDLESS = {
    "body": endless(OK + b"\r\n"),
    "announced body": endless(OK + b"Content-Length: 999999999999\r\n\r\n"),
    "chunks": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"a" * 4096 + b"\r\n"),
    "one chunk": endless(OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffff\r\n"),
    "trailers": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: " + b"a" * 4096 + b"\r\n"),
    "a trailer's line": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"),
    "chunk's length": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1" * 65536),
    "header": endless(OK + b"X: "),
    "headers": endless(OK, b"X: " + b"a" * 4096 + b"\r\n"),
    "status": endless(b"HTTP/1.1 200 "),
    "provisional answers": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "error": endless(b"HTTP/1.1 500 Internal Server Error\r\n\r\n"),
    "redirect": endless(b"HTTP/1.1 301 Moved Permanently\r\nLocation: /elsewhere\r\n\r\n"),
    "refusal": endless(b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n"),
}


@pytest.mark.parametrize("act", ENDLESS.values(), ids=ENDLESS.keys())
def test_an_answer_without_an_end_is_not_read_beyond_its_limit(act: Act, rude: Callable[[Act], Rude]) -> None:
    server = rude(act)
    with pytest.raises(BotoCoreError):
        ask(wire(seconds=PATIENCE_SECONDS), server.port)
    await_the_last()
    assert server.sent < LIMIT + BUFFERS


def test_an_answer_that_is_too_long_is_reported_with_the_limit(rude: Callable[[Act], Rude]) -> None:
    with pytest.raises(AnswerTooLong, match=f"more than {LIMIT} bytes"):
        ask(wire(seconds=PATIENCE_SECONDS), rude(ENDLESS["body"]).port)


def answers(head: bytes, body: bytes) -> Act:
    def act(server: Rude, caller: socket.socket) -> None:
        read_head(caller)
        server.send(caller, OK + head + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    return act


def test_an_answer_as_long_as_it_may_be_is_read(rude: Callable[[Act], Rude]) -> None:
    body = b"a" * (LIMIT - 1000)
    assert ask(wire(), rude(answers(b"", body)).port) == body


def test_a_compressed_answer_is_not_unpacked(rude: Callable[[Act], Rude]) -> None:
    bomb = gzip.compress(bytes(100 << 20))
    assert ask(wire(), rude(answers(b"Content-Encoding: gzip\r\n", bomb)).port) == bomb


def test_no_answer_is_waited_for_to_a_head_request(rude: Callable[[Act], Rude]) -> None:
    assert ask(wire(), rude(ENDLESS["announced body"]).port, "HEAD") == b""


# --- a stop -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", [says_nothing, drips_its_body, ENDLESS["provisional answers"]])
def test_a_stop_ends_running_requests_after_a_short_time(act: Act, rude: Callable[[Act], Rude]) -> None:
    stop, server = Stop(grace=GRACE_SECONDS), rude(act)
    threading.Thread(target=lambda: (server.met.wait(PATIENCE_SECONDS), stop.set())).start()
    began = time.monotonic()
    with pytest.raises((Stopped, HTTPClientError)):
        ask(wire(seconds=PATIENCE_SECONDS, stop=stop), server.port)
    assert time.monotonic() - began < GRACE_SECONDS + LATE_SECONDS
    await_the_last()


def test_a_stop_also_ends_the_wait_for_a_turn(rude: Callable[[Act], Rude]) -> None:
    stop, server = Stop(grace=GRACE_SECONDS), rude(says_nothing)
    line, ended = wire(seconds=PATIENCE_SECONDS, most=1, stop=stop), []

    def one() -> None:
        with pytest.raises(Stopped):
            ask(line, server.port)
        ended.append(time.monotonic())

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert server.met.wait(PATIENCE_SECONDS)
    stop.set()
    began = time.monotonic()
    for thread in threads:
        thread.join()
    assert len(ended) == 3
    assert max(ended) - began < GRACE_SECONDS + LATE_SECONDS


def test_a_request_that_ends_soon_after_a_stop_is_not_lost(rude: Callable[[Act], Rude]) -> None:
    stop = Stop(grace=GRACE_SECONDS)

    def act(server: Rude, caller: socket.socket) -> None:
        read_head(caller)
        stop.set()
        time.sleep(GRACE_SECONDS / 4)
        server.send(caller, OK + b"Content-Length: 2\r\n\r\nok")

    assert ask(wire(seconds=PATIENCE_SECONDS, stop=stop), rude(act).port) == b"ok"


def test_no_request_starts_after_a_stop(rude: Callable[[Act], Rude]) -> None:
    stop, server = Stop(grace=GRACE_SECONDS), rude(says_nothing)
    stop.set()
    with contextlib.suppress(Stopped):
        ask(wire(seconds=PATIENCE_SECONDS, stop=stop), server.port)
    server.met.clear()
    with pytest.raises(Stopped):
        ask(wire(seconds=PATIENCE_SECONDS, stop=stop), server.port)
    assert not server.met.is_set()
