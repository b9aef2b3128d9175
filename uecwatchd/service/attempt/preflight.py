"""The stages that compare a set with its cloud, before gigabytes are uploaded."""

from dataclasses import replace
from datetime import UTC, datetime

from uecwatchd.clouds.dialects import NAME_LIMIT, NAME_MINIMUM
from uecwatchd.clouds.images import find_image
from uecwatchd.clouds.objects import check_bucket_name, ensure_bucket
from uecwatchd.clouds.registration import probe_ec2
from uecwatchd.errors import Halted, Rejected
from uecwatchd.events import Kind
from uecwatchd.images.file_names import is_versioned, pairing_by_name
from uecwatchd.images.guest.summary import ReadinessFinding
from uecwatchd.intake.sets.records import Member
from uecwatchd.intake.sidecar import render_name
from uecwatchd.service.attempt.context import AttemptTools, Job, tell
from uecwatchd.system.text import format_size

# How an architecture is known, and what to do if it is wrong.
KNOWN_BY = {
    "told": "that is what `arch` says",
    "content": "that is what its files say",
    "name": "that is what its name says",
    "nothing": "that is the default",
}
_ELSEWHERE = "Name a cloud with such hosts in the sidecar: clouds = …"
WAYS_OUT = {
    "told": "Correct `arch`, or name a cloud with such hosts.",
    "content": _ELSEWHERE,
    "name": f'If the name misleads, say so in the sidecar: arch = "x86_64". {_ELSEWHERE}',
    "nothing": _ELSEWHERE,
}
# What to do about a whole disk on a cloud that starts partitions: with a Linux that was found, and without.
TAKE_PARTITION = 'Say layout = "partition" in the sidecar: then the partition with its root is registered.'
DROP_PARTITION = "Drop its root partition instead; no Linux was found on the disk, to take it out of that."


def connect(job: Job, tools: AttemptTools) -> Job:
    """Connect to the cloud, and make sure that the bucket is ours."""
    bucket = job.target.bucket
    _check_accounts(job, tools)
    check_bucket_name(bucket, from_config=bucket == tools.configured_bucket)
    cloud = tools.clouds.enter(job.target.cloud)
    try:
        if ensure_bucket(cloud, bucket) and bucket != tools.configured_bucket:
            tools.ledger.put_made_bucket(cloud.name, bucket)
    except Halted as error:
        if bucket == tools.configured_bucket:
            raise
        probe_ec2(cloud)  # if that raises, the whole cloud has the problem, not one sidecar
        hint = "Name another bucket in the sidecar, or none."
        raise Rejected(error.what, error.why, hint, request_id=error.request_id) from error
    return replace(job, connected=cloud)


def _check_accounts(job: Job, tools: AttemptTools) -> None:
    """Raise Rejected if two clouds of a set are one account: it would be registered there twice."""
    cloud = job.target.cloud
    others = (one for one in job.found.clouds if one != cloud)
    if same := next((one for one in others if tools.clouds.is_same_account(cloud, one)), None):
        raise Rejected(
            f"{job.found.name}: the clouds {cloud} and {same} are one account",
            "they have the same address and access key, so it would be registered there twice",
            "Name only one of them in `clouds`.",
        )


def check_name(job: Job, tools: AttemptTools) -> Job:
    """Check that the image can have its name, before gigabytes are uploaded."""
    pattern = job.cloud.dialect.name_pattern
    if job.found.member("machine") is None or pattern is None:
        return job
    name = registered_name(job, tools)
    if not name.isascii() or len(name) > NAME_LIMIT:
        given = "name" in job.found.sidecar.given
        raise Rejected(
            f"{job.found.name}: its name cannot be registered",
            f"{name} has {len(name)} characters" if name.isascii() else f"{name} is not plain ASCII",
            f"{'Choose another' if given else 'Rename the file, or give it a'} name of {NAME_MINIMUM} to "
            f"{NAME_LIMIT} ASCII characters{'' if given else ' in a sidecar: name = …'}.",
        )
    if "name" in job.found.sidecar.given and not pattern.fullmatch(name):
        raise Rejected(
            f"{job.found.name}: its name cannot be registered",
            f"cloud {job.target.cloud} does not take {name}",
            f"Use {NAME_MINIMUM} to {NAME_LIMIT} letters, digits and ( ) / _ - in the sidecar's `name`.",
        )
    return job


def registered_name(job: Job, tools: AttemptTools) -> str:
    when = datetime.fromtimestamp(tools.clocks.now(), UTC)
    found, inspection = job.found, job.record.inspection
    version = inspection.version if inspection and inspection.version else None
    return render_name(
        found.sidecar.name,
        stem=found.name,
        fingerprint=job.target.fingerprint,
        arch=found.arch,
        version=found.sidecar.version or version,
        when=when,
    )


def preflight(job: Job, tools: AttemptTools) -> Job:
    """Check everything that the cloud may refuse, before gigabytes are uploaded."""
    del tools
    _check_architecture(job)
    for member in job.found.members:
        _check_size(job, member)
    _check_kernel_and_ramdisk(job)
    _check_boots_alone(job)
    _compare_versions(job)
    _check_share(job)
    job = _check_layout(job)
    for role, image_id in (("kernel", job.found.kernel_id), ("ramdisk", job.found.ramdisk_id)):
        if image_id:
            _check_image_exists(job, role, image_id)
    return job


