"""The stage that boots a registered image once, before anybody else may start it.

No worker waits for a boot: the set waits in the ledger, and its next attempt finds the outcome. An image that
has passed is not booted again: not after a restart in a later stage, and not for another set.
If the image fails, what this set made is withdrawn. If the cloud cannot boot it, the image stays, on trial.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial

from uecwatchd.clouds.attributes import share
from uecwatchd.clouds.images import Image, find_image
from uecwatchd.clouds.instances import LaunchRequest
from uecwatchd.config.records import CloudSettings
from uecwatchd.delivery.boot_lock import acquire_boots, are_boots_claimed
from uecwatchd.delivery.test_boot import BootRequest, BootResult, BootTools, boot_image
from uecwatchd.errors import Booting, Deferred, Halted, Stopped
from uecwatchd.events import Event, Fields, Kind, Progress
from uecwatchd.intake.sets.records import ImageSet
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.standing import by_cloud, with_each
from uecwatchd.outputs.ledger_progress import progress_in_ledger
from uecwatchd.outputs.result_files import LogFile
from uecwatchd.outputs.wording import moment, on_cloud, waiting_for
from uecwatchd.service.attempt.context import AttemptTools, Job, pause, stop_if_asked, tell
from uecwatchd.service.attempt.trial import refuse
from uecwatchd.service.boot_threads import BootKey, EndedBoot
from uecwatchd.service.retry import next_check_at
from uecwatchd.system.internal_errors import as_internal_error
from uecwatchd.system.lockfile import LockTaken, release
from uecwatchd.types import SetId

BOOT_STAGE = "boot it once"
# Of one look at the console: a guest that writes without end must not fill the disk.
MOST_LINES_IN_LOG = 200
REMEDY = "Correct the image. The last lines of its console are in the report, and all that came in the log."


def boot_once(job: Job, tools: AttemptTools) -> Job:
    """Boot the machine image of a set, unless it has passed before.

    Raises Booting while that is under way, RefusedOnTrial if it fails, Rejected if it cannot be started as
    the configuration says, Deferred if the cloud has no room or does not start it.
    """
    cloud, image_id = job.cloud, job.record.image_id("machine")
    result = tools.boot_threads.take_outcome(BootKey(job.record.id, cloud.name, image_id))
    passed = tools.ledger.boots.passed(cloud.name, image_id)
    if result is None and passed is not None:
        tell(job, Kind.WORKING, f"{image_id} has passed its test boot on {moment(passed)} UTC", level="debug")
        return _with_default_visibility(job)
    if result is None:
        _prepare(job, image_id, tools)
        raise Booting(f"the test boot of {image_id} on cloud {cloud.name}")
    if result.verdict.outcome == "cloud":
        hint = "It is tried again. If that goes on, ask the cloud's administrator about the instance."
        raise Deferred(f"cloud {cloud.name}, booting {image_id}", result.verdict.why, hint)
    fields: Fields = {
        "emi": image_id,
        "instance": result.instance_id,
        "cloud": cloud.name,
        "seconds": result.seconds,
    }
    if not result.has_passed:
        raise _failed(job, result, tools)
    after = f"{result.verdict.why}, {result.seconds} s after its launch"
    what = f"{image_id} has passed its test boot{on_cloud(job.record)}: {after}"
    tell(job, Kind.BOOTED, what, fields=fields)
    _find(job, image_id)  # somebody may have removed it in the meantime
    return _with_default_visibility(job)


def check_boots(found: ImageSet, before: SetRecord | None, tools: AttemptTools) -> SetRecord | None:
    """Return the record of a set with a wait for a test boot; None if there is work to do."""
    if before is None or before.stamp != found.stamp or not awaits_boot(before):
        return None
    try:
        if not are_boots_claimed(tools.state_folder, tools.clouds.account(before.cloud)):
            return None
    except Halted:  # the attempt reports it
        return None
    return replace(before, next_retry=next_check_at(before.since, now=tools.clocks.now()))


def awaits_boot(record: SetRecord) -> bool:
    """Tell if a set waits for a test boot on the cloud that its record is seen from."""
    return record.awaits_cloud and record.stage == BOOT_STAGE


def after_boots(
    record: SetRecord, ended: Collection[EndedBoot], *, now: float, is_same: Callable[[str, str], bool]
) -> SetRecord:
    """Return the record of a set after some test boots: due now, if it waits for their account.

    It is queued if its own was stopped. `is_same` tells if two names are of one account.
    """
    clouds = {one.key.cloud for one in ended}
    stopped = {one.key.cloud for one in ended if one.was_stopped and one.key.set_id == record.id}

    def change(one: SetRecord) -> SetRecord:
        if one.cloud in stopped:
            return replace(one, state="queued", since=now, reason="", next_retry=None)
        return replace(one, next_retry=now)

    waiting = [one.cloud for one in by_cloud(record) if awaits_boot(one)]
    there = [name for name in waiting if name in clouds or any(is_same(name, one) for one in clouds)]
    return with_each(record, change, there) if there else record


def defer_booting(
    job: Job, booting: Booting, tools: AttemptTools, *, before: SetRecord | None
) -> tuple[SetRecord, Event]:
    """Return the record of a set that waits for a test boot, and the event."""
    now, record = tools.clocks.now(), job.reached()
    is_same = before is not None and awaits_boot(before) and before.reason == booting.reason
    since = before.since if before and is_same else now
    retry = next_check_at(since, now=now)
    record = replace(record, state="waiting", since=since, reason=booting.reason, next_retry=retry)
    what, fields = f"{record.name}: {waiting_for(record)}", {"cloud": record.cloud}
    return record, Event(Kind.WAITING, what, record.id, "debug" if is_same else "info", fields)


def _prepare(job: Job, image_id: str, tools: AttemptTools) -> None:
    """Have the boot started when this attempt has ended. Raises Booting if another one is under way."""
    cloud = job.cloud
    image = _find(job, image_id)
    try:
        claim = acquire_boots(tools.state_folder, cloud.account)
    except LockTaken as error:
        mine = (one for one in tools.boot_threads.open if one.set_id == job.record.id)
        tools.boot_threads.stop(one for one in mine if one.cloud == cloud.name and one.image_id != image_id)
        raise Booting(f"another test boot on cloud {cloud.name}") from error
    try:
        _tell_unsent(job, tools)
        if _is_ours_to_hide(job):
            share(cloud, image_id, public=False, accounts=None)
    except BaseException:
        release(claim)
        raise
    key = BootKey(job.record.id, cloud.name, image_id)
    tools.boot_threads.prepare(key, partial(_boot, job, _request(job, image, tools), claim, tools))


def _boot(job: Job, request: BootRequest, claim: int, tools: AttemptTools) -> BootResult:
    """Boot an image, in a thread of its own, and release the claim."""
    try:
        progress = progress_in_ledger(
            tools.reporting.tracker, tools.ledger, job.record.id, now=tools.clocks.now
        )
        with as_internal_error(job.found.name), progress:
            result = boot_image(request, _boot_tools(job, tools))
        tools.ledger.history.count_boot(job.cloud.name, result.verdict.outcome)
        return result
    except Stopped as stopped:
        kind = Kind.STOPPING if tools.stopping.is_set() else Kind.ASKED
        job.listener.tell(Event(kind, str(stopped), job.record.id))
        raise
    finally:
        release(claim)
        tools.reporting.tracker.end(job.record.id)


def _find(job: Job, image_id: str) -> Image:
    image = find_image(job.cloud, image_id)
    if image is None:
        what, why = f"cloud {job.cloud.name}, booting {image_id}", "the image is not there any more"
        raise Deferred(what, why, "If somebody removed it, the next attempt registers it again.")
    return image


def _tell_unsent(job: Job, tools: AttemptTools) -> None:
    """Report settings that this generation of cloud does not take."""
    taken = job.cloud.dialect.launch_parameters
    if _settings(job, tools).subnet and "SubnetId" not in taken:
        what = f"subnet is not sent: cloud {job.cloud.name} has no subnets"
        tell(job, Kind.WORKING, what, level="warning")


def _failed(job: Job, result: BootResult, tools: AttemptTools) -> Exception:
    image_id, cloud = job.record.image_id("machine"), job.cloud.name
    what = f"{job.found.name}: {image_id} has failed its test boot on cloud {cloud}"
    return refuse(job, tools, what, result.verdict.why, REMEDY, console=result.console)


# --- visibility -------------------------------------------------------------------------------------------


def _is_ours_to_hide(job: Job) -> bool:
    """Tell if a new image may be public although nobody asked for that. One that was there is left alone."""
    return job.cloud.dialect.public_by_default and any(one.role == "machine" for one in job.on_trial)


def _with_default_visibility(job: Job) -> Job:
    """Let everybody start an image that was hidden for its test, if the cloud makes images so.

    What the sidecar says about it is done by the next stage. After a crash this is done again.
    """
    if _is_ours_to_hide(job) and "public" not in job.found.sidecar.given:
        share(job.cloud, job.record.image_id("machine"), public=True, accounts=None)
    return job


# --- the boot ---------------------------------------------------------------------------------------------


def _request(job: Job, image: Image, tools: AttemptTools) -> BootRequest:
    settings, expect = _settings(job, tools), job.found.sidecar.expect or ""
    return boot_request(job.made_for, image, settings, expect=expect)


def _settings(job: Job, tools: AttemptTools) -> CloudSettings:
    return tools.cloud_settings.get(job.cloud.name) or CloudSettings(job.cloud.name)


def boot_request(set_id: SetId, image: Image, settings: CloudSettings, *, expect: str) -> BootRequest:
    """Return the boot of an image, as the configuration of its cloud says."""
    return BootRequest(
        set_id,
        launch_request(image, settings),
        expect=expect,
        limit=settings.boot_seconds,
        every=settings.boot_every,
        port=settings.boot_port,
    )


def launch_request(image: Image, settings: CloudSettings) -> LaunchRequest:
    """Return the launch of an image, as the configuration of its cloud says; it has no token."""
    return LaunchRequest(
        image.id,
        token="",
        instance_type=settings.instance_type,
        key_name=settings.key_name,
        user_data=settings.user_data,
        subnet=settings.subnet,
        security_groups=settings.security_groups,
        root_device=image.root_device,
    )


def _boot_tools(job: Job, tools: AttemptTools) -> BootTools:
    check = partial(_stop_if_unwanted, job, tools)
    return BootTools(
        cloud=job.cloud,
        boots=tools.ledger.boots,
        state_folder=tools.state_folder,
        host=tools.host,
        tell=lambda sentence: tell(job, Kind.BOOTED, f"{sentence}{on_cloud(job.record)}"),
        show=partial(_show, job),
        check=check,
        sleep=lambda seconds: pause(seconds, tools, check),
        now=tools.clocks.now,
        monotonic=tools.clocks.monotonic,
    )


def _stop_if_unwanted(job: Job, tools: AttemptTools) -> None:
    stop_if_asked(job, tools)
    image_id, cloud = job.record.image_id("machine"), job.cloud.name
    if tools.boot_threads.is_unwanted(BootKey(job.record.id, cloud, image_id)):
        what = f"{job.found.name}: stopped the test boot of {image_id}"
        why = f"its files were changed or removed, or it does not go to cloud {cloud}"
        raise Stopped(what, why, "Its outcome is not needed any more.")


def _show(job: Job, lines: Sequence[str], last: str) -> None:
    """Show new lines of the console in the log of the set, and its last line as progress."""
    if lines:
        shown = lines[-MOST_LINES_IN_LOG:]
        LogFile(job.found.id).add_lines([f"console: {line}" for line in shown])
    job.listener.progress(Progress(job.found.id, job.record.stage, last, 0, 0))
