"""The file systems of a disk, read by a confined process.

This side starts the process, gives it the bytes of the disk that it asks for, and checks what it answers. The
disk can be any block source: the process never sees where it is stored. A process that does not answer in
time is killed, with a sentence about it.
"""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self, TypeVar, get_args

from uecwatchd.errors import Rejected
from uecwatchd.images.block_source import BlockSource, read_exactly
from uecwatchd.images.guest import messages
from uecwatchd.images.guest.files import (
    MAX_NAMES,
    MAX_READ_BYTES,
    EntryType,
    FileEntry,
    GuestFiles,
    RamdiskModules,
)
from uecwatchd.images.packed.source import check_random_access
from uecwatchd.system.text import shorten

Talk = TypeVar("Talk")

MODULE = "uecwatchd.images.guest.reader_process"
# A question takes milliseconds, on a busy machine a second.
ANSWER_SECONDS = 30.0
# For the answers to all questions about one disk: a ramdisk of a gigabyte is read in this time.
TOTAL_SECONDS = 300.0
ENDING_SECONDS = 1.0  # from the end of the connection to that of its process
HINT = "Copy the image again; if it stays so, check its file systems with fsck."


class UnreadableVolume(Rejected):
    """An unreadable file system: reading it takes too long, or ends the process that reads it."""


class DamagedVolume(UnreadableVolume):
    """A file system that is damaged in one place; others of the disk can still be read."""


@dataclass(frozen=True, slots=True)
class Volume:
    """Content of a disk, a partition or a logical volume: mostly a file system."""

    type: str  #: as `detect` names it, also "lvm2" and "luks"
    size: int  #: bytes
    uuid: str
    label: str
    name: str  #: the logical volume's, such as "vg0/root"
    problem: str  #: why it cannot be read, as "it is …"
    files: GuestFiles | None = field(repr=False, compare=False)
    is_dirty: bool = False  #: an NTFS that was not shut down


