"""The stage that unpacks the archive of a set into its work folder, once, and judges what is in it.

One pass over the archive writes the files, each complete or not there. A note written last says that all of
them are there: with it, a later attempt reads nothing again; without it, it goes through the archive and
writes only what is missing.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from io import FileIO
from math import inf
from pathlib import Path
from posixpath import basename
from typing import BinaryIO

from uecwatchd.bundle.folder import SparseFile
from uecwatchd.errors import Rejected
from uecwatchd.events import Kind, Progress
from uecwatchd.images.file_facts import Facts
from uecwatchd.images.tarball.packed_stream import open_stream
from uecwatchd.images.tarball.reader import TarballReader, TarFile
from uecwatchd.intake.sets.origin import ArchiveMember
from uecwatchd.intake.sets.records import ImageSet, Member, PackedFiles
from uecwatchd.intake.sets.unpacked import judge_unpacked
from uecwatchd.intake.spool import safe_open
from uecwatchd.intake.spool.contents import Contents, ReadBudget, read_contents
from uecwatchd.intake.spool.ignored import ignored_by
from uecwatchd.intake.spool.scan import Entry, Listing
from uecwatchd.outputs import result_files
from uecwatchd.service.attempt.context import AttemptTools, Job, stop_if_asked, tell, with_members
from uecwatchd.service.attempt.digests import check_sum
from uecwatchd.service.work_folder import WHAT, drop_older_work, work_folder
from uecwatchd.system.disk_space import check_space_for
from uecwatchd.system.made_files import find_file, make_file
from uecwatchd.system.text import format_size
from uecwatchd.types import FileStamp

NOTE, NOTE_VERSION = "contents.json", 1
# How much is written between two looks at the free space: other sets may be unpacked in between.
LOOK_BYTES = 256 * 1024 * 1024
NO_CONTENTS = Contents({}, {}, {}, {}, frozenset(), frozenset())


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Unpacked files of an archive: their names, and their bytes without holes.

    `passed_over` are names of files that no set has, such as hidden ones.
    """

    files: tuple[str, ...]
    stored_bytes: int
    passed_over: tuple[str, ...] = ()


def unpack(job: Job, tools: AttemptTools) -> Job:
    """Unpack the archive of a set, and return the job with the members in it.

    Raises the error of an archive that cannot be unpacked, and that of files that are no set. Ids of an
    earlier archive are removed then, as for files that the rules refuse.
    """
    packed = job.found.packed
    if packed is None:
        return job
    try:
        return _unpack_and_judge(job, packed, tools)
    except Rejected:
        result_files.retract(job.record)
        raise


def _unpack_and_judge(job: Job, packed: PackedFiles, tools: AttemptTools) -> Job:
    whole = Member("machine", packed.path, packed.stamp.size, packed.stamp, Facts("tar"))
    check_sum(job, whole, None, tools)
    drop_older_work(tools.work_folder, job.found.id, job.found.stamp)
    folder = work_folder(tools.work_folder, job.found.id, job.found.stamp)
    unpacked = _find_unpacked(folder, packed)
    if unpacked is None:
        unpacked = _unpack(job, packed, folder, tools)
        count, stored = len(unpacked.files), format_size(unpacked.stored_bytes)
        what = f"unpacked {packed.path}: {count} file{'' if count == 1 else 's'} of {stored}"
        tell(job, Kind.WORKING, what)
    found = judge_unpacked(job.found, packed, _list(folder, packed, unpacked))
    _tell_members(job, found, unpacked)
    return with_members(job, found)


def _tell_members(job: Job, found: ImageSet, unpacked: Unpacked) -> None:
    """Report used and unused files of the archive."""
    parts = [f"{member.role} {member.origin} ({format_size(member.size)})" for member in found.members]
    tell(job, Kind.WORKING, f"to be registered: {', '.join(parts)}")
    used = {m.origin.name for m in found.members if isinstance(m.origin, ArchiveMember)}
    if others := [name for name in (*unpacked.files, *unpacked.passed_over) if name not in used]:
        tell(job, Kind.WORKING, f"left out: {', '.join(others)}")
    for sentence in found.unread:
        tell(job, Kind.WORKING, sentence, level="warning")


# --- unpacking --------------------------------------------------------------------------------------------


def _find_unpacked(folder: Path, packed: PackedFiles) -> Unpacked | None:
    """Return what was unpacked before, if all of it is there."""
    try:
        unpacked = read_note((folder / NOTE).read_bytes())
    except (OSError, ValueError):
        return None
    there = all(find_file(folder, f"{packed.path}/{name}") for name in unpacked.files)
    return unpacked if there else None


