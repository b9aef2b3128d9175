"""The program is killed while it removes what belongs to nothing: the next removal ends what was begun."""

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

pytestmark = pytest.mark.exhaustive

EFFECTS = ("DeregisterImage", "remove object", "forget bundle")
REMOVE = ("orphans", "--remove", "--yes")


def prepare(scene: Scene, killer: Killer) -> list[tuple[str, str]]:
    """Of two published sets one is forgotten. Returns the image of the other."""
    scene.begin_again(())
    for seed, name in enumerate(("tiny", "kept")):
        drop_image(scene.host.spool, name, random.Random(seed).randbytes(4096), sidecar=KEEP)  # noqa: S311
    assert killer.run(scene.host, "once") == 0, scene.said()
    assert len(scene.images()) == 2, scene.said()
    for name in ("tiny.img", "tiny.toml"):
        (scene.host.spool / name).unlink()
    assert killer.run(scene.host, "forget", "tiny") == 0, scene.said()
    return [("machine", (scene.host.spool / "kept.emi").read_text().strip())]


def gaps(scene: Scene) -> list[tuple[str, str]]:
    found = [("", scene.crossed()[0]), *pairwise(scene.crossed())]
    between = (gap for gap in found if not gap[0].startswith("before ") and not gap[1].startswith("after "))
    return list(dict.fromkeys(between))


def what_is_wrong(scene: Scene, kept: list[tuple[str, str]]) -> Iterator[str]:
    if scene.images() != kept:
        yield f"registered: {scene.images()}"
    keys = [one.key for one in scene.host.cloud.objects(BUCKET)]
    if any(not key.startswith("kept-") for key in keys) or len(keys) != 2:
        yield f"objects: {keys}"
    with closing(open_ledger(scene.host.state)) as book:
        if len(book.bundles("default")) != 1:
            yield f"bundles: {book.bundles('default')}"
    if found := json.loads(scene.host.ask("orphans", "--json")[0]):
        yield f"left: {found}"


def test_an_orphan_leaves_whole_at_each_point_of_death(scene: Scene, killer: Killer) -> None:
    kept = prepare(scene, killer)
    assert killer.run(scene.host, *REMOVE) == 0, scene.said()
    assert list(what_is_wrong(scene, kept)) == []
    places = gaps(scene)
    assert set(EFFECTS) <= {name.partition(" ")[2] for gap in places for name in gap}
    wrong = {}
    for gap in places:
        kept = prepare(scene, killer)
        assert killer.run(scene.host, *REMOVE, at=(*gap, 1)) == KILLED, gap
        assert killer.run(scene.host, *REMOVE) == 0, scene.said()
        if found := list(what_is_wrong(scene, kept)):
            wrong[gap] = found
    sys.stdout.write(f"killed at {len(places)} places\n")
    assert not wrong
