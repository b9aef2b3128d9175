"""Reading of a tar archive from strangers, in one pass: regular files with plain names, and nothing else.

Python's `tarfile` was weighed. It takes a header of any length into memory, treats unknown types as files,
and hands out links and devices, so that nearly all rules would have to be kept beside it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from uecwatchd.errors import Rejected
from uecwatchd.images.tarball.headers import (
    BLOCK_BYTES,
    MOST_STRETCHES,
    ZERO_BLOCK,
    Header,
    Stretches,
    checked_stretches,
    decimal,
    old_gnu_map,
    old_gnu_size,
    parse_header,
    parse_pax,
    pax_map,
)
from uecwatchd.images.tarball.packed_stream import Read
from uecwatchd.system.text import format_size, printable

PIECE_BYTES = 1024 * 1024
# Names and times take some hundred bytes, and maps of sparse files in this place some thousands.
MOST_EXTENDED_BYTES = 1024 * 1024
# For each file: its own header, two extended ones of each kind, and the folders above it.
HEADERS_PER_FILE = 8
# Behind the end of an archive there are zeros, up to the end of a record: `tar -b 2048` writes the longest.
MOST_PADDING_BYTES = 1024 * 1024
NAME_BYTES = 255  # of a file, in Linux file systems
PATH_BYTES = 1024  # four times as much: a path in a work folder must have less than 4096 bytes
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
FILES = (b"0", b"\0", b"7", b"S")
EXTENDED = (b"x", b"g", b"L", b"K")
FOLDER, DUMPED_FOLDER, VOLUME_LABEL = b"5", b"D", b"V"
KINDS = {
    b"1": "a link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a named pipe",
}
LINKS = (b"1", b"2")
LINK_HINT = "Pack the files that links lead to: tar --dereference --hard-dereference."
TREE_HINT = "Pack the image files alone; a file tree is no image: make a disk of it."


@dataclass(frozen=True, slots=True)
class TarballLimits:
    """Limits of an archive: `files` in it, bytes `stored` of all, and the `size` of each.

    A published set has ten files at most. No disk that a cloud takes is larger than some terabytes, and no
    file on ext4 larger than 16 TiB.
    """

    files: int = 100
    stored_bytes: int = 1 << 42
    size: int = (1 << 44) - (1 << 12)


@dataclass(frozen=True, slots=True)
class TarFile:
    """A regular file in an archive: its name there, its size, and the stretches of it that are stored."""

    name: str
    size: int
    stretches: Stretches

    @property
    def stored_bytes(self) -> int:
        return sum(length for _, length in self.stretches)


@dataclass(slots=True)
class _Extended:
    """Facts in extended headers about the next file."""

    records: list[tuple[bytes, bytes]] = field(default_factory=list)
    long_name: bytes = b""

    def value(self, key: bytes) -> bytes | None:
        return dict(self.records).get(key)


class TarballReader:
    """An archive that is read once. `name` is that of its file, for sentences.

    All methods raise Rejected for an archive that cannot be used, and OSError.
    """

    def __init__(self, read: Read, *, name: str, limits: TarballLimits = TarballLimits()) -> None:
        self._read, self._name, self._limits = read, name, limits
        self._buffer, self._at = b"", 0  # read from the stream, and how much of it is taken
        self._left = 0  # bytes of the current file that are not taken yet
        self._padding = 0
        self._names: set[str] = set()
        self._folders: set[str] = set()  # those above the files
        self._headers = self._stored = 0

    def files(self) -> Iterator[TarFile]:
        """Yield the files in order. The data of each is read, by `data`, before the next one or never."""
        while file := self._next_file():
            self._check_limits(file)
            yield file

    def data(self, file: TarFile) -> Iterator[tuple[int, bytes]]:
        """Yield the offset and the bytes of each piece of the file that was yielded last."""
        for offset, length in file.stretches:
            done = 0
            while done < length:
                piece = self._take(min(PIECE_BYTES, length - done))
                self._left -= len(piece)
                yield offset + done, piece
                done += len(piece)

    # --- headers ------------------------------------------------------------------------------------------

    def _next_file(self) -> TarFile | None:
        """Return the next regular file, None at the end of the archive."""
        try:
            extended = _Extended()
            while header := self._next_header():
                if header.kind in FILES and not header.name.endswith(b"/"):
                    return self._file(header, extended)
                if header.kind in EXTENDED:
                    self._read_extended(header, extended)
                    continue
                self._check_kind(header, extended)
                extended = _Extended()
                self._expect(header.stored if header.kind == DUMPED_FOLDER else 0)
            self._check_end()
        except ValueError as error:
            raise self.damaged(error) from error
        return None

    def _next_header(self) -> Header | None:
        while self._left:
            self._left -= len(self._take(min(PIECE_BYTES, self._left)))
        self._exactly(self._padding)
        block = self._exactly(BLOCK_BYTES)
        if block == ZERO_BLOCK:
            return None
        self._headers += 1
        if self._headers > HEADERS_PER_FILE * self._limits.files:
            raise self._too_many()
        return parse_header(block)

    def _expect(self, stored: int) -> None:
        """Note how many bytes come next. Raises Rejected if these are too many in all."""
        self._left, self._padding = stored, -stored % BLOCK_BYTES
        self._stored += stored
        if self._stored > self._limits.stored_bytes:
            raise self._too_large(self._limits.stored_bytes)

    def _read_extended(self, header: Header, extended: _Extended) -> None:
        if header.stored > MOST_EXTENDED_BYTES:
            raise ValueError("an extended header in it is too long")
        self._expect(header.stored)
        data, self._left = self._exactly(header.stored), 0
        if header.kind == b"x":
            extended.records += parse_pax(data)
        elif header.kind == b"L":
            extended.long_name = data.partition(b"\0")[0]
        # Those for all files have comments and times, and GNU's "K" is the target of a link.

    def _check_kind(self, header: Header, extended: _Extended) -> None:
        """Raise Rejected for anything but a folder or the label of a volume."""
        is_folder = header.kind in (FOLDER, DUMPED_FOLDER) or header.name.endswith(b"/")
        if is_folder or header.kind == VOLUME_LABEL:
            self._name_of(header, extended)
            return
        what = KINDS.get(header.kind, f"an entry of type {header.kind!r}")
        name = printable(header.name.decode(errors="replace"))
        hint = LINK_HINT if header.kind in LINKS else TREE_HINT
        raise Rejected(f"{self._name}: {name} in it is {what}", "only regular files are taken", hint)

    def _file(self, header: Header, extended: _Extended) -> TarFile:
        size = extended.value(b"size")
        stored = header.stored if size is None else decimal(size)
        self._expect(stored)
        name = self._name_of(header, extended)
        if header.kind == b"S":
            return TarFile(name, *self._old_sparse(header, stored))
        real_size = extended.value(b"GNU.sparse.realsize") or extended.value(b"GNU.sparse.size")
        if real_size is None:
            return TarFile(name, stored, ((0, stored),) if stored else ())
        found = pax_map(extended.records)
        if found is None:
            found = self._map_before_data()
        return TarFile(
            name, decimal(real_size), checked_stretches(found, size=decimal(real_size), stored=self._left)
        )

    def _old_sparse(self, header: Header, stored: int) -> tuple[int, Stretches]:
        found, more = old_gnu_map(header.block, is_first=True)
        while more and len(found) <= MOST_STRETCHES:
            next_found, more = old_gnu_map(self._exactly(BLOCK_BYTES), is_first=False)
            found += next_found
        size = old_gnu_size(header.block)
        return size, checked_stretches(found, size=size, stored=stored)

    def _map_before_data(self) -> list[tuple[int, int]]:
        """Read the map of version 1.0: lines with numbers before the data, padded to a block."""
        lines, rest = [b""], 1  # the last line may not be complete
        while len(lines) <= rest:
            if self._left < BLOCK_BYTES or rest > 2 * MOST_STRETCHES:
                raise ValueError("the map of a sparse file in it is damaged")
            first, *more = self._exactly(BLOCK_BYTES).split(b"\n")
            lines[-1] += first
            lines += more
            self._left -= BLOCK_BYTES
            if len(lines) > 1:
                rest = 1 + 2 * decimal(lines[0])
        numbers = [decimal(line) for line in lines[1:rest]]
        return list(zip(numbers[::2], numbers[1::2], strict=True))

    # --- rules --------------------------------------------------------------------------------------------

    def _name_of(self, header: Header, extended: _Extended) -> str:
        """Return the plain path of an entry. Raises Rejected for any other."""
        written = extended.value(b"GNU.sparse.name") or extended.value(b"path")
        raw = written or extended.long_name or header.name
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            raise self._bad_name(raw.decode(errors="replace"), "is not UTF-8") from None
        parts = PurePosixPath(name).parts
        if _UNPRINTABLE.search(name):
            raise self._bad_name(name, "has control characters")
        if name.startswith("/") or ".." in parts:
            raise self._bad_name(name, "leads out of the archive")
        if any(len(part.encode()) > NAME_BYTES for part in parts):
            raise self._bad_name(name, f"has more than the {NAME_BYTES} bytes of a file's name")
        if len(raw) > PATH_BYTES:
            raise self._bad_name(name, f"has more than {PATH_BYTES} bytes with its folders")
        if not parts and header.kind in FILES:
            raise self._bad_name(name, "is empty")
        return "/".join(parts)

    def _bad_name(self, name: str, why: str) -> Rejected:
        what = f"{self._name}: a name in it cannot be used"
        return Rejected(
            what, f"{printable(name[:NAME_BYTES])} {why}", "Pack the files again, from their folder."
        )

    def _check_limits(self, file: TarFile) -> None:
        above = {str(folder) for folder in PurePosixPath(file.name).parents}
        if file.name in self._names | self._folders or above & self._names:
            what = f"{self._name}: it has {printable(file.name)} twice, or as a file and a folder"
            raise Rejected(what, "it would be unclear which one is meant", "Pack each file once.")
        self._names.add(file.name)
        self._folders |= above
        if len(self._names) > self._limits.files:
            raise self._too_many()
        if file.size > self._limits.size:
            raise self._too_large(self._limits.size)

    def _too_many(self) -> Rejected:
        why = f"it has more than {self._limits.files} files"
        return Rejected(f"{self._name}: it is no archive of an image", why, TREE_HINT)

    def _too_large(self, limit: int) -> Rejected:
        why = f"its files have more than {format_size(limit)}"
        return Rejected(f"{self._name}: it is too large", why, "Drop the files themselves.")

    def _check_end(self) -> None:
        """Read to the end of the stream, so that its checksum is compared."""
        data = self._buffer[self._at :]
        behind = len(data)
        while data.count(0) == len(data) and behind <= MOST_PADDING_BYTES:
            data = self._read(PIECE_BYTES)
            behind += len(data)
            if not data:
                return
        raise ValueError("there is more behind its end")

    def damaged(self, error: ValueError) -> Rejected:
        """Return the error for an archive that cannot be read as one."""
        return Rejected(
            f"{self._name}: it cannot be unpacked", str(error), "Copy it again, or pack it again."
        )

    # --- bytes --------------------------------------------------------------------------------------------

    def _take(self, limit: int) -> bytes:
        """Return some bytes, at most `limit`, of the data of a file."""
        try:
            if self._at == len(self._buffer):
                self._buffer, self._at = self._read(PIECE_BYTES), 0
        except ValueError as error:
            raise self.damaged(error) from error
        if not self._buffer:
            raise self.damaged(ValueError("its end is missing"))
        data = self._buffer[self._at : self._at + limit]
        self._at += len(data)
        return data

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += self._take(count - len(data))
        return data
