"""The real program stopped at any moment: it ends soon, says where it was, and goes on from there."""

import os
import random
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.daemon import await_notice
from tests.support.host import Host
from tests.support.program_runs import Run
from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.demo.material import RealSet
from uecwatchd.intake.spool.output_files import lock_spool
from uecwatchd.ledger.schema import FILE_NAME
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.system import lockfile

# On a busy machine a set may be deferred once, and that is for half a minute.
# Between two looks: less than the shortest stage takes.
LOOK_SECONDS = 0.005
# What answers may take that were under way, and what a busy disk may take for what is to last.
STOP_SECONDS = 15.0
SLOW_SECONDS = 1.0
LOOKS = 1_000_000  # at an image that is pending: more than there will be
CYCLES = 12
# From before the program can hear a signal until it has begun to upload.
CYCLE_SECONDS = (0.0, 0.9)
# Sparse, and read in a time that no look can miss, also on a busy machine. With more than a gigabyte of holes
# it would not be read whole.
LARGE_BYTES = 1000 << 20
# An exit that systemd answers with another start.
EX_IOERR = 74
PAGE_BYTES = 4096
ROLES = ("eki", "emi", "eri")


def reported(host: Host, key: str) -> str:
    """Return a value of the report, "" before there is one."""
    return str(host.report("karmic")[key] or "") if (host.spool / "karmic.uec.json").exists() else ""


@contextmanager
def daemon(host: Host) -> Iterator[Run]:
    """The real program. Killed in the end, if it has not ended."""
    process = host.start("run")
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_SECONDS)


def stop(process: Run) -> None:
    began = time.monotonic()
    process.terminate()
    _, talk = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, talk
    assert time.monotonic() - began < STOP_SECONDS, talk


def in_order(host: Host) -> None:
    """All that a finished set leaves: one image of each kind, its outputs, and nothing else."""
    assert sorted(image.id[:3] for image in host.cloud.images) == sorted(ROLES)
    assert host.outputs() == [f"karmic.{end}" for end in (*ROLES, "uec.json", "uec.log")]
    ids = {(host.spool / f"karmic.{role}").read_text().strip() for role in ROLES}
    assert ids == {image.id for image in host.cloud.images}
    assert not [path.name for path in host.spool.iterdir() if path.name.startswith(".karmic")]


@dataclass(frozen=True, slots=True)
class Moment:
    """In which stage to stop. The fault that holds it open is armed once `before` has come to pass, and the
    stop comes with `now`."""

    stage: str
    before: Callable[[Host], bool] = lambda _host: True
    now: Callable[[Host], bool] = lambda _host: True
    fault: str = "slow"
    value: float = SLOW_SECONDS
    states: Sequence[str] = ("queued",)  # those it may be in after that


def in_stage(name: str) -> Callable[[Host], bool]:
    return lambda host: reported(host, "stage") == name


def in_state(name: str) -> Callable[[Host], bool]:
    return lambda host: reported(host, "state") == name


def uploading(host: Host) -> bool:
    return any("/karmic" in seen.path for seen in host.cloud.calls("PutObject"))


def registered(count: int) -> Callable[[Host], bool]:
    return lambda host: len(host.cloud.calls("RegisterImage")) >= count


def make_available(host: Host) -> None:
    for image in host.cloud.images:
        host.cloud.backend.registry.set_image_state(image.id, "available")


