"""Notes about fetched and sent files, as lines of a file. The last one about a name counts.

A note is written before its file gets its name, and again after it. So a file without a note was put there by
somebody else, and one that was never placed is not taken for removed, whatever has ended the process.
"""

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress

from uecwatchd.intake.spool.output_files import is_foreign
from uecwatchd.mirror.plan import FileIdentity, Noted
from uecwatchd.types import BucketPlace

NOTES = ".uec.bucket"
NEW_NOTES = f".{NOTES}.uec.00000000"  # removed by a sweep, as all unfinished files
# More lines than names by so many are written anew.
SPARE_LINES = 1000
MODE = 0o600


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
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
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
        values = noted and [noted.etag, noted.size, noted.is_placed, *noted.file]
        # With an end on both sides: a process that was killed may have left half a line before it.
        return f"\n{json.dumps([self._place, name, values])}\n".encode()

    def _read(self) -> Iterator[tuple[str, Noted | None]]:
        try:
            opened = os.open(NOTES, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.descriptor)
        except FileNotFoundError:
            return
        with os.fdopen(opened, "rb") as file:
            check_owner(os.fstat(opened))
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


def _noted(etag: str, size: int, is_placed: bool, *identity: int) -> Noted:  # noqa: FBT001 (of a line)
    return Noted(etag, size, FileIdentity(*identity), is_placed)


def check_owner(status: os.stat_result) -> None:
    """Raise PermissionError if notes are not the service's own: they decide which files are removed."""
    if is_foreign(status, owner=os.geteuid()):
        raise PermissionError(errno.EPERM, f"{NOTES} was made by somebody else")
