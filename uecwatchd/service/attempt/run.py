"""One attempt at one set: stage after stage, each recorded before it begins, up to success or an error.

A stage takes the job and returns the next one. Completed work is in the ledger before the next stage begins,
so that an interrupted job continues where it was.
"""

from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial

from uecwatchd.bundle.kept_bundles import KeptBundles
from uecwatchd.errors import (
    Booting,
    Building,
    CloudAway,
    Halted,
    NotYet,
    Overtaken,
    Pending,
    StillAway,
    Stopped,
    UecError,
    cause_of,
    problem,
)
from uecwatchd.events import Event, Kind, Listener, Progress, Tee
from uecwatchd.images.reading import is_prepared
from uecwatchd.intake.sets.records import ROLE_WORDS, ImageSet
from uecwatchd.ledger.api import LedgerAway
from uecwatchd.ledger.records import CONNECT_STAGE, INSTALL_STAGE, LAST_STAGE, SetRecord
from uecwatchd.ledger.standing import by_cloud, combine, seen_from, with_each, with_state_of
from uecwatchd.outputs import result_files
from uecwatchd.outputs.ledger_progress import progress_in_ledger
from uecwatchd.outputs.wording import failure_event, waiting_for
from uecwatchd.service.attempt.begin import announce, begin, without_journal
from uecwatchd.service.attempt.boot import BOOT_STAGE, boot_once, check_boots, defer_booting
from uecwatchd.service.attempt.context import (
    AttemptTools,
    Job,
    Stage,
    main_member,
    pause,
    stop_if_asked,
    tell,
)
from uecwatchd.service.attempt.digests import check_sums, read_digests, remove_stale_ids
from uecwatchd.service.attempt.finish import apply_attributes, publish, replace_older
from uecwatchd.service.attempt.hooks import ask_about_registered, ask_before_upload
from uecwatchd.service.attempt.install import defer_build, install, withdraw_former
from uecwatchd.service.attempt.look import look_inside
from uecwatchd.service.attempt.members import deliver
from uecwatchd.service.attempt.pending import check_pending, defer_pending
from uecwatchd.service.attempt.preflight import check_name, connect, preflight
from uecwatchd.service.attempt.result_names import check_result_names
from uecwatchd.service.attempt.trial import RefusedOnTrial, is_tested
from uecwatchd.service.attempt.unpack import unpack
from uecwatchd.service.attempt.windows import make_windows_boot
from uecwatchd.service.conditions import reported_part
from uecwatchd.service.retry import record_failure
from uecwatchd.service.work_folder import FINAL_STATES, drop_work
from uecwatchd.system.disk_space import check_space
from uecwatchd.system.internal_errors import InternalError, as_internal_error


def making_stages(found: ImageSet) -> tuple[tuple[str, Stage], ...]:
    """Return the stages that make members of a set, so that all of them are known to the others."""
    if found.recipe:
        return ((INSTALL_STAGE, install),)
    return (("unpack the files", unpack),) if found.packed else ()


def file_stages(found: ImageSet) -> tuple[tuple[str, Stage], ...]:
    """Return the stages that concern the files alone, in order: their result is the same for every cloud."""
    made = (("make the Windows boot files", make_windows_boot),) if found.windows_boot else ()
    return (
        ("look into the image", look_inside),
        *made,
        ("read the files", read_digests),
        ("remove stale ids", remove_stale_ids),
        ("check the sums", check_sums),
    )


def cloud_stages(found: ImageSet, tools: AttemptTools) -> tuple[tuple[str, Stage], ...]:
    """Return the stages for a set whose files are good, in order, with their names."""
    hooks = tools.hooks
    before = (("ask the hook before the upload", ask_before_upload),) if hooks.pre else ()
    booted = ((BOOT_STAGE, boot_once),) if is_tested(found, tools.cloud_settings) else ()
    after = (("ask the hook about what is registered", ask_about_registered),) if hooks.registered else ()
    return (
        (CONNECT_STAGE, connect),
        ("name the image", check_name),
        ("check what the cloud accepts", preflight),
        *before,
        (f"deliver the {ROLE_WORDS[main_member(found).role]}", deliver),
        *booted,
        ("set tags and permissions", apply_attributes),
        *after,
        ("replace the older image", replace_older),
        (LAST_STAGE, publish),
    )


