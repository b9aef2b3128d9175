"""The bytes of an archive, decompressed if it is compressed, forward only.

A step returns at most as much as was asked for, however much more the data would make. So the reader can stop
at a limit of its own, and the memory is that of one step and of the compressor's window.
"""

from collections.abc import Callable
from io import FileIO

from uecwatchd.errors import Rejected
from uecwatchd.images.detect import COMPRESSIONS
from uecwatchd.images.formats.container_file import ContainerFile
from uecwatchd.images.packed.flow import Flow, SeekPoint
from uecwatchd.images.packed.open import detect_packing, open_packed
from uecwatchd.images.packed.segments import read_some

MAGIC_BYTES = max(map(len, COMPRESSIONS))
NO_LIMIT = 1 << 63  # of the size of a disk: there may be several, and the reader of the archive has limits

# Returns at most so many bytes, and none at the end. Raises Rejected for damaged data, OSError.
Read = Callable[[int], bytes]


def open_stream(file: FileIO, *, name: str, check: Callable[[int], None]) -> Read:
    """Return the function that reads an archive, decompressed if it is compressed.

    The compression is known by its magic. `check` is called for each piece with the number of bytes of the
    file that are done, and may raise to stop. Raises Rejected for a compression that cannot be read here.
    """
    container = ContainerFile.of(file, name, NO_LIMIT)
    head = container.read_start(MAGIC_BYTES)
    packing = detect_packing(head)
    if packing is None:
        if other := next((word for magic, word in COMPRESSIONS.items() if head.startswith(magic)), None):
            why = f"it is compressed with {other}, which cannot be read here"
            raise Rejected(f"{name}: it cannot be unpacked", why, "Pack it with gzip or xz.")
        return _read_plain(container, check)
    return _read_packed(container, packing, check)


def _read_plain(file: ContainerFile, check: Callable[[int], None]) -> Read:
    place = 0

    def read(limit: int) -> bytes:
        nonlocal place
        check(place)
        data = read_some(file, place, limit)
        place += len(data)
        return data

    return read


def _read_packed(file: ContainerFile, packing: str, check: Callable[[int], None]) -> Read:
    try:
        packed = open_packed(packing, file)
        first = packed.find_segment(0)
    except Rejected as error:
        raise _in_words_of_archives(file, error) from error
    flow = Flow(packed, SeekPoint(0, first)) if first else None

    def read(limit: int) -> bytes:
        data = b""
        while flow and not flow.is_done and not data:
            check(flow.place)
            try:
                data = flow.read(limit)
            except Rejected as error:
                raise _in_words_of_archives(file, error) from error
        return data

    return read


def _in_words_of_archives(file: ContainerFile, error: Rejected) -> Rejected:
    return Rejected(f"{file.name}: it cannot be unpacked", error.why, error.hint)
