"""The daemon is killed while an image is pending, is taken back, and is registered again."""

import os
import random
import signal
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise

import pytest

from tests.crash.conftest import KILLED, Crossing, Killer, Scene
from tests.support.waiting import until
from uecwatchd.ledger.sqlite import open_ledger

pytestmark = pytest.mark.exhaustive

FOR_EVER = 1e6
SIDECAR = 'kernel = "none"\nramdisk = "none"\nconvert = "keep"\n'
MUST_BE_CROSSED = ("note bundle registering", "RegisterImage", "note bundle uploaded", "DeregisterImage")


def begin(scene: Scene) -> None:
    scene.begin_again(())
    (scene.host.spool / "tiny.toml").write_text(SIDECAR)
    (scene.host.spool / "tiny.img").write_bytes(random.Random(3).randbytes(4096))  # noqa: S311
    scene.host.cloud.faults.arm("pending", FOR_EVER)


def registrations(scene: Scene) -> int:
    return [seen.action for seen in scene.host.cloud.requests[scene.asked :]].count("RegisterImage")


def waits_again(scene: Scene) -> bool:
    return registrations(scene) == 2 and scene.is_now("waiting")


def run_until(done: Callable[[], bool], scene: Scene, killer: Killer) -> None:
    """Run the daemon, and kill it then, or when that never comes."""
    pid = killer.begin(scene.host, "hasty")
    try:
        until(done, detail=scene.said)
    finally:
        os.kill(pid, signal.SIGKILL)
        assert killer.ended() == KILLED


def moments(scene: Scene, killer: Killer) -> list[Crossing]:
    """The gaps between two effects, from the first registration to the wait after the second one."""
    begin(scene)
    run_until(lambda: waits_again(scene), scene, killer)
    crossed = scene.crossed()
    crossed = crossed[crossed.index("before RegisterImage") :]
    assert set(MUST_BE_CROSSED) <= {moment.partition(" ")[2] for moment in crossed}
    gaps = [(a, b) for a, b in pairwise(crossed) if a.startswith("after") and b.startswith("before")]
    return [(a, b, 1) for a, b in dict.fromkeys(gaps)]


def test_a_set_is_registered_once_at_each_point_of_death_while_its_image_is_pending(
    scene: Scene, killer: Killer
) -> None:
    for at in moments(scene, killer):
        begin(scene)
        pid = killer.begin(scene.host, "hasty", at=at)
        try:
            assert killer.ended() == KILLED
        except AssertionError:
            os.kill(pid, signal.SIGKILL)
            raise
        asked = registrations(scene)
        scene.host.cloud.faults.clear()
        for image in scene.host.cloud.images:
            scene.host.cloud.backend.registry.set_image_state(image.id, "available")
        run_until((scene.host.spool / "tiny.emi").exists, scene, killer)
        assert [image.state for image in scene.host.cloud.images] == ["available"], at
        assert registrations(scene) <= asked + 1 <= 3, at
        assert set(scene.puts().values()) == {1}, at
        with closing(open_ledger(scene.host.state)) as book:
            assert [bundle.state for bundle in book.bundles("default")] == ["registered"], at
