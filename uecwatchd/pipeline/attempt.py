"""One attempt at one set: stage after stage, each written down before it begins, up to success or an error.

A stage takes the job and returns the next one. What has been done stands in the ledger before the next stage
begins, so that a job broken off anywhere is taken up where it was.
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from uecwatchd import report, spool
from uecwatchd.cloud.client import Cloud
from uecwatchd.cloud.dialect import NAME_LIMIT, NAME_MINIMUM
from uecwatchd.cloud.gate import Gates
from uecwatchd.cloud.register import probe
from uecwatchd.cloud.upload import check_bucket_name, ensure_bucket
from uecwatchd.delivery import Order, bundle_and_register
from uecwatchd.errors import Halted, Rejected, Stopped, UecError
from uecwatchd.image import Role, amount
from uecwatchd.imageset import ROLE_WORDS, ImageSet, Member
from uecwatchd.ledger import Ledger, MemberRecord, SetRecord
from uecwatchd.monitor import Event, Fields, Kind, Monitor, Progress, Tee
from uecwatchd.sidecar import idle_keys, render_name
from uecwatchd.verdict import failed, failure_event


@dataclass(frozen=True, slots=True)
class Tools:
    """What the stages work with. `now` gives seconds of the epoch, `random` a number from 0 to 1."""

    ledger: Ledger
    gates: Gates
    monitor: Monitor
    stopping: threading.Event
    uploads: int
    configured_bucket: str
    now: Callable[[], float] = time.time
    random: Callable[[], float] = lambda: 0.5


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt at one set: what lies in the spool, what is known of it, and its monitor."""

    found: ImageSet
    record: SetRecord
    monitor: Monitor
    cloud: Cloud | None = None

    def known(self, role: Role) -> MemberRecord | None:
        return next((m for m in self.record.members if m.role == role), None)


Stage = Callable[[Job, Tools], Job]


def work(found: ImageSet, *, before: SetRecord | None, tools: Tools) -> SetRecord:
    """Make one attempt at a set; the record of how it ended. `before` is its record up to now.

    Never raises a UecError: whatever goes wrong is in the record, in the files beside the image, and told.
    """
    job = _begin(found, before, tools)
    try:
        report.check_names(job.record)
        _announce(job, before)
        for name, stage in stages_of(found):
            _stop_if_asked(job, tools)
            job = _keep(job, replace(job.record, stage=name), tools)
            job = stage(job, tools)
        return _succeed(job, tools)
    except Stopped as stopped:
        return _end(job, replace(job.record, state="queued"), tools, _put_down(stopped))
    except UecError as error:
        return _fail(job, error, tools)


def _begin(found: ImageSet, before: SetRecord | None, tools: Tools) -> Job:
    same = before if before and before.stamp == found.stamp else None
    record = SetRecord(
        folder=str(found.folder),
        name=found.name,
        stamp=found.stamp,
        state="working",
        since=tools.now(),
        attempt=(same.attempt if same else 0) + 1,
        cloud=found.sidecar.clouds[0],
        bucket=found.sidecar.bucket,
        arch=found.arch,
        deferrals=same.deferrals if same else 0,
        first_failure=same.first_failure if same else None,
        idle=idle_keys(found.sidecar),
        members=tuple(MemberRecord(m.role, m.path, m.size, m.stamp) for m in found.members),
        fingerprint=before.fingerprint if before else "",
    )
    return Job(found, record, Tee((report.LogFile(found.folder, found.name), tools.monitor)))


def _announce(job: Job, before: SetRecord | None) -> None:
    found, record = job.found, job.record
    report.LogFile(found.folder, found.name).begin(record.attempt, started=record.since)
    if before and before.state in ("working", "queued") and before.stage and before.stamp == found.stamp:
        stage = before.stage
        job.monitor.tell(
            Event(Kind.RESUMED, f"Resuming {found.name} at: {stage}", found.name, fields={"stage": stage})
        )
    parts = [f"{m.role} {m.path} ({amount(m.size)})" for m in found.members]
    given = [f"{role} {i}" for role, i in (("kernel", found.kernel_id), ("ramdisk", found.ramdisk_id)) if i]
    what = f"{found.name}: attempt {record.attempt} on cloud {record.cloud}: {', '.join([*parts, *given])}"
    fields: Fields = {"cloud": record.cloud, "attempt": record.attempt}
    job.monitor.tell(Event(Kind.WORKING, what, found.name, fields=fields))
    if record.idle:
        what = f"{found.name}: these keys have no effect yet: {', '.join(record.idle)}"
        job.monitor.tell(Event(Kind.WORKING, what, found.name, level="warning"))


def _stop_if_asked(job: Job, tools: Tools) -> None:
    if tools.stopping.is_set():
        raise Stopped(
            f"{job.found.name}: put down at: {job.record.stage or 'the beginning'}",
            "the service was asked to stop",
            "It is taken up again at the next start.",
        )


# --- the stages -------------------------------------------------------------------------------------------


