"""The versions of a set, as an attempt changes them."""

from dataclasses import replace
from functools import partial

from uecwatchd.delivery.latest import NOT_LATEST, do_each, mark_latest
from uecwatchd.errors import Stopped, UecError, problem
from uecwatchd.events import Kind
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import BundleRecord, Request
from uecwatchd.ledger.standing import leading_cloud
from uecwatchd.ledger.versions import VersionRecord
from uecwatchd.outputs import result_files
from uecwatchd.service.attempt.context import AttemptTools, Job, main_member, pause, stop_if_asked, tell
from uecwatchd.types import SetId


def note_version(job: Job, tools: AttemptTools) -> Job:
    """Note the published image as the current version of the set, and mark it as the latest."""
    role, now = main_member(job.found).role, tools.clocks.now()
    image_id = job.record.image_id(role)
    version = VersionRecord(
        set_id=job.record.id,
        cloud=job.target.cloud,
        image_id=image_id,
        role=role,
        state="current",
        published=now,
        since=now,
        retention=job.found.sidecar.retention,
    )
    rule = version.retention.over(tools.retention_of(job.found.folder))
    if not rule.is_on:  # then nothing is done by it, and it is early enough with the record of the set
        tools.ledger.versions.publish_later(version)
        return job
    tools.ledger.versions.publish_version(version)
    return _mark_latest(job, image_id, tools)


def _mark_latest(job: Job, image_id: str, tools: AttemptTools) -> Job:
    """Tell which image is to be used. The image itself is published, so a failure is a remark.

    It is tried again by a request, which removes the remark. The file beside the image has the id on the
    first of several clouds, as those of the ids do.
    """
    versions = tools.ledger.versions.of_set(job.record.id, job.target.cloud)

    def sleep(seconds: float) -> None:
        pause(seconds, tools, partial(stop_if_asked, job, tools))

    steps = [partial(mark_latest, job.cloud, job.record.id, image_id, versions, sleep=sleep)]
    if job.target.cloud == leading_cloud(job.record):
        steps.append(partial(result_files.write_latest, job.record.id, image_id))
    try:
        do_each(steps)
    except Stopped:  # the stage is repeated
        raise
    except UecError as error:
        remark = mark_later(job.record.id, job.target.cloud, error, tools.ledger)
        tell(job, Kind.WORKING, f"{NOT_LATEST}: {problem(error)}", level="warning")
        return job.with_target(remarks=(*job.target.remarks, remark))
    return job


def mark_later(set_id: SetId, cloud: str, error: UecError, ledger: Ledger) -> str:
    """Have the mark made later, unless that is asked for already. Returns the remark about its failure."""
    request = Request(set_id, "mark", cloud=cloud)
    asked = ((one.set_id, one.verb, one.cloud) for one in ledger.requests())
    if (request.set_id, request.verb, request.cloud) not in asked:
        ledger.put_request(request)
    return f"{NOT_LATEST}: {problem(error)}. It is tried again by itself."


def note_removed(job: Job, older: BundleRecord, tools: AttemptTools) -> None:
    """Note that an older version was removed, because the new image replaces it."""
    versions = tools.ledger.versions.of_image(older.cloud, older.image_id)
    now, image_id = tools.clocks.now(), job.record.image_id(older.role)
    tools.ledger.versions.put_versions(
        replace(version, state="removed", since=now, replaced_by=image_id)
        for version in versions
        if version.set_id == job.record.id
    )
    tools.ledger.history.count_change(older.cloud, "removed")
