"""Removal of an image of ours from its cloud, and who else uses it."""

from uecwatchd.clouds.objects import remove_object
from uecwatchd.clouds.registration import deregister
from uecwatchd.ledger.records import BundleRecord, SetRecord
from uecwatchd.service.attempt.context import AttemptTools, Job, stop_if_asked


def is_other(record: SetRecord, job: Job) -> bool:
    """Return True for another set that goes to the same cloud."""
    return record.id != job.record.id and record.target_on(job.target.cloud) in record.current


def is_used_elsewhere(bundle: BundleRecord, job: Job, tools: AttemptTools) -> bool:
    """Return True if another set uses this image, or works on the same content and may use it soon."""
    # The contents first: a set that gets the image in between has been seen without it.
    ledger = tools.ledger
    sets = (*ledger.sets_with_content(bundle.digest), *ledger.sets_with_image(bundle.cloud, bundle.image_id))
    return any(_uses(record, bundle, job) for record in sets)


def _uses(record: SetRecord, bundle: BundleRecord, job: Job) -> bool:
    if not is_other(record, job):
        return False
    member = next((member for member in record.members if member.role == bundle.role), None)
    if member is None:
        return False
    image_id = record.target_on(bundle.cloud).image(bundle.role).image_id
    return image_id == bundle.image_id or (not image_id and member.digest == bundle.digest)


def remove_image(job: Job, bundle: BundleRecord, tools: AttemptTools) -> None:
    """Deregister an image, then delete its bundle: an image without its parts cannot start.

    After an interruption it starts again from the beginning: the ledger keeps the bundle until the end.
    """
    cloud = job.cloud
    deregister(cloud, bundle.image_id)
    for stored in bundle.objects:
        stop_if_asked(job, tools)
        remove_object(cloud, bundle.bucket, stored.key)
    tools.ledger.drop_bundle(bundle)
