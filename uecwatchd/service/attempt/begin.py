"""The beginning of an attempt at a set: its job, and what is told about it.

An attempt that waits for its cloud, or for its system to be installed, is not over: the run after the wait
goes on with it, under the same number.
"""

from dataclasses import replace

from uecwatchd.bundle.kept_bundles import KeptBundles
from uecwatchd.events import Event, Fields, Kind, Tee
from uecwatchd.intake.sets.records import ImageSet
from uecwatchd.ledger.records import SetRecord
from uecwatchd.outputs import result_files
from uecwatchd.outputs.wording import describe_size, on_cloud, wait_events
from uecwatchd.service.attempt.context import AttemptTools, Job, tell, with_members
from uecwatchd.service.attempt.notes import AttemptNotes
from uecwatchd.service.attempt.pending import seconds_waited
from uecwatchd.service.retry import adjust_for_downtime
from uecwatchd.system.text import format_size


def begin(found: ImageSet, before: SetRecord | None, tools: AttemptTools, kept: KeptBundles) -> Job:
    """Return the job of an attempt at a set, or of the one that has waited.

    `before` is the last record of the set.
    """
    now, last = tools.clocks.now(), before if before and before.stamp == found.stamp else None
    same = adjust_for_downtime(last, started=tools.started) if last else None
    number, began = (same.attempt, same.began) if same and has_waited(same) else (0, 0.0)
    record = SetRecord(
        id=found.id,
        stamp=found.stamp,
        state="working",
        since=now,
        attempt=number or (same.attempt if same else 0) + 1,
        began=began or now,
        deferrals=same.deferrals if same else 0,
        first_failure=same.first_failure if same else None,
        owner=found.owner,
        inspection=same.inspection if same else None,
        build=before.build if before and found.recipe else None,
    )
    notes = AttemptNotes(tools.clocks.now)
    listener = Tee((result_files.LogFile(found.id), notes, tools.reporting.listener))
    is_fresh = same is not None and same.state == "waiting" and not same.stage
    fresh_until = same.next_retry if same and is_fresh else None
    waited = seconds_waited(same, now=now)
    job = Job(found, record, listener, notes, kept, fresh_until=fresh_until, waited=waited, before=before)
    return with_members(job, found)


def has_waited(record: SetRecord) -> bool:
    """Tell if a set has waited in the middle of an attempt.

    Where its cloud needs more than it has, none has begun.
    """
    return record.state == "waiting" and not record.awaits_requirements


def announce(job: Job, tools: AttemptTools) -> None:
    """Begin the log of an attempt, and tell what it is about, or where it goes on."""
    found, record = job.found, job.record
    last = job.before if job.before and job.before.stamp == found.stamp else None
    goes_on = bool(last and last.stage and has_waited(last))
    result_files.LogFile(found.id).begin(record.attempt, started=record.since, goes_on=goes_on)
    if last and last.state in ("deferred", "halted"):
        job = without_journal(job, tools)  # it has this from the first attempt
    if last and last.stage and last.state in ("working", "queued", "waiting"):
        what = f"Resuming {found.name} at: {last.stage}{on_cloud(record)}"
        fields: Fields = {"stage": last.stage, "cloud": record.cloud}
        job.listener.tell(Event(Kind.RESUMED, what, found.id, fields=fields))
    if not goes_on:
        _tell_files(job)
    for event in wait_events(job.before, record):
        job.listener.tell(event)


def _tell_files(job: Job) -> None:
    found, record, cloud = job.found, job.record, job.target.cloud
    parts = [f"{m.role} {m.path} ({describe_size(m)})" for m in found.members]
    if found.is_made_first:
        parts = [f"{what} ({format_size(size)})" if size else what for what, size in found.described]
    if found.windows_boot:
        parts += [f"{role} {what}" for role, what in found.windows_boot.roles.items()]
    given = [f"{role} {i}" for role, i in (("kernel", found.kernel_id), ("ramdisk", found.ramdisk_id)) if i]
    what = f"{found.name}: attempt {record.attempt} on cloud {cloud}: {', '.join([*parts, *given])}"
    fields: Fields = {"cloud": cloud, "attempt": record.attempt}
    job.listener.tell(Event(Kind.WORKING, what, found.id, fields=fields))
    left_out = list(found.left_out)
    if found.boot_folder and found.windows_boot is None and found.virtualization == "hvm":
        left_out.append(f"{found.boot_folder}/")
    if left_out:
        unused = " and ".join(left_out)
        tell(job, Kind.WORKING, f"{unused} left out: cloud {cloud} boots the disk by itself")
    for sentence in found.unread:
        tell(job, Kind.WORKING, sentence, level="warning")


def without_journal(job: Job, tools: AttemptTools) -> Job:
    """Return the job with a listener that does not write to the journal."""
    log = result_files.LogFile(job.found.id)
    return replace(job, listener=Tee((log, job.notes, tools.reporting.story)))
