"""A set that goes to several clouds, each with its own state: embedded clouds, one of them faulty."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.support.cloud_keys import with_keys
from tests.support.daemon import daemon_process, wait_for_line
from tests.support.host import Host, cloud_host
from tests.support.scanned_folder import MBR
from tests.support.spool_files import drop_image
from tests.support.waiting import until
from uecwatchd.demo.material import RealSet
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.sandbox.server import Sandbox

CLOUD = '\n[cloud.{name}]\ndialect = "sandbox"\neucarc = "{eucarc}"\n'
BOTH = 'clouds = ["default", "far"]\n'


@pytest.fixture
def far(tmp_path: Path, host: Host) -> Iterator[Sandbox]:
    """A second cloud, in the configuration of the host."""
    with ExitStack() as stack:
        cloud = stack.enter_context(Sandbox(with_keys(tmp_path / "far")))
        host.configure(host.config.read_text() + CLOUD.format(name="far", eucarc=cloud.eucarc))
        yield cloud


@pytest.fixture
def drop(host: Host, small_set: RealSet) -> Callable[[str], None]:
    def drop_with(sidecar: str) -> None:
        host.drop_set(small_set)
        (host.spool / "karmic.toml").write_text(sidecar)

    return drop_with


def id_files(host: Host) -> dict[str, str]:
    found = (path for path in host.spool.iterdir() if path.suffix in (".emi", ".eki", ".eri"))
    return {path.name: path.read_text().strip() for path in found}


def test_a_set_goes_to_both_clouds(host: Host, far: Sandbox, drop: Callable[[str], None]) -> None:
    drop(BOTH)
    ended = host.run("once")
    assert ended.returncode == 0, ended.stderr
    ids = {cloud: {i.id for i in each.images} for cloud, each in (("default", host.cloud), ("far", far))}
    files = id_files(host)
    assert files["karmic.emi"] == files["karmic.default.emi"]
    assert files["karmic.default.emi"] in ids["default"]
    assert {files["karmic.far.emi"], files["karmic.far.eki"], files["karmic.far.eri"]} == ids["far"]
    report = host.report("karmic")
    assert report["state"] == "done"
    assert [(one["cloud"], one["state"], one["ids"]["machine"]) for one in report["clouds"]] == [
        ("default", "done", files["karmic.default.emi"]),
        ("far", "done", files["karmic.far.emi"]),
    ]
    said, _ = host.ask("verify", "karmic")
    assert said.count(" on cloud far equals ") == said.count(" on cloud default equals ") == 3
    attempts = json.loads(host.ask("history", "karmic", "--json")[0])
    assert [(one["number"], one["cloud"], one["outcome"]) for one in attempts] == [
        (1, "default", "partly"),
        (2, "far", "done"),
    ]


def test_a_failing_cloud_keeps_no_set_from_the_other_and_is_no_success(
    host: Host, far: Sandbox, drop: Callable[[str], None]
) -> None:
    host.cloud.backend.faults.arm("image-fails")
    drop(BOTH)
    assert host.run("once").returncode != 0
    files = id_files(host)
    assert set(files) == {"karmic.far.emi", "karmic.far.eki", "karmic.far.eri"}
    report = host.report("karmic")
    assert report["state"] == "partly"
    assert [one["state"] for one in report["clouds"]][1] == "done"
    assert (host.spool / "karmic.uec.error").read_text().startswith("On cloud default:\n\n")
    shown, _ = host.ask("status", "karmic")
    assert "karmic: partly" in shown
    assert f"far done: {files['karmic.far.emi']}" in shown
    before = len(far.requests)
    host.cloud.backend.faults.clear()
    host.ask("retry", "karmic")
    ended = host.run("once")
    assert ended.returncode == 0, ended.stderr
    assert len(far.requests) == before, "it is done there"
    assert host.report("karmic")["state"] == "done"
    assert not (host.spool / "karmic.uec.error").exists()


def test_a_set_is_done_without_a_cloud_of_best_effort(
    host: Host, far: Sandbox, drop: Callable[[str], None]
) -> None:
    far.backend.faults.arm("image-fails")
    drop(f'{BOTH}best_effort = ["far"]\n')
    assert host.run("once").returncode == 0
    assert "karmic.emi" in id_files(host)
    assert "karmic.far.emi" not in id_files(host)
    report = host.report("karmic")
    assert (report["state"], [one["required"] for one in report["clouds"]]) == ("done", [True, False])
    assert report["clouds"][1]["error"] is not None
    far.backend.faults.clear()
    host.ask("retry", "karmic", "--cloud", "far")
    host.run("once")
    assert "karmic.far.emi" in id_files(host)


def test_a_wrong_file_is_reported_once_for_all_clouds(
    host: Host, far: Sandbox, drop: Callable[[str], None]
) -> None:
    drop(BOTH)
    (host.spool / "karmic.img").write_bytes(b"no image" * 1000)
    assert host.run("once").returncode == 65
    error = (host.spool / "karmic.uec.error").read_text()
    assert error.count("Why: ") == 1
    assert not far.calls("RegisterImage")


def test_clouds_that_are_one_account_are_refused(host: Host, drop: Callable[[str], None]) -> None:
    host.configure(host.config.read_text() + CLOUD.format(name="twin", eucarc=host.cloud.eucarc))
    drop('clouds = ["default", "twin"]\n')
    assert host.run("once").returncode == 65
    assert "the clouds default and twin are one account" in (host.spool / "karmic.uec.error").read_text()
    assert not host.cloud.images


def test_a_cloud_that_is_taken_out_of_the_list_keeps_its_image_and_loses_its_file(
    host: Host, far: Sandbox, drop: Callable[[str], None]
) -> None:
    drop(BOTH)
    assert host.run("once").returncode == 0
    drop('clouds = ["default"]\n')
    assert host.run("once").returncode == 0
    assert set(id_files(host)) == {"karmic.emi", "karmic.eki", "karmic.eri"}
    assert len(far.images) == 3


def test_two_sets_never_write_the_same_file(
    host: Host, far: Sandbox, small_set: RealSet, drop: Callable[[str], None]
) -> None:
    drop(BOTH)
    host.drop_set(small_set, "karmic.far")
    assert host.run("once").returncode == 65
    errors = [path.read_text() for path in host.spool.glob("*.uec.error")]
    assert any("its result files would be those of the set karmic" in text for text in errors)


def test_a_set_waits_for_a_cloud_that_is_away_while_it_is_done_on_the_other(
    host: Host, far: Sandbox, drop: Callable[[str], None]
) -> None:
    far.backend.faults.arm("away")
    drop(BOTH)
    with daemon_process(host) as daemon:
        wait_for_line(daemon, "karmic is emi-")
        until(lambda: host.report("karmic")["clouds"][1]["state"] == "deferred", "the other has failed")
        assert host.report("karmic")["state"] == "partly"
        assert set(id_files(host)) == {"karmic.default.emi", "karmic.default.eki", "karmic.default.eri"}
        far.backend.faults.clear()
        host.ask("retry", "karmic")
        until(lambda: "karmic.emi" in id_files(host), "the set is done")


def test_a_cloud_that_was_never_identified_keeps_no_disk_from_the_other(tmp_path: Path) -> None:
    with cloud_host(tmp_path, "euca4") as host, Sandbox(with_keys(tmp_path / "far"), dialect="uec") as far:
        table = CLOUD.format(name="far", eucarc=far.eucarc).replace("sandbox", "auto")
        host.configure(host.config.read_text() + table)
        far.backend.faults.arm("away")
        drop_image(host.spool, "karmic", MBR, sidecar=BOTH)
        host.run("once")
        assert set(id_files(host)) == {"karmic.default.emi"}
        report = host.report("karmic")
        assert (report["state"], [one["state"] for one in report["clouds"]]) == (
            "partly",
            ["done", "waiting"],
        )
        assert report["clouds"][1]["waiting_for"].startswith("cloud far to tell what it wants")
        assert "far waiting: for cloud far to tell what it wants" in host.ask("status", "karmic")[0]
        far.backend.faults.clear()
        host.run("once")
        assert not far.images, "it cannot boot a disk alone"
        assert "a kernel: " in host.report("karmic")["clouds"][1]["waiting_for"]
        assert "karmic.default.emi" in id_files(host)
        host.ask("retry", "karmic")
        host.run("once")
        with closing(open_ledger(host.state)) as book:
            assert book.requests() == (), "there is nothing to be tried"


# --- what becomes of the images ---------------------------------------------------------------------------


def test_a_set_is_withdrawn_from_one_cloud_alone(
    host: Host, far: Sandbox, drop: Callable[[str], None]
) -> None:
    drop(BOTH)
    assert host.run("once").returncode == 0
    before = id_files(host)
    host.ask("withdraw", "karmic", "--cloud", "far", "--yes")
    assert not far.images
    assert len(host.cloud.images) == 3
    assert id_files(host) == {name: before[name] for name in before if name.startswith("karmic.default.")}
    report = host.report("karmic")
    assert (report["state"], [one["state"] for one in report["clouds"]]) == ("partly", ["done", "withdrawn"])
    host.ask("release", "karmic")
    assert host.run("once").returncode == 0
    assert {"karmic.emi", "karmic.far.emi"} <= id_files(host).keys()
    assert len(far.images) == 3


def test_each_cloud_keeps_its_own_older_images(
    host: Host, far: Sandbox, small_set: RealSet, drop: Callable[[str], None]
) -> None:
    made: list[tuple[str, str]] = []
    for number in range(3):
        if number == 2:
            far.backend.faults.arm("image-fails")
        drop(f'{BOTH}version = "{number}"\nname = "karmic-{{version}}"\nretention = {{ keep = 2 }}\n')
        host.run("once")
        made.append(tuple(id_files(host).get(f"karmic.{cloud}.emi", "") for cloud in ("default", "far")))

    def machines(cloud: Sandbox) -> set[str]:
        return {one.id for one in cloud.images if one.type == "machine"}

    assert {one for one, _ in made} == machines(host.cloud), "nothing leaves in a run with an error"
    host.run("once")
    assert machines(host.cloud) == {made[1][0], made[2][0]}, "the oldest has left"
    assert {made[0][1], made[1][1]} <= machines(far), "where the newest has failed, nothing leaves"


def test_a_set_goes_back_on_one_cloud_while_another_has_refused_it(
    host: Host, far: Sandbox, drop: Callable[[str], None]
) -> None:
    versions = []
    for number in range(2):
        if number:
            far.backend.faults.arm("image-fails")
        drop(f'{BOTH}version = "{number}"\nname = "karmic-{{version}}"\nretention = {{ keep = 2 }}\n')
        host.run("once")
        versions.append(id_files(host)["karmic.default.emi"])
    host.ask("rollback", "karmic", "--yes", code=65)
    host.ask("rollback", "karmic", "--cloud", "default", "--yes")
    assert id_files(host)["karmic.default.emi"] == versions[0]
    assert (host.spool / "karmic.latest").read_text().strip() == versions[0]
    assert [one["state"] for one in host.report("karmic")["clouds"]] == ["done", "rejected"]


def test_no_image_of_another_name_of_the_account_is_an_orphan(
    host: Host, small_set: RealSet, tmp_path: Path
) -> None:
    host.drop_set(small_set)
    assert host.run("once").returncode == 0
    before = id_files(host)
    renamed = host.config.read_text().replace("[cloud.default]", "[cloud.renamed]")
    host.configure(renamed.replace("[defaults]\n", '[defaults]\nclouds = ["renamed"]\n'))
    assert json.loads(host.ask("orphans", "--cloud", "renamed", "--json")[0]) == []
    host.ask("orphans", "--cloud", "renamed", "--remove", "--yes")
    assert {one.id for one in host.cloud.images} == set(before.values())


def test_a_best_effort_cloud_that_is_away_costs_the_set_no_id_of_its_own(
    host: Host, far: Sandbox, drop: Callable[[str], None]
) -> None:
    drop(f'{BOTH}best_effort = ["far"]\n')
    assert host.run("once").returncode == 0
    ids = id_files(host)
    far.backend.faults.arm("away")
    host.ask("withdraw", "karmic", "--cloud", "far", "--yes", code=75)
    assert {"karmic.emi", "karmic.default.emi"} <= id_files(host).keys() <= ids.keys()
    far.backend.faults.clear()
    host.run("once")
    assert "karmic.far.emi" not in id_files(host)
    assert id_files(host)["karmic.emi"] == ids["karmic.emi"]
