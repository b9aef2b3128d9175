"""A container file as its readers see it: its bytes, its size, and its name for sentences.

The bytes are those of a file, or what a compressed file unpacks to.

Everything that a header says is untrusted. Whatever follows from it is read through here, so that a place
behind the end of the file is always the same sentence, and never a short buffer that reads as something else.
"""

from dataclasses import dataclass
from io import FileIO
from typing import Self

from uecwatchd.errors import Rejected
from uecwatchd.images.block_source import BlockSource, FileSource, read_exactly
from uecwatchd.images.file_facts import SECTOR_BYTES
from uecwatchd.system.text import file_word, format_size

COPY_AGAIN = "Copy it again: the end is missing."
DAMAGED = "Copy it again; if it stays so, make it again from its source."


@dataclass(frozen=True, slots=True)
class ContainerFile:
    """A container that is open for reading. Nothing else is ever opened on its behalf."""

    source: BlockSource
    name: str  #: for messages, and for the commands in their hints
    max_disk_bytes: int  #: larger disks are refused

    @classmethod
    def of(cls, file: FileIO, name: str, max_disk_bytes: int) -> Self:
        return cls(FileSource(file), name, max_disk_bytes)

    @property
    def size(self) -> int:
        return self.source.size

    def read(self, offset: int, length: int, what: str) -> bytes:
        """Read all bytes of `what`, a structure of the format. Raises Rejected if they are not all there."""
        self.check_end(offset + length, what)
        data = read_exactly(self.source, offset, length)
        if len(data) < length:  # it was cut while it was open
            raise self.truncated(what, offset + length)
        return data

    def read_start(self, length: int) -> bytes:
        """Read the first bytes, padded with zeros where the file is shorter."""
        return read_exactly(self.source, 0, length).ljust(length, b"\0")

    def check_end(self, end: int, what: str) -> None:
        """Raise Rejected if `what` would end behind the end of the file."""
        if end > self.size:
            raise self.truncated(what, end)

    def check_disk_size(self, size: int) -> None:
        """Raise Rejected for a disk that is empty, larger than the limit, or ends inside a sector."""
        if size > self.max_disk_bytes:
            limit = format_size(self.max_disk_bytes)
            raise self.refuse(
                f"its disk has {format_size(size)}, and at most {limit} are accepted",
                "Make the disk smaller, or make the image again if it is not that large.",
            )
        if size % SECTOR_BYTES or not size:
            raise self.damaged(f"its header says that its disk has {size} bytes, which is no disk of sectors")

    def refuse(self, why: str, hint: str) -> Rejected:
        return Rejected(f"{self.name}: it cannot be opened as a disk image", why, hint)

    def refuse_unless_converted(self, why: str, *, when: str = "") -> Rejected:
        """Return the error for an image that another program can turn into one without what is in the way."""
        word = file_word(self.name)
        command = f"qemu-img convert -O qcow2 {word} {word}.part && mv {word}.part {word}"
        return self.refuse(why, f"Try{when}: {command}")

    def damaged(self, why: str) -> Rejected:
        return self.refuse(why, DAMAGED)

    def truncated(self, what: str, end: int) -> Rejected:
        there, here = format_size(end), format_size(self.size)
        if there == here:
            there, here = f"{end} bytes", f"{self.size} bytes"
        return self.refuse(f"it is truncated: {what} ends at {there}, the file has {here}", COPY_AGAIN)
