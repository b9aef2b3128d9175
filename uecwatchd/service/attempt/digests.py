"""The stages that read the files: their digests, their declared sums, and ids of an earlier content."""

from collections.abc import Callable
from functools import partial

from uecwatchd.errors import NotYet, Rejected
from uecwatchd.events import Progress
from uecwatchd.images.detect import CONTAINERS
from uecwatchd.images.digests import Digest, FlatDigest
from uecwatchd.images.packed.open import UNPACKED
from uecwatchd.images.reading import is_prepared, whole
from uecwatchd.intake.sets.members import with_size
from uecwatchd.intake.sets.records import Member
from uecwatchd.intake.spool import safe_open
from uecwatchd.ledger.records import MemberRecord
from uecwatchd.outputs import result_files
from uecwatchd.service.attempt.context import (
    AttemptTools,
    Job,
    fingerprint_of,
    folder_of,
    stop_if_asked,
    with_digest,
    with_member,
)
from uecwatchd.service.attempt.preparation import open_member, read_prepared
from uecwatchd.types import ContentDigest, Reading

# A copy that pauses for longer than the settle time, for example because of the network, continues within ten
# minutes or not at all.
FRESH_SECONDS = 600.0


def read_digests(job: Job, tools: AttemptTools) -> Job:
    """Compute the SHA-256 of every member. An unchanged stamp means unchanged content.

    A new file is read twice: here, and while it is bundled, where the digest is computed again. The first
    read is necessary: it decides if the bytes match their declared sum, if they are registered already (like
    a kernel that many sets share), and what the keys in the bucket are called. With these keys an image is
    found again even without a ledger.
    """
    plain = [(one.stamp, one.reading) for one in job.found.members if not is_prepared(one.reading)]
    known = tools.ledger.digests(plain)
    for member in job.found.members:
        if is_prepared(member.reading):
            job = read_prepared(job, member, tools, *_callbacks(job, member, member.reading, tools))
            continue
        digest = known.get((member.stamp, member.reading))
        if digest is None:
            digest = _read(job, member, member.reading, tools)
            tools.ledger.put_digest(member.stamp, member.reading, digest)
        job = with_digest(job, member.role, digest)
        job = _measure(job, member, tools) if whole(member.reading) == "disk" else job
    return job


def _measure(job: Job, member: Member, tools: AttemptTools) -> Job:
    """Return the job with the size of a compressed disk, which mostly is known by reading only.

    What was read lately is kept. After a restart it is read again from its beginning: where a part of its
    bundle begins depends on the size and the holes of the image, and on all parts before it.
    """
    if member.facts.format not in UNPACKED or member.facts.inside in CONTAINERS:
        return job
    with open_member(job, member, tools) as source:
        return with_member(job, with_size(member, source.size))


def _read(
    job: Job, member: Member, how: Reading, tools: AttemptTools, taken: Digest | None = None
) -> ContentDigest:
    progress, check = _callbacks(job, member, how, tools)
    folder = folder_of(job, member, tools)
    return safe_open.digest(
        folder,
        member.path,
        how,
        stamp=member.stamp,
        taken=taken,
        access=tools.access,
        progress=progress,
        check=check,
    )


def _callbacks(
    job: Job, member: Member, how: Reading, tools: AttemptTools
) -> tuple[Callable[[int], None], Callable[[], None]]:
    """Return what is called while a member is read: with the number of bytes so far, and without."""
    # Of a compressed file the bytes that are stored are counted: how many come of them is not known.
    is_whole = how == member.reading and member.facts.format not in UNPACKED
    size = member.size if is_whole else member.stamp.size
    check = partial(stop_if_asked, job, tools)

    def progress(done: int) -> None:
        check()
        job.listener.progress(Progress(job.found.id, job.record.stage, member.name, done, size))

    return progress, check


def check_sums(job: Job, tools: AttemptTools) -> Job:
    """Compare every member with its declared sum, if there is one.

    Raises NotYet if the file may still be written, Rejected otherwise.
    """
    for member, known in zip(job.found.members, job.record.members, strict=True):
        check_sum(job, member, known, tools)
    return job


def check_sum(job: Job, member: Member, known: MemberRecord | None, tools: AttemptTools) -> None:
    """Compare one file with its declared sum; `known` is None if it has not been read. Raises as above."""
    declared = job.found.checksums.get(member.name)
    if declared is None or (found := _sha256(job, member, known, tools)) == declared:
        return
    until = fresh_until(job, now=tools.clocks.now())
    if tools.clocks.now() < until and member.origin is None:
        raise NotYet(f"{member.path} to have its declared SHA-256", until=until)
    raise Rejected(
        f"{member.path}: its SHA-256 is not the declared one",
        f"declared {declared}, found {found}",
        "Copy the file again; if it is the new one that is right, correct the declared sum.",
    )


def _sha256(job: Job, member: Member, known: MemberRecord | None, tools: AttemptTools) -> ContentDigest:
    """Return the plain SHA-256 of the file, which for most files is the digest anyway.

    For a container, and for a file that is mostly holes, it takes a separate read, once: the sum may be newer
    than the digest.
    """
    if known and member.reading == "file" and known.digest.is_plain_sha256:
        return known.digest
    sha256 = tools.ledger.digest(member.stamp, "plain")
    if sha256 is None:
        sha256 = _read(job, member, "file", tools, FlatDigest())
        tools.ledger.put_digest(member.stamp, "plain", sha256)
    return sha256


def fresh_until(job: Job, *, now: float) -> float:
    """Return when the files of a set stop being fresh: determined once, and kept with its record.

    Change times can only shorten the wait. They may be from the clock of another host, and a clock ahead of
    ours would make the set wait for ever.
    """
    if job.fresh_until is not None:
        return job.fresh_until
    return min(now, job.found.changed) + FRESH_SECONDS


def remove_stale_ids(job: Job, tools: AttemptTools) -> Job:
    """Remove the ids of an earlier content. Files that were only touched keep their ids."""
    fingerprint = fingerprint_of(job.record, job.found)
    if job.target.fingerprint != fingerprint:
        result_files.retract_undone(job.record)
    return job.with_target(fingerprint=fingerprint)