def _unpack(job: Job, packed: PackedFiles, folder: Path, tools: AttemptTools) -> Unpacked:
    stored: dict[str, int] = {}
    passed_over: list[str] = []
    with safe_open.open_member(job.found.folder, packed.path) as file, safe_open.reading(packed.path):
        _check_same(file, packed)
        reader = _open_archive(file, packed, partial(_report, job, packed, tools))
        for member in reader.files():
            if ignored_by(basename(member.name)):
                passed_over.append(member.name)
                continue
            stored[member.name] = member.stored_bytes
            _make(reader, member, file, folder, packed)
        _check_same(file, packed)
    if not stored:
        hint = "Pack the image with its kernel and ramdisk."
        raise Rejected(f"{packed.path}: it is no archive of an image", "there is no file in it", hint)
    unpacked = Unpacked(tuple(stored), sum(stored.values()), tuple(passed_over))
    note = write_note(unpacked)
    make_file(folder, NOTE, lambda file: _put(file, note), needs_bytes=len(note), what=WHAT)
    return unpacked


def _open_archive(file: FileIO, packed: PackedFiles, check: Callable[[int], None]) -> TarballReader:
    read = open_stream(file, name=packed.path, check=check)

    def read_or_defer(limit: int) -> bytes:
        with safe_open.reading(packed.path):  # here, because the work folder has failures of its own
            return read(limit)

    return TarballReader(read_or_defer, name=packed.path)


def _report(job: Job, packed: PackedFiles, tools: AttemptTools, done: int) -> None:
    """Report how much of the archive is read, and stop if that is asked for."""
    stop_if_asked(job, tools)
    stage, size = job.record.stage, packed.stamp.size
    job.listener.progress(Progress(job.found.id, stage, packed.path, done, size))


def _check_same(file: FileIO, packed: PackedFiles) -> None:
    """Raise Deferred if the archive is not the one that the scan has seen, or has changed."""
    if not packed.stamp.is_of(os.fstat(file.fileno())):
        raise safe_open.changed(packed.path)


def _make(reader: TarballReader, member: TarFile, source: FileIO, folder: Path, packed: PackedFiles) -> None:
    """Write one file of the archive, with holes for its zeros, unless it is there."""

    def write(file: BinaryIO) -> None:
        sparse, written = SparseFile(file), 0
        for offset, piece in reader.data(member):
            file.seek(offset)
            sparse.write(piece)
            written += len(piece)
            if written % LOOK_BYTES < len(piece):
                check_space_for(folder, 0, WHAT)
        file.truncate(member.size)
        _check_same(source, packed)

    make_file(folder, f"{packed.path}/{member.name}", write, needs_bytes=member.stored_bytes, what=WHAT)


# --- the note of what was unpacked ------------------------------------------------------------------------


def write_note(unpacked: Unpacked) -> bytes:
    """Return the text of the note."""
    return json.dumps({"version": NOTE_VERSION, **asdict(unpacked)}).encode()


def read_note(data: bytes) -> Unpacked:
    """Parse what `write_note` has written. Raises ValueError for anything else."""
    note = json.loads(data)
    if not isinstance(note, dict) or note.pop("version", None) != NOTE_VERSION:
        raise ValueError("not a note of this version")
    try:
        return Unpacked(tuple(note["files"]), int(note["stored_bytes"]), tuple(note["passed_over"]))
    except (KeyError, TypeError) as error:
        raise ValueError("not a note of an archive") from error


def _put(file: BinaryIO, data: bytes) -> None:
    file.write(data)


# --- what is there ----------------------------------------------------------------------------------------


def _list(folder: Path, packed: PackedFiles, unpacked: Unpacked) -> Listing:
    """List the unpacked files with facts about their contents."""
    paths = [f"{packed.path}/{name}" for name in unpacked.files]
    entries = {path: _entry(folder, path) for path in paths}
    with safe_open.folder_descriptor(folder) as descriptor:
        read = read_contents(descriptor, entries, before=NO_CONTENTS, same=(), budget=ReadBudget(seconds=inf))
    return Listing(folder, 0.0, entries, facts=read.facts, sidecars=read.sidecars, checksums=read.checksums)


def _entry(folder: Path, path: str) -> Entry:
    status = (folder / path).lstat()
    return Entry(path, "file", status.st_size, FileStamp.of(status), 0.0, owner=status.st_uid)
