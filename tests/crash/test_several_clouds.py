"""A set for two clouds whose service is killed, at the end of either attempt or while parts are shared."""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.crash.conftest import KILLED, KINDS, Crossing, Killer, Scene, sweep
from uecwatchd.sandbox.server import Sandbox

pytestmark = pytest.mark.exhaustive

CLOUD = '[cloud.far]\ndialect = "sandbox"\neucarc = "{eucarc}"\n'
BOTH = '[defaults]\nclouds = ["default", "far"]\n'
# Effects on both sides of the place where an attempt has ended.
AROUND = 5


@pytest.fixture
def far(scene: Scene, tmp_path: Path) -> Iterator[Sandbox]:
    """A second cloud that every set of the scene goes to."""
    with Sandbox(tmp_path / "far") as cloud:
        before = scene.host.config.read_text()
        scene.host.configure(before.replace("[defaults]\n", BOTH) + CLOUD.format(eucarc=cloud.eucarc))
        yield cloud
        scene.host.configure(before)


def begin_again(scene: Scene, far: Sandbox) -> None:
    scene.begin_again()
    sweep(far)


def crossings(moments: list[str]) -> Iterator[Crossing]:
    """Yield the places to be killed at: around each end of an attempt, between two effects."""
    seen: dict[tuple[str, str], int] = {}
    over = ("after note set queued", "after note set done")  # it is queued for the second cloud
    ends = [place for place, moment in enumerate(moments) if moment in over]
    assert len(ends) == 2, "an attempt on each cloud"
    for place, gap in enumerate(pairwise(moments)):
        seen[gap] = seen.get(gap, 0) + 1
        is_near = any(abs(place - end) <= 2 * AROUND for end in ends)
        if is_near and gap[0].startswith("after ") and gap[1].startswith("before "):
            yield (*gap, seen[gap])


def test_a_set_is_on_each_cloud_once_whenever_its_service_dies(
    scene: Scene, killer: Killer, far: Sandbox
) -> None:
    begin_again(scene, far)
    assert killer.run(scene.host, "once") == 0, scene.said()
    places = list(crossings(scene.crossed()))
    assert len(places) > AROUND
    wrong = {}
    for at in places:
        begin_again(scene, far)
        assert killer.run(scene.host, "once", at=at) == KILLED, at
        if early := (scene.host.spool / "tiny.emi").exists() and len(far.images) < len(KINDS):
            wrong[at] = [f"an id before the set is on both clouds: {early}"]
        assert killer.run(scene.host, "once") == 0, scene.said()
        wrong[at] = [*wrong.get(at, []), *what_is_wrong(scene, far)]
    assert not {at: found for at, found in wrong.items() if found}


@pytest.mark.parametrize(
    ("at", "is_shared"),
    [
        (("after put part", "before put part", 2), True),
        (("after note bundle uploaded", "before note bundle registering", 3), False),
        (("after put part", "before put part", 3), True),
        (("after put part", "before put part", 4), True),
        (("after note bundle uploaded", "before note bundle registering", 6), True),
    ],
    ids=["first upload", "before its image", "second upload", "its last part", "before its image too"],
)
def test_no_upload_mixes_two_bundles_whenever_the_service_dies(
    scene: Scene, killer: Killer, far: Sandbox, at: Crossing, *, is_shared: bool
) -> None:
    begin_again(scene, far)
    asked = len(far.requests)
    assert killer.run(scene.host, "once", at=at) == KILLED
    assert not [path for path in (scene.host.state / "work").rglob("*") if path.is_file()]
    assert killer.run(scene.host, "once") == 0, scene.said()
    assert not list(what_is_wrong(scene, far))
    seen = (one for one in far.requests[asked:] if one.action == "PutObject" and not one.code)
    keys = Counter(one.path for one in seen if ".part." in one.path)
    assert set(keys.values()) == {1}
    assert set(scene.puts().values()) == {1}
    # The copy is gone if the first cloud had all parts before: then the second has a bundle of its own.
    assert (machine_parts(far) == machine_parts(scene.host.cloud)) == is_shared
    scene.host.ask("verify", "tiny")


def machine_parts(cloud: Sandbox) -> list[str]:
    objects = sorted(cloud.backend.store.objects("uec-images"), key=lambda one: one.key)
    return [one.etag for one in objects if one.key.startswith("tiny-") and ".part." in one.key]


def what_is_wrong(scene: Scene, far: Sandbox) -> Iterator[str]:
    for name, cloud in (("default", scene.host.cloud), ("far", far)):
        if sorted(image.type for image in cloud.images) != KINDS:
            yield f"registered on {name}: {cloud.images}"
        ids = {
            (scene.host.spool / f"tiny.{name}{suffix}").read_text().strip()
            for suffix in (".emi", ".eki", ".eri")
        }
        if ids != {image.id for image in cloud.images}:
            yield f"beside the files: {ids}"
    whole, part = (scene.host.spool / f"tiny{infix}.emi" for infix in ("", ".default"))
    if whole.read_text() != part.read_text() or scene.host.report("tiny")["state"] != "done":
        yield "the set is not done"
