"""The process that reads file systems: `python -m uecwatchd.images.guest.reader_process`.

It gets one connection and the size of the disk, gives up all other rights, and answers questions until the
connection ends. See `messages` for what goes over it, and `system.confinement` for the rights.
"""

import json
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from uecwatchd.images.block_source import View, read_exactly
from uecwatchd.images.guest.ext_metadata import find_metadata
from uecwatchd.images.guest.file_systems import OpenedVolume, VolumeOpener, load_libraries
from uecwatchd.images.guest.files import MAX_READ_BYTES, FileSystem, Unsupported
from uecwatchd.images.guest.messages import (
    ANSWER,
    CONTENT,
    ERROR,
    BrokenConnection,
    receive,
    send,
    send_json,
)
from uecwatchd.images.guest.ramdisk import find_modules
from uecwatchd.images.guest.served_disk import ServedDisk
from uecwatchd.system.confinement import Limits, confine

# A system's disk takes a tenth of a second, and its kernel and ramdisk less than one.
LIMITS = Limits(cpu_seconds=60, memory_bytes=512 << 20)
# Python imports these when they are first used.
ENCODINGS = ("utf-8", "utf-16-le", "ascii", "latin-1", "idna")


class Reader:
    """Answers questions about one disk."""

    def __init__(self, connection: socket.socket, disk: ServedDisk, opener: VolumeOpener) -> None:
        self._connection, self._disk, self._opener = connection, disk, opener
        self._volumes = list[OpenedVolume]()

    def answer(self, question: Mapping[str, Any]) -> None:
        """Send the answer to one question, or why there is none."""
        try:
            ACTIONS[question["do"]](self, question)
        except BrokenConnection:
            raise
        except Unsupported as error:
            self._send_error(str(error))
        except Exception as error:  # noqa: BLE001 (whatever a library raises is about the data)
            self._send_error(f"it is damaged ({error or type(error).__name__})")

    def open(self, question: Mapping[str, Any]) -> None:
        found = list(self._opener.open(self._disk, question["start"], question["size"]))
        first = len(self._volumes)
        self._volumes += found
        send_json(
            self._connection,
            ANSWER,
            [
                {
                    **asdict(volume.superblock),
                    "size": volume.size,
                    "name": volume.name,
                    "index": index if volume.files else None,
                    "problem": volume.problem,
                    "dirty": volume.is_dirty,
                }
                for index, volume in enumerate(found, start=first)
            ],
        )

    def entry(self, question: Mapping[str, Any]) -> None:
        found = self._files(question).entry(question["path"])
        send_json(self._connection, ANSWER, asdict(found) if found else None)

    def names(self, question: Mapping[str, Any]) -> None:
        send_json(self._connection, ANSWER, self._files(question).names(question["path"]))

    def read(self, question: Mapping[str, Any]) -> None:
        length = min(question["length"], MAX_READ_BYTES)
        send(
            self._connection,
            CONTENT,
            self._files(question).read(question["path"], question["offset"], length),
        )

    def modules(self, question: Mapping[str, Any]) -> None:
        """Send the modules of a ramdisk. An unreadable one is no mistake of its file system."""
        files, path = self._files(question), question["path"]
        entry = files.entry(path)
        self._send_modules(partial(files.read, path), entry.size if entry else 0, question["wanted"])

    def ramdisk(self, question: Mapping[str, Any]) -> None:
        """Send the modules of a disk that is a ramdisk itself."""
        self._send_modules(partial(read_exactly, self._disk), self._disk.size, question["wanted"])

    def _send_modules(self, read: Callable[[int, int], bytes], size: int, wanted: Iterable[str]) -> None:
        try:
            found = find_modules(read, size, frozenset(wanted)) if size else None
        except (Unsupported, ValueError, MemoryError):
            found = None
        said = {"found": sorted(found.found), "versions": sorted(found.versions)} if found else None
        send_json(self._connection, ANSWER, said)

    def metadata(self, question: Mapping[str, Any]) -> None:
        """Send the stretches that a change of an ext file system needs to read."""
        view = View(self._disk, question["start"], question["size"])
        send_json(self._connection, ANSWER, find_metadata(view, question["paths"]))

    def _files(self, question: Mapping[str, Any]) -> FileSystem:
        files: FileSystem | None = self._volumes[question["volume"]].files
        if files is None:
            raise Unsupported("it has no files")
        return files

    def _send_error(self, words: str) -> None:
        send(self._connection, ERROR, words[:1000].encode("utf-8", "replace"))


ACTIONS: Mapping[str, Callable[[Reader, Mapping[str, Any]], None]] = {
    "open": Reader.open,
    "entry": Reader.entry,
    "names": Reader.names,
    "read": Reader.read,
    "modules": Reader.modules,
    "ramdisk": Reader.ramdisk,
    "metadata": Reader.metadata,
}


def main(descriptor: int, size: int) -> None:
    """Serve the connection until it ends."""
    connection = socket.socket(fileno=descriptor)
    libraries = load_libraries()
    for encoding in ENCODINGS:
        "".encode(encoding)
    remark = confine(LIMITS)
    send_json(connection, ANSWER, remark)
    reader = Reader(connection, ServedDisk(connection, size), VolumeOpener(libraries))
    try:
        while True:
            reader.answer(json.loads(receive(connection)[1]))
    except (BrokenConnection, OSError):
        return


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
