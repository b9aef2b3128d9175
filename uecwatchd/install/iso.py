"""An ISO image of an installation: its size, its boot record, and files in it.

ISO 9660 is a list of volume descriptors from the sixteenth sector on, and a tree of folders, whose records
have the place and the length of each file (ECMA-119). Long names are in the records of Rock Ridge (IEEE
P1282), or in a second tree with names in UTF-16 (Joliet). A boot record names the catalog of El Torito, the
convention by which a BIOS starts from a CD.

An ISO image comes from a stranger: all that is read has a limit, and no place in it is trusted.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from uecwatchd.config.documents import did_you_mean
from uecwatchd.errors import Rejected
from uecwatchd.system.text import format_size, quoted

SECTOR_BYTES = 2048
FIRST_DESCRIPTOR = 16
MOST_DESCRIPTORS = 32  # an ISO image has three to five
MAGIC = b"CD001"
BOOT_SYSTEM = b"EL TORITO SPECIFICATION"
CATALOG_BYTES = 2048  # one sector has space for 63 entries
# The root folder of a CD with forty thousand files has less.
FOLDER_LIMIT_BYTES = 8 << 20
# The largest initrds are live systems.
FILE_LIMIT_BYTES = 4 << 30
MOST_PARTS = 64  # a file of 4 GiB and more has several records
MORE_PARTS, IS_FOLDER = 0x80, 0x02

BootWay = Literal["bios", "uefi"]
JOLIET_ESCAPES = (b"%/@", b"%/C", b"%/E")


@dataclass(frozen=True, slots=True)
class IsoFile:
    """A file in an ISO image: the stretches of bytes that it consists of, as (offset, length)."""

    stretches: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        return sum(length for _, length in self.stretches)


@dataclass(frozen=True, slots=True)
class _Tree:
    """A tree of folders: the place and length of its root, and whether its names are those of Joliet."""

    root: tuple[int, int]
    is_joliet: bool


@dataclass(frozen=True, slots=True)
class _Record:
    """An entry of a folder. `name` is the long name if there is one."""

    name: str
    offset: int
    length: int
    flags: int


class IsoImage:
    """An ISO image in an open file. `name` is for messages."""

    def __init__(self, descriptor: int, *, name: str) -> None:
        """Read the volume descriptors. Raises Rejected if it is no ISO image, or not all of it."""
        self._descriptor = descriptor
        self._name = name
        self.size = os.fstat(descriptor).st_size
        self._trees: list[_Tree] = []
        self._catalog: int | None = None
        self.volume_bytes = 0
        for sector in self._descriptors():
            self._take(sector)
        if not self._trees:
            raise self._refused("it is not an ISO image", "Drop the image of an installation CD or DVD.")
        if self.size < self.volume_bytes:
            sizes = f"it has {format_size(self.size)}, and says it has {format_size(self.volume_bytes)}"
            raise self._refused(f"it is not complete: {sizes}", "Copy the file again.")

    def _descriptors(self) -> Iterator[bytes]:
        for number in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + MOST_DESCRIPTORS):
            sector = self._read(number * SECTOR_BYTES, SECTOR_BYTES)
            if len(sector) < SECTOR_BYTES or sector[1:6] != MAGIC or sector[0] == 255:
                return
            yield sector

    def _take(self, sector: bytes) -> None:
        kind = sector[0]
        if kind == 0 and sector[7:].startswith(BOOT_SYSTEM):
            self._catalog = int.from_bytes(sector[71:75], "little")
        elif kind == 1 and not self._trees:
            self.volume_bytes = _number(sector, 80, 4) * _number(sector, 128, 2)
            self._trees.append(_Tree(_root(sector), is_joliet=False))
        elif kind == 2 and sector[88:91] in JOLIET_ESCAPES:
            self._trees.append(_Tree(_root(sector), is_joliet=True))

    def boot_ways(self) -> frozenset[BootWay]:
        """Return the firmware that can start it; empty without a boot record."""
        if self._catalog is None:
            return frozenset()
        catalog = self._read(self._catalog * SECTOR_BYTES, CATALOG_BYTES)
        entries = [catalog[at : at + 32] for at in range(0, len(catalog) - 31, 32)]
        if not entries or entries[0][0] != 1 or entries[0][30:32] != b"\x55\xaa":
            return frozenset()
        platform, ways = entries[0][1], set[BootWay]()
        for entry in entries[1:]:
            if entry[0] in (0x90, 0x91):  # the header of a section, with the platform of its entries
                platform = entry[1]
            elif entry[0] == 0x88:  # it can be started
                ways.add("uefi" if platform == 0xEF else "bios")
            elif entry[0] == 0:
                break
        return frozenset(ways)

    def check_bootable(self) -> None:
        """Raise Rejected if a BIOS cannot start it."""
        ways = self.boot_ways()
        if "bios" in ways:
            return
        hint = "Use another image, or name kernel and initrd in it: then they are started in its place."
        if "uefi" in ways:
            raise self._refused("it starts with UEFI only, and the machine has a BIOS", hint)
        raise self._refused("it has no boot record, so that nothing starts from it", hint)

    def find(self, path: str) -> IsoFile:
        """Return a file by its path. Raises Rejected if it is not there."""
        for tree in self._trees:
            if found := self._walk(tree, path.split("/")):
                return found
        raise self._refused(f"there is no file {quoted(path)} in it", self._hint_for(path))

    def has(self, path: str) -> bool:
        """Tell if there is such a file."""
        return any(self._walk(tree, path.split("/")) for tree in self._trees)

    def copy(self, file: IsoFile, into: int) -> None:
        """Write a file to a descriptor. Raises Rejected if it is not all there, and OSError."""
        if file.size > FILE_LIMIT_BYTES:
            raise self._refused("a file in it is larger than 4 GiB", "Name the kernel and the initrd.")
        for offset, length in file.stretches:
            done = 0
            while done < length:
                piece = self._read(offset + done, min(length - done, 1 << 20))
                if not piece:
                    raise self._refused("a file in it is not complete", "Copy the ISO image again.")
                done += len(piece)
                while piece:  # a disk that is almost full takes a part of it
                    piece = piece[os.write(into, piece) :]

    def _walk(self, tree: _Tree, parts: list[str]) -> IsoFile | None:
        folder = tree.root
        for part in parts[:-1]:
            inside = [one for one in self._find(tree, folder, part) if one.flags & IS_FOLDER]
            if not inside:
                return None
            folder = inside[0].offset, inside[0].length
        found = [one for one in self._find(tree, folder, parts[-1]) if not one.flags & IS_FOLDER]
        if not found or len(found) > MOST_PARTS:
            return None
        return IsoFile(tuple((one.offset, one.length) for one in found))

    def _find(self, tree: _Tree, folder: tuple[int, int], name: str) -> list[_Record]:
        """Return the records with a name: several for a file in several parts."""
        exact, similar = [], []
        for record in self._records(tree, folder):
            if record.name == name:
                exact.append(record)
            elif record.name.lower() == name.lower():  # without long names, they are in capitals
                similar.append(record)
        found = exact or similar
        last = next((at for at, one in enumerate(found) if not one.flags & MORE_PARTS), len(found) - 1)
        return found[: last + 1]

    def _records(self, tree: _Tree, folder: tuple[int, int]) -> Iterator[_Record]:
        offset, length = folder
        data = self._read(offset, min(length, FOLDER_LIMIT_BYTES))
        at = 0
        while at < len(data):
            size = data[at]
            if size < 34:  # a record does not cross the end of a sector
                at = (at // SECTOR_BYTES + 1) * SECTOR_BYTES
                continue
            record = data[at : at + size]
            at += size
            name_length = record[32]
            if len(record) < 33 + name_length or (name_length == 1 and record[33] < 2):
                continue  # the folder itself, and that around it
            yield _record(record, is_joliet=tree.is_joliet)

    def _hint_for(self, path: str) -> str:
        folder = path.rpartition("/")[0]
        tree = self._trees[0]
        place = tree.root
        for part in folder.split("/") if folder else ():
            found = [one for one in self._find(tree, place, part) if one.flags & IS_FOLDER]
            if not found:
                names = [one.name for one in self._records(tree, place) if one.flags & IS_FOLDER]
                return f"It has no folder {quoted(part)}{did_you_mean(part, names)}."
            place = found[0].offset, found[0].length
        names = [one.name for one in self._records(tree, place)]
        return f"Name a file that is in it{did_you_mean(path.rpartition('/')[2], names)}."

    def _read(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    def _refused(self, why: str, hint: str) -> Rejected:
        return Rejected(f"{self._name}: it cannot be installed from", why, hint)


def _number(data: bytes, at: int, length: int) -> int:
    return int.from_bytes(data[at : at + length], "little")


def _root(sector: bytes) -> tuple[int, int]:
    return _number(sector, 156 + 2, 4) * SECTOR_BYTES, _number(sector, 156 + 10, 4)


def _record(record: bytes, *, is_joliet: bool) -> _Record:
    length = record[32]
    raw = record[33 : 33 + length]
    after = 33 + length + (1 - length % 2)
    name = raw.decode("utf-16-be" if is_joliet else "latin-1", "replace")
    plain = name.partition(";")[0].rstrip(".")
    long_name = "" if is_joliet else _rock_ridge_name(record[after:])
    return _Record(
        long_name or plain, _number(record, 2, 4) * SECTOR_BYTES, _number(record, 10, 4), record[25]
    )


def _rock_ridge_name(fields: bytes) -> str:
    """Return the name in the fields of Rock Ridge; empty if there is none.

    A name of more than about 180 letters continues elsewhere, which is not followed.
    """
    name, at = b"", 0
    while at + 4 <= len(fields):
        size = fields[at + 2]
        if size < 4:
            break
        if fields[at : at + 2] == b"NM":
            name += fields[at + 5 : at + size]
        at += size
    return name.decode("utf-8", "replace")
