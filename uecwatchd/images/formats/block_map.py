"""Maps of a container: the place in the file of each byte of the disk.

Every format here divides the disk into blocks of one size, and has a table with a place in the file for each
block: clusters of qcow2, grains of VMDK, blocks of VDI, VHD and VHDX. A block without a place reads as zeros.
What a table says is given as runs: stretches of the disk that are in the file in one piece. Blocks that are
neighbours in both places make one run, so that they are read by one system call.

A map is never held in memory as a whole. It is read from the file in pages of a few thousand entries, and the
last few pages are kept. So an image of any size takes the same memory: at most MAX_PAGES pages, each of at
most PAGE_ENTRIES runs (200 bytes each: 13 MB, in an image without two neighbouring blocks; usually a few KB).
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from uecwatchd.images.formats.decompress import Compression

# Entries of a table that are read at once: 64 KiB of a qcow2's, and 512 MiB of its disk.
PAGE_ENTRIES = 8192
# Bundling reads in as many places as it has threads, at most four, and a digest in one.
MAX_PAGES = 8


class Run(NamedTuple):
    """A stretch of the disk in one piece in the file. All in bytes."""

    start: int  #: on the disk
    length: int  #: on the disk
    place: int  #: in the file
    stored: int = 0  #: length in the file of a compressed block; 0 if the bytes are there as they are


class BlockMap(Protocol):
    """The map of one open container."""

    @property
    def size(self) -> int:
        """Length of the disk in bytes."""

    @property
    def block_bytes(self) -> int:
        """Size of a block on the disk."""

    @property
    def page_bytes(self) -> int:
        """Size of the stretch of the disk that one page of the map covers: a multiple of a block."""

    @property
    def compression(self) -> Compression | None:
        """Method of the compressed blocks, None in a format that has none."""

    def runs(self, page: int, /) -> Iterable[Run]:
        """Yield the runs of one page's stretch of the disk, in order. The last block may reach past the end.

        Raises Rejected for an entry that the format does not allow, OSError.
        """


def join_runs(runs: Iterable[Run], size: int) -> Iterator[Run]:
    """Yield the runs of a disk of `size` bytes, with neighbours joined, and nothing past the end."""
    held, end, place_end = None, 0, 0  # the last run, and where it ends if its neighbours are added
    for run in runs:
        start, length, place, stored = run
        if start >= size:
            break
        if held and start == end and place == place_end and not (stored or held.stored):
            end, place_end = end + length, place_end + length
            continue
        if held:
            yield held if held.length == end - held.start else held._replace(length=end - held.start)
        held, end, place_end = run, start + length, place + length
    if held:
        yield held._replace(length=min(end, size) - held.start)
