"""The disk as the confined process sees it: the other side reads it, and sends the bytes.

Libraries read a file system in small pieces. So pages are kept, and a large piece goes straight through.
"""

import os
import socket
from collections import OrderedDict

from uecwatchd.images.block_source import BlockSource, read_exactly
from uecwatchd.images.guest.messages import DATA, READ, STRETCH, BrokenConnection, receive, send
from uecwatchd.system.extents import Extent

PAGE_BYTES = 64 * 1024
MAX_PAGES = 512  # 32 MiB: the metadata of a system's disk
MAX_STRETCH_BYTES = 1 << 20


class ServedDisk:
    """A block source over a connection."""

    def __init__(self, connection: socket.socket, size: int) -> None:
        self._connection = connection
        self._pages = OrderedDict[int, bytes]()
        self.size = self.stored_bytes = size

    def extents(self) -> tuple[Extent, ...]:
        return (Extent(0, self.size),)

    def read_into(self, offset: int, buffer: memoryview, /) -> int:
        count = max(0, min(len(buffer), self.size - offset))
        if count >= 2 * PAGE_BYTES:
            data = self._fetch(offset, min(count, MAX_STRETCH_BYTES))
        else:
            number, skip = divmod(offset, PAGE_BYTES)
            data = self._page(number)[skip : skip + count] if count else b""
        buffer[: len(data)] = data
        return len(data)

    def is_unchanged(self) -> bool:
        return True

    def close(self) -> None:
        self._pages.clear()

    def _page(self, number: int) -> bytes:
        if number in self._pages:
            self._pages.move_to_end(number)
            return self._pages[number]
        place = number * PAGE_BYTES
        page = self._pages[number] = self._fetch(place, min(PAGE_BYTES, self.size - place))
        if len(self._pages) > MAX_PAGES:
            self._pages.popitem(last=False)
        return page

    def _fetch(self, offset: int, length: int) -> bytes:
        send(self._connection, READ, STRETCH.pack(offset, length))
        kind, data = receive(self._connection)
        if kind != DATA or len(data) > length:
            raise BrokenConnection("an answer that was not asked for")
        return data


class SourceFile:
    """A block source as a file object, as the libraries want it."""

    def __init__(self, source: BlockSource) -> None:
        self._source = source
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._source.size - self._at)
        data = read_exactly(self._source, self._at, left if size < 0 else min(size, left))
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._source.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def get_size(self) -> int:
        return self._source.size
