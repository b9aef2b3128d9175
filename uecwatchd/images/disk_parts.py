"""Parts of a disk that are images of their own: one partition, or one file of the system on it."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from uecwatchd.images.block_source import BlockSource, View
from uecwatchd.images.guest.disk import find_linux, read_disk
from uecwatchd.images.guest.file_source import GuestFileSource
from uecwatchd.images.guest.kernel_pair import NoKernelPair
from uecwatchd.images.guest.volumes import VolumeReader
from uecwatchd.images.reading import PARTITION, guest_path
from uecwatchd.types import Reading


@contextmanager
def open_part(
    source: BlockSource, reading: Reading, *, name: str, check: Callable[[], None]
) -> Iterator[BlockSource]:
    """Open the part of a disk that a reading means. `name` is the disk's in messages; `check` may stop it.

    Raises Rejected if the system on the disk, or the file in it, is not there or cannot be read; OSError.
    """
    part = reading.partition(" ")[2]
    if part.startswith(PARTITION):
        start, size = map(int, part.removeprefix(PARTITION).split("+"))
        yield View(source, start, size)
    elif path := guest_path(reading):
        with VolumeReader(source, name=name, check=check) as reader:
            linux = find_linux(read_disk(source, reader))
            file = linux.tree.find(path) if linux else None
            if file is None or file.entry.type != "file":
                raise NoKernelPair(f"{name}: {path} is not in it", "the image has changed", "Drop it again.")
            with closing(GuestFileSource(file, source)) as inside:
                yield inside
    else:
        yield source
