"""A job on its way through the stages, and their shared tools."""

import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from uecwatchd.bundle.kept_bundles import KeptBundles
from uecwatchd.bundle.upload_slots import UploadSlots
from uecwatchd.clouds.access import CloudAccess
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.request_retry import RetryPolicy
from uecwatchd.config.installation import InstallSettings
from uecwatchd.config.records import CloudSettings, HookSettings, StateSettings, WorkSettings
from uecwatchd.config.retention import RetentionRule
from uecwatchd.delivery.limits import CloudLimits
from uecwatchd.errors import Stopped
from uecwatchd.events import Event, Fields, Kind, Level, Listener
from uecwatchd.images.formats.open import DiskAccess
from uecwatchd.intake.sets.origin import InstalledDisk
from uecwatchd.intake.sets.records import ImageSet, Member
from uecwatchd.ledger.api import CHECK_SECONDS, Ledger
from uecwatchd.ledger.records import (
    AppliedAttributes,
    BundleRecord,
    MemberRecord,
    SetRecord,
    TargetImage,
    TargetRecord,
)
from uecwatchd.ledger.standing import with_waits
from uecwatchd.outputs.wording import command
from uecwatchd.service.attempt.notes import AttemptNotes
from uecwatchd.service.boot_threads import BootThreads
from uecwatchd.service.interrupts import NEXT, Interrupts
from uecwatchd.service.reporting import Reporting
from uecwatchd.service.work_folder import work_folder
from uecwatchd.system.clocks import Clocks
from uecwatchd.types import ContentDigest, Role, SetId


@dataclass(frozen=True, slots=True)
class AttemptTools:
    """Tools that the stages of all attempts share."""

    ledger: Ledger
    state_folder: Path
    clouds: CloudAccess
    reporting: Reporting
    stopping: threading.Event  #: set when the service is to end
    work: WorkSettings
    slots: UploadSlots
    configured_bucket: str
    limits: CloudLimits = field(default_factory=CloudLimits)
    boot_threads: BootThreads = field(default_factory=BootThreads)
    hooks: HookSettings = field(default_factory=HookSettings)
    cloud_settings: Mapping[str, CloudSettings] = field(default_factory=dict)
    work_folder: Path = StateSettings().work_folder  #: for files that are made for sets
    interrupts: Interrupts = field(default_factory=Interrupts)
    access: DiskAccess = field(default_factory=DiskAccess)
    install: InstallSettings = field(default_factory=InstallSettings)
    host: str = socket.gethostname()
    clocks: Clocks = field(default_factory=Clocks)
    started: float = float("-inf")  #: when this service started; by default before everything
    patience: RetryPolicy = field(default_factory=RetryPolicy)
    retention_of: Callable[[Path], RetentionRule] = lambda _folder: RetentionRule()


class UploadedParts:
    """Number of parts of each member in the bucket, sent or found by one attempt. Shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _parts
        self._parts: dict[Role, int] = {}

    def note(self, role: Role, parts: int) -> None:
        with self._lock:
            self._parts[role] = max(parts, self._parts.get(role, 0))

    def applied_to(self, images: Iterable[TargetImage]) -> tuple[TargetImage, ...]:
        """Return the images with the largest number of parts, from this attempt and earlier ones."""
        with self._lock:
            return tuple(replace(one, parts=max(one.parts, self._parts.get(one.role, 0))) for one in images)


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt at one set, as it passes from stage to stage."""

    found: ImageSet  #: the files, as the scan found them
    record: SetRecord
    listener: Listener
    notes: AttemptNotes  #: for the history; they are one of the listeners
    kept: KeptBundles  #: for the next clouds of the set
    connected: Cloud | None = None
    fresh_until: float | None = None  #: when the files stop being fresh, from an earlier attempt
    uploaded: UploadedParts = field(default_factory=UploadedParts)
    waited: Mapping[str, float] = field(default_factory=dict)  #: seconds, by id of a pending image
    before: SetRecord | None = None  #: the record before this attempt
    on_trial: tuple[BundleRecord, ...] = ()  #: of images that this set made and has not published

    def known(self, role: Role) -> MemberRecord | None:
        return next((m for m in self.record.members if m.role == role), None)

    @property
    def target(self) -> TargetRecord:
        """The record of the set on the cloud of this attempt."""
        return self.record.target

    def with_target(self, **changes: object) -> "Job":
        """Return the job with changed fields of its target."""
        target = replace(self.target, **changes)  # type: ignore[arg-type]
        return replace(self, record=self.record.with_target(target))

    def reached(self) -> SetRecord:
        """Return the record with the number of parts that this attempt has reached."""
        return self.with_target(images=self.uploaded.applied_to(self.target.images)).record

    @property
    def cloud(self) -> Cloud:
        """The cloud, in the stages after `connect`."""
        assert self.connected is not None, "the job is connected first"  # noqa: S101 (the order of the stages)
        return self.connected

    @property
    def made_for(self) -> SetId:
        """The key of the set in the ledger's bundles."""
        return self.record.id


Stage = Callable[[Job, AttemptTools], Job]


