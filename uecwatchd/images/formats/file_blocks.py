"""Account of the space that a map uses in its file.

A hostile map can say that every block of a huge disk is in the same place: half a megabyte then becomes a
terabyte of data to read, compress and upload. Real images are never like that. In an image that is not
compressed, no two blocks of the disk share bytes of the file, so there is not more data than the file is
long. Compressed blocks begin anywhere and have no exact length, but each needs at least its own bytes, and a
block needs some: no method compresses without limit.
"""

from uecwatchd.images.formats.block_map import BlockMap, Run
from uecwatchd.images.formats.container_file import ContainerFile
from uecwatchd.system import memory
from uecwatchd.system.text import format_size

# A qcow2 gives the length of a compressed cluster in sectors, so two of them can share one.
SHARED_SECTOR_BYTES = 511
# One bit for each block of the file takes 128 MiB then; only the parts that are used become real memory. It
# is enough for 64 TiB of usual blocks, and for 512 GiB of the smallest.
MOST_BLOCKS = 1 << 30


class FileBlocks:
    """The blocks of a file that a map uses, one bit each, and the sum of their bytes.

    Two runs that begin in the same block are found. Memory: 2 MiB for each TiB of a file with blocks of 64
    KiB, while the map is checked.
    """

    def __init__(self, file: ContainerFile, map_: BlockMap) -> None:
        self._file, self._block_bytes = file, map_.block_bytes
        self._most_expansion = map_.compression.most_expansion if map_.compression else 1
        blocks = file.size // self._block_bytes + 1
        if blocks > MOST_BLOCKS:
            most = format_size(MOST_BLOCKS * self._block_bytes)
            raise file.refuse_unless_converted(
                f"its blocks have {self._block_bytes} bytes, and a file of such blocks may have {most}"
            )
        self._used = memory.allocate_pages(blocks // 8 + 1)
        self._sum, self._limit = 0, file.size
        self._last = -1  # block of the disk where the last run ends: the next may go on in the same block

    def add(self, run: Run) -> None:
        """Count one run. Raises Rejected if its place is used already, or if there is more than the file has.

        Runs come in the order of the disk.
        """
        if run.stored:
            self._sum += max(run.stored - SHARED_SECTOR_BYTES, run.length // self._most_expansion, 1)
        else:
            self._sum += run.length
            self._claim(run)
        if self._sum > self._limit:
            size = format_size(self._file.size)
            raise self._file.damaged(f"its map claims more data than the {size} that the file has")

    def _claim(self, run: Run) -> None:
        begin, end = run.start // self._block_bytes, (run.start + run.length - 1) // self._block_bytes + 1
        first = (run.place - run.start % self._block_bytes) // self._block_bytes
        if begin == self._last:  # another part of the same block
            begin, first = begin + 1, first + 1
        self._last = end - 1
        if end > begin:
            self._mark(first, end - begin)

    def _mark(self, first: int, count: int) -> None:
        """Set the bits of blocks of the file. Raises Rejected if one is set already."""
        piece = self._used[first // 8 : (first + count + 7) // 8]
        bits, before = ((1 << count) - 1) << first % 8, int.from_bytes(piece, "little")
        if before & bits:
            raise self._file.damaged("its map gives two blocks of the disk the same place in the file")
        piece[:] = (before | bits).to_bytes(len(piece), "little")
