"""Notes about fetched and sent files, as lines of a file. The last one about a name counts.

A note is written before its file gets its name, and again after it. So a file without a note was put there by
somebody else, and one that was never placed is not taken for removed, whatever has ended the process.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress

from uecwatchd.errors import NotPermitted
from uecwatchd.intake.spool.output_files import is_foreign
from uecwatchd.mirror.plan import FileIdentity, Noted
from uecwatchd.types import BucketPlace

NOTES = ".uec.bucket"
NEW_NOTES = f".{NOTES}.uec.00000000"  # removed by a sweep, as all unfinished files
# More lines than names by so many are written anew.
SPARE_LINES = 1000
MODE = 0o600
IDENTITY_VALUES = len(FileIdentity._fields)


class MirrorNotes:
    """The notes in an open folder. Those about another bucket do not count."""

    def __init__(self, descriptor: int, place: BucketPlace, *, rewrite: bool) -> None:
        """Read them, and `rewrite` them if they have grown and nobody else writes. Raises OSError."""
        self.descriptor = descriptor
        self._place = str(place)
        self._known: dict[str, Noted] = {}
        lines = list(self._read())
        for name, noted in lines:
            self._keep(name, noted)
        if rewrite and len(lines) > len(self._known) + SPARE_LINES:
            self._write_anew()

    @property
    def known(self) -> Mapping[str, Noted]:
        return self._known

    def put(self, name: str, noted: Noted | None) -> None:
        """Note what both sides have; None if that does not matter any more. Raises OSError.

        The note is on the disk when this returns.
        """
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        opened = os.open(NOTES, flags, MODE, dir_fd=self.descriptor)
        with os.fdopen(opened, "ab") as file:
            file.write(self._line(name, noted))
            file.flush()
            os.fsync(opened)
        self._keep(name, noted)

    def _keep(self, name: str, noted: Noted | None) -> None:
        if noted is None:
            self._known.pop(name, None)
        else:
            self._known[name] = noted

    def _line(self, name: str, noted: Noted | None) -> bytes:
        values = noted and [noted.etag, noted.size, noted.is_placed, *noted.file, *(noted.replaces or ())]
        # With an end on both sides: a process that was killed may have left half a line before it.
        return f"\n{json.dumps([self._place, name, values])}\n".encode()

    def _read(self) -> Iterator[tuple[str, Noted | None]]:
        try:
            check_owner(os.lstat(NOTES, dir_fd=self.descriptor))
        except FileNotFoundError:
            return
        # It may have become a pipe since then, which would keep us waiting for a writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(NOTES, flags, dir_fd=self.descriptor), "rb") as file:
            check_owner(os.fstat(file.fileno()))
            for line in filter(None, map(bytes.strip, file)):
                with suppress(ValueError, TypeError):  # of half a line
                    place, name, values = json.loads(line)
                    if place == self._place:
                        yield name, _noted(*values) if values else None

    def _write_anew(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        opened = os.open(NEW_NOTES, flags, MODE, dir_fd=self.descriptor)
        with os.fdopen(opened, "wb") as file:
            file.writelines(self._line(name, noted) for name, noted in self._known.items())
            file.flush()
            os.fsync(opened)
        os.rename(NEW_NOTES, NOTES, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)


def _noted(etag: str, size: int, is_placed: bool, *values: int) -> Noted:  # noqa: FBT001 (of a line)
    file, replaces = values[:IDENTITY_VALUES], values[IDENTITY_VALUES:]
    replaced = FileIdentity(*replaces) if replaces else None
    return Noted(etag, size, FileIdentity(*file), is_placed, replaced)


def check_owner(status: os.stat_result) -> None:
    """Raise NotPermitted if notes are not the service's own: they decide which files are removed."""
    if is_foreign(status, owner=os.geteuid()):
        raise NotPermitted(
            f"{NOTES} in the spool folder",
            "the notes about the bucket were not made by the service",
            f"Remove it: rm -r {NOTES}. What is in the folder then counts as a file from elsewhere.",
        )