def _check_architecture(job: Job) -> None:
    """Raise Rejected for an architecture that the cloud does not know; warn if files are for another one."""
    found, cloud = job.found, job.cloud
    known = cloud.dialect.architectures
    if found.arch not in known:
        raise Rejected(
            f"{found.name}: cloud {cloud.name} takes no images for {found.arch}",
            f"{KNOWN_BY[found.arch_known_by]}, and it takes those for {', '.join(sorted(known))}",
            WAYS_OUT[found.arch_known_by],
        )
    for member in found.members:
        if member.facts.arch not in (None, found.arch):
            what = f"{member.path} is for {member.facts.arch} by its content; registered for {found.arch}"
            tell(job, Kind.WORKING, what, level="warning")


def _check_kernel_and_ramdisk(job: Job) -> None:
    """Raise Rejected if the cloud requires a kernel or a ramdisk that the sidecar excludes."""
    found, cloud = job.found, job.cloud
    if found.member("machine") is None or found.virtualization == "hvm":
        return
    given = {"kernel": found.kernel_id, "ramdisk": found.ramdisk_id}
    there = {member.role for member in found.members}
    if lacking := [r for r in sorted(cloud.dialect.paravirtual_demands - there) if not given[r]]:
        raise Rejected(
            f"{found.name}: cloud {cloud.name} takes no such image without a {' and a '.join(lacking)}",
            "it is paravirtual, and this generation of cloud refuses those that lack one",
            'Add the file, name one that is registered ("eki-…", "eri-…"), or drop a disk that boots alone.',
        )


def _check_boots_alone(job: Job) -> None:
    """Raise Rejected for a disk without a kernel if the cloud has another generation than before."""
    found, cloud = job.found, job.cloud
    machine = found.member("machine")
    has_kernel = found.member("kernel") or found.kernel_id or found.sidecar.kernel
    if machine is None or found.virtualization != "hvm" or has_kernel or cloud.dialect.boots_disk_alone:
        return
    raise Rejected(
        f"{machine.path}: cloud {cloud.name} boots no disk by itself",
        "it is of a generation that starts each image with a kernel, and none is there",
        "Add a kernel and a ramdisk, or take the cloud out of `clouds`.",
    )


def _compare_versions(job: Job) -> None:
    """Warn about a kernel and a ramdisk whose names have different versions."""
    kernel, ramdisk = job.found.member("kernel"), job.found.member("ramdisk")
    if kernel is None or ramdisk is None:
        return
    ours, theirs = (pairing_by_name(member.name) for member in (kernel, ramdisk))
    if is_versioned(ours) and is_versioned(theirs) and ours != theirs:
        what = f"{ramdisk.name} does not seem to belong to {kernel.name}: it may not have its modules"
        hint = "Drop the ramdisk of that kernel instead."
        tell(job, Kind.WORKING, what, level="warning", fields={"hint": hint})


def _check_layout(job: Job) -> Job:
    """Warn about a whole disk, in the log and in the report, if nodes take it for a partition.

    So do those of UEC and Eucalyptus 3 with an image that has a kernel beside it, whatever its manifest says.
    """
    found, dialect = job.found, job.cloud.dialect
    machine, sidecar = found.member("machine"), found.sidecar
    can_start_disks = dialect.boots_disk_alone or dialect.disk_mapping is not None
    if machine is None or machine.facts.layout != "disk" or can_start_disks:
        return job
    if sidecar.platform == "windows" or sidecar.convert == "keep":
        return job
    sentence = (
        f"{machine.path} is a whole disk, and cloud {job.cloud.name} starts an image that has a kernel "
        "beside it as one partition: it may not boot."
    )
    system = job.record.inspection.system_id if job.record.inspection else ""
    remedy = DROP_PARTITION if system in ("", "windows") else TAKE_PARTITION
    tell(job, Kind.WORKING, sentence, level="warning", fields={"hint": remedy})
    if job.record.inspection is None:
        return job
    finding = ReadinessFinding("whole-disk", "warning", sentence, remedy)
    summary = job.record.inspection.with_findings(finding.key, [finding])
    return replace(job, record=replace(job.record, inspection=summary))


def _check_share(job: Job) -> None:
    cloud, accounts = job.cloud, job.found.sidecar.share
    others = cloud.dialect.shares_with
    wrong = [account for account in accounts if not (others and others.pattern.fullmatch(account))]
    if not wrong:
        return
    if others is None:
        why = "it lets everybody start an image, or its owner alone"
        hint = "Take share out of the sidecar, or [defaults]; public = true is for everybody."
    else:
        why = f"{', '.join(wrong)} is no account there, which has {others.looks}"
        hint = "Correct share in the sidecar."
    raise Rejected(f"{job.found.name}: cloud {cloud.name} cannot share it so", why, hint)


def _check_size(job: Job, member: Member) -> None:
    cloud = job.cloud
    limit = cloud.dialect.image_limit
    if limit is None or member.size <= limit.size:
        return
    sizes = f"{format_size(member.size)}, and cloud {cloud.name} takes {format_size(limit.size)}"
    if limit.fixed:
        raise Rejected(f"{member.path}: it is too large", f"it has {sizes}", "Make the image smaller.")
    what = f"{member.path} has {sizes} unless its administrator has raised the limit; trying all the same"
    tell(job, Kind.WORKING, what, level="warning")


def _check_image_exists(job: Job, role: str, image_id: str) -> None:
    cloud = job.cloud
    if not cloud.dialect.id_pattern.fullmatch(image_id):
        why = f"{image_id} is not spelled as ids are there, down to the case of the letters"
    elif find_image(cloud, image_id, owned=False) is None:
        why = f"it knows no {image_id}"
    else:
        return
    raise Rejected(
        f"{job.found.name}: its {role} is not on cloud {cloud.name}",
        why,
        f"Compare {role} in the sidecar with the ids that `uecwatchd images` lists.",
    )
