"""The worker: several builds, withdrawals, stops, and deaths in the middle, with real machines."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.boot_code import DELAY, ECHO, GOOD_SYSTEM, HANG, POWER_OFF, installer, make_iso, say
from tests.support.builds import Builds
from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.install.machine import end_left_machines
from uecwatchd.install.request import queued_builds, read_status, withdraw_request


@pytest.fixture
def builds(tmp_path: Path) -> Builds:
    make_iso(tmp_path / "hang.iso", installer(None, HANG))
    return Builds(tmp_path)


@contextmanager
def working(builds: Builds, *, at_once: int = 2) -> Iterator[threading.Thread]:
    """Run a worker in a thread for the length of a block, and stop it."""
    builds.stop.clear()
    thread = threading.Thread(target=builds.work, kwargs={"at_once": at_once})
    thread.start()
    try:
        yield thread
    finally:
        builds.stop.set()
        thread.join()
        builds.stop.clear()


@contextmanager
def worker_process(builds: Builds) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a worker as the service does, and kill it at the end."""
    command = [sys.executable, "-m", "uecwatchd", "build-worker", str(builds.folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def note(builds: Builds, key: str) -> dict[str, int]:
    found: dict[str, int] = json.loads((builds.folder / key / "machine.json").read_text())
    return found


def installing(builds: Builds, key: str) -> None:
    until(lambda: "INSTALLING" in builds.console(key), "the installer to begin")


def is_running(process: int) -> bool:
    try:
        return b") Z " not in Path(f"/proc/{process}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_two_installations_run_at_once(builds: Builds) -> None:
    keys = [builds.ask(iso="hang.iso", name=name) for name in ("karmic", "lucid")]
    with working(builds):
        for key in keys:
            installing(builds, key)
        assert {builds.status(key).state for key in keys} == {"running"}


def connected(folder: Path, name: str) -> socket.socket:
    """Connect to a socket in a folder, whose path may be too long for an address."""
    found = socket.socket(socket.AF_UNIX)
    descriptor = os.open(folder, os.O_PATH)
    try:
        found.connect(f"/proc/self/fd/{descriptor}/{name}")
    finally:
        os.close(descriptor)
    found.settimeout(PATIENCE_SECONDS)
    return found


def test_a_machine_can_be_typed_to_and_looked_at(builds: Builds) -> None:
    make_iso(builds.files / "echo.iso", installer(None, ECHO))
    key = builds.ask(iso="echo.iso")
    with working(builds):
        installing(builds, key)
        with connected(builds.folder / key, "console.sock") as console:
            console.sendall(b"yes")
            until(lambda: builds.console(key).endswith("yes"), "the echo on the console")
        with connected(builds.folder / key, "vnc.sock") as screen:
            assert screen.recv(4) == b"RFB "
        until(lambda: builds.status(key).last_line == "yes", "the echo in the status")


def test_a_third_one_waits_for_a_place_and_a_withdrawal_gives_it_one(builds: Builds) -> None:
    make_iso(builds.files / "tiny.iso", installer(GOOD_SYSTEM, POWER_OFF))
    first, second = builds.ask(iso="hang.iso"), builds.ask()
    with working(builds, at_once=1):
        installing(builds, first)
        assert read_status(builds.folder, second) is None
        machine = note(builds, first)["pid"]
        withdraw_request(builds.folder, first)
        until(lambda: not (builds.folder / first).exists(), "the withdrawn build to be removed")
        assert not is_running(machine)
        until(lambda: (found := read_status(builds.folder, second)) and found.state == "done")
    assert queued_builds(builds.folder) == ()


def test_the_time_limit_holds_for_a_guest_that_writes_faster_than_it_is_read(builds: Builds) -> None:
    guest = builds.files / "guest"  # in place of QEMU: nothing is emulated as fast as a file grows
    text = "import os, time\nos.closerange(3, 256)\nos.truncate('console.log', 64 << 20)\ntime.sleep(60)\n"
    guest.write_text(f"#!{sys.executable}\nopen('console.log', 'w').close()\n{text}")
    guest.chmod(0o755)
    key = builds.ask(iso="hang.iso", time_limit="1s")
    assert builds.work(program=str(guest))
    failure = builds.status(key).failure
    assert failure
    assert failure.why == "it still runs after 1 s"


def test_a_withdrawal_before_any_worker_runs_leaves_nothing(builds: Builds) -> None:
    key = builds.ask(iso="hang.iso")
    withdraw_request(builds.folder, key)
    assert builds.work()
    assert not (builds.folder / key).exists()
    assert queued_builds(builds.folder) == ()


def test_a_withdrawal_of_a_finished_build_removes_its_disk(builds: Builds) -> None:
    make_iso(builds.files / "tiny.iso", b"", boots=False)
    status = builds.build()
    withdraw_request(builds.folder, status.key)
    assert builds.work()
    assert not (builds.folder / status.key).exists()


def test_a_stopped_worker_leaves_no_machine_and_keeps_the_request(builds: Builds) -> None:
    key = builds.ask(iso="hang.iso")
    with working(builds):
        installing(builds, key)
        machine = note(builds, key)["pid"]
    assert not is_running(machine)
    assert queued_builds(builds.folder) == (key,)
    assert {"machine.json", "console.sock", "vnc.sock"} & {
        path.name for path in (builds.folder / key).iterdir()
    } == set()


def test_a_stop_in_the_second_boot_does_not_install_again(builds: Builds) -> None:
    make_iso(builds.files / "tiny.iso", installer(say("BOOTED") + DELAY + GOOD_SYSTEM, POWER_OFF))
    key = builds.ask()
    with working(builds):
        until(lambda: "BOOTED" in builds.console(key), "the second boot")
    assert builds.status(key).stage == "second boot"
    began = builds.status(key).began
    assert builds.work()
    assert (builds.status(key).state, builds.status(key).began) == ("done", began)
    assert builds.console(key).count("INSTALLING") == 1


def test_a_killed_worker_takes_its_machine_along_and_the_next_one_begins_again(builds: Builds) -> None:
    make_iso(builds.files / "tiny.iso", installer(GOOD_SYSTEM, DELAY + POWER_OFF))
    key = builds.ask()
    with worker_process(builds) as worker:
        installing(builds, key)
        machine = note(builds, key)["pid"]
        worker.send_signal(signal.SIGKILL)
        until(lambda: not is_running(machine), "the kernel to kill the machine")
    assert queued_builds(builds.folder) == (key,)
    assert builds.work()
    assert builds.status(key).state == "done"
    assert builds.told[-1].startswith("karmic: installed in ")
    assert builds.console(key).count("INSTALLING") == 1, "the console begins again, too"


def test_a_killed_machine_is_deferred(builds: Builds) -> None:
    key = builds.ask(iso="hang.iso")
    with working(builds):
        installing(builds, key)
        os.kill(note(builds, key)["pid"], signal.SIGKILL)
        until(lambda: builds.status(key).is_over, "the build to end")
    failure = builds.status(key).failure
    assert failure
    assert (failure.kind, failure.why) == ("deferred", "it was killed by signal 9")


def test_machines_of_a_dead_worker_are_ended_and_others_are_not(builds: Builds) -> None:
    with subprocess.Popen(["sleep", "600"]) as left, subprocess.Popen(["sleep", "600"]) as other:
        try:
            for name, process, shift in (("left", left, 0), ("other", other, 1)):
                fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
                (builds.folder / name).mkdir()
                found = {"pid": process.pid, "started": int(fields[19]) + shift}
                (builds.folder / name / "machine.json").write_text(json.dumps(found))
            assert end_left_machines(builds.folder) == 1
            assert left.wait() == -signal.SIGKILL
            assert other.poll() is None
        finally:
            left.kill()
            other.kill()
    assert list(builds.folder.glob("*/machine.json")) == []


def test_a_second_worker_waits_and_takes_the_place_of_one_that_was_killed(builds: Builds) -> None:
    key = builds.ask(iso="hang.iso")
    with worker_process(builds) as first:
        installing(builds, key)
        machine = note(builds, key)["pid"]
        with working(builds):
            until(lambda: builds.told, "the second worker to look at the lock")
            assert note(builds, key)["pid"] == machine
            first.kill()
            until(lambda: "karmic: the installation has begun (tcg)" in builds.told, "its own machine")
    assert ["another worker is at work here" in one for one in builds.told].count(True) == 1


def test_a_second_worker_ends_when_the_first_one_has_left_nothing_to_do(builds: Builds) -> None:
    key = builds.ask(iso="hang.iso")
    with worker_process(builds):
        installing(builds, key)
        with working(builds) as second:
            until(lambda: builds.told, "the second worker to look at the lock")
            withdraw_request(builds.folder, key)
            until(lambda: not second.is_alive(), "the second worker to end")


def test_the_program_ends_when_nothing_is_left_to_do(builds: Builds) -> None:
    with worker_process(builds) as worker:
        assert worker.wait(60) == 0


def test_what_is_no_build_does_not_stay_in_the_queue(builds: Builds) -> None:
    withdraw_request(builds.folder, builds.ask(iso="hang.iso"))
    (builds.folder / "queue/notes.txt").touch()
    assert builds.work()
    assert list((builds.folder / "queue").iterdir()) == []


def test_a_request_that_nobody_can_read_is_refused(builds: Builds) -> None:
    key = builds.ask(iso="hang.iso")
    (builds.folder / key / "request.json").write_text("{}")
    assert builds.work()
    failure = builds.status(key).failure
    assert failure
    assert failure.why == "it is not a request of this version for this build"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 MiB, enough to begin an installation."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a file system")


@needs_root
def test_without_room_no_installation_begins(small_disk: Path) -> None:
    make_iso(small_disk / "tiny.iso", installer(GOOD_SYSTEM, POWER_OFF))
    builds = Builds(small_disk)
    (small_disk / "large").write_bytes(bytes(40 << 20))
    failure = builds.build().failure
    assert failure
    assert failure.kind == "deferred"
    assert "no room in the folder of installations" in failure.what


@needs_root
def test_a_disk_that_fills_up_ends_the_installation(small_disk: Path) -> None:
    make_iso(small_disk / "tiny.iso", installer(GOOD_SYSTEM, HANG, before=DELAY))
    builds = Builds(small_disk)
    key = builds.ask()
    with working(builds):
        installing(builds, key)
        with (small_disk / "large").open("wb", buffering=0) as file:
            while not builds.status(key).is_over:
                try:
                    file.write(bytes(1 << 20))
                except OSError:
                    until(lambda: builds.status(key).is_over, "the build to end")
    failure = builds.status(key).failure
    assert failure
    assert failure.kind == "deferred"
    assert "no room" in failure.what
    assert builds.status(key).disk == ""
    assert not (builds.folder / key / "disk.qcow2").exists(), "the space is free again"
