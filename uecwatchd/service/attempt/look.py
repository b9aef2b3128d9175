"""The stage that looks into the machine image: what it is, and what is taken out of it.

What is found defaults the sidecar, and is reported if it contradicts it. Nothing of this stops a set, unless
its sidecar asks for something that the image does not have.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial

from uecwatchd.errors import NotYet, Rejected, UecError, problem
from uecwatchd.events import Event, Kind
from uecwatchd.images.guest.disk import unreadable_volumes
from uecwatchd.images.guest.inspection import Inspection, inspect_image
from uecwatchd.images.guest.kernel_beside import KernelBeside, summarise_for
from uecwatchd.images.guest.kernel_pair import KernelPair, NoKernelPair
from uecwatchd.images.guest.summary import ImageSummary, ReadinessFinding
from uecwatchd.images.guest.volumes import UnreadableVolume, VolumeReader
from uecwatchd.images.prepare.plan import REMEDIED
from uecwatchd.images.prepare.prepare import CannotPrepare
from uecwatchd.images.reading import describe, with_guest_file, with_partition
from uecwatchd.intake.sets.records import ROLES, ImageSet, Member
from uecwatchd.intake.spool import safe_open
from uecwatchd.outputs.result_files import LogFile
from uecwatchd.outputs.wording import describe_image
from uecwatchd.service.attempt.context import (
    AttemptTools,
    Job,
    stop_if_asked,
    tell,
    with_members,
)
from uecwatchd.service.attempt.preparation import open_member
from uecwatchd.system.text import format_size

# Warnings about a system that comes up, and that nobody can log in to.
UNREACHABLE = ("key-fetch", "sshd")
PREPARE_HINT = "Try prepare = true in the sidecar: it changes what is uploaded, and not the file."
FINDING_WORDS = {"error": "not ready", "warning": "warning", "note": "note"}


def look_inside(job: Job, tools: AttemptTools) -> Job:
    """Look into the machine image, unless it is registered as it is whatever it holds.

    Raises Rejected if it lacks what the sidecar demands, NotYet if it has no kernel that is needed.
    """
    found = job.found
    machine = found.member("machine")
    if machine is None or machine.facts.layout is None or found.sidecar.convert == "keep":
        return job
    needs_files = found.from_image is not None or found.sidecar.layout == "partition"
    if job.record.inspection and not needs_files:  # of the same files, by an earlier attempt
        return _with_evidence(job, job.record.inspection)
    try:
        inspection = _inspect(job, machine, tools)
    except Rejected as error:
        return _without_inspection(job, error)
    summary = _summarise(job, inspection, tools)
    _tell(job, summary)
    job = replace(job, record=replace(job.record, inspection=summary))
    _check_ready(job, summary)
    return _with_evidence(_with_parts(job, machine, inspection), summary)


def _inspect(job: Job, machine: Member, tools: AttemptTools) -> Inspection:
    check = partial(stop_if_asked, job, tools)
    with open_member(job, machine, tools) as source, safe_open.reading(machine.path):
        return inspect_image(source, name=machine.path, check=check)


def _summarise(job: Job, inspection: Inspection, tools: AttemptTools) -> ImageSummary:
    """Return the summary. A kernel beside the image, or a registered one, takes the place of its own."""
    found, kernel, ramdisk = job.found, job.found.member("kernel"), job.found.member("ramdisk")
    if inspection.root is None or not (kernel or found.kernel_id):
        return inspection.summary()
    if kernel is None:
        return summarise_for(inspection, None)
    versions = _versions_in(job, ramdisk, tools) if ramdisk and kernel.facts.version else ()
    return summarise_for(inspection, KernelBeside(kernel.path, kernel.facts, versions))


def _versions_in(job: Job, ramdisk: Member, tools: AttemptTools) -> Collection[str]:
    """Return the versions of kernels with modules in a ramdisk; none if it cannot be read."""
    name, check = ramdisk.path, partial(stop_if_asked, job, tools)
    try:
        with (
            open_member(job, ramdisk, tools) as source,
            safe_open.reading(name),
            VolumeReader(source, name=name, check=check) as reader,
        ):
            modules = reader.ramdisk()
    except UnreadableVolume:
        return ()
    return modules.versions if modules else ()


def _without_inspection(job: Job, error: Rejected) -> Job:
    """Go on with an image that cannot be looked into, if nothing has to come out of it."""
    found = job.found
    if isinstance(error, CannotPrepare):
        raise error
    if found.from_image:
        raise _without_boot_files(found, error) from error
    if found.sidecar.layout == "partition" or found.sidecar.require:
        raise error
    tell(job, Kind.WORKING, f"not looked into: {problem(error)}", level="warning")
    return job


# --- what is told -----------------------------------------------------------------------------------------


def _tell(job: Job, summary: ImageSummary) -> None:
    """Report what the image is; its findings are for the log beside it, and only counted in the journal."""
    machine = job.found.member("machine")
    errors = sum(finding.severity == "error" for finding in summary.findings)
    count = f"; {errors} thing{'s' if errors > 1 else ''} to mend before it is ready" if errors else ""
    name = machine.name if machine else job.found.name
    tell(
        job,
        Kind.WORKING,
        f"{name} is {describe_image(summary)}{count}",
        level="warning" if errors else "info",
    )
    log = LogFile(job.found.id)
    for finding in summary.findings:
        log.tell(_event(job, finding))


def _event(job: Job, finding: ReadinessFinding) -> Event:
    sentence = f"{FINDING_WORDS[finding.severity]}: {finding.sentence}"
    return Event(Kind.WORKING, sentence, job.found.id, fields={"hint": finding.remedy})


def _check_ready(job: Job, summary: ImageSummary) -> None:
    """Raise Rejected if the sidecar requires an image that comes up, and can be reached."""
    found = job.found
    if found.sidecar.require != "ready":
        return
    needs = [one for one in summary.findings if one.severity == "error" or one.key in UNREACHABLE]
    if found.virtualization == "hvm" and summary.layout == "disk" and not summary.boots_by:
        needs += [one for one in summary.findings if one.key == "boot-loader"]
    if needs:
        why = " ".join(one.sentence for one in needs).removesuffix(".")
        raise Rejected(f"{found.name}: it is not ready for a cloud", why, _remedy(found, summary, needs))


def _remedy(found: ImageSet, summary: ImageSummary, needs: Sequence[ReadinessFinding]) -> str:
    """Return what to do first about the findings: the key that remedies some of them, and the next one."""
    left = [one for one in needs if one.key not in REMEDIED]
    if found.sidecar.prepare or summary.system_id == "windows" or len(left) == len(needs):
        return needs[0].remedy
    return f"{PREPARE_HINT} For the rest: {left[0].remedy}" if left else PREPARE_HINT


# --- what is taken out ------------------------------------------------------------------------------------


def _with_parts(job: Job, machine: Member, inspection: Inspection) -> Job:
    """Return the job with the parts of the image that the set asks for as its members."""
    found = job.found
    members = {member.role: member for member in found.members}
    if found.sidecar.layout == "partition":
        members["machine"] = _root_partition(machine, inspection)
    if found.from_image:
        members |= {member.role: member for member in _boot_members(found, machine, inspection)}
    ordered = tuple(members[role] for role in ROLES if role in members)
    taken = [member for member in ordered if member not in found.members]
    if not taken:
        return job
    words = (f"{m.role} {describe(m.reading, m.path)} ({format_size(m.size)})" for m in taken)
    tell(job, Kind.WORKING, f"taken out of the image: {', '.join(words)}")
    return with_members(job, replace(found, members=ordered))


def _root_partition(machine: Member, inspection: Inspection) -> Member:
    """Return the member whose image is the root partition of a disk. Raises Rejected if it has none."""
    if inspection.disk.layout == "partition":
        return machine
    root = inspection.root
    if root is None or root.partition is None or root.volume.name:
        raise Rejected(
            f"{machine.path}: its root partition cannot be taken out",
            "its root is in a logical volume" if root else "no system is found on it",
            'Take layout = "partition" out of the sidecar, or make an image whose root is a partition.',
        )
    start, size = root.partition.start, root.partition.size
    facts = replace(machine.facts, layout="partition")
    return replace(machine, size=size, facts=facts, reading=with_partition(machine.reading, start, size))


def _boot_members(found: ImageSet, machine: Member, inspection: Inspection) -> Iterator[Member]:
    """Yield the kernel and the ramdisk in the image, as far as the set needs them."""
    wanted = found.from_image
    if wanted is None:
        return
    pair = _pair(found, machine, inspection)
    if "kernel" in wanted.roles:
        size, how = pair.kernel.entry.size, with_guest_file(machine.reading, pair.kernel.path)
        part = replace(machine, role="kernel", size=size, facts=pair.kernel_facts, reading=how)
        yield replace(part, container="")
    if "ramdisk" in wanted.roles and pair.ramdisk and pair.ramdisk_facts:
        size, how = pair.ramdisk.entry.size, with_guest_file(machine.reading, pair.ramdisk.path)
        part = replace(machine, role="ramdisk", size=size, facts=pair.ramdisk_facts, reading=how)
        yield replace(part, container="")


def _pair(found: ImageSet, machine: Member, inspection: Inspection) -> KernelPair:
    """Return the pair in the image. Raises NotYet if files beside it would do as well, or Rejected."""
    try:
        return _fitting_pair(found, machine, inspection)
    except NoKernelPair as error:
        raise _without_boot_files(found, error) from error


def _without_boot_files(found: ImageSet, error: Rejected) -> UecError:
    """Return the error of a set whose image has no kernel.

    Files that are added later help neither an archive nor a set with a sidecar that demands the image's own.
    """
    otherwise = found.from_image.otherwise if found.from_image else ""
    if not otherwise:
        return error
    lacking = f"{otherwise}; {problem(error)}"
    if found.packed is None:
        return NotYet(lacking, until=None)
    hint = f"Pack it again with that, or drop the files themselves, in a folder {found.name}/."
    return Rejected(f"{found.packed.path}: it is not a complete set", f"it lacks {lacking}", hint)


def _fitting_pair(found: ImageSet, machine: Member, inspection: Inspection) -> KernelPair:
    pair, trouble = inspection.pair, inspection.trouble
    if trouble:
        raise NoKernelPair(trouble.what, trouble.why, trouble.hint)
    if inspection.windows:
        raise NoKernelPair(
            f"{machine.path}: it has no kernel to take out",
            "it has Windows, which boots through memdisk and a boot floppy",
            f'Say platform = "windows" in {found.name}.toml.',
        )
    if pair is None:
        raise inspection.no_pair or NoKernelPair(
            f"{machine.path}: it has no kernel to take out",
            "; ".join(["no Linux system is found in it", *unreadable_volumes(inspection.disk)]),
            "Drop a kernel and a ramdisk beside it.",
        )
    asked = found.sidecar.ramdisk == "from-image"
    if asked and pair.ramdisk is None:
        why = f"its kernel {pair.version} has none"
        raise NoKernelPair(f"{machine.path}: it has no ramdisk to take out", why, "Drop one beside it.")
    kernel = found.member("kernel")
    if asked and kernel and kernel.facts.version not in (None, pair.version):
        raise NoKernelPair(
            f"{machine.path}: its ramdisk does not fit {kernel.name}",
            f"the ramdisk is for {pair.version}, the kernel is {kernel.facts.version}",
            'Say kernel = "from-image" too, or drop the ramdisk that belongs to the kernel.',
        )
    return pair


# --- evidence ---------------------------------------------------------------------------------------------


def _with_evidence(job: Job, summary: ImageSummary) -> Job:
    """Complete the set by what is in its image, and report where the sidecar says something else.

    Raises Rejected for boot files of Windows beside another system.
    """
    found, sidecar = job.found, job.found.sidecar
    if found.boot_folder and summary.system_id not in ("", "windows"):
        raise Rejected(
            f"{found.boot_folder}/: it has boot files of Windows",
            f"the system on the disk is {summary.system}",
            "Remove the folder, or drop it beside the disk with Windows.",
        )
    if summary.arch and summary.arch != found.arch:
        if found.arch_known_by in ("name", "nothing"):
            found = replace(found, arch=summary.arch, arch_known_by="content")
        else:
            what = f"its system is for {summary.arch}; registered for {found.arch}"
            tell(job, Kind.WORKING, what, level="warning")
    if summary.system_id == "windows" and sidecar.platform != "windows":
        if "platform" in sidecar.given:
            tell(job, Kind.WORKING, "it has Windows; registered as Linux", level="warning")
        else:
            sidecar = replace(sidecar, platform="windows")
    if found.virtualization == "hvm" and summary.layout == "disk" and "bios" not in summary.boots_by:
        how = "only by UEFI" if summary.boots_by else "by no boot loader"
        what = f"it boots {how}, and a node starts a disk by BIOS unless its cloud is told otherwise"
        tell(job, Kind.WORKING, what, level="warning")
    found = replace(found, sidecar=sidecar)
    return job if found == job.found else with_members(job, found)
