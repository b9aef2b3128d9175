"""A set as a scan finds it, with no file of its own, for rules that look at its name and stamp."""

from pathlib import Path

from uecwatchd.intake.sets.records import ImageSet
from uecwatchd.intake.sidecar import Sidecar

FOUND = ImageSet(
    name="karmic",
    folder=Path("/s"),
    form="stem",
    members=(),
    left_out=(),
    kernel_id=None,
    ramdisk_id=None,
    virtualization=None,
    arch="x86_64",
    sidecar=Sidecar(),
    checksums={},
    files=(),
    stamp="stamp",
)
