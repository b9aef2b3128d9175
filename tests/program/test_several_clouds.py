"""A set that goes to several clouds, each with its own state: embedded clouds, one of them faulty."""

import json
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.support.boots import TESTED, living, quick_boots
from tests.support.cloud_keys import with_keys
from tests.support.daemon import daemon_process, opened_service, stop_daemon, wait_for_line
from tests.support.host import Host, cloud_host
from tests.support.listener import Recorder
from tests.support.scanned_folder import MBR
from tests.support.spool_files import KEEP, drop_image
from tests.support.waiting import until
from uecwatchd.cli.published_images import PATIENCE_SECONDS
from uecwatchd.demo.material import RealSet
from uecwatchd.events import Event, Kind
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.ledger.standing import by_cloud
from uecwatchd.sandbox.server import Sandbox
from uecwatchd.types import SetId

pytestmark = pytest.mark.exhaustive

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
        (1, "far", "done"),
    ]
    assert [one["attempt"] for one in report["clouds"]] == [1, 1], "nothing has failed"


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


def states(host: Host) -> list[str]:
    return [one["state"] for one in host.report("karmic")["clouds"]]


def test_a_hold_on_one_cloud_keeps_the_set_from_there_alone(
    host: Host, far: Sandbox, drop: Callable[[str], None]
) -> None:
    drop(BOTH)
    host.ask("hold", "karmic", "--cloud", "far")
    assert "already" in host.ask("hold", "karmic", "--cloud", "far")[1]
    host.run("once")
    assert (states(host), far.images) == (["done", "waiting"], ())
    assert host.report("karmic")["clouds"][1]["waiting_for"] == "its release there"
    _, talk = host.ask("retry", "karmic", "--cloud", "far", code=75)
    assert "karmic waits for its release there on cloud far" in talk
    shown, _ = host.ask("status", "--cloud", "far")
    assert "for its release there" in shown
    assert "default" not in shown
    (row,) = json.loads(host.ask("status", "--cloud", "default", "--json")[0])
    assert (row["state"], [one["cloud"] for one in row["report"]["clouds"]]) == ("done", ["default"])
    host.ask("release", "karmic", "--cloud", "far")
    assert host.run("once").returncode == 0
    assert (states(host), len(far.images)) == (["done", "done"], 3)
    assert "not held" in host.ask("release", "karmic", "--cloud", "far")[1]
    entries = json.loads(host.ask("log", "karmic", "--cloud", "far", "--json")[0])
    assert {one["fields"].get("cloud", "far") for one in entries} == {"far"}


def test_a_set_in_a_tarball_is_kept_from_a_cloud_too(host: Host, far: Sandbox, small_set: RealSet) -> None:
    host.ask("hold", "karmic", "--cloud", "far")
    (host.spool / "karmic.toml").write_text(BOTH)
    with tarfile.open(host.spool / "karmic.tar", "w") as packed:
        for path, name in (
            (small_set.machine, "img"),
            (small_set.kernel, "vmlinuz"),
            (small_set.ramdisk, "initrd"),
        ):
            packed.add(path, f"karmic.{name}")
    host.run("once")
    assert (states(host), far.images) == (["done", "waiting"], ())
    host.ask("retry", "karmic")
    host.run("once")
    assert (host.spool / "karmic.uec.log").read_text().count("waiting for its release there") == 1
    host.ask("release", "karmic")
    assert host.run("once").returncode == 0
    assert (states(host), len(far.images)) == (["done", "done"], 3)


def test_a_set_is_forgotten_on_one_cloud_alone(host: Host, far: Sandbox, drop: Callable[[str], None]) -> None:
    drop(BOTH)
    assert host.run("once").returncode == 0
    before = id_files(host)
    host.ask("hold", "karmic")
    host.ask("forget", "karmic", "--cloud", "far")
    assert states(host) == ["done", "queued"]
    assert set(id_files(host)) == {name for name in before if name.startswith("karmic.default.")}
    assert json.loads(host.ask("history", "karmic", "--versions", "--cloud", "far", "--json")[0]) == []
    assert len(far.images) == 3, "they stay"
    host.ask("release", "karmic")
    assert host.run("once").returncode == 0
    assert id_files(host) == before, "they are found there again"


def test_a_daemon_forgets_a_set_on_the_cloud_that_it_is_working_for(
    host: Host, far: Sandbox, drop: Callable[[str], None]
) -> None:
    far.backend.faults.arm("away")
    drop(BOTH)
    with daemon_process(host):
        until(lambda: "karmic.default.emi" in id_files(host) and states(host)[1] == "deferred")
        host.ask("hold", "karmic", "--cloud", "far")
        until(lambda: states(host) == ["done", "waiting"])
        host.ask("forget", "karmic", "--cloud", "default")
        until(lambda: len(json.loads(host.ask("history", "karmic", "--json")[0])) >= 3, "the next attempt")
        until(lambda: states(host) == ["done", "waiting"])
    assert len(host.cloud.images) == 3


