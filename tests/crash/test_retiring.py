"""The daemon is killed while it takes an older image's place, and while it archives what it was made of."""

import os
import random
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.crash.conftest import KILLED, Killer, Scene
from tests.support.spool_files import drop_image
from tests.support.waiting import until

pytestmark = pytest.mark.exhaustive

DISK_BYTES = 12 << 20  # two parts: it is noise
SIDECAR = 'kernel = "none"\nramdisk = "none"\nconvert = "keep"\non_existing = "replace"\n'
# What only a set does that replaces another, or whose files are archived.
EFFECTS = ("DeregisterImage", "remove object", "forget bundle", "archive a file")


def noise(seed: int) -> bytes:
    return random.Random(seed).randbytes(DISK_BYTES)  # noqa: S311 (only not to be compressible)


OLDER, NEWER = noise(1), noise(2)


@pytest.fixture
def archiving(scene: Scene) -> Iterator[Scene]:
    before = scene.host.config.read_text()
    scene.host.configure(before.replace("[spool]\n", '[spool]\nafter = "archive"\n'))
    yield scene
    scene.host.configure(before)


def drop(scene: Scene, data: bytes) -> None:
    drop_image(scene.host.spool, "tiny", data, sidecar=SIDECAR)


def archived(scene: Scene) -> list[Path]:
    return [path for path in (scene.host.spool / "done").rglob("*") if path.is_file()]


def run_daemon(scene: Scene, killer: Killer) -> None:
    """Run it until the newer disk is archived, and stop it."""
    begun = scene.said().count("Watching")
    pid = killer.begin(scene.host, "run")
    left = [scene.host.spool / name for name in ("tiny.img", "tiny.toml")]
    until(lambda: scene.said().count("Watching") > begun, "the daemon", detail=scene.said)
    until(lambda: not any(path.exists() for path in left), "the archive", detail=scene.said)
    os.kill(pid, signal.SIGTERM)
    assert killer.ended() == 0, scene.said()


def prepare(scene: Scene, killer: Killer) -> None:
    """The older disk is registered; the newer one has been dropped in its place."""
    scene.begin_again(())
    drop(scene, OLDER)
    assert killer.run(scene.host, "once") == 0, scene.said()
    drop(scene, NEWER)


def test_an_image_is_replaced_and_its_files_archived_once_at_each_point_of_death(
    archiving: Scene, killer: Killer
) -> None:
    scene = archiving
    prepare(scene, killer)
    run_daemon(scene, killer)
    check(scene)
    gaps = dict.fromkeys(gap for gap in pairwise(scene.crossed()) if is_of_interest(*gap))
    assert {name for gap in gaps for name in EFFECTS if gap[0] == f"after {name}"} == set(EFFECTS)
    for gap in gaps:
        prepare(scene, killer)
        killer.begin(scene.host, "run", at=(*gap, 1))
        assert killer.ended() == KILLED, gap
        run_daemon(scene, killer)
        check(scene)


def is_of_interest(one: str, other: str) -> bool:
    return one.startswith("after ") and other.startswith("before ") and one.partition(" ")[2] in EFFECTS


def check(scene: Scene) -> None:
    """Only the newer image is there, with its bundle and no other, and each file was archived once."""
    ((_, image_id),) = scene.images()
    assert (scene.host.spool / "tiny.emi").read_text() == f"{image_id}\n"
    keys = {one.key for one in scene.host.cloud.objects("uec-images")}
    assert len(keys) == 3
    assert len({key.split(".")[0] for key in keys}) == 1
    assert sorted(path.name for path in archived(scene)) == ["tiny.img", "tiny.toml"]
    (disk,) = [path for path in archived(scene) if path.name == "tiny.img"]
    assert disk.read_bytes() == NEWER
