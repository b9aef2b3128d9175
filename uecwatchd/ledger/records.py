"""What the ledger remembers, as frozen records."""

from dataclasses import dataclass
from typing import Literal

from uecwatchd.bundle.names import manifest_name
from uecwatchd.types import FileStamp, Role, SetId, StoredObject

State = Literal["waiting", "queued", "working", "done", "rejected", "deferred", "halted"]
BundleState = Literal["planned", "uploaded", "registering", "registered"]
Way = Literal["archive", "delete"]
Verb = Literal["retry", "forget"]


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as it is kept and shown. `kind` is rejected, deferred or halted, `exit_code` a command's."""

    kind: str
    what: str
    why: str
    hint: str
    request_id: str = ""
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Furnished:
    """What an image was given for a set beside its bytes: the keys of tags, and whether it was described."""

    image_id: str
    tags: tuple[str, ...] = ()
    described: bool = False


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """A member as it was used. `image_id` and `manifest` ("bucket/key") are empty until there are any.

    `parts` is the most parts of it that have lain in the bucket; `pending` the id of an image that the cloud
    is still at work on.
    """

    role: Role
    path: str
    size: int
    stamp: FileStamp
    sha256: str = ""
    image_id: str = ""
    manifest: str = ""
    parts: int = 0
    pending: str = ""
    furnished: Furnished | None = None


@dataclass(frozen=True, slots=True)
class SetRecord:
    """Times are seconds of the epoch. `since` is when the state began, `first_failure` when this job's first
    deferral was, moved on by what was not spent on trying since; `reason` is what a waiting set waits for;
    `idle` the sidecar keys without effect yet; `owner` the uid that the name belongs to, None where no look
    at the files has told it yet."""

    folder: str
    name: str
    stamp: str
    state: State
    since: float
    stage: str = ""
    attempt: int = 0
    next_retry: float | None = None
    reason: str = ""
    cloud: str = ""
    bucket: str = ""
    arch: str = ""
    deferrals: int = 0  # in a row, since `first_failure`
    first_failure: float | None = None
    idle: tuple[str, ...] = ()
    members: tuple[MemberRecord, ...] = ()
    fingerprint: str = ""  # of all that the ids stand for
    remarks: tuple[str, ...] = ()  # what an image that is registered did not get of what was asked for it
    error: Failure | None = None
    owner: int | None = None

    @property
    def id(self) -> SetId:
        return SetId(self.folder, self.name)

    @property
    def awaits_cloud(self) -> bool:
        """Whether there is nothing to do for it before the cloud is done with an image. `since` is then when
        that became pending."""
        return self.state == "waiting" and any(member.pending for member in self.members)

    def image_id(self, role: Role) -> str:
        return next((m.image_id for m in self.members if m.role == role), "")


@dataclass(frozen=True, slots=True)
class BundleRecord:
    """`identity` is a digest of all that makes the bundle what it is; `prefix` begins its keys in the bucket.

    The key and the IV are kept until it is registered: the same source then gives the same parts again.
    `made_for` is the folder and name of the set that began it, or then of the one that had it registered.
    `registered` is in seconds of the epoch, None for one that was found in the cloud. `objects` is what was
    sent to the bucket; `boot` the ids of kernel and ramdisk in the manifest among them, `sealed` a digest of
    the certificates and the key that it was made with.
    While it is `registering`, `image_id` is that of an image which is pending; while it is `uploaded`, of one
    that is to be deregistered before another is registered. `renewed` is that this was done.
    `owner` is the uid that its set belongs to, None where that is not known.
    """

    cloud: str
    bucket: str
    identity: str
    role: Role
    sha256: str
    prefix: str
    state: BundleState
    secret_key: bytes | None = None
    secret_iv: bytes | None = None
    parts: int = 0
    bundled_size: int = 0
    image_id: str = ""
    made_for: str = ""
    registered: float | None = None
    objects: tuple[StoredObject, ...] = ()
    boot: str = ""
    sealed: str = ""
    renewed: bool = False
    owner: int | None = None

    def __repr__(self) -> str:
        return f"BundleRecord({self.cloud}, {self.bucket}/{self.prefix}, {self.state}, {self.image_id})"

    @property
    def location(self) -> str:
        return f"{self.bucket}/{manifest_name(self.prefix)}"


@dataclass(frozen=True, slots=True)
class Leaving:
    """A finished set's file that is about to leave its folder, archived or deleted."""

    folder: str
    path: str
    stamp: FileStamp
    way: Way


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asked to be done with a set. `number` tells the order; 0 before it is written down."""

    folder: str
    name: str
    verb: Verb
    number: int = 0

    @property
    def set_id(self) -> SetId:
        return SetId(self.folder, self.name)


@dataclass(frozen=True, slots=True)
class Advance:
    """How far the work on a set had come at `moment`, and when this stage began: both seconds of the epoch.

    `done` and `total` are bytes of the member `file`; `part` counts from 1, and is 0 where there are none.
    """

    folder: str
    name: str
    stage: str
    file: str
    done: int
    total: int
    part: int
    began: float
    moment: float
