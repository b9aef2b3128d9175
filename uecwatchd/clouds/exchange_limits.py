"""Limits of one exchange with a cloud: bytes, seconds, and the delay of a stop.

A server may send for ever, or a byte a minute, or take a connection and say nothing; a name server may
keep silent too. botocore and urllib3 limit none of that: their time-outs begin again with each byte. So each
exchange runs in a thread of its own while its caller waits, no longer than it is worth. One that is given up
has its socket shut, and that ends its thread. It is a daemon thread: nobody waits for it then, not even at
the end of the process.

What comes in is counted where it leaves the socket, heads and the frames of chunks with it. Nothing is
unpacked: we ask for plain answers, and a compressed one would only be text that nobody can read.
"""

import http.client
import io
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.exceptions import HTTPClientError, ReadTimeoutError

from uecwatchd.system.signals import Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# For taking a connection, and then for each piece of a body, since urllib3 has one number for both. A server
# that is up takes a connection at once, but a slow line shared by several uploads may stall for a while.
CONNECT_SECONDS = 30
# Between two looks at the clock while an answer is waited for.
POLL_SECONDS = 0.25
# A line that is slower, while several uploads share it, takes longer than anybody would wait for an image.
SLOWEST_BYTES_A_SECOND = 16 * 1024


class AnswerTooLong(HTTPClientError):  # type: ignore[misc]  # botocore has no types
    fmt = "it sent more than {limit} bytes"


def allow_seconds(seconds: float) -> "Callable[..., None]":
    """Return a listener for botocore's event `before-send` that replaces the session's limit of seconds."""

    def listen(*, request: Any, **_: object) -> None:
        request.seconds = seconds

    return listen


class BoundedSession:
    """A replacement for botocore's HTTP session that ends each of its exchanges.

    `seconds` is what one may take beside the time that its bytes need on the slowest line, `limit` how many
    bytes its answer may have, `most` how many may be under way; the others wait in their threads.
    Raises botocore's errors, `AnswerTooLong`, and `Stopped`.
    """

    def __init__(self, session: Any, *, seconds: float, limit: int, most: int, stop: Stop) -> None:
        # The one table that the session, and later each of its ways through a proxy, takes its pools from.
        session._pool_classes_by_scheme.update(http=_Pool, https=_TlsPool)
        self._session = session
        self._seconds = seconds
        self._limit = limit
        self._slots = threading.BoundedSemaphore(most)
        self._stop = stop

    def send(self, request: Any) -> Any:
        with self._slot():
            exchange = _Exchange(self._limit)
            thread = threading.Thread(
                target=exchange.run, args=(self._session, request), name="exchange", daemon=True
            )
            end = time.monotonic() + self._seconds_allowed(request)
            thread.start()
            self._await(exchange, request, end)
        return exchange.outcome()

    def close(self) -> None:
        self._session.close()

    @contextmanager
    def _slot(self) -> "Iterator[None]":
        while not self._slots.acquire(timeout=POLL_SECONDS):
            self._stop.may_go_on()
        try:
            self._stop.may_go_on()
            yield
        finally:
            self._slots.release()

    def _await(self, exchange: "_Exchange", request: Any, end: float) -> None:
        while not exchange.over.wait(min(POLL_SECONDS, max(0.0, end - time.monotonic()))):
            try:
                self._stop.may_go_on()
                if time.monotonic() >= end:
                    why = "its answer was not there in time"
                    raise ReadTimeoutError(endpoint_url=request.url, error=why)
            except BaseException:
                exchange.give_up()
                raise

    def _seconds_allowed(self, request: Any) -> float:
        sent = int(request.headers.get("Content-Length") or 0)
        expected = self._limit if request.stream_output else 0
        seconds: float = getattr(request, "seconds", self._seconds)
        return seconds + (sent + expected) / SLOWEST_BYTES_A_SECOND


