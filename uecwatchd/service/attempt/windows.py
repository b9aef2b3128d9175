"""The stage that makes what a Windows set boots from: memdisk of this host, and a boot floppy.

They are members as if they had been dropped: each is in the work folder until the set is done.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from posixpath import basename
from tempfile import TemporaryDirectory
from typing import BinaryIO

from uecwatchd.events import Event, Kind
from uecwatchd.images.floppy.boot_files import BootFolder
from uecwatchd.images.floppy.boot_ini import WindowsPlace
from uecwatchd.images.floppy.make import FLOPPY_BYTES, make_boot_floppy
from uecwatchd.images.floppy.syslinux import find_memdisk, read_file
from uecwatchd.intake.sets.origin import BootFloppy, HostMemdisk
from uecwatchd.intake.sets.records import ROLES, Member
from uecwatchd.intake.spool import safe_open
from uecwatchd.outputs.result_files import LogFile
from uecwatchd.service.attempt.context import AttemptTools, Job, tell, with_members
from uecwatchd.service.attempt.made_members import make_member
from uecwatchd.service.work_folder import work_folder
from uecwatchd.system.text import format_size
from uecwatchd.types import FileStamp

FLOPPY_NAME = "boot-floppy.img"


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """A file of the spool folder, opened only while it is read. `path` is relative to the folder."""

    folder: Path
    path: str
    stamp: FileStamp

    def read(self, size: int) -> bytes:
        """Return its first bytes. Raises Deferred if it is not the file that the scan has seen."""
        with safe_open.open_member(self.folder, self.path) as file:
            content = file.read(size)
            if not self.stamp.is_of(os.fstat(file.fileno())):
                raise safe_open.changed(self.path)
        return content


def make_windows_boot(job: Job, tools: AttemptTools) -> Job:
    """Return the job with the members that are made for a Windows set, if there are any.

    Raises Deferred if a program is missing that they are made with, Rejected for unsuitable boot files.
    """
    made = {member.role: member for member in _make(job, tools)}
    if not made:
        return job
    words = (f"{m.role} {m.origin} ({format_size(m.size)})" for m in made.values())
    tell(job, Kind.WORKING, f"made for it: {', '.join(words)}")
    members = {member.role: member for member in job.found.members} | made
    ordered = tuple(members[role] for role in ROLES if role in members)
    return with_members(job, replace(job.found, members=ordered))


def _make(job: Job, tools: AttemptTools) -> Iterator[Member]:
    wanted = job.found.windows_boot
    if wanted and wanted.memdisk:
        yield _memdisk(job, tools)
    if wanted and wanted.floppy:
        yield _floppy(job, tools, wanted.floppy)


def _memdisk(job: Job, tools: AttemptTools) -> Member:
    place = find_memdisk()
    content = read_file(place)

    def write(file: BinaryIO) -> None:
        file.write(content)

    path, origin = str(place).lstrip("/"), HostMemdisk(str(place))
    return make_member(
        job, tools, role="kernel", path=path, origin=origin, write=write, needs_bytes=len(content)
    )


def _floppy(job: Job, tools: AttemptTools, origin: BootFloppy) -> Member:
    found = job.found
    files = {basename(path): SpoolFile(found.folder, path, stamp) for path, stamp in origin.sources}

    def write(file: BinaryIO) -> None:
        parent = work_folder(tools.work_folder, found.id, found.stamp)
        with TemporaryDirectory(dir=parent, prefix=".floppy-") as scratch:
            made = make_boot_floppy(BootFolder(origin.folder, files), Path(scratch), windows=_place(job))
        _tell_remarks(job, made.remarks)  # before the floppy is there, so that no crash comes between
        file.write(made.content)

    path = f"{origin.folder}/{FLOPPY_NAME}"
    return make_member(
        job, tools, role="ramdisk", path=path, origin=origin, write=write, needs_bytes=FLOPPY_BYTES
    )


def _place(job: Job) -> WindowsPlace | None:
    """Return where Windows is on the disk, as far as its inspection has found it."""
    summary = job.record.inspection
    if summary is None or summary.windows_partition is None:
        return None
    return WindowsPlace(summary.windows_partition, summary.windows_folder or "WINDOWS")


def _tell_remarks(job: Job, remarks: tuple[str, ...]) -> None:
    """Report what is not certain about the floppy, in the log beside the set alone."""
    log = LogFile(job.found.id)
    for remark in remarks:
        log.tell(Event(Kind.WORKING, f"note: {remark}", job.found.id))
