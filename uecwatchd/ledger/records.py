"""The records of the ledger."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from uecwatchd.bundle.names import manifest_name
from uecwatchd.images.guest.summary import ImageSummary
from uecwatchd.types import ContentDigest, FileStamp, Reading, Role, SetId, StoredObject

State = Literal["waiting", "queued", "working", "done", "rejected", "deferred", "halted", "withdrawn"]
BundleState = Literal["planned", "uploaded", "registering", "registered"]
Removal = Literal["archive", "delete"]
BuildState = Literal["queued", "running", "done", "failed"]
# `mark` is asked for by the service itself: to mark the image in use as the latest.
Verb = Literal["retry", "forget", "withdraw", "rollback", "prune", "mark"]
# The stage that waits for a build, and the first one that a cloud has a part in.
INSTALL_STAGE, CONNECT_STAGE = "install the system", "connect to the cloud"
# The stage in which the ids appear beside the image, a moment before the ledger has the set as done.
LAST_STAGE = "publish"
NOT_READ = ContentDigest("")


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as it is stored and shown.

    `kind` is rejected, deferred or halted; `exit_code` is for commands. `console` are the last lines of an
    instance, if a test boot has failed.
    """

    kind: str
    what: str
    why: str
    hint: str
    request_id: str = ""
    exit_code: int = 0
    console: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AppliedAttributes:
    """Attributes that an image got for a set: the keys of tags, and `described` for a description."""

    image_id: str
    tags: tuple[str, ...] = ()
    described: bool = False


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """A member that was used: the file, and the size in bytes and the digest of its image.

    The image is the disk in the file if that is a container, and then `container` is its format; `reading` is
    how the image is taken from the file, empty in a record from before there were parts. `origin` says in
    words how the file was made, and is empty for one of the spool folder.
    `prepared` are the changes that it has compared with the file, as sentences; None if none were to be made.
    """

    role: Role
    path: str
    size: int
    stamp: FileStamp
    digest: ContentDigest = NOT_READ
    container: str = ""
    reading: Reading = ""
    origin: str = ""
    prepared: tuple[str, ...] | None = None

    @property
    def how(self) -> Reading:
        return self.reading or ("disk" if self.container else "file")


@dataclass(frozen=True, slots=True)
class TargetImage:
    """The image of one member on one cloud.

    `image_id` and `manifest` ("bucket/key") are empty until they exist. `parts` is the largest number of its
    parts that were in the bucket; `pending` is the id of an image that the cloud has not finished.
    """

    role: Role
    image_id: str = ""
    manifest: str = ""
    parts: int = 0
    pending: str = ""
    attributes: AppliedAttributes | None = None


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """The state of a set on one cloud, with its own attempts; see the same fields of `SetRecord`."""

    state: State
    since: float
    stage: str = ""
    next_retry: float | None = None
    reason: str = ""
    deferrals: int = 0
    first_failure: float | None = None
    error: Failure | None = None
    attempt: int = 0
    began: float = 0.0


@dataclass(frozen=True, slots=True)
class TargetRecord:
    """A set on one cloud: the facts that differ if the same files go to another cloud."""

    cloud: str
    bucket: str = ""
    images: tuple[TargetImage, ...] = ()  #: one for each member, in the same order
    fingerprint: str = ""  #: of everything that the ids identify
    remarks: tuple[str, ...] = ()  #: requested attributes that a registered image did not get
    is_current: bool = True  #: the set goes there now; otherwise it did earlier, and its images are there
    place: int = 0  #: in the list of the clouds that the set goes to
    is_required: bool = True  #: the set is not done without it
    #: None before the first attempt there, and for the cloud that the fields of the set are about
    status: TargetStatus | None = None

    def image(self, role: Role) -> TargetImage:
        """Return the image of a role, an empty one if there is none."""
        return next((image for image in self.images if image.role == role), TargetImage(role))


NO_TARGET = TargetRecord("")


@dataclass(frozen=True, slots=True)
class BuildSource:
    """A file that a system is installed from. `use` is its key in the recipe: "iso", "answers"."""

    use: str
    name: str
    digest: ContentDigest