def test_a_boot_on_one_cloud_keeps_the_set_from_no_other(host: Host, far: Sandbox) -> None:
    text = host.config.read_text()
    for name in ("default", "far"):
        table = f"[cloud.{name}]\n"
        text = text.replace(table, f"{table}boot_seconds = 600\nboot_every = 0.1\n")
    host.configure(text)
    host.cloud.faults.arm("boot-never")
    drop_image(host.spool, "karmic", b"1" * 4096, sidecar=f"{KEEP}{BOTH}test = true\n")
    with daemon_process(host):
        until(lambda: "karmic.far.emi" in id_files(host), "it is booted there")
        assert states(host) == ["waiting", "done"]
        assert [one.state for one in host.cloud.instances] == ["running"]
    assert living(far) == []
    assert [one.state for one in host.cloud.instances] != ["running"], "a stop ends it"
    host.cloud.faults.clear()
    assert host.run("once").returncode == 0
    assert (living(host.cloud), states(host)) == ([], ["done", "done"])


def long_boots(host: Host) -> None:
    """Let the first test boot on the default cloud last for ten minutes."""
    table = "[cloud.default]\n"
    text = host.config.read_text().replace(table, f"{table}boot_seconds = 600\nboot_every = 0.1\n")
    host.configure(text.replace("settle = 0.3", "settle = 0.05"))
    host.cloud.faults.arm("boot-never", 1)


def test_a_boot_ends_when_the_set_goes_to_its_cloud_no_more_and_delays_no_request_about_another(
    host: Host, far: Sandbox
) -> None:
    long_boots(host)
    drop_image(host.spool, "karmic", b"1" * 4096, sidecar=f"{KEEP}{BOTH}test = true\n")
    with daemon_process(host):
        until(lambda: "karmic.far.emi" in id_files(host), "it is booted there")
        until(lambda: len(living(host.cloud)) == 1)
        host.ask("forget", "karmic", "--cloud", "far")
        until(lambda: "forgotten on cloud far" in host.ask("log", "karmic")[0])
        log = (host.spool / "karmic.uec.log").read_text()
        assert "is running on cloud default" in log
        assert "has passed its test boot on cloud far: " in log
        assert len(living(host.cloud)) == 1, "it goes on"
        (host.spool / "karmic.toml").write_text(f'{KEEP}clouds = ["far"]\ntest = true\n')
        until(lambda: all(one.state != "running" for one in host.cloud.instances), "it is stopped")


def test_a_boot_ends_when_the_files_of_its_set_are_removed(host: Host) -> None:
    long_boots(host)
    drop_image(host.spool, "karmic", b"1" * 4096, sidecar=f"{KEEP}test = true\n")
    with daemon_process(host):
        until(lambda: len(living(host.cloud)) == 1)
        for name in ("karmic.img", "karmic.toml"):
            (host.spool / name).unlink()
        until(lambda: all(one.state != "running" for one in host.cloud.instances), "it is stopped")
        until(lambda: "its files were changed or removed" in host.ask("log", "karmic")[0])
        drop_image(host.spool, "karmic", b"1" * 4096, sidecar=f"{KEEP}test = true\n")
        until(lambda: "karmic.emi" in id_files(host), "it is booted again")
    assert (len(host.cloud.images), living(host.cloud)) == (1, [])


def test_a_boot_of_a_file_that_is_replaced_ends_and_the_new_one_is_booted(host: Host) -> None:
    long_boots(host)
    drop_image(host.spool, "karmic", b"1" * 4096, sidecar=f"{KEEP}test = true\n")
    with daemon_process(host):
        until(lambda: len(living(host.cloud)) == 1)
        drop_image(host.spool, "karmic", b"2" * 4096, sidecar=f"{KEEP}test = true\n")
        until(lambda: "karmic.emi" in id_files(host), "the new one has passed")
        assert living(host.cloud) == []
    assert [image.id for image in host.cloud.images] == [id_files(host)["karmic.emi"]]


class Broken(Recorder):
    """A listener with a mistake: it fails with everything about a set."""

    def tell(self, event: Event) -> None:
        if event.set and event.kind in (Kind.WORKING, Kind.DEFERRED):
            raise RuntimeError("a mistake")
        super().tell(event)