def work(
    found: ImageSet, *, before: SetRecord | None, tools: AttemptTools, clouds: Sequence[str] = ()
) -> SetRecord:
    """Make an attempt at a set on each of these clouds, and return its record at the end.

    Without any it is the first of its clouds. `before` is its record up to now. A failure on one cloud does
    not keep the set from the next ones. Never raises a UecError: every failure is in the record, in the files
    beside the image, and reported.
    """
    record = before
    rest = list(clouds or found.clouds[:1])
    with closing(KeptBundles(tools.work_folder)) as kept:
        while rest:
            cloud = rest.pop(0)
            kept.is_wanted = bool(rest)
            record = _work_on(found.on(cloud), seen_from(record, cloud) if record else None, tools, kept)
            if _has_failed_on_files(seen_from(record, cloud), found):
                break
            if rest and (tools.stopping.is_set() or tools.interrupts.reason(found.id)):
                record = combine(with_each(record, _queued, rest))
                break
            if rest:  # or the boot, with its claim on the cloud, would wait for an upload to another one
                tools.boot_threads.start_for(found.id)
    assert record is not None, "there is at least one cloud"  # noqa: S101 (the type of the list does not say so)
    if all(one.state in FINAL_STATES for one in by_cloud(record)):
        with suppress(UecError):  # the next scan removes it, and reports why that fails
            drop_work(tools.work_folder, record.id)
    return record


def _queued(record: SetRecord) -> SetRecord:
    return record if record.state == "done" else replace(record, state="queued", error=None, next_retry=None)


def _has_failed_on_files(record: SetRecord, found: ImageSet) -> bool:
    """Return True for an attempt that failed, or waits, because of the files: it would on any cloud."""
    if record.state in ("done", "queued") or record.awaits_cloud:
        return False
    return record.stage in {"", *(name for name, _ in (*making_stages(found), *file_stages(found)))}


def _work_on(found: ImageSet, before: SetRecord | None, tools: AttemptTools, kept: KeptBundles) -> SetRecord:
    if waiting := check_pending(found, before, tools) or check_boots(found, before, tools):
        return combine(waiting)
    job = begin(found, before, tools, kept)
    try:
        with progress_in_ledger(tools.reporting.tracker, tools.ledger, job.record.id, now=tools.clocks.now):
            return _attempt(job, before, tools)
    finally:
        tools.reporting.tracker.end(job.record.id)


def _attempt(job: Job, before: SetRecord | None, tools: AttemptTools) -> SetRecord:
    found = job.found
    try:
        with as_internal_error(found.name):
            check_result_names(job.record, tools.ledger)
            check_space(found.folder, "the spool folder")
            check_space(tools.state_folder, "the state directory")
            announce(job, tools)
            if not found.recipe:
                withdraw_former(job, tools)
            for stages in (making_stages, file_stages, partial(cloud_stages, tools=tools)):
                for name, stage in stages(job.found):
                    stop_if_asked(job, tools)
                    job = _note_stage(job, name, tools)
                    job = _run_stage(stage, job, tools)
            return _succeed(job, tools)
    except Stopped as stopped:
        kind = Kind.STOPPING if tools.stopping.is_set() else Kind.ASKED
        return _end(job, replace(job.reached(), state="queued"), Event(kind, str(stopped)), tools)
    except (Overtaken, LedgerAway):  # nothing can be written, so nothing is shown or counted
        return replace(job.reached(), state="queued")
    except NotYet as wait:
        return _defer_open_files(job, wait, tools)
    except Pending as pending:
        return _end(job, *defer_pending(job, pending, tools), tools)
    except Booting as booting:
        return _end(job, *defer_booting(job, booting, tools, before=before), tools)
    except Building:
        return _end(job, *defer_build(job, tools), tools)
    except RefusedOnTrial as refused:
        return _fail(refused.job, refused, tools, before)
    except UecError as error:
        return _fail(job, error, tools, before)


def _run_stage(stage: Stage, job: Job, tools: AttemptTools) -> Job:
    """Run a stage, and repeat it while the cloud gives bad answers but is not away.

    Every stage can be repeated: it finds completed work, even an image that was registered without an answer.
    """
    for seconds in tools.patience.tries:
        try:
            return stage(job, tools)
        except StillAway:
            raise
        except CloudAway as error:
            if tools.clouds.is_away(job.target.cloud):
                raise
            tell(job, Kind.WORKING, f"tried again in a moment: {problem(error)}")
        pause(seconds * (1 + tools.clocks.random()), tools, partial(stop_if_asked, job, tools))
    return stage(job, tools)


# --- the end of an attempt --------------------------------------------------------------------------------


def _succeed(job: Job, tools: AttemptTools) -> SetRecord:
    tools.clouds.availability.note_success(job.target.cloud)
    done = replace(
        job.record, state="done", stage="", since=tools.clocks.now(), deferrals=0, first_failure=None
    )
    _add_to_history(job, done, tools)
    return tools.ledger.put_set(combine(done))


def _defer_open_files(job: Job, wait: NotYet, tools: AttemptTools) -> SetRecord:
    """Make an incomplete set wait again, with the stamp of the files that were checked."""
    record = replace(job.record, state="waiting", stage="", since=tools.clocks.now(), reason=wait.reason)
    record = replace(record, next_retry=wait.until, deferrals=0, first_failure=None)
    what = f"{record.name}: {waiting_for(record)}"
    return _end(job, record, Event(Kind.WAITING, what, record.id), tools)


