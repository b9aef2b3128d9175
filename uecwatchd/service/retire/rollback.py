"""Rollback: an older image of a set becomes the one in use, and the set is held.

The request names the image, so that a repetition after an interruption goes back no further. First the older
image is made usable and marked as the latest, then the newer one loses its mark: at each moment there is one.
"""

from dataclasses import replace
from functools import partial

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.deprecation import deprecate, restore
from uecwatchd.clouds.images import AVAILABLE, Image, find_image
from uecwatchd.delivery.latest import NOT_LATEST, do_each, mark_latest
from uecwatchd.errors import Rejected, Stopped, UecError, problem
from uecwatchd.events import Kind
from uecwatchd.ledger.records import BundleRecord, SetRecord
from uecwatchd.ledger.standing import combine, leading_cloud, seen_from
from uecwatchd.ledger.versions import VersionRecord, VersionState
from uecwatchd.outputs import result_files
from uecwatchd.outputs.notify.facts import rolled_back_facts
from uecwatchd.service.attempt.versions import mark_later
from uecwatchd.service.retire.context import Retirement, RetirementOutcome
from uecwatchd.service.retire.mark import without_remark
from uecwatchd.service.retire.rules import rule_of
from uecwatchd.types import ID_WORDS, Role


def roll_back(job: Retirement) -> RetirementOutcome:
    """Make an older image the current one. Raises Rejected if it cannot be used, and the cloud's errors."""
    tools, name, image_id = job.tools, job.request.cloud, job.request.image_id
    versions, now = tools.ledger.versions, tools.clocks.now()
    job.hold(name)
    if not tools.clouds.is_configured(name):
        raise Rejected(f"{job.id.name}: cannot go back", f"cloud {name} is not configured", "Configure it.")
    cloud = tools.clouds.enter(name)
    known = versions.of_set(job.id, name)
    wanted = next((one for one in known if one.image_id == image_id and one.is_in_cloud), None)
    image = find_image(cloud, image_id)
    if wanted is None or image is None or image.state != AVAILABLE:
        what, why = f"{job.id.name}: cannot go back to {image_id}", f"cloud {name} does not have it"
        raise Rejected(what, why, "See what there is: uecwatchd prune --dry-run")
    replaced = [one for one in known if one.state == "current" and one.image_id != image_id]
    remark = _move(job, cloud, wanted, replaced)
    changes = [replace(wanted, state="current", since=now, replaced=None, replaced_by="")]
    state: VersionState = "deprecated" if cloud.dialect.deprecates else "older"
    changes += [
        # A person has judged it: it is no image to go back to, and none that has to stay.
        replace(one, state=state, since=now, passed=False, replaced=now, replaced_by=image_id)
        for one in replaced
    ]
    versions.put_versions(changes)
    tools.ledger.history.count_change(name, "rolled-back")
    before = ", ".join(one.image_id for one in replaced) or "nothing"
    fields = {ID_WORDS[wanted.role]: image_id, "cloud": name}
    job.tell(
        Kind.ROLLED_BACK, f"{image_id} is in use again on cloud {name}, instead of {before}", fields=fields
    )
    bundle = tools.ledger.bundle_of(name, image_id)
    word = ID_WORDS[wanted.role]
    facts = rolled_back_facts(job.id, name, word=word, image_id=image_id, before=before)
    change = partial(rolled_back_record, version=wanted, image=image, bundle=bundle, now=now, remark=remark)
    return RetirementOutcome(change, news=(("rolled-back", facts),))


def _move(job: Retirement, cloud: Cloud, wanted: VersionRecord, replaced: list[VersionRecord]) -> str:
    """Move the marks of the image in use. Returns a remark about those that fail, or nothing."""
    tools, remark = job.tools, ""
    if cloud.dialect.deprecates:
        restore(cloud, wanted.image_id)
    if rule_of(job.id, cloud.name, tools.ledger, tools.retention_of).is_on:
        remark = _mark(job, cloud, wanted.image_id)
    if cloud.dialect.deprecates:
        for one in replaced:
            deprecate(cloud, one.image_id, now=tools.clocks.now)
    return remark


def _mark(job: Retirement, cloud: Cloud, image_id: str) -> str:
    """Mark the image as the latest. It is used again also where that fails, and marked later."""
    ledger = job.tools.ledger
    versions = ledger.versions.of_set(job.id, cloud.name)
    steps = [partial(mark_latest, cloud, job.id, image_id, versions, sleep=job.sleep)]
    if job.record is None or leading_cloud(job.record) in ("", cloud.name):
        steps.append(partial(result_files.write_latest, job.id, image_id))
    try:
        do_each(steps)
    except Stopped:
        raise
    except UecError as error:
        job.tell(Kind.WORKING, f"{NOT_LATEST}: {problem(error)}", level="warning")
        return mark_later(job.id, cloud.name, error, ledger)
    return ""


def rolled_back_record(
    record: SetRecord,
    *,
    version: VersionRecord,
    image: Image,
    bundle: BundleRecord | None,
    now: float,
    remark: str = "",
) -> SetRecord:
    """Return the record of a set with another image as its own on one cloud."""
    record = without_remark(record, cloud=version.cloud)
    target = record.target_on(version.cloud)
    ids: dict[Role, str] = {version.role: version.image_id}
    if version.role == "machine":
        ids |= {"kernel": image.kernel, "ramdisk": image.ramdisk}
    images = (
        replace(
            one,
            image_id=ids.get(one.role, ""),
            manifest=bundle.location if bundle and one.role == version.role else "",
            pending="",
            attributes=None,
        )
        for one in target.images
    )
    if target not in record.targets:
        return record
    remarks = (*target.remarks, *([remark] if remark else ()))
    record = record.with_target(replace(target, images=tuple(images), fingerprint="", remarks=remarks))
    seen = seen_from(record, version.cloud)
    if seen.state == "withdrawn":
        seen = replace(seen, state="done", since=now, error=None)
    return combine(seen)
