"""One folder that several hosts have, from a file server; see also `tests/crash/test_shared_folder.py`."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.daemon import daemon_process, stop_daemon, wait_for_line
from tests.support.host import Host
from tests.support.two_mounts import mounted, needs_bindfs
from tests.support.waiting import until
from uecwatchd.demo.material import RealSet
from uecwatchd.intake.spool.host_mark import STALE_SECONDS
from uecwatchd.intake.spool.output_files import MARK_NAME

pytestmark = pytest.mark.exhaustive

MakeHost = Callable[..., Host]


def at(host: Host, spool: Path) -> Host:
    """Give a host another spool folder."""
    host.configure(host.config.read_text().replace(str(host.spool), str(spool)))
    return replace(host, spool=spool)


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
        then = (server / MARK_NAME).stat().st_mtime - STALE_SECONDS
        os.utime(server / MARK_NAME, (then, then))
        ended = b.run("once")
        assert ended.returncode == 0, ended.stderr