def measure(job: Job, tools: Tools) -> Job:
    """Know every member's SHA-256. An unchanged stamp stands for an unchanged content."""
    for member in job.found.members:
        sha256 = tools.ledger.digest(member.stamp) or _digest(job, member, tools)
        job = _with_member(job, member.role, sha256=sha256)
    return job


def _digest(job: Job, member: Member, tools: Tools) -> str:
    def progress(done: int) -> None:
        _stop_if_asked(job, tools)
        job.monitor.progress(Progress(job.found.name, job.record.stage, member.name, done, member.size))

    sha256 = spool.digest(job.found.folder, member.path, stamp=member.stamp, progress=progress)
    tools.ledger.put_digest(member.stamp, sha256)
    return sha256


def hold_against_sums(job: Job, tools: Tools) -> Job:
    """See that every member is what was declared, where anything was."""
    for member, known in zip(job.found.members, job.record.members, strict=True):
        declared = job.found.checksums.get(member.name)
        if declared and declared != known.sha256:
            raise Rejected(
                f"{member.path}: its SHA-256 is not the declared one",
                f"declared {declared}, found {known.sha256}",
                "Copy the file again; if it is the new one that is right, correct the declared sum.",
            )
    return job


def withdraw(job: Job, tools: Tools) -> Job:
    """Take the ids of an earlier content away. Files that were only touched keep theirs all along."""
    fingerprint = fingerprint_of(job.record, job.found)
    if job.record.fingerprint != fingerprint:
        report.retract(job.record)
    return replace(job, record=replace(job.record, fingerprint=fingerprint))


def fingerprint_of(record: SetRecord, found: ImageSet) -> str:
    """A digest of all that makes an image what it is and is called: whenever this differs, there is another
    image to register, under another name."""
    contents = [(m.role, m.sha256) for m in record.members]
    boot = (found.kernel_id, found.ramdisk_id, found.arch, found.sidecar.virtualization)
    traits = (contents, boot, record.cloud, record.bucket, wishes(found))
    return hashlib.sha256(json.dumps(traits).encode()).hexdigest()


def wishes(found: ImageSet) -> tuple[str, ...]:
    """What the sidecar wants the image to be called. A name with the date in it is the same wish tomorrow;
    and who wants no name of his own is content with an image of the same bytes under another's."""
    sidecar = found.sidecar
    named = (sidecar.name, found.name, sidecar.version or "") if "name" in sidecar.given else ()
    return (*named, sidecar.description or "")


def enter_cloud(job: Job, tools: Tools) -> Job:
    """Have clients for the cloud and a bucket that is ours."""
    bucket = job.record.bucket
    check_bucket_name(bucket, from_config=bucket == tools.configured_bucket)
    cloud = tools.gates.enter(job.record.cloud)
    try:
        ensure_bucket(cloud, bucket)
    except Halted as error:
        if bucket == tools.configured_bucket:
            raise
        probe(cloud)  # if that raises, the trouble is all of the cloud's and not one sidecar's
        raise Rejected(error.what, error.why, "Name another bucket in the sidecar, or none.") from error
    return replace(job, cloud=cloud)


def name_it(job: Job, tools: Tools) -> Job:
    """See to it that the image can have its name, before gigabytes go up under a wrong one."""
    assert job.cloud is not None, "the cloud is entered before anything is named"  # noqa: S101 (stage order)
    pattern = job.cloud.dialect.name_pattern
    if job.found.member("machine") is None or pattern is None:
        return job
    name = _registered_name(job, tools)
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
            f"cloud {job.record.cloud} does not take {name}",
            f"Use {NAME_MINIMUM} to {NAME_LIMIT} letters, digits and ( ) / _ - in the sidecar's `name`.",
        )
    return job


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
        return _with_member(job, role, image_id=bundle.image_id, manifest=bundle.location)

    return stage


def _order(job: Job, member: Member, known: MemberRecord, tools: Tools) -> Order:
    found, cloud = job.found, job.cloud
    assert cloud is not None, "the cloud is entered before anything is delivered"  # noqa: S101 (stage order)
    machine = member.role == "machine"

    def sleep(seconds: float) -> None:
        tools.stopping.wait(seconds)
        _stop_if_asked(job, tools)

    return Order(
        set_name=found.name,
        member=member,
        sha256=known.sha256,
        cloud=cloud,
        bucket=job.record.bucket,
        arch=found.arch,
        kernel_id=_id_for_machine(job, "kernel") if machine else None,
        ramdisk_id=_id_for_machine(job, "ramdisk") if machine else None,
        name=_registered_name(job, tools) if machine else None,
        description=found.sidecar.description if machine else None,
        wishes=wishes(found) if machine else (),
        virtualization=found.sidecar.virtualization if machine else None,
        uploads=tools.uploads,
        monitor=Tee((job.monitor, report.ReportFile(job.record))),
        check=lambda: _stop_if_asked(job, tools),
        sleep=sleep,
    )


