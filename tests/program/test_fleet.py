"""Several hosts with one ledger, each with spool folders of its own; see also `tests/crash/test_fleet.py`."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from tests.support.cloud_keys import with_keys
from tests.support.daemon import daemon_process, stop_daemon, wait_for_line
from tests.support.fleet import Fleet
from tests.support.host import Host
from tests.support.newer_tables import ADDING, TAKING
from tests.support.postgres import DatabaseServer
from tests.support.waiting import PATIENCE_SECONDS, no_stop, until
from uecwatchd.cli.schemas import read_schema
from uecwatchd.demo.material import RealSet
from uecwatchd.sandbox.server import Sandbox

MakeHost = Callable[[str], Host]


@pytest.fixture
def fleet(database_server: DatabaseServer, tmp_path: Path) -> Iterator[Fleet]:
    with database_server.database() as name:
        yield Fleet(database_server, name, tmp_path)


@pytest.fixture
def member(fleet: Fleet, make_host: Callable[..., Host]) -> MakeHost:
    """Makes a host of the fleet."""
    return lambda name: fleet.join(make_host(name), name)


def test_a_service_that_was_taken_for_dead_ends_to_be_started_again(fleet: Fleet, member: MakeHost) -> None:
    with daemon_process(member("a")) as process:
        wait_for_line(process, "Watching")
        fleet.bury("a")
        _, talk = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 75
    assert "another host has ended the session of a" in talk


def test_an_image_stays_while_a_set_of_another_host_has_it(member: MakeHost, small_set: RealSet) -> None:
    hosts = [member("a"), member("b")]
    for host in hosts:
        host.drop_set(small_set)
        assert host.run("once").returncode == 0
    a, b = hosts
    before = sorted(image.id for image in a.cloud.images)
    ended = a.run("withdraw", "a:karmic", "--yes")
    assert sorted(image.id for image in a.cloud.images) == before, ended.stderr
    assert "set karmic uses it" in ended.stderr
    assert (b.spool / "karmic.emi").exists()


def test_a_host_with_another_cloud_of_that_name_is_halted(
    fleet: Fleet, member: MakeHost, small_set: RealSet, tmp_path: Path
) -> None:
    a = member("a")
    a.drop_set(small_set)
    assert a.run("once").returncode == 0
    with Sandbox(with_keys(tmp_path / "other")) as cloud:
        b = fleet.join(Host.made(tmp_path / "b", cloud), "b")
        b.drop_set(small_set)
        ended = b.run("once")
        assert ended.returncode == 78
        assert "cloud default: the other hosts with this ledger have another cloud" in ended.stderr
        assert cloud.images == ()
        assert b.report("karmic")["state"] == "halted"
    with closing(fleet.open("c")) as book:
        assert len(book.all_bundles()) == len(a.cloud.images) == 3


def test_orphans_stay_while_the_service_of_another_host_runs(member: MakeHost, small_set: RealSet) -> None:
    a, b = member("a"), member("b")
    b.drop_set(small_set)
    assert b.run("once").returncode == 0
    (image,) = (one for one in b.cloud.images if one.type == "machine")
    assert b.run("forget", "karmic").returncode == 0
    with daemon_process(a) as process:
        wait_for_line(process, "Watching")
        _, talk = b.ask("orphans", "--remove", "--yes", code=75)
    assert "orphans: the service runs on a" in talk
    assert image in b.cloud.images


def test_a_host_of_an_older_version_works_beside_newer_ones_until_they_take_something_away(
    fleet: Fleet, member: MakeHost, small_set: RealSet
) -> None:
    a = member("a")
    a.drop_set(small_set)
    with daemon_process(a) as process:
        wait_for_line(process, "karmic is emi-")
        fleet.upgrade("b", ADDING)
        a.drop_set(small_set, "lucid")
        wait_for_line(process, "lucid is emi-")
        stop_daemon(process)
    assert a.run("status").returncode == 0
    fleet.upgrade("b", TAKING)
    with daemon_process(a) as process:
        line = wait_for_line(process, "Nothing is begun yet")
        assert "Install the newer uecwatchd here, too" in line
        assert process.poll() is None
        stop_daemon(process)
    assert a.run("status").returncode == 75


def test_a_kernel_that_is_about_to_leave_is_registered_again(
    fleet: Fleet, member: MakeHost, small_set: RealSet
) -> None:
    """Its remover has claimed it before the set of the other host was known."""
    a, b = member("a"), member("b")
    a.drop_set(small_set, "first")
    assert a.run("once").returncode == 0
    b.drop_set(small_set, "second")
    with closing(fleet.open("c")) as remover:
        remover.sessions.begin()
        (kernel,) = [one for one in remover.bundles("default") if one.role == "kernel"]

        def is_looked_for() -> bool:
            remover.sessions.beat()
            return any(one.stage.startswith("deliver") for one in remover.sets_of_fleet())

        with remover.claim(kernel.claim, check=no_stop):
            run = b.start("once")
            until(is_looked_for, "the set of the other host")
            b.cloud.backend.registry.remove_image(kernel.image_id)
            remover.drop_bundle(kernel)
        _, talk = run.communicate(timeout=PATIENCE_SECONDS)
    assert run.returncode == 0, talk
    (image,) = [one.id for one in b.cloud.images if one.type == "kernel"]
    assert image != kernel.image_id
    assert (b.spool / "second.eki").read_text().strip() == image


def test_a_drained_host_begins_nothing_until_that_is_undone(member: MakeHost, small_set: RealSet) -> None:
    a, b = member("a"), member("b")
    assert a.run("once").returncode == 0
    assert b.ask("drain", "a")[1] == "a begins nothing new; what it works on goes on.\n"
    a.drop_set(small_set)
    ended = a.run("once")
    assert ended.returncode == 75
    assert "This host is drained" in ended.stderr
    assert a.cloud.images == ()
    a.ask("drain", "a", "--undo")
    assert a.run("once").returncode == 0
    assert len(a.cloud.images) == 3


def test_the_hosts_are_listed(member: MakeHost, host: Host) -> None:
    a, b = member("a"), member("b")
    assert b.run("once").returncode == 0
    with daemon_process(a) as process:
        wait_for_line(process, "Watching")
        data, _ = b.ask("fleet")
        found = json.loads(b.ask("fleet", "--json")[0])
    title, first, second = data.splitlines()
    assert title.split("  ")[0] == "HOST"
    assert first.split()[:2] == ["a", "running"]
    assert second.split()[:2] == ["b", "stopped"]
    assert Draft202012Validator(json.loads(read_schema("fleet"))).is_valid(found)
    assert [one["state"] for one in found] == ["running", "stopped"]
    _, talk = b.ask("drain", "aa", code=65)
    assert "there is no host named aa" in talk
    assert "This host has its ledger for itself" in host.ask("fleet")[1]