@dataclass(frozen=True, slots=True)
class SetBuild:
    """The installation of the system of a set, as it was last looked at.

    Times are seconds of the epoch. `last_line` is from the console of the machine; `logged` is the number of
    bytes of that console which are in the log of the set.
    """

    key: str
    sources: tuple[BuildSource, ...]
    state: BuildState = "queued"
    keeps_disk: bool = False  #: after the set is done
    stage: str = ""
    began: float = 0.0
    stage_began: float = 0.0
    last_line: str = ""
    logged: int = 0

    @property
    def is_open(self) -> bool:
        """True until the disk is there, or there will be none."""
        return self.state in ("queued", "running")


@dataclass(frozen=True, slots=True)
class SetRecord:
    """The state of one set. Times are seconds of the epoch.

    A set may go to several clouds. Then its state, stage, attempt, retry times, reason and error are those of
    `cloud`, and the others have theirs in their targets: `ledger.standing` looks at a set from each cloud.

    `since` is when the state began, `began` when the attempt did: a wait for the cloud is a part of it.
    `first_failure` is when this job was first deferred, moved forward by time that was not spent on attempts.
    `reason` is what a waiting set waits for. `owner` is the uid that owns the name, None until a scan has
    found it. `inspection` is what is in the machine image, None until it was looked into. `build` is the
    installation that makes that image, None without a recipe.
    """

    id: SetId
    stamp: str
    state: State
    since: float
    cloud: str = ""  # empty before the first attempt
    stage: str = ""
    attempt: int = 0
    next_retry: float | None = None
    reason: str = ""
    arch: str = ""
    deferrals: int = 0  # in a row, since `first_failure`
    first_failure: float | None = None
    members: tuple[MemberRecord, ...] = ()
    targets: tuple[TargetRecord, ...] = ()
    error: Failure | None = None
    owner: int | None = None
    inspection: ImageSummary | None = None
    build: SetBuild | None = None
    began: float = 0.0

    @property
    def folder(self) -> str:
        return self.id.folder

    @property
    def name(self) -> str:
        return self.id.name

    @property
    def awaits_cloud(self) -> bool:
        """True if the set waits for something in its cloud; it goes on with the stage that it has reached.

        `since` is then when the wait began.
        """
        is_pending = any(image.pending for image in self.target.images)
        return self.state == "waiting" and (self.stage not in ("", INSTALL_STAGE) or is_pending)

    @property
    def awaits_requirements(self) -> bool:
        """True if its cloud needs more than the set has, or has not been identified."""
        return self.awaits_cloud and self.stage == CONNECT_STAGE

    @property
    def awaits_build(self) -> bool:
        """True if there is nothing to do until its system is installed."""
        is_open = self.build is not None and self.build.is_open
        return self.state == "waiting" and is_open and bool(self.stamp)  # without files there is no stamp

    @property
    def target(self) -> TargetRecord:
        """The target on the cloud that the fields are about, an empty one if no attempt has begun."""
        return self.target_on(self.cloud) if self.cloud else NO_TARGET

    @property
    def current(self) -> tuple[TargetRecord, ...]:
        """The targets that the set goes to now, in the order of its list of clouds."""
        there = (target for target in self.targets if target.is_current)
        return tuple(sorted(there, key=lambda target: target.place))

    def target_on(self, cloud: str) -> TargetRecord:
        """Return the target on a cloud, an empty one if there is none."""
        return next((target for target in self.targets if target.cloud == cloud), TargetRecord(cloud))

    def with_target(self, target: TargetRecord) -> "SetRecord":
        """Return the record with this target in place of the one on the same cloud, if there is one."""
        others = (one for one in self.targets if one.cloud != target.cloud)
        return replace(self, targets=tuple(sorted((*others, target), key=lambda one: one.cloud)))

    def image_id(self, role: Role) -> str:
        return self.target.image(role).image_id


