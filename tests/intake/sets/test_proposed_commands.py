"""Commands from hints: after each, the set is ready."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from shutil import copy

import pytest

from uecwatchd.demo.material import RealSet
from uecwatchd.intake.sets.assemble import assemble
from uecwatchd.intake.sets.records import FolderSets, Rules
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool import scan

pytestmark = pytest.mark.exhaustive

BOTH = frozenset({"kernel", "ramdisk"})
UEC = Rules(0.0, Sidecar(), {"default": frozenset({"kernel"})}, {"default": BOTH}, frozenset())


def decide(folder: Path) -> FolderSets:
    return assemble(scan.scan(folder, now=100.0), rules=UEC)


def old_qcow(source: Path, target: Path) -> None:
    subprocess.run(["qemu-img", "convert", "-q", "-O", "qcow", source, target], check=True)


def packed(source: Path, target: Path) -> None:
    target.write_bytes(subprocess.run(["lzma", "-1c", source], capture_output=True, check=True).stdout)


def uneven(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes() + b"x")


@pytest.mark.parametrize(
    ("make", "machine", "boot", "sidecar"),
    [
        (old_qcow, "web.img", "web", ""),
        (old_qcow, "web.qcow2", "web", 'machine = "web.qcow2"'),
        (old_qcow, "my web.img", "my web", ""),
        (old_qcow, "one/web.qcow2", "one/web", ""),
        (packed, "one/disk.gz", "one/web", ""),
        (packed, "web.img.gz", "web", 'machine = "web.img.gz"'),
        (uneven, "web.img", "web", ""),
        *((make, "-x.img", "-x", "") for make in (old_qcow, packed, uneven)),
        *((make, "a:b.img", "a:b", "") for make in (old_qcow, packed, uneven)),
        (old_qcow, "it's $HOME.img", "it's $HOME", ""),
    ],
)
def test_a_command_that_is_proposed_for_an_image_makes_its_set_ready(
    tmp_path: Path,
    small_set: RealSet,
    make: Callable[[Path, Path], None],
    machine: str,
    boot: str,
    sidecar: str,
) -> None:
    (tmp_path / machine).parent.mkdir(exist_ok=True)
    make(small_set.machine, tmp_path / machine)
    copy(small_set.kernel, tmp_path / f"{boot}.vmlinuz")
    copy(small_set.ramdisk, tmp_path / f"{boot}.initrd")
    if sidecar:
        (tmp_path / "web.toml").write_text(sidecar)
    (refused,) = decide(tmp_path).refused
    command = re.fullmatch(r"Try: (.+)", refused.error.hint)
    assert command, refused.error.hint
    subprocess.run(["sh", "-c", command[1]], cwd=tmp_path, check=True)
    (ready,) = decide(tmp_path).ready
    assert ready.name == refused.name
    assert {member.role for member in ready.members} == {"machine", *BOTH}
