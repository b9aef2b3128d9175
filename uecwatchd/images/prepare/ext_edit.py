"""Changes in an ext file system, made by debugfs in a copy of its metadata.

The copy is a sparse file without a name, with nothing in it but what debugfs needs to read: see
`guest.ext_metadata`. Afterwards, the blocks of the copy that differ from before are the result. So the image
is not written, no second copy of it is made, and it need not be a raw file.

The same input gives the same bytes: all times are that of the last change before, and debugfs takes the first
free inode and block. debugfs reads what strangers have made, so it runs with few rights.
"""

import os
import re
import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path

from uecwatchd.errors import Deferred, Rejected
from uecwatchd.images.block_source import BlockSource, read_exactly
from uecwatchd.images.prepare.edit_script import LABEL, EditScript
from uecwatchd.images.prepare.ext_state import BY_HAND, ExtState
from uecwatchd.images.prepare.placing import PlacedEdit
from uecwatchd.system import failpoints
from uecwatchd.system.confined_program import run_confined
from uecwatchd.system.confinement import Limits
from uecwatchd.system.extents import find_extents
from uecwatchd.system.programs import Program
from uecwatchd.system.text import shorten

DEBUGFS = Program("debugfs", "e2fsprogs", time_out_seconds=120)  # 40 ms; other work may hold the disk
CLOCK = "E2FSPROGS_FAKE_TIME"
NO_PAGER = {"DEBUGFS_PAGER": "__none__"}
# Later than the number of any inode: e2fsck takes a smaller time of deletion for one. UEC was released then.
EARLIEST_TIME = 1256774400
# Its bitmaps of 8 TiB, the largest file system here, take a quarter of this memory.
# debugfs reads them in a thread for each processor.
LIMITS = Limits(cpu_seconds=60, memory_bytes=4 << 30, descriptors=64, has_threads=True)
MAX_COPIED_BYTES = 2 << 30  # four times the bitmaps of the largest file system here
READ_BYTES = 1 << 20
BANNER = re.compile(r"debugfs \d+\.\d+.*")
NO_SPACE = re.compile(r"free (space|inode|block)|could not allocate|no space|inode table full", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ExtTarget:
    """The file system to be changed, and its name for messages."""

    source: BlockSource
    name: str
    state: ExtState
    metadata: Sequence[
        tuple[int, int]
    ]  #: what debugfs has to read, as (start, length), in order, whole blocks
    has_selinux: bool  #: its files may have labels, which new ones then need too


def edit_ext(target: ExtTarget, edits: Sequence[PlacedEdit], work_folder: Path) -> Mapping[int, bytes]:
    """Make edits, and return the blocks that differ then, by their offsets in the file system.

    Raises Rejected if the file system does not take them, Deferred if debugfs is missing or the work folder
    fails, OSError if the image does.
    """
    if sum(length for _, length in target.metadata) > MAX_COPIED_BYTES:
        raise _refuse(target, "its metadata is too large")
    with _temporary(work_folder) as file:
        _copy_metadata(target, file, work_folder)
        with failpoints.effect("change a copy of the metadata"):  # in a process that may outlive this one
            _apply(target, edits, file)
        return dict(_differences(target, file))


@contextmanager
def _temporary(work_folder: Path) -> Iterator[FileIO]:
    with _on_disk(work_folder):
        made = tempfile.TemporaryFile(dir=work_folder, buffering=0)  # noqa: SIM115 (closed below)
    with made:
        os.fchmod(made.fileno(), 0o666)  # without a name, and debugfs may run as nobody
        yield made


def _copy_metadata(target: ExtTarget, file: FileIO, work_folder: Path) -> None:
    """Copy what debugfs reads to its places, with holes for everything else."""
    with _on_disk(work_folder):
        os.ftruncate(file.fileno(), target.source.size)
    for start, length in target.metadata:
        for offset in range(start, start + length, READ_BYTES):
            data = read_exactly(target.source, offset, min(READ_BYTES, start + length - offset))
            if data.count(0) < len(data):
                with _on_disk(work_folder):
                    os.pwrite(file.fileno(), data, offset)


@contextmanager
def _on_disk(work_folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = f"cannot write a copy of an image's metadata there: {error.strerror or error}"
        raise Deferred(str(work_folder), why, "Check the disk and its free space.") from error


# --- debugfs ---


def _apply(target: ExtTarget, edits: Sequence[PlacedEdit], file: FileIO) -> None:
    labelled = _find_labelled(target, edits, file) if target.has_selinux else frozenset[str]()
    with EditScript(labelled) as script:
        for edit in edits:
            script.add(edit)
        _run_debugfs(target, file, script.text, script.descriptors)


def _find_labelled(target: ExtTarget, edits: Sequence[PlacedEdit], file: FileIO) -> frozenset[str]:
    """Return those of the files and folders concerned that have a label of SELinux."""
    paths = {edit.folder for edit in edits} | {edit.path for edit in edits if edit.is_there}
    asked = "".join(f"ea_list {path}\n" for path in sorted(paths))
    _, *answers = _run_debugfs(target, file, asked, ()).split("debugfs: ea_list ")
    return frozenset(answer.partition("\n")[0] for answer in answers if LABEL in answer)


def _run_debugfs(target: ExtTarget, file: FileIO, commands: str, readable: Sequence[int]) -> str:
    """Let debugfs execute commands, and return what it says. Raises Rejected if it complains."""
    clock = str(max(target.state.written, EARLIEST_TIME))
    said = run_confined(
        replace(DEBUGFS, environment={**NO_PAGER, CLOCK: clock}),
        ["-w", "-f", "-", f"/dev/fd/{file.fileno()}"],
        limits=replace(LIMITS, file_bytes=target.source.size),
        writable=file.fileno(),
        readable=readable,
        text=commands,
    )
    complaints = [line for line in said.complaint.splitlines() if line.strip() and not BANNER.fullmatch(line)]
    if any(NO_SPACE.search(line) for line in complaints):
        raise Rejected(
            f"{target.name}: its file system cannot be prepared",
            "it is full: there is no free block, or no free inode, for the files that are added",
            "Delete something in it, or make it larger: resize2fs.",
        )
    if complaints:
        raise _refuse(target, f"debugfs says: {shorten(complaints[0].strip())}")
    return said.output


def _refuse(target: ExtTarget, why: str) -> Rejected:
    return Rejected(f"{target.name}: its file system cannot be prepared", why, BY_HAND)


# --- the result ---


def _differences(target: ExtTarget, file: FileIO) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks that debugfs has changed. It writes whole ones, and none with nothing but zeros."""
    step, size = target.state.block_bytes, target.source.size
    for extent in find_extents(file.fileno(), size):
        for start in range(extent.offset, extent.offset + extent.length, READ_BYTES):
            length = min(READ_BYTES, extent.offset + extent.length - start)
            after = os.pread(file.fileno(), length, start)
            before = _read_before(target, start, len(after))
            if after == before:
                continue
            for at in range(0, len(after), step):
                if after[at : at + step] != before[at : at + step]:
                    yield start + at, after[at : at + step]


def _read_before(target: ExtTarget, start: int, length: int) -> bytes:
    """Return what the copy had at first: the metadata, and zeros between."""
    data = bytearray(length)
    index = bisect_right(target.metadata, (start, 0)) - 1
    for first, count in target.metadata[max(0, index) :]:
        if first >= start + length:
            break
        begin, end = max(first, start), min(first + count, start + length)
        if begin < end:
            data[begin - start : end - start] = read_exactly(target.source, begin, end - begin)
    return bytes(data)
