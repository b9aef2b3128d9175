"""Two hosts with one ledger: one dies or freezes in the middle of its work, and the other takes it over.

Each test ends with the same looks: one image at each location, every bundle opens, nothing is left behind.
The session of the first host is buried by hand, as the second one would after a whole lease.
"""

import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.crash.conftest import KILLED, Crossing, Killer, sweep
from tests.crash.test_matrix import gaps
from tests.support.fleet import Fleet
from tests.support.host import Host
from tests.support.postgres import TEMPLATE, DatabaseServer
from tests.support.waiting import until
from uecwatchd.demo.material import RealSet
from uecwatchd.ledger.key_seal import FILE_NAME

pytestmark = pytest.mark.exhaustive

BUCKET = "uec-images"
# The points of death are dealt to a few tests, which several workers can run at once.
SHARES = 8
SETTLED = "UPDATE claims SET settled_at = clock_timestamp()"


@pytest.fixture
def fleet(database_server: DatabaseServer, tmp_path: Path) -> Iterator[Fleet]:
    with database_server.database() as name:
        yield Fleet(database_server, name, tmp_path)


@pytest.fixture
def hosts(fleet: Fleet, make_host: Callable[..., Host], small_set: RealSet) -> tuple[Host, Host]:
    """Two hosts, each with a set of its own of the same files."""
    found = []
    for name in "ab":
        host = make_host(name)
        dsn = fleet.server.dsn(fleet.name)
        host.configure(f'{host.config.read_text()}\n[fleet]\nhost = "{name}"\ndsn = "{dsn}"\n')
        host.drop_set(small_set, f"set-{name}")
        found.append(host)
    return found[0], found[1]


def check_end(hosts: tuple[Host, ...]) -> None:
    """Check that all is there once, and whole."""
    images = hosts[0].cloud.images
    assert sorted(image.type for image in images) == ["kernel", "machine", "ramdisk"]
    assert max(Counter(image.location for image in images).values()) == 1
    prefixes = {image.location.partition("/")[2].removesuffix("manifest.xml") for image in images}
    keys = [one.key for one in hosts[0].cloud.objects(BUCKET)]
    assert [key for key in keys if not key.startswith(tuple(prefixes))] == []
    for host, name in zip(hosts, ("set-a", "set-b"), strict=True):
        (machine,) = [image.id for image in images if image.type == "machine"]
        assert (host.spool / f"{name}.emi").read_text().strip() == machine
        checked = host.run("verify", name)
        assert checked.returncode == 0, checked.stderr


def test_two_hosts_at_work_at_once_register_each_file_once(hosts: tuple[Host, Host]) -> None:
    runs = [host.start("once") for host in hosts]
    for run in runs:
        _, talk = run.communicate(timeout=120)
        assert run.returncode == 0, talk
    check_end(hosts)
    puts = Counter(one.path for one in hosts[0].cloud.requests if one.action == "PutObject" and not one.code)
    assert max(puts.values()) == 1


@pytest.mark.parametrize(
    "at",
    [
        ("after note bundle planned", "before put part", 1),
        ("before put part", "after put part", 1),
        ("before put manifest", "after put manifest", 1),
        ("after note bundle uploaded", "before note bundle registering", 1),
        ("before RegisterImage", "after RegisterImage", 1),
        ("before note bundle registered", "after note bundle registered", 3),
    ],
    ids=lambda at: at[1],
)
def test_the_work_of_a_dead_host_is_taken_over(
    fleet: Fleet, hosts: tuple[Host, Host], killer: Killer, at: Crossing
) -> None:
    a, b = hosts
    assert killer.run(a, "once", at=at) == KILLED
    fleet.bury("a")
    ended = b.run("once")
    assert ended.returncode == 0, ended.stderr
    assert a.run("once").returncode == 0
    check_end(hosts)


def test_parts_of_hosts_with_other_deflaters_are_not_mixed(
    fleet: Fleet, hosts: tuple[Host, Host], killer: Killer
) -> None:
    a, b = hosts
    for host, how in ((a, "fast"), (b, "small")):
        host.configure(f'{host.config.read_text()}\n[work]\ncompression = "{how}"\n')
    assert killer.run(a, "once", at=("before put part", "after put part", 1)) == KILLED
    fleet.bury("a")
    assert b.run("once").returncode == 0
    assert a.run("once").returncode == 0
    check_end(hosts)


