"""The messages between this program and the confined process that reads file systems.

One message is a kind, a length, and that many bytes. A question goes to the process, as JSON. Before it
answers, it may ask for any number of stretches of the disk. The answer is JSON, or content of a file.

Nothing here trusts the other side: a length has a limit, and JSON is checked where it is used.
"""

import json
import socket
import struct
import time
from typing import Literal

Kind = Literal[b"Q", b"R", b"D", b"A", b"C", b"E"]
QUESTION: Kind = b"Q"  # JSON, to the process
READ: Kind = b"R"  # offset and length of a stretch of the disk, from the process
DATA: Kind = b"D"  # that stretch
ANSWER: Kind = b"A"  # JSON
CONTENT: Kind = b"C"  # bytes of a file
ERROR: Kind = b"E"  # why there is no answer, as text

HEADER = struct.Struct(">cI")
STRETCH = struct.Struct(">QI")
# The largest message: 4096 names of 255 bytes, if each byte is written as six characters.
MAX_MESSAGE_BYTES = 8 << 20


class BrokenConnection(Exception):
    """The other side has ended, or sends what is no message."""


def send(connection: socket.socket, kind: Kind, payload: bytes | memoryview) -> None:
    """Send one message. Raises OSError, which is TimeoutError if the connection has a time limit."""
    connection.sendall(HEADER.pack(kind, len(payload)))
    connection.sendall(payload)


def send_json(connection: socket.socket, kind: Kind, value: object) -> None:
    send(connection, kind, json.dumps(value, separators=(",", ":")).encode())


def receive(connection: socket.socket, *, until: float | None = None) -> tuple[bytes, bytes]:
    """Return the next message: its kind and its payload. `until` is a time of the monotonic clock.

    Raises BrokenConnection, TimeoutError, OSError.
    """
    kind, length = HEADER.unpack(_receive_exactly(connection, HEADER.size, until))
    if length > MAX_MESSAGE_BYTES:
        raise BrokenConnection(f"a message of {length} bytes")
    return kind, _receive_exactly(connection, length, until)


def limit_time(connection: socket.socket, until: float | None) -> None:
    """Let the next call on a connection wait no longer than `until`. Raises TimeoutError if that is past."""
    left = None if until is None else until - time.monotonic()
    if left is not None and left <= 0:
        raise TimeoutError
    connection.settimeout(left)


def _receive_exactly(connection: socket.socket, length: int, until: float | None) -> bytes:
    data, done = memoryview(bytearray(length)), 0
    while done < length:
        limit_time(connection, until)
        count = connection.recv_into(data[done:])
        if not count:
            raise BrokenConnection("it has ended")
        done += count
    return bytes(data)
