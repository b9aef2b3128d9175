"""Withdrawal: the published image of a set leaves every cloud it went to, with its bundle.

The id files go first, so that no script starts what is about to leave. Then, for each cloud, the machine, and
its kernel and ramdisk if nothing else needs them. Each step can be repeated: after an interruption the whole
request is carried out again, and finds what is left.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.images import find_image
from uecwatchd.errors import Rejected, Stopped, UecError, problem, words_of
from uecwatchd.events import Kind
from uecwatchd.ledger.records import SetRecord, TargetRecord
from uecwatchd.ledger.standing import combine, leading_cloud, with_each
from uecwatchd.ledger.versions import VersionRecord, VersionState
from uecwatchd.outputs import result_files
from uecwatchd.service.retire.context import Retirement, RetirementOutcome
from uecwatchd.service.retire.take_out import boot_bundles, take_out

# Begins a remark about an image that is still there.
NOT_WITHDRAWN = "it is not withdrawn yet: "
NONE_FAILED: Mapping[str, UecError] = MappingProxyType({})


def withdraw(job: Retirement) -> RetirementOutcome:
    """Take the current image of a set back. The request stays open for clouds with an error."""
    ledger, cloud_name = job.tools.ledger, job.request.cloud
    if job.request.due is None:  # somebody asked for it, and the files may still be there
        job.hold(cloud_name)
    current = [one for one in ledger.versions.of_set(job.id) if one.state == "current"]
    clouds = sorted({one.cloud for one in current} | _clouds_of(job.record))
    wanted = [name for name in clouds if cloud_name in ("", name)]
    chosen = [name for name in wanted if job.tools.clouds.is_configured(name)]
    now = job.tools.clocks.now()
    if job.record:
        if leading_cloud(job.record) in ("", *chosen):
            result_files.remove_latest(job.id)
        result_files.retract_undone(withdrawn_record(job.record, clouds=chosen, now=now))
    stays, failed = _withdraw_from_each(job, chosen, current)
    stays += [
        f"the image stays in cloud {name}, which is not configured" for name in wanted if name not in chosen
    ]
    for sentence in stays:
        job.tell(Kind.WITHDRAWN, sentence, level="warning")
    left = [name for name in chosen if name not in failed]
    change = partial(withdrawn_record, clouds=left, now=now, failed=failed)
    return RetirementOutcome(change, tuple(stays), failed)


def _clouds_of(record: SetRecord | None) -> set[str]:
    targets = record.targets if record else ()
    return {target.cloud for target in targets if any(image.image_id for image in target.images)}


def withdrawn_record(
    record: SetRecord, *, clouds: Collection[str], now: float, failed: Mapping[str, UecError] = NONE_FAILED
) -> SetRecord:
    """Return the record of a set without its images on some clouds, and a remark on the `failed` ones."""
    targets = tuple(_without_images(one) if one.cloud in clouds else one for one in record.targets)
    targets = tuple(_with_remark(one, failed.get(one.cloud)) for one in targets)
    there = [target.cloud for target in record.current if target.cloud in clouds]
    return combine(with_each(replace(record, targets=targets), partial(_withdrawn, now=now), there))


def _withdrawn(record: SetRecord, *, now: float) -> SetRecord:
    record = replace(record, state="withdrawn", since=now, stage="", next_retry=None, error=None)
    return replace(record, deferrals=0, first_failure=None)


def _with_remark(target: TargetRecord, error: UecError | None) -> TargetRecord:
    others = tuple(one for one in target.remarks if not one.startswith(NOT_WITHDRAWN))
    return replace(target, remarks=(*others, f"{NOT_WITHDRAWN}{problem(error)}")) if error else target


def _without_images(target: TargetRecord) -> TargetRecord:
    images = (
        replace(image, image_id="", manifest="", parts=0, pending="", attributes=None)
        for image in target.images
    )
    return replace(target, images=tuple(images), fingerprint="", remarks=())


def _withdraw_from_each(
    job: Retirement, clouds: list[str], current: list[VersionRecord]
) -> tuple[list[str], dict[str, UecError]]:
    """Take the images back from these clouds; return a sentence for each one that stays, and the errors.

    A cloud that is away keeps no image in another one.
    """
    stays, failed = list[str](), dict[str, UecError]()
    for name in clouds:
        try:
            stays += _withdraw_from(job, name, current)
        except Stopped:
            raise
        except UecError as error:
            failed[name] = words_of(error)
    return stays, failed


def _withdraw_from(job: Retirement, name: str, current: list[VersionRecord]) -> Iterator[str]:
    """Take the image back from one cloud, and yield a sentence for each one that stays."""
    cloud = job.tools.clouds.enter(name)
    versions = [one for one in current if one.cloud == name]
    for image_id in _main_ids(job, name, versions):
        if why := _take_back(job, cloud, image_id):
            yield f"{image_id} stays in cloud {name}: {why}"
    for version in versions:
        is_gone = find_image(cloud, version.image_id) is None
        state: VersionState = "withdrawn" if is_gone else "older"
        now = job.tools.clocks.now()
        job.tools.ledger.versions.put_versions([replace(version, state=state, since=now)])
        if is_gone:
            job.tools.ledger.history.count_change(name, "withdrawn")
    for bundle in boot_bundles(job, name):
        if why := _take_back(job, cloud, bundle.image_id):
            job.tell(Kind.WORKING, f"{bundle.role} {bundle.image_id} stays in cloud {name}: {why}")


def _main_ids(job: Retirement, name: str, versions: list[VersionRecord]) -> tuple[str, ...]:
    """Return the current image, and the one of a set that has its ids from before there were versions."""
    ids = [one.image_id for one in versions]
    if job.record and not ids:
        images = job.record.target_on(name).images
        ids = [one.image_id for one in images if one.image_id and one.role == "machine"]
    return tuple(dict.fromkeys(ids))


def _take_back(job: Retirement, cloud: Cloud, image_id: str) -> str:
    """Remove one image with its bundle; return the reason if it stays."""
    try:
        return take_out(job, cloud, image_id)
    except Rejected as error:  # a repetition would meet it again
        return problem(error)
