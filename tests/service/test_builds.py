"""Sets whose systems are installed by a worker: from the request to the image, and every way out of it.

The worker is played here through the files that it shares with the service; `tests/install` has the real one.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.build_worker import FAILURE, HandWorker
from tests.support.daemon import daemon_thread, opened_service
from tests.support.host import Host
from tests.support.listener import Recorder
from tests.support.prepared_sets import unprepared_qcow2
from tests.support.waiting import until
from uecwatchd.install.request import BuildFailure, queued_builds
from uecwatchd.service.daemon import Service

RECIPE = """
kernel = "from-image"

[install]
iso = "netinst.iso"
answers = "preseed.cfg"
answers_as = "disk"
disk = "1G"
"""
LAYER = """
kernel = "from-image"

[install]
base = "web"
network = "user"
packages = ["mediawiki"]
"""
ISO = b"an ISO image, as far as the service looks"


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unprepared_qcow2(tmp_path_factory.mktemp("disk"))


@pytest.fixture
def builds(host: Host) -> Path:
    folder = host.folder / "builds"
    folder.mkdir()
    with host.config.open("a") as config:
        config.write(f'\n[install]\nbuilds = "{folder}"\nworker = "unit"\n')
    return folder


@pytest.fixture
def worker(builds: Path, disk: Path) -> HandWorker:
    return HandWorker(builds, disk)


def drop_recipe(host: Host, text: str = RECIPE, name: str = "web") -> None:
    (host.spool / "netinst.iso").write_bytes(ISO)
    (host.spool / "preseed.cfg").write_text("d-i\n")
    (host.spool / f"{name}.toml").write_text(text)


@contextmanager
def running(host: Host) -> Iterator[Service]:
    with opened_service(host, Recorder()) as service, daemon_thread(service):
        yield service


def state(host: Host, name: str = "web") -> str:
    try:
        return str(host.report(name)["state"])
    except FileNotFoundError:
        return ""


def await_state(host: Host, wanted: str, name: str = "web") -> None:
    until(lambda: state(host, name) == wanted, f"{name} to be {wanted}")


def await_removal(builds: Path, key: str) -> None:
    until(lambda: not (builds / key).exists(), "the build to be removed")


def log_of(host: Host, name: str = "web") -> str:
    return (host.spool / f"{name}.uec.log").read_text()


def test_the_installed_disk_becomes_the_image_of_the_set(
    host: Host, worker: HandWorker, builds: Path
) -> None:
    drop_recipe(host, RECIPE + "keep = false\n")
    with running(host):
        request = worker.next_request()
        assert request.set_name == "web"
        assert {key: one.path for key, one in request.files.items()} == {
            "iso": host.spool / "netinst.iso",
            "answers": host.spool / "preseed.cfg",
        }
        await_state(host, "waiting")
        assert host.report("web")["waiting_for"] == "its system to be installed"
        worker.run(request.key, "Partitioning", "Installing the base system")
        until(lambda: host.report("web")["build"]["stage"] == "install", "the stage of the build")
        build = host.report("web")["build"]
        assert (build["state"], build["last_line"]) == ("running", "Installing the base system")
        until(lambda: "console: Installing the base system" in log_of(host), "the console in the log")
        row, _ = host.ask("status", "web")
        assert "\n  for its system to be installed; install for " in row
        assert f": Installing the base system\n  in {host.spool}: web.toml, netinst.iso, preseed.cfg" in row
        worker.finish(request.key)
        await_state(host, "done")
        await_removal(builds, request.key)
    report = host.report("web")
    assert (host.spool / "web.emi").read_text().startswith("emi-")
    assert report["build"]["state"] == "done"
    assert report["attempt"] == 1, "a wait for an installation is a part of its attempt"
    assert log_of(host).count("--- attempt 1 goes on, ") == 1
    sums = {one["use"]: one["sha256"] for one in report["build"]["sources"]}
    assert sums == {"iso": hashlib.sha256(ISO).hexdigest(), "answers": hashlib.sha256(b"d-i\n").hexdigest()}
    origins = {member["role"]: member["origin"] for member in report["members"]}
    assert origins["machine"] == "disk installed from netinst.iso"
    assert set(origins) == {"machine", "kernel", "ramdisk"}
    row, _ = host.ask("status", "web")
    assert f"installed from netinst.iso (SHA-256 {sums['iso']}), preseed.cfg (SHA-256 " in row
    _, talk = host.ask("inspect", "web", code=65)
    assert "web: its image is not there any more: it is a disk installed from netinst.iso" in talk
    log = log_of(host)
    assert "web: its system is installed: a disk of " in log
    assert log.count("console: Partitioning") == 1
    assert not queued_builds(builds)


def test_a_failed_installation_is_an_error_with_its_console_and_its_screen(
    host: Host, worker: HandWorker, builds: Path
) -> None:
    drop_recipe(host)
    with running(host):
        request = worker.next_request()
        worker.fail(request.key, FAILURE, "No root file system is defined.", "Power down.")
        await_state(host, "rejected")
        await_removal(builds, request.key)
        error = (host.spool / "web.uec.error").read_text()
        assert error.startswith("web: the installation has failed.\n\nWhy: no login came.")
        assert "The end of the console:\n    No root file system is defined.\n    Power down.\n" in error
        assert "Its screen is in web.uec.png." in error
        assert (host.spool / "web.uec.png").read_bytes().startswith(b"\x89PNG")
        host.ask("retry", "web")
        again = worker.next_request()
        assert again.key == request.key
        until(lambda: not (host.spool / "web.uec.png").exists(), "the old screen to be removed")
        worker.finish(again.key)
        await_state(host, "done")


def test_a_build_without_space_is_tried_again(host: Host, worker: HandWorker) -> None:
    drop_recipe(host)
    with running(host):
        request = worker.next_request()
        worker.fail(request.key, BuildFailure("deferred", "no space", "1 GiB is free", "Free some."))
        await_state(host, "deferred")
        host.ask("retry", "web")
        assert worker.next_request().key == request.key


def test_a_changed_recipe_is_another_build_and_the_same_one_is_not_built_twice(
    host: Host, worker: HandWorker, builds: Path
) -> None:
    drop_recipe(host)
    with running(host):
        first = worker.next_request()
        (host.spool / "web.toml").write_text(RECIPE + 'memory = "1G"\n')
        worker.await_withdrawal(first.key)
        second = worker.next_request()
        assert second.key != first.key
        worker.finish(second.key)
        await_state(host, "done")
        (host.spool / "other.toml").write_text((host.spool / "web.toml").read_text())
        await_state(host, "done", "other")
        assert queued_builds(builds) == ()
        first_id, text = (host.spool / "web.emi").read_text(), (host.spool / "web.toml").read_text()
        (host.spool / "web.toml").write_text(f'description = "the same"\n{text}')
        until(lambda: "described as: the same" in log_of(host), "the description")
        await_state(host, "done")
        assert (host.spool / "web.emi").read_text() == first_id
        assert (builds / second.key / "disk.qcow2").exists()
        data, _ = host.ask("inspect", "web")
        assert "6.1.0-9-amd64" in data


def test_a_set_that_is_no_recipe_any_more_gives_its_disk_back(
    host: Host, worker: HandWorker, builds: Path, disk: Path
) -> None:
    drop_recipe(host)
    with running(host):
        request = worker.next_request()
        worker.finish(request.key)
        await_state(host, "done")
        assert (builds / request.key).exists()
        (host.spool / "web.qcow2").write_bytes(disk.read_bytes())
        (host.spool / "web.toml").write_text('kernel = "from-image"\n')
        await_removal(builds, request.key)
        until(lambda: host.report("web")["build"] is None and state(host) == "done", "the dropped image")


def hold(host: Host) -> None:
    host.ask("hold", "web")


def forget(host: Host) -> None:
    (host.spool / "web.toml").rename(host.folder / "web.toml")
    host.ask("forget", "web")


def remove(host: Host) -> None:
    for file in ("web.toml", "netinst.iso", "preseed.cfg"):
        (host.spool / file).unlink()


@pytest.mark.parametrize("end", [hold, forget, remove])
def test_a_set_that_is_held_forgotten_or_removed_leaves_no_build(
    host: Host, worker: HandWorker, builds: Path, end: Callable[[Host], None]
) -> None:
    drop_recipe(host)
    with running(host):
        request = worker.next_request()
        worker.run(request.key, "Partitioning")
        await_state(host, "waiting")
        end(host)
        worker.await_withdrawal(request.key)
        if end is hold:
            row, _ = host.ask("status", "web")
            assert "waiting: for its system to be installed; the worker has not begun yet" in row
            host.ask("release", "web")
            assert worker.next_request().key == request.key
    assert end is hold or [each.name for each in builds.iterdir()] == ["queue"]


def test_a_restart_goes_on_with_the_same_build(host: Host, worker: HandWorker) -> None:
    drop_recipe(host)
    with running(host):
        request = worker.next_request()
        worker.run(request.key, "Partitioning")
        await_state(host, "waiting")
    worker.finish(request.key)
    with running(host):
        await_state(host, "done")
    assert log_of(host).count("its system is to be installed from") == 1


def test_a_layer_is_built_on_the_disk_of_its_base_when_that_is_done(
    host: Host, worker: HandWorker, builds: Path
) -> None:
    drop_recipe(host)
    (host.spool / "wiki.toml").write_text(LAYER)
    with running(host):
        base = worker.next_request()
        worker.finish(base.key)
        layer = worker.next_request()
        assert layer.files["base"].path == builds / base.key / "disk.qcow2"
        worker.finish(layer.key)
        await_state(host, "done", "wiki")
    machine = host.report("wiki")["members"][-1]
    assert machine["origin"] == "disk installed on web"


def test_a_layer_is_not_built_any_longer_on_a_base_that_has_changed(
    host: Host, worker: HandWorker, builds: Path
) -> None:
    drop_recipe(host)
    (host.spool / "wiki.toml").write_text(LAYER)
    with running(host):
        base = worker.next_request()
        worker.finish(base.key)
        layer = worker.next_request()
        worker.run(layer.key, "Adding packages")
        await_state(host, "waiting", "wiki")
        (host.spool / "web.toml").write_text(RECIPE + 'memory = "1G"\n')
        changed = worker.next_request()
        worker.await_withdrawal(layer.key)
        worker.finish(changed.key)
        again = worker.next_request()
        assert again.set_name == "wiki"
        assert again.files["base"].path == builds / changed.key / "disk.qcow2"


def test_a_layer_on_a_disk_that_was_not_kept_is_refused(host: Host, worker: HandWorker, builds: Path) -> None:
    drop_recipe(host, RECIPE + "keep = false\n")
    with running(host):
        base = worker.next_request()
        worker.finish(base.key)
        await_state(host, "done")
        await_removal(builds, base.key)
        (host.spool / "wiki.toml").write_text(LAYER)
        await_state(host, "rejected", "wiki")
    assert "keep = false" in host.report("wiki")["error"]["hint"]


def test_a_recipe_asks_for_no_more_than_the_administrator_allows(host: Host, builds: Path) -> None:
    with host.config.open("a") as config:
        config.write('memory_limit = "1G"\n')
    drop_recipe(host, RECIPE + 'memory = "2G"\n')
    host.ask("once", code=65)
    error = host.report("web")["error"]
    assert error["what"] == "web: its recipe asks for more than there is: memory"
    assert queued_builds(builds) == ()


def test_the_files_of_a_recipe_are_compared_with_their_sums(host: Host, builds: Path) -> None:
    drop_recipe(host)
    (host.spool / "SHA256SUMS").write_text(f"{'0' * 64}  netinst.iso\n")
    host.ask("once", code=75)
    assert host.report("web")["waiting_for"] == "netinst.iso to have its declared SHA-256"
    assert queued_builds(builds) == ()