MACHINE = "deliver the machine image"
MOMENTS = {
    "reading the files": Moment("read the files"),
    "connecting to the cloud": Moment("connect to the cloud"),
    "uploading": Moment(MACHINE, before=in_stage(MACHINE)),
    "uploading the machine": Moment(MACHINE, before=uploading),
    # The attempt waits for some moments, and then lets go of the set.
    "registration pending": Moment(
        MACHINE, now=registered(2), fault="pending", value=LOOKS, states=("queued", "waiting")
    ),
    "waiting for a registration": Moment(
        MACHINE, now=in_state("waiting"), fault="pending", value=LOOKS, states=("waiting",)
    ),
    "finishing": Moment("set tags and permissions", before=registered(3)),
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS.keys())
def test_a_stop_in_any_stage_is_soon_and_loses_nothing(host: Host, real_set: RealSet, moment: Moment) -> None:
    host.drop_set(real_set)
    if moment.stage == "read the files":
        os.truncate(host.spool / "karmic.img", LARGE_BYTES)
    with daemon(host) as process:
        until(lambda: moment.before(host), "what comes before", pause=LOOK_SECONDS)
        host.cloud.faults.arm(moment.fault, moment.value)
        until(lambda: in_stage(moment.stage)(host) and moment.now(host), moment.stage, pause=LOOK_SECONDS)
        stop(process)
    assert reported(host, "state") in moment.states
    assert reported(host, "stage") == moment.stage
    host.cloud.faults.clear()
    make_available(host)
    ended = host.run("once")
    assert ended.returncode == 0, ended.stderr
    assert f"Resuming karmic at: {moment.stage}" in ended.stderr
    in_order(host)


def has_open(pid: int, path: Path) -> bool:
    try:
        return any(entry.resolve() == path for entry in (Path("/proc") / str(pid) / "fd").iterdir())
    except FileNotFoundError:  # one that was closed by now
        return False


def test_a_stop_that_comes_while_the_ledger_is_opened_is_not_lost(host: Host) -> None:
    open_ledger(host.state).close()
    path = host.state / FILE_NAME
    with closing(sqlite3.connect(path)) as other, daemon(host) as process:
        other.execute("BEGIN IMMEDIATE")  # so opening it takes a while
        until(lambda: has_open(process.pid, path), "the ledger to be opened")
        process.terminate()
        other.rollback()
        _, talk = process.communicate(timeout=STOP_SECONDS)
    assert process.returncode == 0, talk


def test_many_starts_and_stops_at_any_moment_leave_one_image_of_each_kind(
    host: Host, real_set: RealSet
) -> None:
    host.drop_set(real_set)
    host.cloud.faults.arm("slow", SLOW_SECONDS / 4)
    moments = random.Random(4)  # noqa: S311 (only not to be regular)
    for _ in range(CYCLES):
        with daemon(host) as process:
            time.sleep(moments.uniform(*CYCLE_SECONDS))
            process.terminate()
            _, talk = process.communicate(timeout=PATIENCE_SECONDS)
        # Before the program can hear of it, a signal ends it at once, which systemd takes for no failure.
        assert process.returncode in (0, -signal.SIGTERM), talk
    host.cloud.faults.clear()
    ended = host.run("once")
    assert ended.returncode == 0, ended.stderr
    assert reported(host, "state") == "done"
    in_order(host)


def spoil_ledger(host: Host) -> None:
    """Overwrite its pages under a daemon, which takes them for those it remembers until somebody writes."""
    path = host.state / FILE_NAME
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("INSERT INTO holds VALUES ('/nowhere', 'nothing', 0)")
        with path.open("r+b") as file:
            file.seek(PAGE_BYTES)
            file.write(b"\xa5" * (path.stat().st_size - PAGE_BYTES))


def test_a_ledger_damaged_in_the_middle_ends_the_daemon_and_the_next_makes_a_new_one(
    host: Host, real_set: RealSet
) -> None:
    host.drop_set(real_set)
    with daemon(host) as process:
        until(lambda: uploading(host), "the machine image's upload")
        host.cloud.faults.arm("slow", SLOW_SECONDS)
        spoil_ledger(host)
        _, talk = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == EX_IOERR, talk
    assert talk.count("uecwatchd: the ledger: it is damaged: ") == 1
    host.cloud.faults.clear()
    ended = host.run("once")
    assert ended.returncode == 0, ended.stderr
    assert "nothing is registered twice" in ended.stderr
    in_order(host)


