"""One folder that several hosts have, from a file server; see also `tests/crash/test_shared_folder.py`."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.daemon import daemon_process, stop_daemon, wait_for_line
from tests.support.fleet import Fleet
from tests.support.host import open_way
from tests.support.postgres import DatabaseServer
from tests.support.shared_folder import (
    MakeHost,
    Sharing,
    at,
    attempts,
    await_sets,
    check_done_once,
    running,
    said,
    write_set,
)
from tests.support.two_mounts import mounted, needs_bindfs
from tests.support.waiting import until
from uecwatchd.demo.material import RealSet
from uecwatchd.intake.spool.host_mark import STALE_SECONDS
from uecwatchd.intake.spool.output_files import MARK_NAME

pytestmark = pytest.mark.exhaustive


def grow_stale(folder: Path) -> None:
    then = (folder / MARK_NAME).stat().st_mtime - STALE_SECONDS
    os.utime(folder / MARK_NAME, (then, then))


# --- without a fleet --------------------------------------------------------------------------------------


@needs_bindfs
def test_a_second_host_without_a_fleet_is_kept_out_where_locks_do_not_reach(
    make_host: MakeHost, small_set: RealSet, tmp_path: Path
) -> None:
    server, places = tmp_path / "server", (tmp_path / "on-a", tmp_path / "on-b")
    server.mkdir()
    with mounted(server, *places):
        a, b = (at(make_host(name), place) for name, place in zip("ab", places, strict=True))
        with daemon_process(a) as process:
            wait_for_line(process, "Watching")
            a.drop_set(small_set)
            refused = b.run("once")
            assert refused.returncode == 75
            assert "another uecwatchd watches this folder" in refused.stderr
            assert str(places[0]) in refused.stderr
            until(lambda: (a.spool / "karmic.emi").exists(), "the set of a")
            stop_daemon(process)
        assert not (server / MARK_NAME).exists()
        ended = b.run("once")
        assert ended.returncode == 0, ended.stderr
    assert len(a.cloud.images) == 3


@needs_bindfs
def test_the_folder_of_a_host_that_died_is_free_when_its_mark_is_stale(
    make_host: MakeHost, tmp_path: Path
) -> None:
    server, places = tmp_path / "server", (tmp_path / "on-a", tmp_path / "on-b")
    server.mkdir()
    with mounted(server, *places):
        a, b = (at(make_host(name), place) for name, place in zip("ab", places, strict=True))
        with daemon_process(a) as process:
            wait_for_line(process, "Watching")
            process.kill()
            process.wait(30)
        assert a.run("once").returncode == 0, "its own mark is no obstacle"
        (server / MARK_NAME).write_text("of a host that died\n")
        assert b.run("once").returncode == 75
        grow_stale(server)
        ended = b.run("once")
        assert ended.returncode == 0, ended.stderr


# --- within a fleet ---------------------------------------------------------------------------------------


@pytest.fixture
def fleet(database_server: DatabaseServer, tmp_path: Path) -> Iterator[Fleet]:
    with database_server.database() as name:
        yield Fleet(database_server, name, tmp_path)


@pytest.fixture
def sharing(fleet: Fleet, make_host: MakeHost, tmp_path: Path) -> Sharing:
    spool = tmp_path / "shared"
    spool.mkdir()
    return Sharing(fleet, spool, make_host)


def test_a_set_in_a_shared_folder_is_done_by_one_host_and_known_to_all(
    sharing: Sharing, small_set: RealSet
) -> None:
    a, b = sharing.host("a"), sharing.host("b")
    a.drop_set(small_set)
    ended = a.run("once")
    assert ended.returncode == 0, ended.stderr
    (row,) = json.loads(b.ask("status", "--json")[0])
    assert (row["name"], row["state"]) == ("karmic", "done")
    again = b.run("once")
    assert again.returncode == 0
    assert "Nothing to do: 1 done" in again.stderr
    assert "attempt 1" in b.ask("history", "karmic")[0]
    check_done_once(a, ["karmic"])


def test_three_hosts_do_sixty_sets_once_each(sharing: Sharing, small_set: RealSet) -> None:
    hosts = [sharing.host(name) for name in "abc"]
    names = [f"set-{number:02}" for number in range(60)]
    for number, name in enumerate(names):
        write_set(sharing.spool, name, small_set, number)
    with ExitStack() as stack:
        for host in hosts:
            stack.enter_context(running(host))
        await_sets(hosts, names)
    check_done_once(hosts[0], names)
    assert {attempts(hosts[0], name) for name in names} == {1}
    assert len(hosts[0].cloud.images) == 60 + 3 + 3
    done = [sum(f" {name} is emi" in said(host) for name in names) for host in hosts]
    assert sum(done) == 60, done
    assert all(done), f"each host has done some: {done}"


def test_a_drained_host_lets_another_one_scan(sharing: Sharing, small_set: RealSet) -> None:
    a, b = sharing.host("a"), sharing.host("b")
    with running(a):
        until(lambda: sharing.scans() == "a", "a scans")
        a.ask("drain", "a")
        with running(b):
            until(lambda: sharing.scans() == "b", "b scans", detail=lambda: said(a) + said(b))
            b.drop_set(small_set)
            await_sets([b], ["karmic"])
    assert "karmic is emi" in said(b)


def test_a_retry_is_carried_out_by_the_host_that_scans(sharing: Sharing) -> None:
    a, b = sharing.host("a"), sharing.host("b")
    (a.spool / "karmic.img").write_bytes(b"no image")
    with running(a), running(b):
        until(lambda: (a.spool / "karmic.uec.error").exists(), "it is rejected")
        scanning, other = (a, b) if sharing.scans() == "a" else (b, a)
        other.ask("retry", "karmic")
        until(lambda: a.report("karmic")["attempt"] == 2, "the second attempt", detail=lambda: said(scanning))
    assert "karmic: to be tried again, on request" in said(scanning)
    assert "karmic: to be tried again, on request" not in said(other)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_a_host_with_another_uid_says_so_and_does_not_work_there(
    sharing: Sharing, small_set: RealSet
) -> None:
    a, b = sharing.host("a"), sharing.host("b")
    open_way(sharing.spool)
    with running(a):
        until(lambda: (sharing.spool / MARK_NAME).exists(), "the mark of a")
        refused = b.run_as_nobody("once")
        assert refused.returncode == 78, refused.stderr
        assert "uecwatchd on host a works there as root (uid 0)" in refused.stderr
        assert "this one runs as uid 65534" in refused.stderr
        a.drop_set(small_set)
        await_sets([a], ["karmic"])
    check_done_once(a, ["karmic"])


def test_a_service_without_the_ledger_is_kept_out_of_a_shared_folder(
    sharing: Sharing, make_host: MakeHost
) -> None:
    a, alone = sharing.host("a"), at(make_host("alone"), sharing.spool)
    with running(a):
        until(lambda: (sharing.spool / MARK_NAME).exists(), "the mark of a")
        refused = alone.run("once")
        assert refused.returncode == 75
        assert "uecwatchd on host a" in refused.stderr
    assert alone.run("once").returncode == 75, "the mark of a fleet stays"
    grow_stale(sharing.spool)
    assert alone.run("once").returncode == 0


@needs_bindfs
def test_a_host_does_not_take_an_empty_folder_for_the_shared_one(
    sharing: Sharing, small_set: RealSet, tmp_path: Path
) -> None:
    """As when the file server is not mounted: all sets would look removed."""
    a, b = sharing.host("a"), sharing.host("b")
    server = tmp_path / "server"
    server.mkdir()
    with mounted(server, sharing.spool):
        a.drop_set(small_set)
        assert a.run("once").returncode == 0
    refused = b.run("once")
    assert refused.returncode == 75
    assert "perhaps the file server is not mounted here" in refused.stderr
    assert list(sharing.spool.iterdir()) == []
    with mounted(server, sharing.spool):
        assert b.run("once").returncode == 0
        check_done_once(b, ["karmic"])


@needs_bindfs
def test_a_host_stops_its_scans_when_the_shared_folder_is_not_mounted_any_more(
    sharing: Sharing, small_set: RealSet, tmp_path: Path
) -> None:
    a, server = sharing.host("a"), tmp_path / "server"
    server.mkdir()
    with ExitStack() as stack:
        with mounted(server, sharing.spool):
            stack.enter_context(running(a))
            a.drop_set(small_set)
            await_sets([a], ["karmic"])
        until(lambda: "perhaps the file server is not mounted here" in said(a), "it says so")
        assert list(sharing.spool.iterdir()) == []
        with mounted(server, sharing.spool):
            until(lambda: "the trouble is over" in said(a), "it goes on", detail=lambda: said(a))
            check_done_once(a, ["karmic"])


def test_a_shared_folder_needs_a_fleet(make_host: MakeHost) -> None:
    host = make_host("a")
    policy = f'[spool.policy."{host.spool}"]\nshared = true\n'
    host.configure(f"{host.config.read_text()}\n{policy}")
    refused = host.run("once")
    assert refused.returncode == 78
    assert f"{host.spool} is shared, which needs dsn under [fleet]" in refused.stderr
