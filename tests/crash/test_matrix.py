"""The crash matrix: one clean run tells which moments there are, and the program is killed at each of them.

Between two effects that follow each other nothing outlives the process, so to be killed after the one is to
be killed before the other: such a *gap* is one point of the matrix. Each is tried where a run first comes
through it, and those of an upload and a registration with the largest member as well. To be quick, a few
gaps that follow each other share a set: the program is killed in the first, started, killed in the next, and
so on, and started once more. The table of all points, with the outcome of each, is printed by

    pytest -q -rP tests/crash/test_matrix.py
"""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest

from tests.crash.conftest import DATABASE, KILLED, Killer, Scene

pytestmark = pytest.mark.exhaustive

# The cases are dealt to a few tests, which two workers can run at once.
SHARES = 4
# Gaps that share a set: a run that is taken up again costs as much as a whole one.
IN_A_ROW = 2
# What an upload and a registration consist of.
AGAIN = ("put part", "note bundle registering", "RegisterImage", "append to .uec.log")
# Without one of these the matrix would have a hole, also after changes of the code.
MUST_BE_CROSSED = (
    "make the state directory", "bring the ledger up to date", "make bucket",
    "note set working: deliver the machine image", "note set working: publish",
    "note bundle planned", "put part", "put manifest", "note bundle uploaded", "note bundle registering",
    "RegisterImage", "note bundle registered", "empty the ledger's log", "CreateTags", "append to .uec.log",
    "write .uec.json", "place .uec.json", "place .eki", "place .eri", "place .emi",
    "note set done",
)  # fmt: skip


@dataclass(frozen=True)
class Gap:
    """Place to kill: between the end of one effect and the beginning of the next, at the nth time."""

    after: str
    before: str
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.after or 'at the start'} | {self.before}{' (last)' if self.nth > 1 else ''}"

    @property
    def at(self) -> tuple[str, str, int]:
        return (f"after {self.after}" if self.after else "", f"before {self.before}", self.nth)


@dataclass(frozen=True)
class Clean:
    """A run that nobody kills."""

    crossed: list[str]
    puts: Counter[str]


@pytest.fixture(scope="module", params=["file", "database"])
def scene(scene: Scene, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """The same host with its ledger in a file, and in a database."""
    if request.param == "file":
        yield scene
        return
    scene.server = request.getfixturevalue("database_server")
    alone = scene.host.config.read_text()
    scene.host.configure(f'{alone}\n[fleet]\ndsn = "{scene.server.dsn(DATABASE)}"\n')
    yield scene
    scene.server = None
    scene.host.configure(alone)


@pytest.fixture(scope="module")
def clean(scene: Scene, killer: Killer) -> Clean:
    scene.begin_again()
    assert killer.run(scene.host, "once") == 0, scene.said()
    return Clean(scene.crossed(), scene.puts())


def effect(moment: str) -> str:
    return moment.partition(" ")[2]


def cases(crossed: list[str]) -> list[tuple[Gap, ...]]:
    """Return the gaps to be tried together: a few in their order, and each at the largest member alone."""
    count = Counter(gaps(["", *crossed]))
    found = list(count)
    last = [replace(gap, nth=count[gap]) for gap in found if gap.after in AGAIN and gap.before in AGAIN]
    chains = [tuple(found[at : at + IN_A_ROW]) for at in range(0, len(found), IN_A_ROW)]
    return chains + [(gap,) for gap in last]


def gaps(moments: list[str]) -> Iterator[Gap]:
    for one, other in pairwise(moments):
        if not (one.startswith("before ") or other.startswith("after ")):  # an effect is under way
            yield Gap(effect(one), effect(other))


def test_a_run_without_a_crash_has_all_important_failpoints(scene: Scene, clean: Clean) -> None:
    found = [gap for case in cases(clean.crossed) for gap in case]
    needed = [name for name in MUST_BE_CROSSED if not (scene.server and name == "empty the ledger's log")]
    for name in needed:
        assert name in {gap.before for gap in found}
        assert name in {gap.after for gap in found} or name == MUST_BE_CROSSED[-1], name
    assert Gap("put part", "put part", 2) in found
    assert set(clean.puts.values()) == {1}
    assert len([key for key in clean.puts if ".part." in key]) == 1 + 1 + 3


@pytest.mark.parametrize("share", range(SHARES))
def test_a_set_is_registered_once_at_each_point_of_death(
    scene: Scene, killer: Killer, clean: Clean, share: int
) -> None:
    wrong = {}
    for case in cases(clean.crossed)[share::SHARES]:
        found = list(what_is_wrong(scene, killer, clean, case))
        for gap in case:
            sys.stdout.write(f"{gap!s:<95}  {'; '.join(found) or 'registered once'}\n")
            wrong.update({str(gap): found} if found else {})
    assert not wrong


def what_is_wrong(scene: Scene, killer: Killer, clean: Clean, case: tuple[Gap, ...]) -> Iterator[str]:
    """Kill the program in each gap, run it once more, and tell in words what is not as it should be."""
    scene.begin_again()
    unsure = 0
    for number, gap in enumerate(case):
        if killer.run(scene.host, "once", at=gap.at) == KILLED:
            unsure += scene.manifests_on_their_way()
            yield from scene.broken_promises()
            continue
        # Where the run before has come too far already, a new set begins.
        yield from what_is_wrong(scene, killer, clean, case[number:]) if number else ["not killed"]
        return
    if code := killer.run(scene.host, "once"):
        yield f"it ended with {code}: {scene.said()}"
        return
    yield from scene.broken_promises()
    yield from wrong_in_the_cloud(scene, clean, unsure)
    yield from scene.wrong_beside_the_files()
    yield from scene.wrong_in_the_ledger()


def wrong_in_the_cloud(scene: Scene, clean: Clean, unsure: int) -> Iterator[str]:
    yield from scene.wrong_on_the_list()
    puts, there = scene.puts(), {one.key for one in scene.host.cloud.objects("uec-images")}
    if not puts.keys() == clean.puts.keys() == there:
        yield f"objects: {sorted(there)}, sent: {sorted(puts)}"
    if twice := [key for key, count in puts.items() if count > 1 and ".part." in key]:
        yield f"sent twice: {twice}"
    # A manifest is signed again each time, and is sent again if its arrival is not recorded.
    if sum(count - 1 for key, count in puts.items() if ".manifest." in key) > unsure:
        yield f"manifests sent again: {puts}"
