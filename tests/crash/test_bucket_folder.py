"""A set in a bucket, killed around all that happens to its objects: registered once, and nothing is lost."""

from itertools import chain, pairwise
from pathlib import Path

import pytest

from tests.crash.conftest import KILLED, Crossing, Killer
from tests.support.buckets import DropBucket, bucket_host
from tests.support.spool_files import KEEP

pytestmark = pytest.mark.exhaustive

EFFECTS = {"fetch a file", "place a fetched file", "send a result", "remove object"}
# The files of a set leave when it is done and they are seen again.
RUNS = 2


def drop(drops: DropBucket, number: int) -> None:
    """Drop a set of one object, because several are fetched in no certain order."""
    drops.put("karmic.img", bytes([number]) * 4096)


def crossed(drops: DropBucket) -> list[str]:
    return (drops.host.folder / "crossed").read_text().splitlines()


def deaths(moments: list[str]) -> list[Crossing]:
    """Return each place beside one of the effects, the first and the second time."""
    found: list[Crossing] = []
    for one, other in pairwise(moments):
        is_between = not one.startswith("before ") and other.startswith("before ")
        nth = [place[:2] for place in found].count((one, other)) + 1
        if is_between and nth <= 2 and EFFECTS & {one.partition(" ")[2], other.partition(" ")[2]}:
            found.append((one, other, nth))
    return found


def run(drops: DropBucket, killer: Killer, at: Crossing | None = None) -> list[list[str]]:
    """Run until the program dies at a place, or as often as it takes; return what each run has crossed."""
    moments = []
    for _ in range(RUNS):
        code = killer.run(drops.host, "once", at=at)
        moments.append(crossed(drops))
        if at and code == KILLED:
            return moments
        assert code == 0, (drops.host.folder / "stderr").read_text()
    assert at is None, f"it does not die at {at}"
    return moments


def test_a_set_is_registered_once_at_each_point_of_death(killer: Killer, tmp_path: Path) -> None:
    """The object leaves with the file of the finished set, and not before it was registered."""
    with bucket_host(tmp_path, "uec") as drops:
        text = drops.host.config.read_text().replace("[defaults]\n", f"[defaults]\n{KEEP}", 1)
        drops.host.configure(text.replace("[spool]\n", '[spool]\nafter = "delete"\n', 1))
        for number in range(2):  # the first run also makes the ledger and the bucket
            drop(drops, number)
            moments = run(drops, killer)
        places = list(dict.fromkeys(chain.from_iterable(map(deaths, moments))))
        assert {word.partition(" ")[2] for place in places for word in place[:2]} >= EFFECTS
        for number, place in enumerate(places, start=2):
            drop(drops, number)
            registered = len(drops.host.cloud.images)
            run(drops, killer, place)
            is_there = "karmic.img" in drops.names()
            assert is_there or len(drops.host.cloud.images) == registered + 1, f"lost at {place}"
            run(drops, killer)
            assert len(drops.host.cloud.images) == registered + 1, place
            assert {"karmic.img", "karmic.emi"} & set(drops.names()) == {"karmic.emi"}, place
            assert not list(drops.host.spool.glob(".karmic*")), place
