"""The settings of installations: the folder of builds, and the limits of their machines."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from uecwatchd.config.values import AbsolutePath, Integer, Size

# Each machine takes a processor and its memory for as long as an installation lasts.
MOST_BUILDS_AT_ONCE = 16
MOST_CPUS = 256  # of QEMU's machine type


@dataclass(frozen=True, slots=True)
class InstallSettings:
    """Settings under [install]. Sizes are in bytes; a recipe may ask for less than the limits, not for more.

    `worker` is a child process of the service, or a unit of its own that watches the folder. `at_once` is for
    a child: the unit has its own number.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    builds: AbsolutePath = Path("/var/lib/uecwatchd-build")
    worker: Literal["child", "unit"] = "child"
    at_once: Annotated[Integer, Field(ge=1, le=MOST_BUILDS_AT_ONCE)] = 1
    #: with what QEMU itself needs, it fits in the 4 GiB of uecwatchd-build.service
    memory_limit: Annotated[Size, Field(ge=16 << 20)] = 3 << 30
    cpu_limit: Annotated[Integer, Field(ge=1, le=MOST_CPUS)] = 4
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
