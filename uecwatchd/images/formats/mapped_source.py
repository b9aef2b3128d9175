"""The disk inside a container, as a block source.

The whole map is walked once before the disk is read from its beginning to its end: an image whose map leads
behind the end of its file is refused at the start, and not after an hour of uploading. The same walk gives
the extents. A look at the first bytes of a disk does without it. Later a page of the map is read again when
it is needed, with the same checks: the file may have been changed in between.

Bytes that are stored as they are go straight into the caller's buffer. A compressed block that is wanted as a
whole is decompressed and copied; if only a part is wanted, its neighbour will be soon, so it is kept.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator

from uecwatchd.errors import Rejected
from uecwatchd.images.formats.block_map import MAX_PAGES, BlockMap, Run, join_runs
from uecwatchd.images.formats.container_file import ContainerFile
from uecwatchd.images.formats.file_blocks import FileBlocks
from uecwatchd.images.formats.recent_results import RecentResults
from uecwatchd.system.extents import MAX_EXTENTS, Extent, align_extents, data_bytes

# Zeros that are copied at once: as many as a bundle reads at once.
ZEROS = memoryview(bytes(1024 * 1024))
# Decompressed blocks that are kept: of the usual size eight times as many as there are readers, of the
# largest one for each of four. A reader of a bundle's block needs two, at its ends.
KEPT_BYTES, MIN_KEPT = 2 * 1024 * 1024, 4


class MappedSource:
    """Bytes of a disk, found through the map of its container.

    `check` is called before each page of the map while it is walked, and may raise to stop.
    """

    def __init__(self, file: ContainerFile, blocks: BlockMap, check: Callable[[], None]) -> None:
        self._file, self._blocks = file, blocks
        self.size = blocks.size
        self._pages = RecentResults(self._load_page, limit=MAX_PAGES)
        kept = max(MIN_KEPT, KEPT_BYTES // blocks.block_bytes)
        self._recent_blocks = RecentResults(self._decompress, limit=kept)
        self._check = check
        self._extents: tuple[Extent, ...] | None = None

    @property
    def stored_bytes(self) -> int:
        return data_bytes(self.extents())

    def extents(self) -> tuple[Extent, ...]:
        """Return the extents as the protocol says. Walks the map at the first call.

        Raises Rejected for a map that is wrong anywhere.
        """
        if self._extents is None:
            self._extents = align_extents(self._walk(), self.size, MAX_EXTENTS)
        return self._extents

    def read_into(self, offset: int, buffer: memoryview, /) -> int:
        """Read as the protocol says. Raises Rejected if a compressed block is damaged."""
        done = 0
        buffer = buffer[: max(0, self.size - offset)]
        try:
            while done < len(buffer):
                count = self._read_piece(offset + done, buffer[done:])
                if not count:  # the file has become shorter
                    break
                done += count
        except Rejected:
            if self.is_unchanged():
                raise
        return done

    def is_unchanged(self) -> bool:
        return self._file.source.is_unchanged()

    def close(self) -> None:
        self._file.source.close()

    def _walk(self) -> Iterator[tuple[int, int]]:
        """Check the whole map, and yield the stretches of the disk that are stored, as (start, end)."""
        used, stored = FileBlocks(self._file, self._blocks), StoredStretches(self._file)
        begin = end = 0
        for page in range(-(-self.size // self._blocks.page_bytes)):
            self._check()
            for run in self._load_page(page):
                used.add(run)
                for start, stop in stored.of(run):
                    if start > end:
                        if end:
                            yield begin, end
                        begin = start
                    end = stop
        if end:
            yield begin, end

    def _load_page(self, page: int) -> list[Run]:
        """Read a page of the map. Raises Rejected if a run is not within the file."""
        runs, limit = list(join_runs(self._blocks.runs(page), self.size)), self._file.size
        for _, length, place, stored in runs:
            if place + (stored or length) > limit:
                raise self._file.truncated("the data of its disk", place + (stored or length))
        return runs

    def _read_piece(self, offset: int, buffer: memoryview) -> int:
        """Read from one run, or from the hole up to the next. Returns the number of bytes."""
        page = offset // self._blocks.page_bytes
        runs = self._pages(page)
        index = bisect_right(runs, offset, key=lambda run: run.start)
        if index:
            run = runs[index - 1]
            skip = offset - run.start
            if skip < run.length:
                return self._read_run(run, skip, buffer[: run.length - skip])
        end = runs[index].start if index < len(runs) else (page + 1) * self._blocks.page_bytes
        count = min(end - offset, len(buffer), len(ZEROS))
        buffer[:count] = ZEROS[:count]
        return count

    def _read_run(self, run: Run, skip: int, buffer: memoryview) -> int:
        if not run.stored:
            return self._file.source.read_into(run.place + skip, buffer)
        is_whole = len(buffer) == run.length
        content = self._decompress(run) if is_whole else self._recent_blocks(run)
        buffer[:] = memoryview(content)[skip : skip + len(buffer)]
        return len(buffer)

    def _decompress(self, run: Run) -> bytes:
        """Return the content of a compressed block, at least as long as the run. Raises Rejected."""
        data = self._file.read(run.place, run.stored, "a compressed block")
        assert self._blocks.compression  # noqa: S101 (no format without it has such runs)
        try:
            content = self._blocks.compression.decompress(data, self._blocks.block_bytes)
        except ValueError as error:
            content, why = b"", str(error)
        else:
            why = f"it is {len(content)} bytes long"
        if len(content) < run.length:
            where = f"the compressed block at byte {run.start} of its disk"
            raise self._file.damaged(f"{where} is damaged: {why}")
        return content


class StoredStretches:
    """The stretches of a container that are stored in its file, in order to leave out the file's own holes.

    An image that was allocated in advance has a place for every block, and its file is nothing but holes.
    """

    def __init__(self, file: ContainerFile) -> None:
        found = file.source.extents()
        self._starts = [extent.offset for extent in found]
        self._ends = [extent.offset + extent.length for extent in found]
        self._is_dense = len(found) == 1 and found[0].length == file.size

    def of(self, run: Run) -> Iterable[tuple[int, int]]:
        """Return the stored stretches of a run, as (start, end) on the disk."""
        if run.stored or self._is_dense:
            return ((run.start, run.start + run.length),)
        return self._between_holes(run)

    def _between_holes(self, run: Run) -> Iterator[tuple[int, int]]:
        shift, end = run.start - run.place, run.place + run.length
        index = bisect_right(self._ends, run.place)
        while index < len(self._starts) and self._starts[index] < end:
            yield max(self._starts[index], run.place) + shift, min(self._ends[index], end) + shift
            index += 1
