"""Images on trial: registered, but not published, because the hook `registered` may refuse them.

The mark is in the ledger before the image is in the cloud. So whatever is withdrawn was made for this very
set and never published, also after a crash, and also if the hook is configured only later.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

from uecwatchd.clouds.images import AVAILABLE, list_images
from uecwatchd.events import Kind
from uecwatchd.ledger.records import BundleRecord
from uecwatchd.service.attempt.context import AttemptTools, Job, stop_if_asked, tell, with_image
from uecwatchd.service.attempt.removal import is_used_elsewhere, remove_image
from uecwatchd.types import ID_WORDS


def on_trial_for(job: Job, bundles: Iterable[BundleRecord]) -> tuple[BundleRecord, ...]:
    """Return the bundles whose images this set made and has not published."""
    return tuple(bundle for bundle in bundles if bundle.on_trial and bundle.made_for == job.made_for)


def end_trial(job: Job, tools: AttemptTools) -> None:
    """Note that the images are published: from now on no hook withdraws them."""
    for bundle in job.on_trial:
        with _claimed(job, bundle, tools):
            known = tools.ledger.bundle(bundle.cloud, bundle.identity)
            if known and known.on_trial:
                tools.ledger.put_bundle(replace(known, on_trial=False))


def withdraw(job: Job, tools: AttemptTools) -> Job:
    """Remove the images on trial from the cloud, the machine first; those that others use stay.

    Return the job without them. Raises what the cloud raises: then the set is deferred, and the hook is asked
    again.
    """
    for bundle in sorted(job.on_trial, key=lambda bundle: bundle.role != "machine"):
        with _claimed(job, bundle, tools):
            known = tools.ledger.bundle(bundle.cloud, bundle.identity)
            if known and known.on_trial and known.image_id == bundle.image_id:
                job = _withdraw_one(job, known, tools)
    return replace(job, on_trial=())


def _withdraw_one(job: Job, bundle: BundleRecord, tools: AttemptTools) -> Job:
    image_id, fields = bundle.image_id, {ID_WORDS[bundle.role]: bundle.image_id, "cloud": bundle.cloud}
    if is_used_elsewhere(bundle, job, tools) or _is_booted_with(bundle, job):
        tell(job, Kind.WORKING, f"{image_id} stays: another image or set uses it", fields=fields)
        return job
    remove_image(job, bundle, tools)
    what = f"deregistered {image_id} again, and deleted its bundle {bundle.location}"
    tell(job, Kind.REGISTERED, what, fields=fields)
    return with_image(job, bundle.role, image_id="", manifest="", attributes=None)


def _claimed(job: Job, bundle: BundleRecord, tools: AttemptTools) -> AbstractContextManager[None]:
    check = partial(stop_if_asked, job, tools)
    return tools.ledger.claim(f"{bundle.cloud}/{bundle.identity}", check=check)


def _is_booted_with(bundle: BundleRecord, job: Job) -> bool:
    """Return True for a kernel or ramdisk of some image of the account that can be started, or soon."""
    if bundle.role == "machine":
        return False
    states = {AVAILABLE, *job.cloud.dialect.pending_states}
    images = (image for image in list_images(job.cloud) if image.state in states)
    return any(bundle.image_id in (image.kernel, image.ramdisk) for image in images)
