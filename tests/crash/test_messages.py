"""The program is killed around each step of a message, and around those of a hook that refuses an image."""

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from tests.crash.conftest import KILLED, Crossing, Killer, Scene
from tests.support.site_programs import make_program
from tests.support.spool_files import drop_image

pytestmark = pytest.mark.exhaustive

STEPS = ("note messages", "forget message")
# What a refusal undoes.
WITHDRAWAL = ("RegisterImage", "note bundle registered", "DeregisterImage", "remove object", "forget bundle")


@pytest.fixture
def sections(scene: Scene) -> Iterator[list[str]]:
    """Configuration that is added for a test."""
    before, added = scene.host.config.read_text(), list[str]()
    yield added
    scene.host.configure(before)


def configure(scene: Scene, text: str) -> None:
    scene.host.configure(f"{scene.host.config.read_text()}\n{text}\n")


def deaths(crossed: Sequence[str], steps: Sequence[str], *, first: str = "") -> list[Crossing]:
    """Return each place before or after one of the steps, from the moment `first` on, once."""
    start = crossed.index(first) if first else 0
    found = [
        (one, other)
        for one, other in pairwise(crossed[start:])
        if one.startswith("after") and other.startswith("before")
        if one.removeprefix("after ") in steps or other.removeprefix("before ") in steps
    ]
    return [(one, other, 1) for one, other in dict.fromkeys(found)]


def drop(scene: Scene) -> None:
    scene.begin_again(())
    drop_image(scene.host.spool, "tiny", b"1" * 4096)


@pytest.mark.usefixtures("sections")
def test_no_message_is_lost_and_none_gets_another_id_at_each_point_of_death(
    scene: Scene, killer: Killer
) -> None:
    got = scene.host.folder / "got"
    program = make_program(scene.host.folder / "notify", f'cat >> {got}; echo "$UEC_ID" >> {got}.ids')
    configure(scene, f'[notify]\ncommand = ["{program}"]\n')

    def ids() -> list[str]:
        file = Path(f"{got}.ids")
        found = file.read_text().split() if file.exists() else []
        file.unlink(missing_ok=True)
        return found

    drop(scene)
    assert killer.run(scene.host, "once") == 0, scene.said()
    assert len(ids()) == 1
    places = deaths(scene.crossed(), STEPS)
    assert {moment.partition(" ")[2] for one, other, _ in places for moment in (one, other)} > set(STEPS)
    for place in places:
        drop(scene)
        killed = killer.run(scene.host, "once", at=place)
        assert killed == KILLED, place
        assert killer.run(scene.host, "once") == 0, scene.said()
        found = ids()
        sys.stdout.write(f"{place}: told {len(found)} times, with {len(set(found))} id\n")
        assert len(set(found)) == 1, place
        assert len(found) <= 2, place
        assert killer.run(scene.host, "once") == 0
        assert ids() == [], place


@pytest.mark.usefixtures("sections")
def test_a_refused_image_is_withdrawn_at_each_point_of_death(scene: Scene, killer: Killer) -> None:
    program = make_program(scene.host.folder / "registered", "echo no; exit 1")
    configure(scene, f'[hooks]\nregistered = ["{program}"]\n')
    drop(scene)
    assert killer.run(scene.host, "once") == 65, scene.said()
    places = deaths(scene.crossed(), WITHDRAWAL, first="before RegisterImage")
    assert len(places) >= 5
    for place in places:
        drop(scene)
        assert killer.run(scene.host, "once", at=place) == KILLED, place
        assert killer.run(scene.host, "once") == 65, scene.said()
        report = json.loads((scene.host.spool / "tiny.uec.json").read_bytes())
        there = (scene.images(), [one.key for one in scene.host.cloud.objects("uec-images")])
        sys.stdout.write(f"{place}: {report['state']}, left in the cloud: {there}\n")
        assert report["state"] == "rejected", place
        assert there == ([], []), place
        assert not (scene.host.spool / "tiny.emi").exists(), place
