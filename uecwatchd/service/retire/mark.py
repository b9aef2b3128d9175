"""The mark of the image in use, made later where it failed at the publication.

It is repeated until it holds, or until no image of the set is in use there.
"""

from dataclasses import replace
from functools import partial

from uecwatchd.delivery.latest import NOT_LATEST, do_each, mark_latest
from uecwatchd.events import Kind
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.standing import leading_cloud
from uecwatchd.outputs import result_files
from uecwatchd.service.retire.context import Retirement, RetirementOutcome
from uecwatchd.service.retire.rules import rule_of


def mark(job: Retirement) -> RetirementOutcome:
    """Mark the image in use on one cloud as the latest. Raises errors of cloud and disk."""
    tools, name = job.tools, job.request.cloud
    change = RetirementOutcome(partial(without_remark, cloud=name))
    versions = tools.ledger.versions.of_set(job.id, name)
    current = next((one.image_id for one in versions if one.state == "current"), "")
    if not current or not tools.clouds.is_configured(name):
        return change
    if not rule_of(job.id, name, tools.ledger, tools.retention_of).is_on:
        return change
    steps = [partial(mark_latest, tools.clouds.enter(name), job.id, current, versions, sleep=job.sleep)]
    if job.record and leading_cloud(job.record) == name:
        steps.append(partial(result_files.write_latest, job.id, current))
    do_each(steps)
    job.tell(Kind.WORKING, f"{current} is marked as the latest on cloud {name}")
    return change


def without_remark(record: SetRecord, *, cloud: str) -> SetRecord:
    """Return the record of a set without the remark that the mark is missing."""
    target = record.target_on(cloud)
    remarks = tuple(one for one in target.remarks if not one.startswith(NOT_LATEST))
    return record if remarks == target.remarks else record.with_target(replace(target, remarks=remarks))
