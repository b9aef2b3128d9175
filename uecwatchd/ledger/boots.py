"""Test boots: instances for tests of images, and the images that have passed.

A boot is written before its instance is requested, and removed after the instance has ended. So whatever is
written here while nobody tests on that cloud was left by a crash, and has to be terminated.
"""

from dataclasses import dataclass
from typing import Protocol

from uecwatchd.types import SetId


@dataclass(frozen=True, slots=True)
class BootRecord:
    """An instance that was, or was to be, started for a test.

    `token` is known to the cloud, if it takes tokens or tags; `others` are the instances of the image that
    ran already. `instance_id` is empty until it is known. `began` is in seconds of the epoch.
    """

    token: str
    cloud: str
    image_id: str
    set_id: SetId
    began: float
    others: tuple[str, ...] = ()
    instance_id: str = ""


class Boots(Protocol):
    """The operations on test boots, for any store. They raise what those of the ledger raise."""

    def open(self, cloud: str | None = None) -> tuple[BootRecord, ...]:
        """Return the boots whose instance is not known to have ended, oldest first."""

    def put(self, boot: BootRecord) -> BootRecord:
        """Write a boot, and return it."""

    def drop(self, boot: BootRecord) -> None:
        """Remove a boot, if it is there."""

    def passed(self, cloud: str, image_id: str) -> float | None:
        """Return when an image passed its last test, in seconds of the epoch; None if it has not."""

    def put_passed(self, cloud: str, image_id: str, when: float) -> None:
        """Write that an image has passed."""
