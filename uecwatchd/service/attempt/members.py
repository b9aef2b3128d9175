"""The stage of the members: kernel and ramdisk into the cloud, then the machine that boots with them.

The order is that of the ids. A machine's manifest carries those of its kernel and ramdisk, so these two are
bundled, uploaded and registered first: RegisterImage answers with an id at once. Some clouds take their time
until such an image is available, or has failed. The machine's bundle is uploaded in that time, and the
machine is registered when both are available: an image made with a kernel that fails would be of no use, and
would keep its name from the next attempt.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from uecwatchd.delivery.begun import BegunLook
from uecwatchd.delivery.deliver import Registration, await_available, register_member, upload_ahead
from uecwatchd.delivery.pending import has_failed
from uecwatchd.delivery.request import BootFiles, MachineTraits, UploadRequest, UploadTools
from uecwatchd.errors import Pending, Rejected
from uecwatchd.intake.sets.records import Member
from uecwatchd.intake.spool import safe_open
from uecwatchd.ledger.records import NOT_READ, BundleRecord
from uecwatchd.outputs.result_files import progress_in_report
from uecwatchd.service.attempt.context import (
    AttemptTools,
    Job,
    folder_of,
    main_member,
    name_traits,
    pause,
    stop_if_asked,
    with_image,
)
from uecwatchd.service.attempt.preflight import registered_name
from uecwatchd.service.attempt.preparation import open_member
from uecwatchd.service.attempt.trial import is_on_trial, on_trial_for
from uecwatchd.types import FileStamp, Role

# Between two looks at a pending kernel while the machine's parts go up: one request for hours of upload.
LOOK_SECONDS = 30.0


class _FailedBeside(Exception):
    """The kernel or ramdisk of a machine has failed, so the rest of the machine need not go up."""


def deliver(job: Job, tools: AttemptTools) -> Job:
    """Bundle, upload and register all members of a set.

    Raises the first error; BundleRefused if the cloud could make no image of a member, Pending if it takes
    longer than moments for one.
    """
    # From now on nobody removes an image with one of these contents, also on another host.
    tools.ledger.put_set(job.record)
    uploads = _upload_tools(job, tools)
    machine = job.found.member("machine")
    beside = {one.role: _request(job, one) for one in job.found.members if one is not machine}
    with progress_in_report(tools.reporting.tracker, job.record), tools.limits.of_a_set():
        made = {role: _register(job, request, uploads, tools) for role, request in beside.items()}
        main = _machine_request(job, tools, machine, made) if machine else None
        pending = [one.image_id for one in made.values() if not one.is_available]
        if main and pending:
            with suppress(_FailedBeside), open_member(job, main.member, tools) as source:
                upload_ahead(main, source, _watching(pending, uploads))
        done = _await_all(beside, made, uploads)
        if main:
            done |= _await_all({"machine": main}, {"machine": _register(job, main, uploads, tools)}, uploads)
    for role, bundle in done.items():
        job = with_image(job, role, image_id=bundle.image_id, manifest=bundle.location)
    return replace(job, on_trial=on_trial_for(job, done.values()))


def _watching(pending: Sequence[str], tools: UploadTools) -> UploadTools:
    """Return tools that end an upload soon after one of the pending images has failed."""
    looked = tools.clocks.now()

    def check() -> None:
        nonlocal looked
        tools.check_stop()
        if not 0 <= tools.clocks.now() - looked < LOOK_SECONDS:  # the clock may be set back
            looked = tools.clocks.now()
            if any(has_failed(image_id, tools) for image_id in pending):
                raise _FailedBeside

    return replace(tools, check_stop=check)


def _await_all(
    requests: Mapping[Role, UploadRequest], made: Mapping[Role, Registration], tools: UploadTools
) -> dict[Role, BundleRecord]:
    """Wait some moments for all of these images together, and finish their records.

    An image that has failed is reported before those that are pending. Raises as `await_available` does, but
    Pending for all that are.
    """
    done: dict[Role, BundleRecord] = {}
    still_pending: dict[str, str] = {}
    pauses = tools.patience.looks
    for role, request in requests.items():
        try:
            done[role] = await_available(request, made[role], tools, pauses=pauses)
        except Pending as error:
            still_pending |= error.images
            pauses = ()
    if still_pending:
        raise Pending(still_pending)
    return done


def _register(job: Job, request: UploadRequest, uploads: UploadTools, tools: AttemptTools) -> Registration:
    with open_member(job, request.member, tools) as source:
        return register_member(request, source, uploads)


def _request(job: Job, member: Member) -> UploadRequest:
    known = job.known(member.role)
    return UploadRequest(
        made_for=job.made_for,
        owner=job.found.owner,
        member=member,
        digest=known.digest if known else NOT_READ,
        arch=job.found.arch,
        bucket=job.target.bucket,
        must_be_new=job.found.sidecar.on_existing == "fail" and member == main_member(job.found),
        waited=job.waited,
    )


def _machine_request(
    job: Job, tools: AttemptTools, machine: Member, made: Mapping[Role, Registration]
) -> UploadRequest:
    found = job.found
    traits = MachineTraits(
        boot=_boot(job, tools, made),
        name=registered_name(job, tools),
        description=found.sidecar.description,
        name_traits=name_traits(found) if job.cloud.dialect.name_pattern else (),
        virtualization=found.virtualization,
        platform=found.sidecar.platform,
        is_whole_disk=found.virtualization != "hvm" and machine.facts.layout == "disk",
    )
    return replace(_request(job, machine), machine=traits)


def _upload_tools(job: Job, tools: AttemptTools) -> UploadTools:
    check_stop = partial(stop_if_asked, job, tools)
    return UploadTools(
        cloud=job.cloud,
        ledger=tools.ledger,
        listener=job.listener,
        work=tools.work,
        slots=tools.slots,
        limits=tools.limits,
        patience=tools.patience,
        check_stop=check_stop,
        check_files=lambda: _check_unchanged(job, tools),
        sleep=lambda seconds: pause(seconds, tools, check_stop),
        note_parts=job.uploaded.note,
        clocks=tools.clocks,
        kept=job.kept,
        host=tools.host,
        on_trial=is_on_trial(job.found, tools),
        begun=BegunLook(tuple(one.digest for one in job.record.members)),
    )


def _boot(job: Job, tools: AttemptTools, made: Mapping[Role, Registration]) -> BootFiles:
    """Return the kernel and ramdisk that the machine boots with: files of the set, or ids in the sidecar.

    A kernel is distinguished by its content as far as the ledger knows that, otherwise by its id. So the
    machine is the same one whether its kernel is in the set or is given by its id.
    """
    given: Mapping[Role, str | None] = {"kernel": job.found.kernel_id, "ramdisk": job.found.ramdisk_id}

    def trait(role: Role) -> str:
        if image_id := given[role]:
            return tools.ledger.content(job.target.cloud, image_id) or image_id
        known = job.known(role)
        return known.digest if known else ""

    def image_id(role: Role) -> str | None:
        return given[role] or (made[role].image_id if role in made else None)

    return BootFiles((trait("kernel"), trait("ramdisk")), image_id("kernel"), image_id("ramdisk"))


def _check_unchanged(job: Job, tools: AttemptTools) -> None:
    """Raise Deferred if any member of the set has changed since the scan, not only the one at hand.

    For a member that was made for the set, the files that it was made of count as well.
    """
    for member in job.found.members:
        _check_stamp(folder_of(job, member, tools), member.path, member.stamp)
    sources = {source for member in job.found.members if member.origin for source in member.origin.sources}
    for path, stamp in sorted(sources):
        _check_stamp(job.found.folder, path, stamp)


def _check_stamp(folder: Path, path: str, stamp: FileStamp) -> None:
    try:
        with safe_open.open_member(folder, path) as file:
            is_same = stamp.is_of(os.fstat(file.fileno()))
    except Rejected as error:  # removed, or something else in its place
        raise safe_open.changed(path) from error
    if not is_same:
        raise safe_open.changed(path)
