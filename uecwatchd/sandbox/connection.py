"""HTTP/1.1 on werkzeug's threaded server, with what a test of a client needs beyond it.

Connections are kept open, and closed after a hundred requests as Eucalyptus does.
`Expect: 100-continue` is answered when the body is first asked for, so that a refusal reaches the client
before it has sent ten megabytes. A body nobody read is let run out, within limits, before the connection is
closed: a client that is still sending would otherwise see a reset instead of the answer.
"""

import contextlib
import io
import socket
import threading
from collections.abc import Callable
from typing import Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler
from werkzeug.wrappers import Request, Response

KEEP_ALIVE_REQUESTS = 100  # Eucalyptus' own number
IDLE_SECONDS = 60.0  # a client that vanished without a word holds its thread no longer than this
LINGER_BYTES = 64 << 20  # six parts of a bundle: more than a client has in flight
LINGER_SECONDS = 5.0
LINGER_CHUNK = 1 << 16
STOP_SECONDS = 10.0  # for requests in progress when the server stops

App = Callable[[Request], Response]


class Body(io.RawIOBase):
    """A request's body: exactly as long as announced; the client is told to go on at the first read."""

    def __init__(self, source: io.BufferedIOBase, *, length: int, invite: Callable[[], None] | None) -> None:
        self._source = source
        self._invite = invite
        self.left = length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed wants any Buffer
        if not self.left:
            return 0
        if self._invite:
            self._invite()
            self._invite = None
        data = self._source.read1(min(len(buffer), self.left))
        self.left -= len(data)
        buffer[: len(data)] = data
        return len(data)


class Handler(WSGIRequestHandler):
    """One connection, on a thread of its own."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True  # head and body are two writes: the second would wait for an ACK, 40 ms
    server: "Server"
    served = 0

    def run_wsgi(self) -> None:
        """Answers one request. Replaces werkzeug's, which closes each connection after its first answer."""
        self.served += 1
        length = self.headers.get("Content-Length", "0").strip()
        if (
            not length.isascii()
            or not length.isdigit()
            or len(self.headers.get_all("Content-Length", [])) > 1
        ):
            self.send_error(400, "Content-Length is not one number")
            return
        body = Body(self.rfile, length=int(length), invite=self._invitation())
        environ = self.make_environ()
        environ["wsgi.input"] = body
        with Request(environ) as request:
            response = self.server.answer(request)
            with response:
                chunked = "Transfer-Encoding" in self.headers
                self._send(response, request, last=bool(body.left) or chunked)
        if body.left or chunked:
            self._linger()

    def handle_expect_100(self) -> bool:
        """Not yet: see `Body`."""
        return True

    def _invitation(self) -> Callable[[], None] | None:
        if self.headers.get("Expect", "").strip().lower() != "100-continue":
            return None
        return self._invite

    def _invite(self) -> None:
        self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _send(self, response: Response, request: Request, *, last: bool) -> None:
        chunks, status, headers = response.get_wsgi_response(request.environ)
        code, _, reason = status.partition(" ")
        self.send_response_only(int(code), reason)
        for name, value in headers:
            self.send_header(name, value)
        if last or self.served >= KEEP_ALIVE_REQUESTS:
            self.send_header("Connection", "close")
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(chunk)
        self.wfile.flush()

    def _linger(self) -> None:
        """Takes in what the client is still sending, until it stops."""
        self.close_connection = True
        _shut(self.connection, socket.SHUT_WR)
        self.connection.settimeout(LINGER_SECONDS)
        left = LINGER_BYTES
        while left > 0 and (data := self.rfile.read1(LINGER_CHUNK)):
            left -= len(data)

    def log(self, type: str, message: str, *args: Any) -> None:
        """The server keeps its own record of requests."""


class Server(ThreadedWSGIServer):
    """Listens on a socket it is given, and can let go of its connections when it stops."""

    def __init__(self, listener: socket.socket, answer: App) -> None:
        host, port = listener.getsockname()
        # The parent wants a WSGI application; our handler calls `answer` itself.
        super().__init__(host, port, Request.application(answer), handler=Handler, fd=listener.fileno())
        self.answer = answer
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), name="sandbox", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Takes no more connections, wakes those that wait for a request, and lets those at work finish."""
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
        super().shutdown_request(request)
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()


def _shut(connection: socket.socket, half: int) -> None:
    with contextlib.suppress(OSError):  # the client was faster
        connection.shutdown(half)