def stop_if_asked(job: Job, tools: AttemptTools) -> None:
    """Raise Stopped if the service is to end, or the set is held or to be forgotten."""
    what = f"{job.found.name}: stopped at: {job.record.stage or 'the beginning'}"
    if tools.stopping.is_set():
        raise Stopped(what, "the service was asked to stop", "It continues at the next start.")
    if why := tools.interrupts.reason(job.record.id, job.record.cloud):
        scope = "" if tools.interrupts.reason(job.record.id) else job.record.cloud
        release = command("release", job.record.id, scope)
        raise Stopped(what, why, NEXT[why].format(release=release))


def pause(seconds: float, tools: AttemptTools, check: Callable[[], None]) -> None:
    """Wait, and call `check` at least once a second, which may raise to end the wait."""
    end = time.monotonic() + seconds
    while not tools.stopping.wait(min(CHECK_SECONDS, max(0.0, end - time.monotonic()))):
        check()
        if time.monotonic() >= end:
            return
    check()


def tell(job: Job, kind: Kind, what: str, *, level: Level = "info", fields: Fields | None = None) -> None:
    """Send an event about a set, with its name in front."""
    found = job.found
    job.listener.tell(Event(kind, f"{found.name}: {what}", found.id, level=level, fields=fields or {}))


def folder_of(job: Job, member: Member, tools: AttemptTools) -> Path:
    """Return the folder that the path of a member is relative to."""
    found = job.found
    if isinstance(member.origin, InstalledDisk):
        return tools.install.builds
    return work_folder(tools.work_folder, found.id, found.stamp) if member.origin else found.folder


def with_members(job: Job, found: ImageSet) -> Job:
    """Return the job with the set as it is known now: its members, and the clouds that it goes to.

    A sidecar in an archive may name other clouds than the one at hand: then the first of them is.
    """
    cloud = job.found.target_cloud
    found = found.on(cloud if cloud in found.clouds and cloud not in found.waits else "")
    found = found.on(found.target_cloud)
    members = (
        MemberRecord(
            m.role,
            m.path,
            m.size,
            m.stamp,
            container=m.container,
            reading=m.reading,
            origin=str(m.origin or ""),
        )
        for m in found.members
    )
    record = replace(
        job.record,
        arch=found.arch,
        members=tuple(members),
        cloud=found.target_cloud,
        targets=_targets(found, job.before),
    )
    record = with_waits(record, found.waits, now=job.record.since)
    return replace(job, found=found, record=record)


def _targets(found: ImageSet, before: SetRecord | None) -> tuple[TargetRecord, ...]:
    """Return the targets as an attempt begins: no ids yet on its cloud. `before` may be of other files."""
    same = before if before and before.stamp == found.stamp else None
    targets = {one.cloud: replace(one, is_current=False) for one in (before.targets if before else ())}
    for place, cloud in enumerate(found.clouds):
        old = targets.get(cloud, TargetRecord(cloud))
        is_kept = same is not None and cloud in targets and cloud != found.target_cloud
        new = old if is_kept else _without_ids(old, found, is_same=same is not None)
        is_required = cloud not in found.sidecar.best_effort
        targets[cloud] = replace(new, is_current=True, place=place, is_required=is_required)
    return tuple(targets[cloud] for cloud in sorted(targets))


def _without_ids(old: TargetRecord, found: ImageSet, *, is_same: bool) -> TargetRecord:
    images = (
        TargetImage(
            m.role,
            parts=old.image(m.role).parts if is_same else 0,
            attributes=old.image(m.role).attributes,
        )
        for m in found.members
    )
    return TargetRecord(old.cloud, found.sidecar.bucket, tuple(images), fingerprint=old.fingerprint)


def with_digest(job: Job, role: Role, digest: ContentDigest) -> Job:
    """Return the job with the digest of one member."""
    members = (replace(one, digest=digest) if one.role == role else one for one in job.record.members)
    return replace(job, record=replace(job.record, members=tuple(members)))


def with_member(job: Job, member: Member) -> Job:
    """Return the job with one member replaced, and its size in the record."""
    found = tuple(member if one.role == member.role else one for one in job.found.members)
    known = (replace(one, size=member.size) if one.role == member.role else one for one in job.record.members)
    record = replace(job.record, members=tuple(known))
    return replace(job, found=replace(job.found, members=found), record=record)


def with_image(job: Job, role: Role, **changes: str | AppliedAttributes | None) -> Job:
    """Return the job with one image of its target changed."""
    images = (
        replace(one, **changes) if one.role == role else one  # type: ignore[arg-type]
        for one in job.target.images
    )
    return job.with_target(images=tuple(images))


def main_member(found: ImageSet) -> Member:
    """Return the main member: the machine image, or the only kernel or ramdisk."""
    return found.member("machine") or found.members[0]


def fingerprint_of(record: SetRecord, found: ImageSet) -> str:
    """Return a digest of everything that determines an image and its name.

    If it differs, there is another image to register, under another name.
    """
    contents = [(m.role, m.digest) for m in record.members]
    boot = (found.kernel_id, found.ramdisk_id, found.arch, found.virtualization, found.sidecar.platform)
    traits = (contents, boot, record.target.cloud, record.target.bucket, name_traits(found))
    return hashlib.sha256(json.dumps(traits).encode()).hexdigest()


def name_traits(found: ImageSet) -> tuple[str, ...]:
    """Return the wanted name of the image, as in the sidecar.

    A name with a date is the same name tomorrow. Without a name, an image with the same bytes under any name
    is accepted.
    """
    sidecar = found.sidecar
    return (sidecar.name, found.name, sidecar.version or "") if "name" in sidecar.given else ()
