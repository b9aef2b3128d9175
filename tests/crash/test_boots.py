"""The program is killed at each effect of a test boot: no instance is left, the image is published once."""

import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise

import pytest

from tests.crash.conftest import KILLED, Killer, Scene
from tests.support.boots import living
from uecwatchd.ledger.sqlite import open_ledger

pytestmark = pytest.mark.exhaustive

SIDECAR = 'kernel = "none"\nconvert = "keep"\ntest = true\n'
# Each of these outlives the process.
EFFECTS = ("note boot", "RunInstances", "note instance", "CreateTags of an instance", "TerminateInstances")
PASSED, OVER = "note passed boot", "forget boot"


@pytest.fixture(scope="module")
def booting(scene: Scene) -> Iterator[Scene]:
    plain = scene.host.config.read_text()
    table = "[cloud.default]\n"
    scene.host.configure(plain.replace(table, f"{table}boot_every = 0.1\nboot_seconds = 20\n"))
    yield scene
    scene.host.configure(plain)


def begin(scene: Scene, *, fault: str = "") -> None:
    scene.begin_again(())
    scene.host.cloud.faults.clear()
    registry = scene.host.cloud.backend.registry
    for instance in registry.instances():
        assert instance.state == "terminated"
    if fault:
        scene.host.cloud.faults.arm(fault)
    (scene.host.spool / "tiny.toml").write_text(SIDECAR)
    (scene.host.spool / "tiny.img").write_bytes(b"1" * 4096)


def gaps_of(crossed: list[str], *, first: str, last: str) -> list[tuple[str, str]]:
    """Return the gaps between two effects, from the one before `first` to the one after `last`.

    What follows is in the other matrices.
    """
    end = crossed.index(f"after {last}") + 2
    crossed = crossed[crossed.index(f"before {first}") - 1 : end]
    gaps = [(a, b) for a, b in pairwise(crossed) if a.startswith("after") and b.startswith("before")]
    return list(dict.fromkeys(gaps))


def left(scene: Scene) -> tuple[list[str], int]:
    """Return the instances that live, and the number of those that the ledger knows of.

    A boot whose request may still be under way stays there for a while, without an instance.
    """
    with closing(open_ledger(scene.host.state)) as book:
        return living(scene.host.cloud), sum(bool(boot.instance_id) for boot in book.boots.open())


def test_no_instance_is_left_at_any_point_of_death(booting: Scene, killer: Killer) -> None:
    scene = booting
    begin(scene)
    assert killer.run(scene.host, "once") == 0, scene.said()
    names = {moment.partition(" ")[2] for moment in scene.crossed()}
    assert {*EFFECTS, PASSED, OVER} <= names
    assert left(scene) == ([], 0)
    crossed = scene.crossed()
    for gap in gaps_of(crossed, first="note boot", last=OVER):
        begin(scene)
        before = len(scene.host.cloud.instances)
        assert killer.run(scene.host, "once", at=(*gap, 1)) == KILLED, gap
        at_death = living(scene.host.cloud)
        assert killer.run(scene.host, "once") == 0, scene.said()
        started = len(scene.host.cloud.instances) - before
        sys.stdout.write(f"{gap[0]} | {gap[1]}: {len(at_death)} alive, {started} started, {left(scene)[0]}\n")
        assert left(scene) == ([], 0), gap
        ((_, image_id),) = scene.images()
        assert (scene.host.spool / "tiny.emi").read_text() == f"{image_id}\n"
        assert started <= 2, gap


def test_a_failed_image_is_withdrawn_at_any_point_of_death(booting: Scene, killer: Killer) -> None:
    scene = booting
    begin(scene, fault="boot-panics")
    assert killer.run(scene.host, "once") == 65, scene.said()
    assert (left(scene), scene.images()) == (([], 0), [])
    crossed = scene.crossed()
    for gap in gaps_of(crossed, first="TerminateInstances", last="forget bundle"):
        begin(scene)
        scene.host.cloud.faults.arm("boot-panics", 9)
        assert killer.run(scene.host, "once", at=(*gap, 1)) == KILLED, gap
        code = killer.run(scene.host, "once")
        assert code == 65, (gap, code, scene.said())
        assert (left(scene), scene.images()) == (([], 0), []), gap
        assert not (scene.host.spool / "tiny.emi").exists()
