"""Sets with a pending image: they wait without using a worker, and are checked now and then.

A check is one request for each image. While the image is pending, nothing is started, reported or counted;
any other answer, and the end of the wait, starts an attempt.
"""

from collections.abc import Mapping
from dataclasses import replace

from uecwatchd.clouds.images import find_image
from uecwatchd.delivery.pending import UNLISTED_SECONDS, WAIT_SECONDS
from uecwatchd.errors import Pending, UecError
from uecwatchd.events import Event, Kind
from uecwatchd.intake.sets.records import ImageSet
from uecwatchd.ledger.records import SetRecord
from uecwatchd.outputs.wording import moment, waiting_for
from uecwatchd.service.attempt.context import AttemptTools, Job
from uecwatchd.service.retry import next_check_at


def check_pending(found: ImageSet, before: SetRecord | None, tools: AttemptTools) -> SetRecord | None:
    """Check a set's pending images. Returns the record if it has to wait, None if there is work to do."""
    now = tools.clocks.now()
    waited = seconds_waited(before, now=now)
    if before is None or not waited or before.stamp != found.stamp:
        return None
    waiting = now - before.since
    try:
        cloud = tools.clouds.enter(before.target.cloud)
        listed = [find_image(cloud, image_id) for image_id in waited]
    except UecError:  # an attempt gets the same error, and reports it
        return None
    patience = WAIT_SECONDS if all(listed) else UNLISTED_SECONDS
    pending = all(image is None or image.state in cloud.dialect.pending_states for image in listed)
    if not pending or waiting >= patience:
        return None
    return replace(before, next_retry=next_check_at(before.since, now=now))


def seconds_waited(record: SetRecord | None, *, now: float) -> Mapping[str, float]:
    """Return how many seconds a set has waited for images, by their ids."""
    if record is None or not record.awaits_cloud:
        return {}
    return {image.pending: max(0.0, now - record.since) for image in record.target.images if image.pending}


def defer_pending(job: Job, pending: Pending, tools: AttemptTools) -> tuple[SetRecord, Event]:
    """Return the record of a set that waits for its cloud, and the event.

    It keeps its stage and its number of deferrals, because nothing has failed or ended.
    """
    now = tools.clocks.now()
    # The shortest: an image that was registered again only now has its time.
    since = now - min(job.waited.get(image_id, 0.0) for image_id in pending.images.values())
    images = (
        replace(one, pending=pending.images.get(one.role, ""))
        for one in job.uploaded.applied_to(job.target.images)
    )
    record = replace(
        job.with_target(images=tuple(images)).record,
        state="waiting",
        since=since,
        reason=f"{pending.what}, pending",
        next_retry=next_check_at(since, now=now),
    )
    cloud = record.target.cloud
    what = f"{waiting_for(record)} since {moment(since)} UTC on cloud {cloud}"
    return record, Event(Kind.WAITING, f"{record.name}: {what}", record.id, fields={"cloud": cloud})
