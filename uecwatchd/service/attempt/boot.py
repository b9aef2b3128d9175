"""The stage that boots a registered image once, before anybody else may start it.

An image that has passed is not booted again: not after a restart in a later stage, and not for another set.
If the image fails, what this set made is withdrawn. If the cloud cannot boot it, the image stays, on trial.
"""

from collections.abc import Sequence
from functools import partial

from uecwatchd.clouds.attributes import share
from uecwatchd.clouds.images import Image, find_image
from uecwatchd.clouds.instances import LaunchRequest
from uecwatchd.config.records import CloudSettings
from uecwatchd.delivery.test_boot import BootRequest, BootResult, BootTools, boot_image
from uecwatchd.errors import Deferred
from uecwatchd.events import Fields, Kind, Progress
from uecwatchd.outputs.result_files import LogFile
from uecwatchd.outputs.wording import moment
from uecwatchd.service.attempt.context import AttemptTools, Job, pause, stop_if_asked, tell
from uecwatchd.service.attempt.trial import refuse
from uecwatchd.types import SetId

BOOT_STAGE = "boot it once"
# Of one look at the console: a guest that writes without end must not fill the disk.
MOST_LINES_IN_LOG = 200
REMEDY = "Correct the image. The last lines of its console are in the report, and all that came in the log."


def boot_once(job: Job, tools: AttemptTools) -> Job:
    """Boot the machine image of a set, unless it has passed before.

    Raises RefusedOnTrial if it fails, Rejected if it cannot be started as the configuration says, Deferred if
    the cloud has no room or does not start it.
    """
    cloud, image_id = job.cloud, job.record.image_id("machine")
    passed = tools.ledger.boots.passed(cloud.name, image_id)
    if passed is not None:
        tell(job, Kind.WORKING, f"{image_id} has passed its test boot on {moment(passed)} UTC", level="debug")
        return _with_default_visibility(job)
    image = _find(job, image_id)
    _tell_unsent(job, tools)
    if _is_ours_to_hide(job):
        share(cloud, image_id, public=False, accounts=None)
    result = boot_image(_request(job, image, tools), _boot_tools(job, tools))
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
    what = f"{image_id} has passed its test boot: {result.verdict.why}, {result.seconds} s after its launch"
    tell(job, Kind.BOOTED, what, fields=fields)
    _find(job, image_id)  # somebody may have removed it in the meantime
    return _with_default_visibility(job)


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
        LaunchRequest(
            image.id,
            token="",
            instance_type=settings.instance_type,
            key_name=settings.key_name,
            user_data=settings.user_data,
            subnet=settings.subnet,
            security_groups=settings.security_groups,
            root_device=image.root_device,
        ),
        expect=expect,
        limit=settings.boot_seconds,
        every=settings.boot_every,
        port=settings.boot_port,
    )


def _boot_tools(job: Job, tools: AttemptTools) -> BootTools:
    check = partial(stop_if_asked, job, tools)
    return BootTools(
        cloud=job.cloud,
        boots=tools.ledger.boots,
        state_folder=tools.state_folder,
        host=tools.host,
        tell=lambda sentence: tell(job, Kind.BOOTED, sentence),
        show=partial(_show, job),
        check=check,
        sleep=lambda seconds: pause(seconds, tools, check),
        now=tools.clocks.now,
        monotonic=tools.clocks.monotonic,
    )


def _show(job: Job, lines: Sequence[str], last: str) -> None:
    """Show new lines of the console in the log of the set, and its last line as progress."""
    if lines:
        shown = lines[-MOST_LINES_IN_LOG:]
        LogFile(job.found.id).add_lines([f"console: {line}" for line in shown])
    job.listener.progress(Progress(job.found.id, job.record.stage, last, 0, 0))
