"""What is to be delivered, where, and with which tools."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from uecwatchd.bundle.upload_slots import UploadSlots
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.patience import RetryPolicy
from uecwatchd.config.records import Compression
from uecwatchd.events import Monitor
from uecwatchd.intake.sets.records import Member
from uecwatchd.types import Arch, ContentDigest


@dataclass(frozen=True, slots=True)
class BootIds:
    """The registered kernel and ramdisk that a machine boots with, where it has them."""

    kernel: str | None = None
    ramdisk: str | None = None

    def __str__(self) -> str:
        return f"{self.kernel or ''} {self.ramdisk or ''}".strip()


@dataclass(frozen=True, slots=True)
class Boot:
    """What a machine boots with.

    `traits` tells kernel and ramdisk from all others before they are registered. `ids` waits until they are,
    and raises what kept them from it.
    """

    traits: tuple[str, str]
    ids: Callable[[], BootIds]


NO_BOOT = Boot(("", ""), BootIds)


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be delivered where. `check` is called between parts and raises when work is to be put down.

    `name` is the name a machine image gets where the cloud takes one; kernels and ramdisks are named after
    their content, because many sets share them. `wishes` are traits of an image beside its content.
    `made_for` is the set's folder and name; `unique` refuses an image that is there and not this set's.
    `whole_disk` is a paravirtual machine with a partition table. `full` has each bundle fetched and opened
    before it is registered. `sparse` has holes left out of the bundle. `unchanged` raises when a file of the
    set is not any more what was listed. `turn` is held while it is sent, on its share of `slots`. `sleep`
    raises as `check` does. `arrived` hears how many parts lie in the bucket. `waited` is for how many seconds
    the set has waited for images, by their ids. `spread` gives numbers from 0 to 1. `owner` is the uid that
    the set belongs to, None where members trust each other. What has a default is said of machines alone.
    """

    set_name: str
    member: Member
    digest: ContentDigest
    cloud: Cloud
    bucket: str
    arch: Arch
    made_for: str
    owner: int | None
    unique: bool
    full: bool
    slots: UploadSlots
    sparse: bool
    compression: Compression
    monitor: Monitor
    check: Callable[[], None]
    turn: Callable[[Callable[[], None]], AbstractContextManager[object]]
    unchanged: Callable[[], None]
    sleep: Callable[[float], None]
    arrived: Callable[[int], None]
    waited: Mapping[str, float]
    patience: RetryPolicy
    spread: Callable[[], float]
    now: Callable[[], float]
    boot: Boot = NO_BOOT
    name: str | None = None
    description: str | None = None
    virtualization: str | None = None
    platform: str = "linux"
    whole_disk: bool = False
    wishes: tuple[str, ...] = ()

    @property
    def arch_word(self) -> str:
        """What the cloud calls the architecture; it was looked up before anything was sent."""
        return self.cloud.dialect.architectures.get(self.arch, self.arch)