def _fail(job: Job, error: UecError, tools: AttemptTools, before: SetRecord | None) -> SetRecord:
    cloud = job.target.cloud
    away = isinstance(error, CloudAway) and tools.clouds.is_away_for(cloud, error, job.record.id)
    record = job.reached()
    further = _parts(record) > _parts(job.record)
    record = record_failure(
        record, error, now=tools.clocks.now(), spread=tools.clocks.random(), away=away, further=further
    )
    suspension = tools.clouds.availability.suspended().get(cloud)
    if isinstance(error, Halted):
        tools.clouds.suspend(cloud, error)
    event = failure_event(record)
    # Only of the first failure: otherwise each attempt would report it again.
    if isinstance(error, InternalError) and record.deferrals <= 1:
        event = replace(event, fields={**event.fields, "traceback": error.trace})
    if suspension and record.state in ("deferred", "halted"):  # the suspension was reported with its reason
        reported = reported_part(tools.clouds.availability.suspensions(cloud)) != "nothing"
        met = error is not suspension and reported
        event = replace(event, level="info" if met else "debug")
    if _is_known(record, before):
        job = without_journal(job, tools)
    return _end(job, record, event, tools)


def _parts(record: SetRecord) -> int:
    return sum(image.parts for image in record.target.images)


def show_refusal(record: SetRecord, tools: AttemptTools, *, before: SetRecord | None) -> None:
    """Report a set that cannot be started, in the journal and beside its files."""
    log = result_files.LogFile(record.id)
    listener = Tee((log, tools.reporting.story if _is_known(record, before) else tools.reporting.listener))
    listener.tell(failure_event(record))
    _do_all(record, listener, lambda: result_files.retract(before or record), lambda: _show(record, listener))


def _is_known(record: SetRecord, before: SetRecord | None) -> bool:
    """Return True if the same files failed for the same reason last time: then the journal has it."""
    if before is None or before.stamp != record.stamp or before.state != record.state:
        return False
    errors = (before.error, record.error)
    earlier, now = (cause_of(error.why) if error else "" for error in errors)
    return earlier == now


def _end(job: Job, record: SetRecord, event: Event, tools: AttemptTools) -> SetRecord:
    """Publish and store a record that ends an attempt, as far as the disks allow.

    The last stage is in the ledger before any file shows an error, so that a request which answers that file
    finds an attempt that is over. The state follows at the end: a crash in between repeats the attempt.
    """
    if record.error:
        with suppress(UecError), as_internal_error(record.name):  # the last write reports a failing disk
            tools.ledger.put_set(replace(job.reached(), stage=LAST_STAGE, error=record.error))
    job.listener.tell(replace(event, set=record.id))
    _add_to_history(job, record, tools)
    every = combine(_on_every_cloud(record, job.found))
    _do_all(every, job.listener, lambda: _show(every, job.listener), lambda: tools.ledger.put_set(every))
    return every


def _on_every_cloud(record: SetRecord, found: ImageSet) -> SetRecord:
    """Return the record with the outcome for all clouds that it holds for."""
    if not _has_failed_on_files(record, found):
        return record
    undone = [one.cloud for one in by_cloud(record) if one.state != "done"]
    return with_each(record, partial(with_state_of, other=record), undone)


def _add_to_history(job: Job, record: SetRecord, tools: AttemptTools) -> None:
    """Add the attempt to the history, to be written with the record. An incomplete set was not attempted."""
    if record.state != "waiting" or record.awaits_cloud or record.awaits_build:
        tools.ledger.history.add_attempt(job.notes.record(record))


def _show(record: SetRecord, listener: Listener) -> None:
    """Update the files beside the image; a taken name is reported with a failure."""
    for taken in result_files.publish(record):
        if record.error:
            listener.tell(Event(Kind.FAULT, f"{record.name}: {taken}", record.id, level="error"))


def _do_all(record: SetRecord, listener: Listener, *steps: Callable[[], object]) -> None:
    """Do several last steps, and report those that fail."""
    for step in steps:
        try:
            with as_internal_error(record.name):
                step()
        except UecError as trouble:
            what = f"{record.name}: {trouble}"
            listener.tell(Event(Kind.FAULT, what, record.id, level="error"))


def _has_made_files(found: ImageSet) -> bool:
    """Tell if files are made for a set in the work folder."""
    prepared = any(is_prepared(one.reading) for one in found.members)
    return bool(found.packed or found.recipe or found.windows_boot or prepared)


def _note_stage(job: Job, name: str, tools: AttemptTools) -> Job:
    """Record the stage of the job: first in the ledger, then in its copy for people.

    In the ledger at once are those of a set with made files, which are kept for sets that are there, and the
    last one: a request that answers the id beside the image needs it.
    """
    record = replace(job.record, stage=name)
    if name == LAST_STAGE or _has_made_files(job.found):
        tools.ledger.put_set(record)
    else:
        tools.ledger.put_stage(record)
    job.notes.begin_stage(name)
    result_files.publish(record)
    job.listener.progress(Progress(record.id, record.stage, "", 0, 0))
    return replace(job, record=record)