@dataclass(frozen=True, slots=True)
class BundleRecord:
    """One bundle. `identity` is a digest of everything that determines it; `prefix` is the start of its keys.

    The key and the IV are kept until it is registered, so that the same source gives the same parts again.
    `made_for` is the folder and name of the set that started it, or later of the one that registered it.
    `registered` is in seconds of the epoch, None if it was found in the cloud. `objects` are the objects sent
    to the bucket; `boot` are the ids of kernel and ramdisk in the manifest; `sealed` is a digest of the
    certificates and the key that were used; `archive_name` is that of the image in the archive, the same for
    all clouds of a set, and empty in records of older versions. While it is `registering`, `image_id` is that
    of a pending image; while it is `uploaded`, that of an image to be deregistered before a second
    registration. `renewed` is True after this was done. `owner` is the uid of its set's owner, None if
    unknown. `generation` counts how often a host took the upload over from a dead one, and began it
    again under other names. `on_trial` is True from the registration until its set is published, if a test
    boot or a hook may withdraw the image.
    """

    cloud: str
    bucket: str
    identity: str
    role: Role
    digest: ContentDigest
    prefix: str
    state: BundleState
    secret_key: bytes | None = None
    secret_iv: bytes | None = None
    parts: int = 0
    bundled_size: int = 0
    image_id: str = ""
    made_for: SetId | None = None
    registered: float | None = None
    objects: tuple[StoredObject, ...] = ()
    boot: str = ""
    sealed: str = ""
    renewed: bool = False
    owner: int | None = None
    on_trial: bool = False
    archive_name: str = ""
    generation: int = 0

    def __repr__(self) -> str:
        return f"BundleRecord({self.cloud}, {self.bucket}/{self.prefix}, {self.state}, {self.image_id})"

    @property
    def name_inside(self) -> str:
        """The name of the image in the archive, which older versions took from the keys."""
        return self.archive_name or self.prefix

    @property
    def location(self) -> str:
        return f"{self.bucket}/{manifest_name(self.prefix)}"

    @property
    def claim(self) -> str:
        """The name that it is claimed by."""
        return f"{self.cloud}/{self.identity}"


@dataclass(frozen=True, slots=True)
class BegunBundles:
    """The bundles of a cloud that matter to a set, at one moment; `claimed` are identities among them."""

    bundles: tuple[BundleRecord, ...] = ()
    claimed: frozenset[str] = frozenset()

    def get(self, identity: str) -> BundleRecord | None:
        return next((one for one in self.bundles if one.identity == identity), None)

    def machines(self, digest: ContentDigest) -> Mapping[str, BundleRecord]:
        """Return the bundles of one machine image, begun or registered, by identity."""
        found = (one for one in self.bundles if one.role == "machine" and one.digest == digest)
        return {one.identity: one for one in found}

    def unpublished(self, set_id: SetId, role: Role) -> tuple[BundleRecord, ...]:
        """Return the bundles begun by a set and not registered, or still on trial."""
        made = (one for one in self.bundles if one.made_for == set_id and one.role == role)
        return tuple(one for one in made if one.state != "registered" or one.on_trial)


@dataclass(frozen=True, slots=True)
class LeavingFile:
    """A file of a finished set that is about to be archived or deleted."""

    folder: str
    path: str
    stamp: FileStamp
    way: Removal


@dataclass(frozen=True, slots=True)
class Request:
    """A request about a set. `number` gives the order; it is 0 before it is stored.

    `cloud` is the only cloud that it is about, empty for all.
    """

    set_id: SetId
    verb: Verb
    number: int = 0
    cloud: str = ""  #: that it is about; empty for all
    image_id: str = ""  #: that is to become the current one, in a rollback
    due: float | None = None  #: not before, in seconds of the epoch; None if a person asked for it now


@dataclass(frozen=True, slots=True)
class Asked:
    """Open requests of people, in order, and holds with their times."""

    requests: tuple[Request, ...] = ()
    holds: Mapping[SetId, float] = field(default_factory=dict)
    cloud_holds: Mapping[SetId, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProgressRecord:
    """The progress of the work on a set at `moment`; `began` is the start of the stage.

    Both in seconds of the epoch. `done` and `total` are bytes of the member `file`; `part` counts from 1, and
    is 0 if there are no parts.
    """

    set_id: SetId
    stage: str
    file: str
    done: int
    total: int
    part: int
    began: float
    moment: float
