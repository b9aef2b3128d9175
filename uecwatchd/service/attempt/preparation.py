"""Prepared members: images with changes over them, made again for each reading.

The digest is that of the prepared image. The ledger keeps it with a digest of the changes: another version of
this program, or of debugfs, may make other ones.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from uecwatchd.errors import Deferred
from uecwatchd.events import Kind, Progress
from uecwatchd.images.block_source import BlockSource
from uecwatchd.images.detect import CONTAINERS
from uecwatchd.images.digests import read_digest
from uecwatchd.images.disk_parts import open_part
from uecwatchd.images.packed.open import UNPACKED
from uecwatchd.images.prepare.prepare import ImageToPrepare, Prepared, prepare_image
from uecwatchd.images.reading import is_prepared
from uecwatchd.intake.sets.members import with_size
from uecwatchd.intake.sets.records import Member
from uecwatchd.intake.spool import safe_open
from uecwatchd.service.attempt.context import (
    AttemptTools,
    Job,
    folder_of,
    stop_if_asked,
    tell,
    with_digest,
    with_member,
)
from uecwatchd.types import ContentDigest


@contextmanager
def open_prepared(
    folder: Path, member: Member, tools: AttemptTools, check: Callable[[], None]
) -> Iterator[Prepared]:
    """Open a member of a spool folder, and prepare it.

    Raises Deferred if the file is not the listed one, or the work folder fails; Rejected if the image does
    not allow it.
    """
    _ensure_folder(tools.work_folder)
    path, stamp, access = member.path, member.stamp, tools.access
    with safe_open.open_image(folder, path, "disk", stamp=stamp, access=access, check=check) as source:
        with safe_open.reading(path):
            prepared = prepare_image(ImageToPrepare(source, path, check), tools.work_folder)
        yield prepared


@contextmanager
def open_member(job: Job, member: Member, tools: AttemptTools) -> Iterator[BlockSource]:
    """Open the image of a member as it is uploaded: prepared, if it is to be.

    Raises as `open_prepared` and `safe_open.open_image` do.
    """
    folder, check = folder_of(job, member, tools), partial(stop_if_asked, job, tools)
    path, how = member.path, member.reading
    is_packed = member.container in UNPACKED and member.facts.inside not in CONTAINERS
    if is_packed and tools.ledger.digest(member.stamp, how) and not tools.access.surveys.get(member.stamp):
        tell(job, Kind.WORKING, f"{path} is unpacked again from its beginning, to find its holes")

    def progress(done: int) -> None:
        job.listener.progress(Progress(job.found.id, job.record.stage, member.name, done, member.stamp.size))

    if is_prepared(how):
        with (
            open_prepared(folder, member, tools, check) as prepared,
            open_part(prepared.source, how, name=path, check=check) as source,
        ):
            yield source
    else:
        stamp, access = member.stamp, tools.access
        with safe_open.open_image(
            folder, path, how, stamp=stamp, access=access, check=check, progress=progress
        ) as source:
            yield source


def _ensure_folder(work_folder: Path) -> None:
    try:
        work_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        hint = "Make it, or name another one: work = … under [state]."
        why = f"it cannot be made: {error.strerror or error}"
        raise Deferred(f"{work_folder}: images are prepared there", why, hint) from error


def read_prepared(
    job: Job, member: Member, tools: AttemptTools, progress: Callable[[int], None], check: Callable[[], None]
) -> Job:
    """Return the job with the digest of a prepared member and its changes, which are reported."""
    with open_prepared(folder_of(job, member, tools), member, tools, check) as prepared:
        of = f"{member.reading} {prepared.source.fingerprint}"
        known = tools.ledger.digest(member.stamp, of)
        _report(job, prepared, with_lines=known is None)
        with open_part(prepared.source, member.reading, name=member.path, check=check) as source:
            digest = known or _read(member, source, progress)
            job = with_member(job, with_size(member, source.size))  # known now, of a compressed file
        if known is None:
            tools.ledger.put_digest(member.stamp, of, digest)
    return _with_changes(with_digest(job, member.role, digest), member, prepared)


def _read(member: Member, source: BlockSource, progress: Callable[[int], None]) -> ContentDigest:
    with safe_open.reading(member.path):
        digest = read_digest(source, progress=progress)
        if not source.is_unchanged():
            raise safe_open.changed(member.path)
    return digest


def _report(job: Job, prepared: Prepared, *, with_lines: bool) -> None:
    """Tell what was changed, with the lines for the log, and what could not be done."""
    for change in prepared.changes:
        tell(job, Kind.WORKING, f"prepared, in the image only: {change}")
        for line in change.lines if with_lines else ():
            tell(job, Kind.WORKING, f"{change.path}: {line}", level="debug")
    if not prepared.changes:
        tell(job, Kind.WORKING, "there is nothing to prepare in it")
    for remark in prepared.remarks:
        tell(job, Kind.WORKING, f"not prepared: {remark}", level="warning")


def _with_changes(job: Job, member: Member, prepared: Prepared) -> Job:
    changes = tuple(map(str, prepared.changes))
    members = (
        replace(one, prepared=changes) if one.role == member.role else one for one in job.record.members
    )
    return replace(job, record=replace(job.record, members=tuple(members)))
