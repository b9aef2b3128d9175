"""Hosts that share a folder: one dies or freezes, and the others take its sets and its scans over.

Each test ends with the same look: one image at each location, every set with its own, nothing left behind.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.conftest import KILLED, Crossing, Killer
from tests.support.fleet import Fleet
from tests.support.postgres import DatabaseServer
from tests.support.shared_folder import (
    MakeHost,
    Sharing,
    await_sets,
    check_done_once,
    running,
    said,
    write_set,
)
from tests.support.waiting import until
from uecwatchd.demo.material import RealSet

pytestmark = pytest.mark.exhaustive

NAMES = [f"set-{number}" for number in range(8)]


@pytest.fixture
def fleet(database_server: DatabaseServer, tmp_path: Path) -> Iterator[Fleet]:
    with database_server.database() as name:
        yield Fleet(database_server, name, tmp_path)


@pytest.fixture
def sharing(fleet: Fleet, make_host: MakeHost, tmp_path: Path) -> Sharing:
    spool = tmp_path / "shared"
    spool.mkdir()
    return Sharing(fleet, spool, make_host)


@pytest.mark.parametrize(
    "at",
    [
        ("before name a share", "after name a share", 1),
        ("before scan a shared folder", "after scan a shared folder", 1),
        ("before offer sets", "after offer sets", 1),
        ("before take a set", "after take a set", 1),
        ("before put part", "after put part", 1),
        ("before RegisterImage", "after RegisterImage", 1),
        ("before write .emi", "after write .emi", 1),
        ("before place .emi", "after place .emi", 1),
        ("before release a set", "after release a set", 1),
    ],
    ids=lambda at: at[1],
)
def test_the_set_of_a_dead_host_is_done_by_another_one(
    sharing: Sharing, small_set: RealSet, killer: Killer, at: Crossing
) -> None:
    a, b = sharing.host("a"), sharing.host("b")
    a.drop_set(small_set)
    assert killer.run(a, "once", at=at) == KILLED, said(a)
    sharing.fleet.bury("a")
    ended = b.run("once")
    assert ended.returncode == 0, ended.stderr
    assert a.run("once").returncode == 0, "and sweeps what it has left"
    check_done_once(b, ["karmic"])


@pytest.mark.parametrize("dies", ["the one that scans", "another one"])
def test_the_sets_of_a_host_that_dies_among_others_are_done_by_these(
    sharing: Sharing, small_set: RealSet, dies: str
) -> None:
    hosts = {name: sharing.host(name) for name in "abc"}
    with ExitStack() as stack:
        processes = {name: stack.enter_context(running(host)) for name, host in hosts.items()}
        until(sharing.scans, "a host scans")
        scans = sharing.scans()
        dead = scans if dies == "the one that scans" else next(name for name in "abc" if name != scans)
        for number, name in enumerate(NAMES):
            write_set(sharing.spool, name, small_set, number)
        until(lambda: sharing.at_work(dead), "it has a set", detail=lambda: said(hosts[dead]))
        processes[dead].kill()
        processes[dead].wait(30)
        sharing.fleet.bury(dead)
        others = [host for name, host in hosts.items() if name != dead]
        await_sets(others, NAMES)
        until(lambda: sharing.scans() not in ("", dead), "another one scans")
    assert hosts[dead].run("once").returncode == 0, "and sweeps what it has left"
    check_done_once(others[0], NAMES)


@pytest.mark.parametrize(
    "at",
    [
        ("after write .emi", "before place .emi", 1),
        ("before put part", "after put part", 1),
        ("after note set working: publish", "before write .uec.json", 1),
    ],
    ids=lambda at: at[1],
)
def test_a_host_that_was_frozen_for_a_whole_lease_writes_nothing_any_more(
    sharing: Sharing, small_set: RealSet, killer: Killer, at: Crossing
) -> None:
    """The lease ends by itself, which takes half a minute: the host that wakes up asks its own clock."""
    a, b = sharing.host("a"), sharing.host("b")
    a.drop_set(small_set)
    pid = killer.begin(a, "once", at=at, by=signal.SIGSTOP)
    stat = Path(f"/proc/{pid}/stat")
    until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "it is frozen")
    with running(b):
        await_sets([b], ["karmic"])
        before = outputs(sharing.spool)
        os.kill(pid, signal.SIGCONT)
        assert killer.ended() == 75
        assert outputs(sharing.spool) == before
    assert "karmic is emi" in said(b)
    assert a.run("once").returncode == 0
    check_done_once(b, ["karmic"])


def outputs(spool: Path) -> dict[str, tuple[int, int]]:
    """Return the result files, with what changes when one is written."""
    found = [path for path in spool.iterdir() if path.name.startswith("karmic.uec") or "emi" in path.name]
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found if path.name[0] != "."}
