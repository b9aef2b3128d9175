"""The set in an archive, killed around all that happens in its work folder: unpacked once, left nowhere."""

import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from tests.crash.conftest import Killer, Scene
from uecwatchd.demo.material import RealSet

pytestmark = pytest.mark.exhaustive

ARCHIVE = "tiny.tar"
KILLED = -9
WRITE, PLACE, REMOVE = (
    "write a file of the work folder",
    "place a file of the work folder",
    "remove the work folder",
)
MEMBERS = 3  # and a note of what was unpacked


@pytest.fixture(scope="module")
def packed(scene: Scene, real_set: RealSet, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("packed")
    subprocess.run(["mkfs.ext4", "-q", folder / "tiny.img", "1M"], check=True)
    shutil.copy(real_set.kernel, folder / "vmlinuz")
    shutil.copy(real_set.ramdisk, folder / "initrd")
    names = ["tiny.img", "vmlinuz", "initrd"]
    subprocess.run(["tar", "-C", folder, "-cf", scene.material / ARCHIVE, *names], check=True)
    return scene


def work(scene: Scene) -> Path:
    return scene.host.state / "work" / "sets"


def wrong(scene: Scene) -> list[str]:
    found = [
        *scene.broken_promises(),
        *scene.wrong_beside_the_files(),
        *scene.wrong_in_the_ledger(),
        *scene.wrong_on_the_list(),
    ]
    return [*found, *(f"left over: {path}" for path in work(scene).iterdir())]


def test_each_file_is_made_once_at_each_point_of_death(packed: Scene, killer: Killer) -> None:
    packed.begin_again((ARCHIVE,))
    # The first file is written and not in place, then it is; then the others, and the note of them.
    deaths = [
        (f"after {WRITE}", f"before {PLACE}", 1),
        (f"after {PLACE}", f"before {WRITE}", 1),
        (f"after {PLACE}", f"before {WRITE}", MEMBERS - 1),
        (f"after {WRITE}", f"before {PLACE}", 1),
        (f"after {PLACE}", "before append to .uec.log", 1),
        ("after put part", "before put part", 1),
    ]
    placed = 0
    for death in deaths:
        assert killer.run(packed.host, "once", at=death) == KILLED, (death, packed.crossed())
        placed += packed.crossed().count(f"after {PLACE}")
        assert list(work(packed).rglob("*.img" if placed else "*.part")), death
    assert killer.run(packed.host, "once") == 0, packed.said()
    assert placed == MEMBERS + 1
    assert f"before {WRITE}" not in packed.crossed()
    assert wrong(packed) == []


def test_what_a_finished_set_leaves_behind_is_removed_at_the_next_start(
    packed: Scene, killer: Killer
) -> None:
    packed.begin_again((ARCHIVE,))
    gap = killer.run(packed.host, "once", at=("after note set done", f"before {REMOVE}", 1))
    assert gap == KILLED, packed.crossed()
    assert list(work(packed).rglob("tiny.img"))
    assert killer.run(packed.host, "once") == 0, packed.said()
    moments = list(pairwise(packed.crossed()))
    assert (f"before {REMOVE}", f"after {REMOVE}") in moments
    assert not [moment for pair in moments for moment in pair if "put part" in moment]
    assert wrong(packed) == []