class _Exchange:
    """One request and its answer, in a thread of its own."""

    def __init__(self, limit: int) -> None:
        self.over = threading.Event()
        self._left = self._limit = limit
        self._given_up = False
        self._connection: Any = None
        self._connecting: socket.socket | None = None
        self._reading: socket.socket | None = None
        self._answer: Any = None
        self._error: BaseException | None = None

    def run(self, session: Any, request: Any) -> None:
        _HERE.exchange = self
        # A body is read whole, by the session, which has its words for what goes wrong with it.
        request.stream_output = False
        try:
            answer = session.send(request)
            answer.raw = io.BytesIO(answer.content)
            self._answer = answer
        except BaseException as error:  # noqa: BLE001 (it is the asker's to be raised)
            self._error = error
        finally:
            self.over.set()

    def outcome(self) -> Any:
        if self._error is None:
            return self._answer
        inner = self._error.kwargs.get("error") if isinstance(self._error, HTTPClientError) else None
        raise inner if isinstance(inner, AnswerTooLong) else self._error

    def give_up(self) -> None:
        """Make the exchange fail and send nothing more. Called by the thread that waits for it."""
        self._given_up = True
        for each in (self._connecting, self._reading, getattr(self._connection, "sock", None)):
            if each is not None:
                with suppress(OSError):  # it is closed already
                    socket.socket.shutdown(each, socket.SHUT_RDWR)  # TLS would begin a farewell

    def uses(self, connection: Any) -> None:
        """Raise when nobody waits any more: the buffer of the body may be in other use by now."""
        self._connection = connection
        if self._given_up:
            raise ConnectionError("given up")

    @contextmanager
    def connects(self, connection: Any) -> "Iterator[None]":
        self.uses(connection)
        try:
            yield
        finally:
            if self._connecting is not None:
                self._connecting.close()
                self._connecting = None
        self.uses(connection)

    def has_opened(self, opened: socket.socket) -> None:
        """Keep a second handle: while TLS is agreed on, nobody else has one that holds."""
        self._connecting = opened.dup()

    def reads_from(self, source: socket.socket) -> None:
        """Remember the socket: a connection drops it before its last answer is read."""
        self._reading = source

    def took(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise AnswerTooLong(limit=self._limit)


# Set in each thread that asks, and nowhere else.
_HERE = threading.local()


class _TrackedConnection:
    """A connection that reports to its exchange."""

    def connect(self) -> None:
        with _HERE.exchange.connects(self):
            super().connect()  # type: ignore[misc]  # of the class it is mixed into, as below

    def request(self, *arguments: Any, **options: Any) -> Any:
        _HERE.exchange.uses(self)
        return super().request(*arguments, **options)  # type: ignore[misc]

    def _new_conn(self) -> Any:
        opened = super()._new_conn()  # type: ignore[misc]
        _HERE.exchange.has_opened(opened)
        return opened


class _Counted(io.RawIOBase):
    """The bytes of a socket, counted."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        count: int | None = self._source.readinto(buffer)
        _HERE.exchange.took(count or 0)
        return count

    def close(self) -> None:
        super().close()
        self._source.close()


class _CountedResponse(http.client.HTTPResponse):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        _HERE.exchange.reads_from(arguments[0])
        self.fp = io.BufferedReader(_Counted(self.fp.detach()))


class _Connection(_TrackedConnection, AWSHTTPConnection):  # type: ignore[misc]
    response_class = _CountedResponse


class _TlsConnection(_TrackedConnection, AWSHTTPSConnection):  # type: ignore[misc]
    response_class = _CountedResponse


class _NoRedirectPool:
    """A pool that ignores redirects: urllib3 follows none for us, and yet fails on some."""

    def urlopen(self, **asked: Any) -> Any:
        return super().urlopen(**asked, redirect=False)  # type: ignore[misc]


class _Pool(_NoRedirectPool, AWSHTTPConnectionPool):  # type: ignore[misc]
    ConnectionCls = _Connection


class _TlsPool(_NoRedirectPool, AWSHTTPSConnectionPool):  # type: ignore[misc]
    ConnectionCls = _TlsConnection
