"""Images on trial: registered, but not published, because a test boot or a hook may refuse them.

The mark is in the ledger before the image is in the cloud. So whatever is withdrawn was made for this very
set and never published, also after a crash, and also if the hook or the test is asked for only later.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

from uecwatchd.config.records import CloudSettings
from uecwatchd.delivery.image_users import images_booting
from uecwatchd.errors import Rejected
from uecwatchd.events import Kind
from uecwatchd.intake.sets.records import ImageSet
from uecwatchd.ledger.records import BundleRecord
from uecwatchd.ledger.sessions import Claim
from uecwatchd.outputs import result_files
from uecwatchd.service.attempt.context import AttemptTools, Job, stop_if_asked, tell, with_image
from uecwatchd.service.attempt.removal import is_used_elsewhere, remove_image
from uecwatchd.types import ID_WORDS


class RefusedOnTrial(Rejected):
    """A set is refused in the middle of an attempt. `job` is its job then, without withdrawn images."""

    def __init__(self, what: str, why: str, hint: str, *, job: Job, console: tuple[str, ...] = ()) -> None:
        super().__init__(what, why, hint)
        self.job = job
        self.console = console


def is_tested(found: ImageSet, clouds: Mapping[str, CloudSettings]) -> bool:
    """Tell if a set's machine image is booted before it is published, by its sidecar or its cloud."""
    if found.member("machine") is None:
        return False
    settings = clouds.get(found.target_cloud)
    return found.sidecar.test if "test" in found.sidecar.given or settings is None else settings.test


def is_on_trial(found: ImageSet, tools: AttemptTools) -> bool:
    """Tell if what is registered for a set may be withdrawn before it is published."""
    return bool(tools.hooks.registered) or is_tested(found, tools.cloud_settings)


def refuse(
    job: Job, tools: AttemptTools, what: str, why: str, remedy: str, *, console: tuple[str, ...] = ()
) -> RefusedOnTrial:
    """Withdraw what the set made, and return the error with which it is rejected.

    Raises what `withdraw` raises.
    """
    result_files.retract_undone(job.record)  # first: an id beside the files promises an image
    made = bool(job.on_trial)
    job = withdraw(job, tools)
    if made:
        job = job.with_target(remarks=())  # they are about an image that is gone
    consequence = (
        "What it made for this set is withdrawn." if made else "Its image was there before, and stays."
    )
    return RefusedOnTrial(what, why, f"{consequence} {remedy}", job=job, console=console)


def on_trial_for(job: Job, bundles: Iterable[BundleRecord]) -> tuple[BundleRecord, ...]:
    """Return the bundles whose images this set made and has not published."""
    return tuple(bundle for bundle in bundles if bundle.on_trial and bundle.made_for == job.made_for)


def end_trial(job: Job, tools: AttemptTools) -> None:
    """Note that the images are published: from now on nothing withdraws them."""
    for bundle in job.on_trial:
        with _claimed(job, bundle, tools):
            known = tools.ledger.bundle(bundle.cloud, bundle.identity)
            if known and known.on_trial:
                tools.ledger.put_bundle(replace(known, on_trial=False))


def withdraw(job: Job, tools: AttemptTools) -> Job:
    """Remove the images on trial from the cloud, the machine first; those that others use stay.

    Return the job without them. Raises what the cloud raises: then the set is deferred, and tested again.
    """
    for bundle in sorted(job.on_trial, key=lambda bundle: bundle.role != "machine"):
        with _claimed(job, bundle, tools):
            known = tools.ledger.bundle(bundle.cloud, bundle.identity)
            if known and known.on_trial and known.image_id == bundle.image_id:
                job = _withdraw_one(job, known, tools)
    return replace(job, on_trial=())


def _withdraw_one(job: Job, bundle: BundleRecord, tools: AttemptTools) -> Job:
    image_id, fields = bundle.image_id, {ID_WORDS[bundle.role]: bundle.image_id, "cloud": bundle.cloud}
    if is_used_elsewhere(bundle, job, tools) or images_booting(bundle, job.cloud):
        tell(job, Kind.WORKING, f"{image_id} stays: another image or set uses it", fields=fields)
        return job
    remove_image(job, bundle, tools)
    what = f"deregistered {image_id} again, and deleted its bundle {bundle.location}"
    tell(job, Kind.REGISTERED, what, fields=fields)
    return with_image(job, bundle.role, image_id="", manifest="", attributes=None)


def _claimed(job: Job, bundle: BundleRecord, tools: AttemptTools) -> AbstractContextManager[Claim]:
    check = partial(stop_if_asked, job, tools)
    return tools.ledger.claim(bundle.claim, check=check)