# --- another configuration --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Daemon:
    """The real program as its systemd knows it."""

    process: Run
    systemd: socket.socket

    def ready(self) -> None:
        """Wait until it says so."""
        await_notice(self.systemd, b"READY=1")

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)
        await_notice(self.systemd, b"RELOADING=1")
        self.ready()

    def stop(self) -> str:
        self.process.terminate()
        _, talk = self.process.communicate(timeout=PATIENCE_SECONDS)
        assert self.process.returncode == 0, talk
        return talk


@contextmanager
def watched(host: Host) -> Iterator[Daemon]:
    address = host.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(address))
        systemd.settimeout(PATIENCE_SECONDS)
        made = Daemon(host.start("run", environ={"NOTIFY_SOCKET": str(address)}), systemd)
        try:
            made.ready()
            yield made
        finally:
            made.process.kill()
            made.process.communicate(timeout=PATIENCE_SECONDS)


def is_free(folder: Path) -> bool:
    """Tell if no daemon has the folder's lock."""
    try:
        lockfile.release(lock_spool(folder) or 0)
    except lockfile.LockTaken:
        return False
    return True


def test_a_broken_configuration_is_reported_in_one_sentence_and_the_old_one_works_on(
    host: Host, real_set: RealSet
) -> None:
    good = host.config.read_text()
    with watched(host) as running:
        for bad in ("[spool", good.replace("settle", "setle"), good.replace("bucket =", "buckt =")):
            host.configure(bad)
            running.reload()
        host.drop_set(real_set)
        until(lambda: reported(host, "state") == "done", "the set, by the old configuration")
        talk = running.stop()
    complaints = [line for line in talk.splitlines() if "Kept the old configuration: " in line]
    assert len(complaints) == 3
    assert ["settle" in line for line in complaints] == [False, True, False]
    assert "bucket" in complaints[2]
    assert "Traceback" not in talk
    in_order(host)


def test_folders_come_and_go_with_the_configuration(host: Host, real_set: RealSet) -> None:
    good, second = host.config.read_text(), host.folder / "second"
    second.mkdir()
    with watched(host) as running:
        host.configure(good.replace(f'["{host.spool}"]', f'["{host.spool}", "{second}"]'))
        running.reload()
        assert not is_free(host.spool)
        assert not is_free(second)
        host.configure(good.replace(str(host.spool), str(second)))
        running.reload()
        assert is_free(host.spool)
        host.drop_set(real_set)
        replace(host, spool=second).drop_set(real_set)
        until(lambda: reported(replace(host, spool=second), "state") == "done", "the set in the new folder")
        running.stop()
    assert host.outputs() == [], "nobody looks at the folder that was let go"
    in_order(replace(host, spool=second))


def test_a_set_at_work_comes_to_its_end_when_its_cloud_is_taken_out(host: Host, real_set: RealSet) -> None:
    good = host.config.read_text()
    host.drop_set(real_set)
    with watched(host) as running:
        until(lambda: uploading(host), "the machine image's upload")
        host.cloud.faults.arm("slow", SLOW_SECONDS / 2)
        host.configure(good.replace("[cloud.default]", "[cloud.other]"))
        running.reload()
        assert reported(host, "state") == "working"
        host.cloud.faults.clear()
        until(lambda: reported(host, "state") != "working", "its end")
        talk = running.stop()
    assert reported(host, "state") == "done", talk
    assert "Traceback" not in talk
    in_order(host)


def test_a_changed_time_to_settle_takes_effect(host: Host, real_set: RealSet) -> None:
    good = host.config.read_text()
    host.configure(good.replace("settle = 0.3", "settle = 3600"))
    host.drop_set(real_set)
    with watched(host) as running:
        assert reported(host, "state") != "working"
        assert not host.cloud.requests
        host.configure(good)
        running.reload()
        until(lambda: reported(host, "state") == "done", "the set")
        running.stop()
