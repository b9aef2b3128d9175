"""HTTP/1.1 on werkzeug's threaded server, with the details that tests of a client need.

Connections are kept open, and closed after so many requests as Eucalyptus does, announced or not.
`Expect: 100-continue` is answered when the body is first read, so that a refusal reaches the client before it
has sent ten megabytes. A body that was not read is drained, within limits, before the connection is closed: a
client that is still sending would otherwise see a reset instead of the answer.
"""

import contextlib
import io
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

from werkzeug.http import http_date
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler
from werkzeug.wrappers import Request, Response

REQUEST_LINE_LIMIT = 4 << 10  # bytes: Eucalyptus' own numbers; others take more
HEADERS_LIMIT = 8 << 10
IDLE_SECONDS = 60.0  # a client that vanished without a word holds its thread no longer than this
LINGER_BYTES = 64 << 20  # six parts of a bundle: more than a client has in flight
LINGER_SECONDS = 5.0
LINGER_CHUNK = 1 << 16
STOP_SECONDS = 10.0  # for requests in progress when the server stops

# For SO_LINGER: on, no seconds. Such a socket is reset when it is closed.
AT_ONCE = struct.pack("ii", 1, 0)

App = Callable[[Request], Response]
# Called with a request that was refused before `App`: method, path without the query, status, reason. Method
# and path are empty if they could not be read.
OnRejected = Callable[[str, str, HTTPStatus, str], None]


class ConnectionDropped(Exception):
    """The end of a request without an answer: its connection is reset.

    `action` is the request's, as far as it was read; `status` that of the lost answer, 0 if nothing was done.
    """

    def __init__(self, fault: str, *, action: str = "", status: int = 0) -> None:
        super().__init__(fault)
        self.fault = fault
        self.action = action
        self.status = status


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """The number of requests on one connection, and whether its end is announced."""

    requests: Callable[[], int]
    announced: bool
    clock: Callable[[], datetime]


class RequestBody(io.RawIOBase):
    """A request's body, exactly as long as announced. The first read tells the client to go on."""

    def __init__(
        self, source: io.BufferedIOBase, *, length: int, send_continue: Callable[[], None] | None
    ) -> None:
        self._source = source
        self._send_continue = send_continue
        self.left = length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed wants any Buffer
        if not self.left:
            return 0
        if self._send_continue:
            self._send_continue()
            self._send_continue = None
        data = self._source.read1(min(len(buffer), self.left))
        self.left -= len(data)
        buffer[: len(data)] = data
        return len(data)


class ConnectionHandler(WSGIRequestHandler):
    """One connection, on a thread of its own."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True  # head and body are two writes: the second would wait for an ACK, 40 ms
    server: "HttpServer"
    served = 0

    def run_wsgi(self) -> None:
        """Answer one request, instead of werkzeug's method, which closes a connection after one answer."""
        self.served += 1
        if refusal := self._refusal():
            self.send_error(*refusal)
            return
        body = RequestBody(self.rfile, length=int(self._length()), send_continue=self._continue_handler())
        environ = self.make_environ()
        environ["wsgi.input"] = body
        with Request(environ) as request:
            try:
                response = self.server.answer(request)
            except ConnectionDropped:
                self.close_connection = True
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
                return
            with response:
                chunked = "Transfer-Encoding" in self.headers
                self._send(response, request, last=bool(body.left) or chunked)
        if body.left or chunked:
            self._linger()

    def _length(self) -> str:
        return str(self.headers.get("Content-Length", "0")).strip()

    def _refusal(self) -> tuple[int, str] | None:
        """Return status and reason for a request that neither half needs to see."""
        length = self._length()
        if (
            not length.isascii()
            or not length.isdigit()
            or len(self.headers.get_all("Content-Length", [])) > 1
        ):
            return 400, "Content-Length is not one number"
        if len(self.raw_requestline) > REQUEST_LINE_LIMIT:
            return 414, "The request line is too long"
        if sum(len(name) + len(value) for name, value in self.headers.items()) > HEADERS_LIMIT:
            return 431, "The headers are too large"
        return None

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Record the refusal and send it.

        The parent class calls this too, when `self.path` may be missing or still that of the request before.
        """
        words = self.requestline.split()
        method, path = (words[0], words[1].partition("?")[0]) if len(words) > 1 else ("", "")
        self.server.record_rejected(method, path, HTTPStatus(code), message or "")
        super().send_error(code, message, explain)

    def send_response(self, code: int, message: str | None = None) -> None:
        """Begin an answer of `send_error`: without a Server header, and dated by the cloud's clock."""
        self.send_response_only(code, message)
        self.send_header("Date", http_date(self.server.settings.clock()))

    def handle_expect_100(self) -> bool:
        """Wait with the interim answer: see `RequestBody`."""
        return True

    def _continue_handler(self) -> Callable[[], None] | None:
        if self.headers.get("Expect", "").strip().lower() != "100-continue":
            return None
        return self._send_continue

    def _send_continue(self) -> None:
        self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _send(self, response: Response, request: Request, *, last: bool) -> None:
        chunks, status, headers = response.get_wsgi_response(request.environ)
        code, _, reason = status.partition(" ")
        self.send_response_only(int(code), reason)
        for name, value in headers:
            self.send_header(name, value)
        over = self.served >= self.server.settings.requests()
        if last or (over and self.server.settings.announced):
            self.send_header("Connection", "close")
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(chunk)
        self.wfile.flush()
        self.close_connection = self.close_connection or over

    def _linger(self) -> None:
        """Read and discard input until the client stops sending."""
        self.close_connection = True
        _shut(self.connection, socket.SHUT_WR)
        self.connection.settimeout(LINGER_SECONDS)
        left = LINGER_BYTES
        while left > 0 and (data := self.rfile.read1(LINGER_CHUNK)):
            left -= len(data)

    def log(self, type: str, message: str, *args: Any) -> None:
        """Write nothing: the cloud records requests itself."""


class HttpServer(ThreadedWSGIServer):
    """Server on a given listening socket, which can close its connections when it stops."""

    def __init__(
        self,
        listener: socket.socket,
        answer: App,
        *,
        record_rejected: OnRejected,
        settings: ConnectionSettings,
    ) -> None:
        host, port = listener.getsockname()
        # The parent wants a WSGI application; our handler calls `answer` itself.
        super().__init__(
            host, port, Request.application(answer), handler=ConnectionHandler, fd=listener.fileno()
        )
        self.answer = answer
        self.record_rejected = record_rejected
        self.settings = settings
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), name="sandbox", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Accept no more connections, wake those that wait for a request, and let the busy ones finish."""
        self.shutdown()
        self._thread.join()
        with self._changed:
            for connection in self._open:
                _shut(connection, socket.SHUT_RD)
            self._changed.wait_for(lambda: not self._open, timeout=STOP_SECONDS)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection: in order, unless it is to be reset."""
        lingering = request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(AT_ONCE))
        if lingering == AT_ONCE:
            self.close_request(request)
        else:
            super().shutdown_request(request)
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()


def _shut(connection: socket.socket, half: int) -> None:
    with contextlib.suppress(OSError):  # the client was faster
        connection.shutdown(half)
