"""The program is killed while it takes an image back: the next run ends what was begun."""

import json
import random
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise

import pytest

from tests.crash.conftest import BUCKET, KILLED, Killer, Scene
from tests.support.spool_files import drop_image
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.types import SetId

pytestmark = pytest.mark.exhaustive

# Without one of these the matrix would have a hole.
EFFECTS = (
    "note hold", "note request", "remove .emi", "remove .eri", "remove .eki", "DeregisterImage",
    "remove object", "forget bundle", "note versions", "note set withdrawn", "write .uec.json",
    "place .uec.json", "forget request",
)  # fmt: skip


def prepare(scene: Scene, killer: Killer) -> None:
    """A small set with kernel and ramdisk is published."""
    scene.begin_again(())
    for name in ("tiny.vmlinuz", "tiny.initrd"):
        scene.drop(name)
    noise = random.Random(1).randbytes(4096)  # noqa: S311 (only not to be empty)
    drop_image(scene.host.spool, "tiny", noise, sidecar='convert = "keep"\n')
    assert killer.run(scene.host, "once") == 0, scene.said()
    assert len(scene.images()) == 3, scene.said()


def gaps(scene: Scene) -> list[tuple[str, str]]:
    """The places between two effects, from the first one of the verb on."""
    crossed = scene.crossed()
    crossed = crossed[crossed.index("before note hold") :]
    found = [("", crossed[0]), *pairwise(crossed)]
    between = (gap for gap in found if not gap[0].startswith("before ") and not gap[1].startswith("after "))
    return list(dict.fromkeys(between))


def what_is_wrong(scene: Scene) -> Iterator[str]:
    if scene.images():
        yield f"registered: {scene.images()}"
    if left := scene.host.cloud.objects(BUCKET):
        yield f"objects: {[one.key for one in left]}"
    if ids := [path.name for path in scene.host.spool.iterdir() if path.suffix in (".emi", ".eki", ".eri")]:
        yield f"ids: {ids}"
    if (state := json.loads((scene.host.spool / "tiny.uec.json").read_bytes())["state"]) != "withdrawn":
        yield f"it is {state}"
    with closing(open_ledger(scene.host.state)) as book:
        set_id = SetId(str(scene.host.spool), "tiny")
        if book.requests() or book.bundles("default"):
            yield f"the ledger has {book.requests()} and {book.bundles('default')}"
        if set_id not in book.holds():
            yield "it is not held"
        if [one.state for one in book.versions.of_set(set_id)] != ["withdrawn"]:
            yield f"versions: {book.versions.of_set(set_id)}"


def test_an_image_is_taken_back_whole_at_each_point_of_death(scene: Scene, killer: Killer) -> None:
    prepare(scene, killer)
    assert killer.run(scene.host, "withdraw", "tiny", "--yes") == 0, scene.said()
    assert list(what_is_wrong(scene)) == []
    places = gaps(scene)
    assert set(EFFECTS) <= {name.partition(" ")[2] for gap in places for name in gap}
    wrong = {}
    for gap in places:
        prepare(scene, killer)
        assert killer.run(scene.host, "withdraw", "tiny", "--yes", at=(*gap, 1)) == KILLED, gap
        with closing(open_ledger(scene.host.state)) as book:
            is_asked = bool(book.requests())
        if is_asked or scene.images() == []:
            killer.run(scene.host, "once")
        else:  # nothing was promised yet
            killer.run(scene.host, "withdraw", "tiny", "--yes")
        if found := list(what_is_wrong(scene)):
            wrong[gap] = found
    sys.stdout.write(f"killed at {len(places)} places\n")
    assert not wrong
