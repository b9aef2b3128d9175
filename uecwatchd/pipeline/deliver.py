"""The stage of each member: into the cloud with it."""

import os

from uecwatchd import report, spool
from uecwatchd.delivery import Order, bundle_and_register
from uecwatchd.errors import Rejected
from uecwatchd.image import Role
from uecwatchd.imageset import ImageSet, Member
from uecwatchd.ledger import MemberRecord
from uecwatchd.monitor import Tee
from uecwatchd.pipeline.job import Job, Stage, Tools, lead, stop_if_asked, wishes, with_member
from uecwatchd.pipeline.prepare import registered_name


def deliver(role: Role) -> Stage:
    """The stage that bundles, uploads and registers the member of one role, if the set has one."""

    def stage(job: Job, tools: Tools) -> Job:
        member, known = job.found.member(role), job.known(role)
        if member is None or known is None:
            return job
        with spool.open_member(job.found.folder, member.path) as source:
            if spool.stamp_of(os.fstat(source.fileno())) != member.stamp:
                raise spool.changed(member.path)
            bundle = bundle_and_register(_order(job, member, known, tools), source, tools.ledger)
        return with_member(job, role, image_id=bundle.image_id, manifest=bundle.location)

    return stage


def _order(job: Job, member: Member, known: MemberRecord, tools: Tools) -> Order:
    found, machine = job.found, member.role == "machine"
    hvm = found.virtualization == "hvm"

    def sleep(seconds: float) -> None:
        tools.stopping.wait(seconds)
        stop_if_asked(job, tools)

    return Order(
        set_name=found.name,
        member=member,
        digest=known.sha256,
        cloud=job.entered(),
        bucket=job.record.bucket,
        arch=found.arch,
        kernel_id=_id_for_machine(job, "kernel") if machine else None,
        ramdisk_id=_id_for_machine(job, "ramdisk") if machine else None,
        name=registered_name(job, tools) if machine else None,
        description=found.sidecar.description if machine else None,
        wishes=wishes(found) if machine and job.entered().dialect.name_pattern else (),
        virtualization=found.virtualization if machine else None,
        platform=found.sidecar.platform if machine else "linux",
        whole_disk=machine and not hvm and member.facts.layout == "disk",
        made_for=job.made_for,
        unique=found.sidecar.on_existing == "fail" and member == lead(found),
        full=tools.work.verify == "full",
        uploads=tools.work.uploads,
        sparse=tools.work.sparse,
        compression=tools.work.compression,
        monitor=Tee((job.monitor, report.ReportFile(job.record))),
        check=lambda: stop_if_asked(job, tools),
        unchanged=lambda: _must_be_unchanged(found),
        sleep=sleep,
        now=tools.now,
    )


def _must_be_unchanged(found: ImageSet) -> None:
    """Raises Deferred when a member is not any more what was listed, be it another than the one at hand."""
    for member in found.members:
        try:
            with spool.open_member(found.folder, member.path) as file:
                stamp = spool.stamp_of(os.fstat(file.fileno()))
        except Rejected as error:  # removed, or something else in its place
            raise spool.changed(member.path) from error
        if stamp != member.stamp:
            raise spool.changed(member.path)


def _id_for_machine(job: Job, role: Role) -> str | None:
    given = job.found.kernel_id if role == "kernel" else job.found.ramdisk_id
    return given or job.record.image_id(role) or None
