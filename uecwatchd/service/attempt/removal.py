"""Removal of an image within an attempt, and who else uses it."""

from functools import partial

from uecwatchd.delivery import removal
from uecwatchd.delivery.image_users import sets_using
from uecwatchd.ledger.records import BundleRecord, SetRecord
from uecwatchd.service.attempt.context import AttemptTools, Job, stop_if_asked


def is_other(record: SetRecord, job: Job) -> bool:
    """Return True for another set that goes to the same cloud."""
    return record.id != job.record.id and record.target_on(job.target.cloud) in record.current


def is_used_elsewhere(bundle: BundleRecord, job: Job, tools: AttemptTools) -> bool:
    """Return True if another set uses this image, or works on the same content and may use it soon."""
    return bool(sets_using(bundle, tools.ledger, but=job.record.id))


def remove_image(job: Job, bundle: BundleRecord, tools: AttemptTools) -> None:
    """Deregister an image, then delete its bundle. Between the steps it may be stopped."""
    removal.remove_image(job.cloud, bundle, tools.ledger, check=partial(stop_if_asked, job, tools))