def _id_for_machine(job: Job, role: Role) -> str | None:
    given = job.found.kernel_id if role == "kernel" else job.found.ramdisk_id
    return given or job.record.image_id(role) or None


def _registered_name(job: Job, tools: Tools) -> str:
    when = datetime.fromtimestamp(tools.now(), UTC)
    found = job.found
    return render_name(
        found.sidecar.name,
        stem=found.name,
        sha256=job.record.fingerprint,
        arch=found.arch,
        version=found.sidecar.version,
        when=when,
    )


def publish(job: Job, tools: Tools) -> Job:
    """Tell what came of it, then put the files beside the image: the log before the JSON before the ids."""
    ids = {m.role: m.image_id for m in job.record.members}
    seconds = round(tools.now() - job.record.since, 1)
    what = ids.get("machine") or ids.get("kernel") or ids.get("ramdisk", "")
    others = [f"{role} {ids[role]}" for role in ("kernel", "ramdisk") if role in ids and ids[role] != what]
    given = [f"{r} {i}" for r, i in (("kernel", job.found.kernel_id), ("ramdisk", job.found.ramdisk_id)) if i]
    with_them = f" with {' and '.join([*others, *given])}" if others or given else ""
    job.monitor.tell(
        Event(
            Kind.DONE,
            f"{job.found.name} is {what}{with_them}, {seconds} s after the attempt began",
            job.found.name,
            fields={**_id_fields(job.record), "cloud": job.record.cloud, "seconds": seconds},
        )
    )
    report.publish(replace(job.record, state="done", stage="", since=tools.now()))
    return job


def _id_fields(record: SetRecord) -> dict[str, str]:
    names: tuple[tuple[str, Role], ...] = (("emi", "machine"), ("eki", "kernel"), ("eri", "ramdisk"))
    return {name: image_id for name, role in names if (image_id := record.image_id(role))}


def stages_of(found: ImageSet) -> tuple[tuple[str, Stage], ...]:
    """What is done with a set, in order, and what each step is called."""
    return (
        ("read the files", measure),
        ("withdraw what is no longer so", withdraw),
        ("check the sums", hold_against_sums),
        ("enter the cloud", enter_cloud),
        ("name the image", name_it),
        *((f"deliver the {ROLE_WORDS[m.role]}", deliver(m.role)) for m in found.members),
        ("publish", publish),
    )


# --- how it ends ------------------------------------------------------------------------------------------


def _succeed(job: Job, tools: Tools) -> SetRecord:
    tools.gates.came_through(job.record.cloud)
    done = replace(job.record, state="done", stage="", since=tools.now(), deferrals=0, first_failure=None)
    return tools.ledger.put_set(done)


def _fail(job: Job, error: UecError, tools: Tools) -> SetRecord:
    record = failed(job.record, error, now=tools.now(), spread=tools.random())
    if isinstance(error, Halted):
        tools.gates.close(job.record.cloud, error)
    return _end(job, record, tools, failure_event(record))


def show_refusal(record: SetRecord, tools: Tools) -> None:
    """Tell of a set that cannot even be begun, in the journal and beside its files."""
    monitor = Tee((report.LogFile(Path(record.folder), record.name), tools.monitor))
    monitor.tell(failure_event(record))
    _attempt(record, tools, lambda: report.retract(record), lambda: report.publish(record))


def _put_down(stopped: Stopped) -> Event:
    return Event(Kind.STOPPING, f"{stopped.what}: {stopped.why}. {stopped.hint}")


def _end(job: Job, record: SetRecord, tools: Tools, event: Event) -> SetRecord:
    """Show and keep a record that ends an attempt, as far as the disks let us."""
    job.monitor.tell(replace(event, set=record.name))
    _attempt(record, tools, lambda: report.publish(record), lambda: tools.ledger.put_set(record))
    return record


def _attempt(record: SetRecord, tools: Tools, *steps: Callable[[], object]) -> None:
    """Do what can be done of several last things, and tell what cannot."""
    for step in steps:
        try:
            step()
        except UecError as trouble:
            what = f"{record.name}: {trouble}"
            tools.monitor.tell(Event(Kind.FAULT, what, record.name, level="error"))


def _keep(job: Job, record: SetRecord, tools: Tools) -> Job:
    """Write down where the job stands: first to the ledger, the truth, then to its copy for people."""
    tools.ledger.put_set(record)
    report.publish(record)
    job.monitor.progress(Progress(record.name, record.stage, "", 0, 0))
    return replace(job, record=record)


def _with_member(job: Job, role: Role, **changes: str) -> Job:
    members = tuple(_changed(job.record.members, role, changes))
    return replace(job, record=replace(job.record, members=members))


def _changed(
    members: tuple[MemberRecord, ...], role: Role, changes: dict[str, str]
) -> Iterator[MemberRecord]:
    for member in members:
        yield replace(member, **changes) if member.role == role else member  # type: ignore[arg-type]