class VolumeReader:
    """The confined process for one disk. Use it in a `with`.

    `name` is the image's in messages. `check` is called before each stretch of the disk is read, and may
    raise to stop.
    """

    def __init__(
        self,
        source: BlockSource,
        *,
        name: str,
        check: Callable[[], None] = lambda: None,
        answer_seconds: float = ANSWER_SECONDS,
        total_seconds: float = TOTAL_SECONDS,
    ) -> None:
        self._source, self._name, self._check = source, name, check
        self._answer_seconds = answer_seconds
        self._seconds_left = total_seconds
        self.has_ended = False
        self.remark = ""  #: what confines the process less than usual

    def __enter__(self) -> Self:
        check_random_access(self._source, self._name)
        self._connection, theirs = socket.socketpair()
        with theirs:
            # Isolated from the environment, which may have keys, and from a terminal's signals.
            command = [sys.executable, "-I", "-X", "utf8", "-m", MODULE, str(theirs.fileno())]
            try:
                self._process = subprocess.Popen(
                    [*command, str(self._source.size)],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env={},
                    process_group=0,
                )
            except OSError as error:
                self._connection.close()
                what, why, _ = self._words(f"its reader cannot be started ({error.strerror or error})")
                hint = f"Let the service's user run {sys.executable}, or look what limits its processes."
                raise UnreadableVolume(what, why, hint) from error
        self.remark = shorten(str(self._wait_for(messages.ANSWER)))
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process. Nothing can be read afterwards."""
        self.has_ended = True
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def open(self, start: int, size: int) -> tuple[Volume, ...]:
        """Return the file system in a stretch of the disk, or those in its logical volumes.

        Raises UnreadableVolume, OSError.
        """
        found = self.ask({"do": "open", "start": start, "size": size})
        return self._parse(lambda: tuple(self._volume(each) for each in found[:MAX_NAMES]))

    def _volume(self, said: Mapping[str, Any]) -> Volume:
        type_, uuid, label, name, problem = (
            shorten(str(said[key])) for key in ("type", "uuid", "label", "name", "problem")
        )
        files = None if said["index"] is None else RemoteFiles(self, int(said["index"]))
        return Volume(type_, int(said["size"]), uuid, label, name, problem, files, bool(said["dirty"]))

    def entry(self, volume: int, path: str) -> FileEntry | None:
        """Return what is at a path, as `FileSystem` says."""
        said = self.ask({"do": "entry", "volume": volume, "path": path})
        return self._parse(lambda: None if said is None else _file_entry(said))

    def names(self, volume: int, path: str) -> tuple[str, ...]:
        """Return the names in a folder, as `FileSystem` says."""
        said = self.ask({"do": "names", "volume": volume, "path": path})
        return self._parse(lambda: tuple(str(name) for name in said[:MAX_NAMES] if _is_name(str(name))))

    def read(self, volume: int, path: str, offset: int, length: int) -> bytes:
        """Return content of a file, as `FileSystem` says."""
        question = {"do": "read", "volume": volume, "path": path, "offset": offset, "length": length}
        content: bytes = self.ask(question, kind=messages.CONTENT)
        return content[:length]

    def modules(self, volume: int, path: str, wanted: frozenset[str]) -> RamdiskModules | None:
        """Return modules that a ramdisk has, as `GuestFiles` says."""
        said = self.ask({"do": "modules", "volume": volume, "path": path, "wanted": sorted(wanted)})
        return self._parse(lambda: None if said is None else _ramdisk_modules(said, wanted))

    def ramdisk(self) -> RamdiskModules | None:
        """Return the modules of a disk that is a ramdisk; None if it cannot be read."""
        said = self.ask({"do": "ramdisk", "wanted": []})
        return self._parse(lambda: None if said is None else _ramdisk_modules(said, frozenset()))

    def metadata(self, start: int, size: int, paths: Sequence[str]) -> tuple[tuple[int, int], ...]:
        """Return the stretches of an ext file system that a change of these paths needs to read.

        Each is (start, length) in bytes, from the start of the file system. Raises UnreadableVolume, OSError.
        """
        found = self.ask({"do": "metadata", "start": start, "size": size, "paths": list(paths)})
        return self._parse(lambda: tuple(_stretch(first, length, size) for first, length in found))

    def ask(self, question: Mapping[str, object], *, kind: bytes = messages.ANSWER) -> Any:
        """Return the answer to a question: JSON, or content of a file. Raises UnreadableVolume, OSError."""
        self._talk(partial(messages.send_json, self._connection, messages.QUESTION, question))
        return self._wait_for(kind)

    def _wait_for(self, kind: bytes) -> Any:
        """Return the answer. Between two questions its reader may wait as long as an upload takes."""
        began = time.monotonic()
        try:
            return self._answer(kind, began + self._seconds_left)
        finally:
            self._seconds_left -= time.monotonic() - began

    def _answer(self, kind: bytes, end: float) -> Any:
        while True:
            until = min(time.monotonic() + self._answer_seconds, end)
            came, payload = self._talk(partial(messages.receive, self._connection, until=until))
            if came == messages.READ:
                data = self._read(payload)
                self._talk(partial(messages.send, self._connection, messages.DATA, data))
            elif came == messages.ERROR:
                raise DamagedVolume(*self._words(shorten(payload.decode("utf-8", "replace"))))
            elif came == kind:
                return payload if kind == messages.CONTENT else self._parse(partial(json.loads, payload))
            else:
                raise self._broken("its reader sends nonsense")

    def _read(self, payload: bytes) -> bytes:
        """Read the stretch of the disk that the process asks for. If that fails, the process is ended."""
        try:
            self._check()
            offset, length = messages.STRETCH.unpack(payload)
            return read_exactly(self._source, min(offset, self._source.size), min(length, MAX_READ_BYTES))
        except BaseException:
            self.close()
            raise

    def _talk(self, act: Callable[[], Talk]) -> Talk:
        """Send or receive. A process that ends, or is too slow, is reported as the error of its volume."""
        try:
            return act()
        except TimeoutError as error:
            raise self._broken("reading it takes too long") from error
        except (messages.BrokenConnection, OSError) as error:
            raise self._broken(f"its reader has ended ({self._describe_end()})") from error

    def _parse(self, act: Callable[[], Talk]) -> Talk:
        """Take an answer apart: what does not have the right form is nonsense of the process."""
        try:
            return act()
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise self._broken("its reader sends nonsense") from error

    def _describe_end(self) -> str:
        try:
            code = self._process.wait(timeout=ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            return "it answers no more"
        return f"signal {-code}" if code < 0 else f"code {code}"

    def _broken(self, why: str) -> UnreadableVolume:
        self.close()
        return UnreadableVolume(*self._words(why))

    def _words(self, why: str) -> tuple[str, str, str]:
        return f"{self._name}: a file system in it cannot be read", why, HINT


class RemoteFiles:
    """One file system of the confined process."""

    def __init__(self, reader: VolumeReader, volume: int) -> None:
        self.entry = partial(reader.entry, volume)
        self.names = partial(reader.names, volume)
        self.read = partial(reader.read, volume)
        self.modules = partial(reader.modules, volume)


def _file_entry(said: Mapping[str, Any]) -> FileEntry:
    if said["type"] not in get_args(EntryType):
        raise ValueError("no type of a file")
    return FileEntry(said["type"], int(said["size"]), int(said["mode"]), str(said["target"]))


def _ramdisk_modules(said: Mapping[str, Any], wanted: frozenset[str]) -> RamdiskModules:
    versions = (shorten(str(version)) for version in said["versions"][:MAX_NAMES])
    return RamdiskModules(wanted.intersection(said["found"]), frozenset(versions))


def _stretch(start: object, length: object, size: int) -> tuple[int, int]:
    if not (isinstance(start, int) and isinstance(length, int)):
        raise ValueError("no stretch")
    if not 0 <= start < start + length <= size:
        raise ValueError("a stretch outside of its volume")
    return start, length


def _is_name(name: str) -> bool:
    """Tell if a name cannot lead out of its folder."""
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name and len(name) <= 255