def test_a_mistake_of_our_own_defers_new_files_on_each_cloud(
    host: Host, far: Sandbox, drop: Callable[[str], None]
) -> None:
    drop(BOTH)
    assert host.run("once").returncode == 0
    drop(f'{BOTH}version = "2"\n')
    with opened_service(host, Broken()) as service:
        (record,) = service.once()
    assert [(one.cloud, one.state) for one in by_cloud(record)] == [
        ("default", "deferred"),
        ("far", "deferred"),
    ]
    assert all(one.next_retry for one in by_cloud(record))
    host.ask("retry", "karmic")
    assert host.run("once").returncode == 0
    assert host.report("karmic")["state"] == "done"


# --- what becomes of the images ---------------------------------------------------------------------------


def publish_twice(host: Host, sidecar: str) -> list[dict[str, str]]:
    found = []
    for number in range(2):
        drop_image(host.spool, "karmic", bytes([number + 1]) * 4096, sidecar=f"{KEEP}{sidecar}")
        host.ask("once")
        found.append(id_files(host))
    return found


def test_a_rollback_goes_back_where_it_can_and_is_continued_later(host: Host, far: Sandbox) -> None:
    older, newer = publish_twice(host, BOTH)
    far.backend.faults.arm("away")
    data, talk = host.ask("rollback", "karmic", "--yes", "--json", code=69)
    assert id_files(host)["karmic.default.emi"] == older["karmic.default.emi"]
    assert id_files(host)["karmic.far.emi"] == newer["karmic.far.emi"]
    answer = json.loads(data)
    assert (answer["done"], [one["cloud"] for one in answer["clouds"]]) == (False, ["default"])
    assert [one["cloud"] for one in answer["stays"]] == ["far"]
    assert answer["stays"][0]["why"] in talk
    far.backend.faults.clear()
    host.ask("rollback", "karmic", "--cloud", "far", "--yes")
    assert id_files(host)["karmic.far.emi"] == older["karmic.far.emi"]


def test_a_best_effort_cloud_that_is_away_is_no_failure_of_a_rollback(host: Host, far: Sandbox) -> None:
    older, _ = publish_twice(host, f'{BOTH}best_effort = ["far"]\n')
    far.backend.faults.arm("away")
    data, talk = host.ask("rollback", "karmic", "--yes")
    assert data == f"{older['karmic.emi']}\n"
    assert "cloud far" in talk


def test_a_rollback_on_one_cloud_holds_the_set_there_alone(host: Host, far: Sandbox) -> None:
    older, newer = publish_twice(host, BOTH)
    _, talk = host.ask("rollback", "karmic", "--cloud", "far", "--yes")
    assert "karmic is held on cloud far. To let it continue: uecwatchd release " in talk
    assert talk.rstrip().endswith(" --cloud far")
    drop_image(host.spool, "karmic", bytes(4096), sidecar=f"{KEEP}{BOTH}")
    host.ask("once", code=75)
    assert id_files(host)["karmic.default.emi"] not in (
        newer["karmic.default.emi"],
        older["karmic.default.emi"],
    )
    with closing(open_ledger(host.state)) as book:
        versions = book.versions.of_set(SetId(str(host.spool), "karmic"), "far")
    assert [one.image_id for one in versions if one.state == "current"] == [older["karmic.far.emi"]]
    assert len(far.images) == 2


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
    with closing(open_ledger(host.state)) as book:
        assert (len(book.holds()), next(iter(book.cloud_holds().values())).keys()) == (0, {"far"})
    host.ask("release", "karmic", "--cloud", "far")
    assert host.run("once").returncode == 0
    assert {"karmic.emi", "karmic.far.emi"} <= id_files(host).keys()
    assert len(far.images) == 3


def test_a_cloud_that_is_away_does_not_hide_that_an_image_has_left_another(
    host: Host, far: Sandbox, drop: Callable[[str], None]
) -> None:
    drop(BOTH)
    assert host.run("once").returncode == 0
    far.backend.faults.arm("away")
    host.ask("withdraw", "karmic", "--yes", code=75)
    assert (len(host.cloud.images), len(far.images)) == (0, 3)
    report = host.report("karmic")
    assert [one["state"] for one in report["clouds"]] == ["withdrawn", "done"]
    assert report["clouds"][0]["ids"]["machine"] is None
    (why,) = report["clouds"][1]["remarks"]
    assert why.startswith("it is not withdrawn yet: cloud far")
    assert f"not done: {why}" in host.ask("status", "karmic")[0]
    log = (host.spool / "karmic.uec.log").read_text()
    assert "deregistered machine" in log
    assert "karmic: cannot withdraw it: cloud far" in log
    assert not id_files(host), "no script starts what is about to leave"
    far.backend.faults.clear()
    host.run("once")
    assert not far.images
    assert [one["state"] for one in host.report("karmic")["clouds"]] == ["withdrawn", "withdrawn"]
    assert not id_files(host)


