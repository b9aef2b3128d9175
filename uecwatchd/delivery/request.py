"""An upload: the facts of one member image, and the tools to bring it into one cloud."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from uecwatchd.bundle.kept_bundles import Content, KeptBundles
from uecwatchd.bundle.upload_slots import UploadSlots
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.request_retry import RetryPolicy
from uecwatchd.config.records import WorkSettings
from uecwatchd.delivery.begun import BegunLook
from uecwatchd.delivery.limits import CloudLimits
from uecwatchd.events import Event, Kind, Listener, Progress
from uecwatchd.intake.sets.records import Member
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import BegunBundles
from uecwatchd.system.clocks import Clocks
from uecwatchd.types import Arch, ContentDigest, Role, SetId


@dataclass(frozen=True, slots=True)
class BootFiles:
    """The registered kernel and ramdisk of a machine, each None if there is none.

    `traits` tells the two from all others by their content. Their ids may change: a kernel that left the
    cloud is registered again under another id.
    """

    traits: tuple[str, str] = ("", "")
    kernel: str | None = None
    ramdisk: str | None = None

    def __str__(self) -> str:
        return f"{self.kernel or ''} {self.ramdisk or ''}".strip()


@dataclass(frozen=True, slots=True)
class MachineTraits:
    """Properties that only machine images have: sets share kernels and ramdisks, so no set names those."""

    boot: BootFiles = field(default_factory=BootFiles)
    name: str | None = None  #: where the cloud takes one
    description: str | None = None
    virtualization: str | None = None
    platform: str = "linux"
    is_whole_disk: bool = False  #: paravirtual, with a partition table
    name_traits: tuple[str, ...] = ()  #: tells it from images of the same bytes under other names


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """One member image to be uploaded to one cloud and registered there."""

    made_for: SetId
    owner: int | None  #: uid that the set belongs to; None where the users trust each other
    member: Member
    digest: ContentDigest  #: content at scan time; checked again while reading
    arch: Arch
    bucket: str
    must_be_new: bool  #: refuse an image that is there already, unless this set began it
    waited: Mapping[str, float]  #: seconds that the set has waited for pending images, by their ids
    machine: MachineTraits = field(default_factory=MachineTraits)

    @property
    def content(self) -> Content:
        """The key of its bundle among those that are kept for other clouds."""
        return self.member.role, self.digest


@dataclass(frozen=True, slots=True)
class UploadTools:
    """Clients, clocks and callbacks of an upload, the same for all members of a set."""

    cloud: Cloud
    ledger: Ledger
    listener: Listener
    work: WorkSettings
    slots: UploadSlots  #: shared by all uploads of the service
    limits: CloudLimits  #: shared by all hosts
    patience: RetryPolicy
    check_stop: Callable[[], None]  #: called between parts; raises Stopped
    check_files: Callable[[], None]  #: raises Deferred when a file of the set has changed
    sleep: Callable[[float], None]  #: for seconds; raises what `check_stop` does
    note_parts: Callable[[Role, int], None]  #: called with the number of parts in the bucket
    clocks: Clocks
    kept: KeptBundles  #: for the next clouds of the set
    host: str  #: of this service, as in the tags of its images
    on_trial: bool = False  #: a test boot or a hook may withdraw what is registered
    begun: BegunLook = field(default_factory=BegunLook)

    def begun_for(self, request: UploadRequest) -> BegunBundles:
        """Return the bundles of the set that the ledger has."""
        name, made_for = self.cloud.name, request.made_for
        return self.begun.found(lambda contents: self.ledger.begun(name, contents, made_for=made_for))


def arch_word(request: UploadRequest, cloud: Cloud) -> str:
    """Return the cloud's word for the architecture, which was checked before the upload."""
    return cloud.dialect.architectures.get(request.arch, request.arch)


def tell_waiting(request: UploadRequest, verb: str, tools: UploadTools) -> Callable[[str], None]:
    """Return a function that shows what a set waits for, given as a clause, and tells it once.

    `verb` is what it waits to do with the member, such as "upload".
    """
    told = set[str]()
    stage = f"{verb} the {request.member.role}"

    def tell(clause: str) -> None:
        tools.listener.progress(Progress(request.made_for, stage, clause, 0, 0))
        if clause not in told:
            told.add(clause)
            what = f"{request.made_for.name}: {clause}"
            tools.listener.tell(Event(Kind.WORKING, what, request.made_for, fields={"stage": stage}))

    return tell
