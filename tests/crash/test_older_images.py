"""The program is killed while it removes older images, and while it goes back to one."""

import json
import random
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise

import pytest

from tests.crash.conftest import BUCKET, KILLED, Killer, Scene
from tests.support.spool_files import KEEP, drop_image
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.types import SetId

pytestmark = pytest.mark.exhaustive

# Without one of these the matrix would have a hole.
OF_REMOVAL = ("DeregisterImage", "remove object", "forget bundle", "note versions")
OF_ROLLBACK = (
    "note hold", "note request", "CreateTags", "DeleteTags", "write .latest", "place .latest",
    "note versions", "note set done", "write .uec.json", "place .emi", "forget request",
)  # fmt: skip


@pytest.fixture
def retaining(scene: Scene) -> Iterator[Scene]:
    """A host that keeps two images of a set, but removes none before it is asked."""
    before = scene.host.config.read_text()
    scene.host.configure(before + '\n[retention]\nkeep = 2\nmin_age = "1h"\n')
    yield scene
    scene.host.configure(before)


def prepare(scene: Scene, killer: Killer) -> list[str]:
    """Three images of a set are published; their ids, the oldest first."""
    scene.begin_again(())
    made = []
    for seed in range(3):
        noise = random.Random(seed).randbytes(4096)  # noqa: S311 (only to be another image)
        drop_image(scene.host.spool, "tiny", noise, sidecar=KEEP)
        assert killer.run(scene.host, "once") == 0, scene.said()
        made.append((scene.host.spool / "tiny.emi").read_text().strip())
    return made


def gaps(scene: Scene, first: str) -> list[tuple[str, str]]:
    """Return the places between two effects, from one of them on."""
    crossed = scene.crossed()
    crossed = crossed[crossed.index(f"before {first}") :]
    found = pairwise(crossed)
    between = (gap for gap in found if not gap[0].startswith("before ") and not gap[1].startswith("after "))
    return list(dict.fromkeys(between))


def states(scene: Scene) -> dict[str, str]:
    with closing(open_ledger(scene.host.state)) as book:
        set_id = SetId(str(scene.host.spool), "tiny")
        return {one.image_id: one.state for one in book.versions.of_set(set_id)}


def test_an_older_image_leaves_whole_at_each_point_of_death(retaining: Scene, killer: Killer) -> None:
    scene = retaining

    def remove(**how: object) -> int:
        text = scene.host.config.read_text()
        scene.host.configure(text.replace('min_age = "1h"', 'min_age = "0m"'))
        return killer.run(scene.host, "prune", "tiny", **how)

    def begin() -> list[str]:
        scene.host.configure(scene.host.config.read_text().replace('min_age = "0m"', 'min_age = "1h"'))
        return prepare(scene, killer)

    def what_is_wrong(made: list[str]) -> Iterator[str]:
        if sorted(made[1:]) != [image_id for _, image_id in scene.images()]:
            yield f"registered: {scene.images()}"
        if len(left := scene.host.cloud.objects(BUCKET)) != 4:
            yield f"objects: {[one.key for one in left]}"
        if states(scene) != dict(zip(made, ["removed", "older", "current"], strict=True)):
            yield f"versions: {states(scene)}"

    made = begin()
    assert remove() == 0, scene.said()
    assert list(what_is_wrong(made)) == []
    places = gaps(scene, "note request")
    assert set(OF_REMOVAL) <= {name.partition(" ")[2] for gap in places for name in gap}
    wrong = {}
    for gap in places:
        made = begin()
        assert remove(at=(*gap, 1)) == KILLED, gap
        killer.run(scene.host, "once")
        if found := list(what_is_wrong(made)):
            wrong[gap] = found
    sys.stdout.write(f"killed at {len(places)} places\n")
    assert not wrong


def test_a_set_goes_back_once_at_each_point_of_death(retaining: Scene, killer: Killer) -> None:
    scene = retaining

    def what_is_wrong(made: list[str]) -> Iterator[str]:
        ids = {path.suffix: path.read_text().strip() for path in scene.host.spool.glob("tiny.*[it]")}
        if {ids.get(".emi"), ids.get(".latest")} != {made[1]}:
            yield f"ids: {ids}"
        if json.loads((scene.host.spool / "tiny.uec.json").read_bytes())["ids"]["machine"] != made[1]:
            yield "the report has another id"
        if states(scene) != dict(zip(made, ["older", "current", "older"], strict=True)):
            yield f"versions: {states(scene)}"
        marked = [one.resource for one in scene.host.cloud.backend.registry.tags() if one.key == "latest"]
        if marked != [made[1]]:
            yield f"marked as the latest: {marked}"
        with closing(open_ledger(scene.host.state)) as book:
            if book.requests() or not book.holds():
                yield f"the ledger has {book.requests()} and {book.holds()}"

    made = prepare(scene, killer)
    assert killer.run(scene.host, "rollback", "tiny", "--yes") == 0, scene.said()
    assert list(what_is_wrong(made)) == []
    places = gaps(scene, "note hold")
    assert set(OF_ROLLBACK) <= {name.partition(" ")[2] for gap in places for name in gap}
    wrong = {}
    for gap in places:
        made = prepare(scene, killer)
        assert killer.run(scene.host, "rollback", "tiny", "--yes", at=(*gap, 1)) == KILLED, gap
        with closing(open_ledger(scene.host.state)) as book:
            is_asked = bool(book.requests())
        if is_asked or states(scene)[made[1]] == "current":
            killer.run(scene.host, "once")
        else:  # nothing was promised yet
            killer.run(scene.host, "rollback", "tiny", "--yes")
        if found := list(what_is_wrong(made)):
            wrong[gap] = found
    sys.stdout.write(f"killed at {len(places)} places\n")
    assert not wrong


def test_an_image_becomes_the_latest_at_each_point_of_death(retaining: Scene, killer: Killer) -> None:
    scene = retaining

    def begin() -> str:
        """Publish one image, and drop the next one in its place; return the first one's id."""
        scene.begin_again(())
        drop_image(scene.host.spool, "tiny", bytes(4096), sidecar=KEEP)
        assert killer.run(scene.host, "once") == 0, scene.said()
        drop_image(scene.host.spool, "tiny", b"1" * 4096, sidecar=KEEP)
        return (scene.host.spool / "tiny.emi").read_text().strip()

    def what_is_wrong(first: str) -> Iterator[str]:
        (newest,) = {image_id for _, image_id in scene.images()} - {first}
        ids = [(scene.host.spool / f"tiny{ending}").read_text().strip() for ending in (".emi", ".latest")]
        if ids != [newest, newest]:
            yield f"ids: {ids}"
        if states(scene) != {first: "older", newest: "current"}:
            yield f"versions: {states(scene)}"
        marked = [one.resource for one in scene.host.cloud.backend.registry.tags() if one.key == "latest"]
        if marked != [newest]:
            yield f"marked as the latest: {marked}"

    first = begin()
    assert killer.run(scene.host, "once") == 0, scene.said()
    assert list(what_is_wrong(first)) == []
    places = gaps(scene, "place .emi")
    effects = {name.partition(" ")[2] for gap in places for name in gap}
    assert {"note the published version", "CreateTags", "DeleteTags", "place .latest"} <= effects
    wrong = {}
    for gap in places:
        first = begin()
        assert killer.run(scene.host, "once", at=(*gap, 1)) == KILLED, gap
        killer.run(scene.host, "once")
        if found := list(what_is_wrong(first)):
            wrong[gap] = found
    sys.stdout.write(f"killed at {len(places)} places\n")
    assert not wrong
