"""A recipe for the small installation CD, with all that its set needs to boot in the embedded cloud."""

from pathlib import Path

from uecwatchd.demo.material import DebianKernel
from uecwatchd.demo.mini_iso import ANSWERS, make_mini_iso

ISO_NAME, ANSWERS_NAME = "mini.iso", "answers"
# A node starts the root partition with the kernel and the ramdisk that the installer has put there.
RECIPE = f"""\
description = "installed from {ISO_NAME}"
kernel = "from-image"
layout = "partition"
test = true

[install]
iso = "{ISO_NAME}"
answers = "{ANSWERS_NAME}"
answers_as = "disk"
disk = "96M"
memory = "256M"
time_limit = "10m"
"""


def make_recipe(folder: Path, name: str, *, kernel: DebianKernel) -> tuple[Path, ...]:
    """Make the CD, its answers and the recipe of a set. Raises Halted if a program or file is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    iso, answers, sidecar = folder / ISO_NAME, folder / ANSWERS_NAME, folder / f"{name}.toml"
    make_mini_iso(iso, kernel=kernel)
    answers.write_text(ANSWERS)
    sidecar.write_text(RECIPE)
    return iso, answers, sidecar
