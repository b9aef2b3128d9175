"""Ways to read a disk through a block source, for comparison."""

import random
from contextlib import closing
from io import FileIO
from pathlib import Path

from uecwatchd.images.block_source import BlockSource
from uecwatchd.images.formats.open import OpenedDisk, open_disk


def opened(path: Path | FileIO, **options: object) -> OpenedDisk:
    file = FileIO(path) if isinstance(path, Path) else path
    try:
        return open_disk(file, name="disk.img", **options)  # type: ignore[arg-type]
    except BaseException:
        file.close()
        raise


def read(source: BlockSource, offset: int, length: int) -> bytes:
    """Read until the length or the end is reached."""
    data, done = memoryview(bytearray(length)), 0
    while count := source.read_into(offset + done, data[done:]):
        done += count
    return bytes(data[:done])


def read_disk(source: BlockSource, draw: random.Random) -> bytes:
    """Read a disk from its start to its end, in pieces of any length."""
    data = memoryview(bytearray(source.size))
    done = 0
    while count := source.read_into(done, data[done : done + draw.randrange(1, 1 << 20)]):
        done += count
    assert done == source.size
    return bytes(data)


def read_extents(source: BlockSource) -> bytes:
    """Read only what may hold something: a disk without its holes."""
    data = bytearray(source.size)
    for extent in source.extents():
        piece = read(source, extent.offset, extent.length)
        assert len(piece) == extent.length
        data[extent.offset : extent.offset + extent.length] = piece
    return bytes(data)


def disk_of(path: Path | FileIO) -> bytes:
    """Open an image, and read its disk."""
    disk = opened(path)
    with closing(disk.source):
        return read(disk.source, 0, disk.source.size)
