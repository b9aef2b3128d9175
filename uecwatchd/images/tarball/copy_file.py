"""One file of an archive, copied: for a look at it, without the others."""

import os
from collections.abc import Callable
from io import FileIO

from uecwatchd.errors import Rejected
from uecwatchd.images.tarball.packed_stream import open_stream
from uecwatchd.images.tarball.reader import TarballReader
from uecwatchd.system.text import shorten


def copy_file(
    archive: FileIO,
    name: str,
    into: FileIO,
    *,
    called: str,
    check: Callable[[], None],
    check_space: Callable[[int], None],
) -> None:
    """Copy the file `name` of an archive into an empty file, with holes for zeros.

    `called` is the archive's name in messages. `check` is called for each piece, and `check_space` with the
    number of bytes that are to be stored; both may raise to stop. Raises Rejected if the archive cannot be
    read, or has no such file; OSError.
    """
    reader = TarballReader(open_stream(archive, name=called, check=lambda _done: check()), name=called)
    for member in reader.files():
        if member.name == name:
            check_space(member.stored_bytes)
            for offset, piece in reader.data(member):
                if piece.count(0) < len(piece):
                    os.pwrite(into.fileno(), piece, offset)
            os.ftruncate(into.fileno(), member.size)
            return
    what = f"{called}: {shorten(name)} is not in it"
    raise Rejected(what, "the archive was replaced by another one", "Wait until its set is done.")