def test_a_verb_ends_after_the_first_try_of_the_daemon_that_has_failed(host: Host, far: Sandbox) -> None:
    drop_image(host.spool, "karmic", bytes(4096), sidecar=f"{KEEP}{BOTH}")
    host.ask("once")
    far.backend.faults.arm("away")
    began = time.monotonic()
    with daemon_process(host) as daemon:
        wait_for_line(daemon, "Watching")
        _, talk = host.ask("withdraw", "karmic", "--yes", code=75)
        assert time.monotonic() - began < PATIENCE_SECONDS
        stop_daemon(daemon)
    assert "karmic: cannot withdraw it: cloud far" in talk
    assert "it is not done yet, and goes on by itself" in talk.lower()


def test_an_edit_does_not_change_a_set_that_is_done_on_one_of_its_clouds(
    host: Host, far: Sandbox, drop: Callable[[str], None]
) -> None:
    far.backend.faults.arm("image-fails")
    drop(BOTH)
    host.run("once")
    before = host.report("karmic")["clouds"]
    (host.spool / "karmic.vmlinuz").unlink()
    host.run("once")
    assert host.report("karmic")["clouds"] == before
    with closing(open_ledger(host.state)) as book:
        (record,) = book.sets()
    assert record.target_on("default").image("kernel").image_id


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

    assert {one for one, _ in made} == set(machines(host.cloud)), "nothing leaves in a run with an error"
    host.run("once")
    assert set(machines(host.cloud)) == {made[1][0], made[2][0]}, "the oldest has left"
    assert {made[0][1], made[1][1]} <= set(machines(far)), "where the newest has failed, nothing leaves"


def machines(cloud: Sandbox) -> list[str]:
    return [one.id for one in cloud.images if one.type == "machine"]


@pytest.mark.parametrize("by", ["once", "prune"])
def test_an_error_on_one_cloud_ends_the_removal_of_images_there_alone(
    host: Host, far: Sandbox, by: str
) -> None:
    for name in ("karmic", "lucid"):
        for number in range(3):
            noise = f"{name}{number}".encode() * 512
            drop_image(host.spool, name, noise, sidecar=f"{KEEP}{BOTH}")
            host.ask("once")
    host.configure(f"{host.config.read_text()}\n[retention]\nkeep = 2\n")
    far.backend.faults.arm("delete-500", 1)
    host.ask(by, code=75 if by == "prune" else 0)
    assert len(machines(host.cloud)) == 4, "both sets have lost their oldest image"
    assert len(machines(far)) >= 5, "the first error was the last step"
    host.ask("prune", "--cloud", "far")
    assert len(machines(far)) == 4


def test_older_images_on_a_cloud_that_is_away_keep_none_on_the_others(host: Host, far: Sandbox) -> None:
    for number in range(3):
        drop_image(host.spool, "karmic", bytes([number + 1]) * 4096, sidecar=f"{KEEP}{BOTH}")
        host.ask("once")
    host.configure(f"{host.config.read_text()}\n[retention]\nkeep = 2\n")
    far.backend.faults.arm("away")
    host.ask("prune", "--dry-run", "--cloud", "default")
    host.ask("prune", code=69)
    assert (len(machines(host.cloud)), len(machines(far))) == (2, 3)


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
    _, talk = host.ask("rollback", "karmic", "--yes", code=65)
    assert "karmic: cannot go back: it is rejected on cloud far" in talk
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


def test_an_unpublished_image_of_a_former_cloud_is_an_orphan_also_while_another_cloud_is_away(
    host: Host, far: Sandbox
) -> None:
    quick_boots(host)
    far.backend.faults.arm("boot-quota")
    drop_image(host.spool, "karmic", b"1" * 4096, sidecar=f"{TESTED}{BOTH}")
    host.ask("once", code=75)
    (left,) = (image.id for image in far.images)
    assert json.loads(host.ask("orphans", "--json")[0]) == []
    (host.spool / "karmic.toml").write_text(f'{TESTED}clouds = ["default"]\n')
    host.ask("once")
    host.cloud.backend.faults.arm("away")
    data, talk = host.ask("orphans", "--json", code=69)
    (found,) = json.loads(data)
    assert (found["name"], found["cloud"], found["stays"]) == (left, "far", None)
    assert "cloud default" in talk
    host.ask("orphans", "--remove", "--yes", code=69)
    host.cloud.backend.faults.clear()
    assert (len(far.images), len(far.objects("uec-images")), len(host.cloud.images)) == (0, 0, 1)


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
