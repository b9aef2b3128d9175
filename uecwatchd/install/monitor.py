"""The control connection of a running QEMU: its machine protocol, QMP, one JSON object a line.

QEMU is no friend here: a machine that breaks out of it writes what it likes, so lines have a limit.
"""

import json
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

LINE_LIMIT_BYTES = 1 << 20
ANSWER_SECONDS = 10.0


class Monitor:
    """The connection to one QEMU, safe to use from any thread.

    Events are counted by their names. An error of a drive for want of space is counted as "no space", an end
    that no guest has asked for as "ended from outside".
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._news = threading.Condition()  # guards what follows
        self._answers: dict[int, Mapping[str, Any]] = {}
        self._counts: dict[str, int] = {}
        self._number = 0
        self._is_over = False
        self._reader = threading.Thread(target=self._read, name="monitor", daemon=True)
        self._reader.start()
        self._send({"execute": "qmp_capabilities", "id": 0})  # there are no events before

    def command(self, name: str, **arguments: object) -> bool:
        """Run a command, and tell if it has succeeded. There is no answer from a QEMU that hangs."""
        with self._news:
            self._number += 1
            number = self._number
            self._send({"execute": name, "arguments": arguments, "id": number})
            self._news.wait_for(lambda: number in self._answers or self._is_over, ANSWER_SECONDS)
            return "return" in self._answers.pop(number, {})

    def count(self, event: str) -> int:
        """Return how often an event was told."""
        with self._news:
            return self._counts.get(event, 0)

    def close(self) -> None:
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._reader.join(ANSWER_SECONDS)
        self._connection.close()

    def _send(self, message: Mapping[str, object]) -> None:
        with suppress(OSError):  # it has ended
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def _read(self) -> None:
        rest = b""
        with suppress(OSError):
            while data := self._connection.recv(65536):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._take(line)
                if len(rest) > LINE_LIMIT_BYTES:
                    break
        with self._news:
            self._is_over = True
            self._news.notify_all()

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not isinstance(message, dict):
            return
        with self._news:
            if isinstance(number := message.get("id"), int) and number == self._number:
                self._answers[number] = message
            elif isinstance(event := message.get("event"), str):
                self._count(event, message.get("data"))
            self._news.notify_all()

    def _count(self, event: str, data: object) -> None:
        if event == "BLOCK_IO_ERROR" and isinstance(data, dict) and data.get("nospace"):
            event = "no space"
        if event == "SHUTDOWN" and isinstance(data, dict) and not data.get("guest"):
            event = "ended from outside"
        self._counts[event] = self._counts.get(event, 0) + 1
