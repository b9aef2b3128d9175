"""The whole program with its ledger in a PostgreSQL database."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from subprocess import run

import pytest

from tests.support.daemon import daemon_process, daemon_thread, stop_daemon, wait_for_line
from tests.support.host import Host
from tests.support.listener import Recorder
from tests.support.postgres import DatabaseServer
from tests.support.waiting import until
from uecwatchd.config.load import load
from uecwatchd.demo.material import RealSet
from uecwatchd.ledger.open import open_ledger
from uecwatchd.service.daemon import Service
from uecwatchd.system import failpoints
from uecwatchd.system.clocks import Clocks

pytestmark = pytest.mark.exhaustive

# Runs a verb as on a host without the extra.
WITHOUT_EXTRA = """
import sys
sys.modules["psycopg"] = None
from uecwatchd.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def fleet_host(host: Host, database_server: DatabaseServer) -> Iterator[Host]:
    """A host with its ledger in a database."""
    with database_server.database() as name:
        configure(host, database_server, name)
        yield host


def configure(host: Host, server: DatabaseServer, name: str) -> None:
    host.configure(f'{host.config.read_text()}\n[fleet]\ndsn = "{server.dsn(name)}"\n')


def test_a_daemon_that_starts_before_its_database_waits_for_it(
    fleet_host: Host, database_server: DatabaseServer, small_set: RealSet
) -> None:
    fleet_host.drop_set(small_set)
    with ExitStack() as ends:
        with database_server.away():
            process = ends.enter_context(daemon_process(fleet_host))
            wait_for_line(process, "Nothing is begun yet")
        until((fleet_host.spool / "karmic.emi").exists, "the id")
        stop_daemon(process)


def test_a_second_host_is_refused_by_each_verb(
    fleet_host: Host, database_server: DatabaseServer, tmp_path: Path
) -> None:
    assert fleet_host.run("once").returncode == 0
    data, _ = fleet_host.ask("check", code=0)
    assert "ledger: database test_" in data
    second = Host.made(tmp_path / "second", fleet_host.cloud)
    second.configure(
        f"{second.config.read_text()}\n[fleet]\n{fleet_host.config.read_text().partition('[fleet]')[2]}"
    )
    for verb in ("once", "status", "check"):
        data, talk = second.ask(verb, code=78)
        assert "is another machine or state directory" in data + talk, verb


def test_a_host_without_the_extra_is_told_to_install_it(fleet_host: Host) -> None:
    command = [sys.executable, "-c", WITHOUT_EXTRA, "status", "--config", str(fleet_host.config)]
    ended = run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 78
    assert "dsn under [fleet]: cannot use a database: there is no psycopg" in ended.stderr
    assert "extra fleet" in ended.stderr


def test_a_database_that_crashes_in_the_middle_of_the_work_loses_no_set(
    fleet_host: Host, database_server: DatabaseServer, small_set: RealSet, listener: Recorder
) -> None:
    fleet_host.drop_set(small_set)
    settings = load(fleet_host.config, environ={})
    crashed = threading.Event()

    def crash(moment: str) -> None:
        if moment == "before RegisterImage" and not crashed.is_set():
            crashed.set()
            database_server.stop()

    with closing(open_ledger(settings)) as book:
        service = Service(settings, listener=listener, ledger=book, clocks=Clocks())
        with daemon_thread(service):
            failpoints.listen(crash)
            try:
                until(crashed.is_set, "the crash")
                until(lambda: "cannot connect to it" in said(listener), "a word about it")
                fleet_host.drop_set(small_set, "lucid")
            finally:
                failpoints.listen(lambda _: None)
                database_server.start()
            for name in ("karmic", "lucid"):
                until((fleet_host.spool / f"{name}.emi").exists, name, detail=lambda: said(listener))
        assert {one.state for one in book.history.attempts()} == {"done"}
    assert said(listener).count("cannot connect to it") == 1
    assert said(listener).count("The ledger can be used again") == 1
    assert sorted(image.type for image in fleet_host.cloud.images) == ["kernel", "machine", "ramdisk"]
    data, _ = fleet_host.ask("status", "--json")
    assert [one["state"] for one in json.loads(data)] == ["done", "done"]


def said(listener: Recorder) -> str:
    return "\n".join(event.sentence for event in tuple(listener.events))
