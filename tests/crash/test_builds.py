"""A recipe, killed around the request for its installation: built once, and nothing of it left."""

from itertools import pairwise
from pathlib import Path

import pytest

from tests.crash.conftest import KILLED, Killer
from tests.support.build_worker import HandWorker
from tests.support.host import Host
from tests.support.prepared_sets import unprepared_qcow2
from uecwatchd.install.request import queued_builds

pytestmark = pytest.mark.exhaustive

RECIPE = 'kernel = "from-image"\n\n[install]\niso = "netinst.iso"\ndisk = "1G"\nkeep = false\n'
WRITE, WITHDRAW = "write a build request", "withdraw a build request"
REMOVE = "remove a withdrawn build"


@pytest.fixture
def builds(host: Host) -> Path:
    folder = host.folder / "builds"
    text = host.config.read_text().replace("settle = 0.3", "settle = 0.05")
    host.configure(f'{text}\n[install]\nbuilds = "{folder}"\nworker = "unit"\n')
    folder.mkdir()
    (host.spool / "tiny.toml").write_text(RECIPE)
    (host.spool / "netinst.iso").write_bytes(b"an ISO image, as far as the service looks")
    return folder


def crossed(host: Host) -> list[str]:
    return (host.folder / "crossed").read_text().splitlines()


def death_before(host: Host, moment: str) -> tuple[str, str, int]:
    """Return the moment before this one in the last run, and this one: where to kill the next."""
    return next((*pair, 1) for pair in pairwise(crossed(host)) if pair[1] == moment)


def test_a_build_is_asked_for_again_and_made_once_at_each_point_of_death(
    host: Host, builds: Path, killer: Killer, tmp_path: Path
) -> None:
    worker = HandWorker(builds, unprepared_qcow2(tmp_path))
    after = (f"before {WRITE}", f"after {WRITE}", 1)
    assert killer.run(host, "once", at=after) == KILLED, crossed(host)
    assert len(queued_builds(builds)) == 1
    before = death_before(host, f"before {WRITE}")
    first = worker.next_request()
    assert killer.run(host, "once", at=before) == KILLED, crossed(host)
    assert queued_builds(builds) == (), "it was not asked for again yet"
    killer.begin(host, "once")
    again = worker.next_request()
    assert again.key == first.key
    worker.finish(again.key)
    assert killer.ended() == 0
    assert (host.spool / "tiny.emi").exists()
    assert list((builds / "queue").iterdir()) == []
    assert [one.name for one in builds.iterdir()] == ["queue"]


def test_a_finished_set_that_dies_while_it_gives_its_disk_back_does_so_at_the_next_start(
    host: Host, builds: Path, killer: Killer, tmp_path: Path
) -> None:
    worker = HandWorker(builds, unprepared_qcow2(tmp_path))
    killer.begin(host, "once", at=(f"after {WITHDRAW}", f"before {REMOVE}", 1))
    key = worker.next_request().key
    worker.finish(key)
    assert killer.ended() == KILLED
    assert (host.spool / "tiny.emi").exists()
    assert killer.run(host, "once") == 0
    assert [one.name for one in builds.iterdir()] == ["queue"]