def test_an_upload_whose_keys_are_lost_begins_again(hosts: tuple[Host, Host], killer: Killer) -> None:
    a, b = hosts
    at = ("before put manifest", "after put manifest", 1)
    assert killer.run(a, "once", at=at) == KILLED
    (a.state / FILE_NAME).unlink()
    assert a.run("once").returncode == 0
    assert b.run("once").returncode == 0
    check_end(hosts)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("share", range(SHARES))
def test_the_work_of_a_host_is_taken_over_at_each_point_of_death(
    fleet: Fleet, hosts: tuple[Host, Host], killer: Killer, small_set: RealSet, share: int
) -> None:
    wrong = {}
    for gap in list(dict.fromkeys(gaps(["", *clean_run(hosts[0], killer)])))[share::SHARES]:
        begin_again(fleet, hosts, small_set)
        assert killer.run(hosts[0], "once", at=gap.at) == KILLED, gap
        fleet.bury("a")
        try:
            work_to_the_end(fleet, hosts[1])
            assert hosts[0].run("once").returncode == 0
            check_end(hosts)
        except AssertionError as error:
            wrong[str(gap)] = str(error)
        sys.stdout.write(f"{gap!s:<95}  {wrong.get(str(gap), 'taken over')}\n")
    assert not wrong


def clean_run(host: Host, killer: Killer) -> list[str]:
    """Return the moments of a run that nobody kills, in order."""
    assert killer.run(host, "once") == 0
    return (host.folder / "crossed").read_text().splitlines()


def begin_again(fleet: Fleet, hosts: tuple[Host, Host], made: RealSet) -> None:
    """Remove all of the case before: from the ledger, from the cloud, and beside the files."""
    fleet.server.execute(
        f"DROP DATABASE {fleet.name} WITH (FORCE)", f"CREATE DATABASE {fleet.name} TEMPLATE {TEMPLATE}"
    )
    sweep(hosts[0].cloud)
    for host, name in zip(hosts, ("set-a", "set-b"), strict=True):
        for folder in (host.spool, host.state):
            shutil.rmtree(folder, ignore_errors=True)
        host.spool.mkdir()
        host.drop_set(made, name)


def work_to_the_end(fleet: Fleet, host: Host) -> None:
    """Work on the set of the other host, and once more if it had to wait for what may still come through."""
    if host.run("once").returncode:
        fleet.execute(SETTLED)
        host.ask("retry", "set-b")
        ended = host.run("once")
        assert ended.returncode == 0, ended.stderr


def test_what_a_dead_host_may_still_register_is_waited_for(
    fleet: Fleet, hosts: tuple[Host, Host], killer: Killer
) -> None:
    a, b = hosts
    assert killer.run(a, "once", at=("after note bundle registering", "before RegisterImage", 1)) == KILLED
    fleet.bury("a")
    ended = b.run("once")
    assert ended.returncode == 75, ended.stderr
    assert "its request may still come through" in b.report("set-b")["error"]["why"]
    assert b.cloud.images == ()
    fleet.execute(SETTLED)
    b.ask("retry", "set-b")
    assert b.run("once").returncode == 0
    assert a.run("once").returncode == 0
    check_end(hosts)


@pytest.mark.parametrize(
    "at",
    [
        ("after note bundle planned", "before put part", 1),
        ("before put part", "after put part", 1),
        ("before put manifest", "after put manifest", 1),
        ("after note bundle registering", "before RegisterImage", 1),
        ("before RegisterImage", "after RegisterImage", 1),
        ("after note bundle registered", "before release a bundle", 1),
    ],
    ids=lambda at: at[1],
)
def test_a_host_that_was_frozen_past_its_lease_changes_nothing_any_more(
    fleet: Fleet, hosts: tuple[Host, Host], killer: Killer, at: Crossing
) -> None:
    a, b = hosts
    with frozen(killer, a, at):
        fleet.bury("a")
        work_to_the_end(fleet, b)
    said = (a.folder / "stderr").read_text()
    assert "another host has ended the session of a" in said
    assert not (a.spool / "set-a.emi").exists(), said
    assert a.run("once").returncode == 0
    check_end(hosts)


@contextmanager
def frozen(killer: Killer, host: Host, at: Crossing) -> Iterator[None]:
    """Stop the program at a moment; in the end let it go on, up to its end."""
    pid = killer.begin(host, "once", at=at, by=signal.SIGSTOP)
    try:
        until(lambda: is_stopped(pid), "the moment", detail=(host.folder / "stderr").read_text, patience=60)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        ended = killer.ended()
    assert ended == 75


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
