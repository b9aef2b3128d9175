"""A layer on a base: packages and commands, handed to cloud-init at a boot of the base.

The user data of the seed is a shell script, which cloud-init runs at the end of a first boot, and so do its
smaller relatives. Each step of it is written to the console, because a shell's exit code does not leave the
machine. At last it makes the next boot a first boot again, and ends the machine.
"""

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from uecwatchd.install.recipe import InstallRecipe

MARK = "uecwatchd-layer"
# The managers of packages, each with its way to install without questions.
MANAGERS = (
    ("apt-get", "apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy install"),
    ("dnf", "dnf -qy install"),
    ("yum", "yum -qy install"),
    ("zypper", "zypper -qn install"),
    ("apk", "apk add -q"),
)
# A line of its own: a guest may also write about it, or show the script. It has no secret: only the author of
# the steps can write it, and would fool nobody else.
_TOLD = re.compile(
    rf"^{MARK}: (?:step (?P<step>\d+) failed with exit code (?P<code>\d+)|(?P<done>done))\s*$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class LayerEnd:
    """The end of a layer, by its console. `failed_step` is 0 if all have succeeded."""

    failed_step: int = 0
    exit_code: int = 0


def user_data(recipe: InstallRecipe) -> bytes:
    """Return the script that adds a layer."""
    steps = list(layer_steps(recipe))
    lines = ["#!/bin/sh", 'tell() { echo; echo "$*"; } >/dev/console', "ended() { sync; poweroff; }"]
    for number, step in enumerate(steps, start=1):
        fault = f'{{ tell "{MARK}: step {number} failed with exit code $?"; ended; exit 1; }}'
        lines.append(f"sh -c {shlex.quote(step)} >/dev/console 2>&1 </dev/null || {fault}")
    lines.append("! command -v cloud-init >/dev/null || cloud-init clean --logs")
    lines += [f'tell "{MARK}: done"', "ended", ""]
    return "\n".join(lines).encode()


def layer_steps(recipe: InstallRecipe) -> Iterator[str]:
    """Yield the commands of a layer: one for all packages, then those of the recipe."""
    if recipe.packages:
        yield _install(recipe.packages)
    yield from recipe.run


def _install(packages: Iterable[str]) -> str:
    names = " ".join(map(shlex.quote, packages))
    tried = [f"if command -v {name} >/dev/null; then {way} {names}" for name, way in MANAGERS]
    return f"{'; el'.join(tried)}; else echo 'no manager of packages is known'; exit 127; fi"


def find_end(console: str) -> LayerEnd | None:
    """Return the last end in the text of a console; None if there is none."""
    *_, found = None, *_TOLD.finditer(console)
    if found is None:
        return None
    return LayerEnd() if found["done"] else LayerEnd(int(found["step"]), int(found["code"]))
