"""Opening of compressed files: by their first bytes, never by their name."""

from collections.abc import Callable, Mapping

from uecwatchd.images.formats.container_file import ContainerFile
from uecwatchd.images.packed import plain, xz, zstd
from uecwatchd.images.packed.flow import Flow, SeekPoint
from uecwatchd.images.packed.segments import PackedFile
from uecwatchd.images.packed.source import PackedSource
from uecwatchd.images.packed.survey import Surveys, is_empty, survey, too_large
from uecwatchd.system.text import format_size
from uecwatchd.types import FileStamp

# Unpacking 256 GiB of nothing takes some ten minutes of one processor, for a file of 40 MB or less. That much
# work is accepted, unless the configuration says otherwise; hardly any image for a cloud is larger.
MAX_UNPACKED_BYTES = 256 << 30
# What may be unpacked for nothing to reach a place in a container: the blocks of `xz -9` are not longer.
MAX_SKIP_BYTES = 256 << 20
# Compressed bytes that are read for the first bytes of the content: a block of bzip2 has 900 KB.
MAX_HEAD_INPUT_BYTES = 4 << 20
MAX_HEAD_READS = 4096  # of which many may bring nothing: a gzip can have thousands of empty members

OPENERS: Mapping[str, tuple[bytes, Callable[[ContainerFile], PackedFile]]] = {
    "gzip": (b"\x1f\x8b\x08", lambda file: plain.PlainFile(file, plain.FORMATS["gzip"])),
    "bzip2": (b"BZh", lambda file: plain.PlainFile(file, plain.FORMATS["bzip2"])),
    "xz": (xz.MAGIC, xz.XzFile),
    "zstd": (zstd.MAGIC, zstd.ZstdFile),
}
UNPACKED = frozenset(OPENERS)


def detect_packing(head: bytes) -> str | None:
    """Return the name of the compression that the first bytes are of."""
    return next((name for name, (magic, _) in OPENERS.items() if head.startswith(magic)), None)


def open_packed(name: str, file: ContainerFile) -> PackedFile:
    """Open a compressed file. Raises Rejected if that cannot be done, OSError."""
    return OPENERS[name][1](file)


def read_head(packed: PackedFile, length: int) -> bytes:
    """Return the first bytes of the content, fewer if it is shorter or takes too much.

    Raises as `Flow` does.
    """
    segment = packed.find_segment(0)
    if segment is None:
        return b""
    flow, head = Flow(packed, SeekPoint(0, segment)), b""
    for _ in range(MAX_HEAD_READS):
        if len(head) == length or flow.is_done or flow.place >= MAX_HEAD_INPUT_BYTES:
            break
        head += flow.read(length - len(head))
    return head


def known_size(packed: PackedFile) -> int | None:
    """Return the size of the content, if that takes little to know. Raises as `known_segments` does."""
    segments = packed.known_segments()
    lengths = [segment.length for segment in segments if segment.length is not None]
    return sum(lengths) if segments and len(lengths) == len(segments) else None


def open_whole(
    packed: PackedFile,
    stamp: FileStamp,
    *,
    max_bytes: int,
    surveys: Surveys,
    check: Callable[[], None],
    progress: Callable[[int], None],
) -> PackedSource:
    """Open the content to be read in order. Reads all of it once, unless that was done lately.

    `stamp` is the file's when it was opened. Raises Rejected for a file that is damaged, empty, or unpacks to
    more than `max_bytes`; OSError.
    """
    found = surveys.get(stamp)
    if found is None:
        size, first = known_size(packed), packed.find_segment(0)
        if first is None:
            raise is_empty(packed)
        if size is not None and size > max_bytes:
            raise too_large(packed, format_size(size))
        found = survey(packed, SeekPoint(0, first), limit=max_bytes, check=check, progress=progress)
        surveys.put(stamp, found)
    elif found.size > max_bytes:
        raise too_large(packed, format_size(found.size))
    return PackedSource(packed, found.points, found.size, found)


def open_seekable(packed: PackedFile) -> PackedSource | None:
    """Open the content to be read at any place, without reading it first.

    Returns None if too much would have to be unpacked to reach a place. Raises Rejected for a damaged index.
    """
    points, offset = list[SeekPoint](), 0
    for segment in packed.known_segments():
        length = segment.length or 0
        if length > MAX_SKIP_BYTES:
            return None
        if length:
            points.append(SeekPoint(offset, segment))
        offset += length
    return PackedSource(packed, tuple(points), offset) if points else None
