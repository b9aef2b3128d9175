"""Test boots of whole sets on the embedded cloud: each fault, its outcome, and the instances that are left.

The table is printed by

    pytest -q -rP tests/delivery/test_test_boot.py
"""

import json
import socket
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.boots import account, drop_tested, living, quick_boots
from tests.support.clock import Clocks
from tests.support.daemon import daemon_thread, opened_service
from tests.support.host import Host, cloud_host
from tests.support.listener import Recorder
from tests.support.site_programs import make_program
from tests.support.spool_files import drop_image
from tests.support.waiting import until
from uecwatchd.clouds.client import make_cloud
from uecwatchd.clouds.dialects import DIALECTS
from uecwatchd.clouds.instances import terminate
from uecwatchd.clouds.request_retry import RetryPolicy
from uecwatchd.events import Event, Kind, Progress
from uecwatchd.ledger.history import AttemptRecord
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.service.attempt.boot import BOOT_STAGE
from uecwatchd.types import SetId

pytestmark = pytest.mark.exhaustive

QUICK = RetryPolicy(tries=(0.01, 0.01, 0.01), looks=(0.01,))


@dataclass(frozen=True)
class Case:
    """A fault with its outcome. `kept` images stay; `seconds` is the limit of a boot."""

    fault: str
    state: str
    why: str = ""
    kept: int = 1
    seconds: float = 30.0
    instance_type: str = ""


CASES = [
    Case("", "done"),
    Case("lost-launch", "done"),
    Case("away in the middle", "done"),
    Case("boot-panics", "rejected", "its kernel panics: ", kept=0),
    Case("boot-never", "rejected", "its console does not have a login", kept=0, seconds=1.0),
    Case("boot-silent", "rejected", "its console is still empty after 1 s", kept=0, seconds=1.0),
    Case("boot-ends", "rejected", "its instance is terminated by itself (Client.InternalError", kept=0),
    Case("boot-address", "rejected", "it refuses connections to port", kept=0, seconds=1.0),
    Case("boot-pending", "deferred", "the instance is still pending after 1 s", seconds=1.0),
    Case("boot-quota", "deferred", "it has no room for another instance"),
    Case("unknown type", "rejected", "no instance type of that name", instance_type="m9.huge"),
    Case("image removed", "done"),  # it is registered again, and that one is booted
]


@dataclass
class Reaction:
    """A listener that does something when a sentence with these words comes for the first time."""

    words: str
    act: Callable[[], object]
    events: list[Event] = field(default_factory=list)
    progresses: list[Progress] = field(default_factory=list)
    done: bool = False

    def tell(self, event: Event) -> None:
        self.events.append(event)
        if self.words in event.sentence and not self.done:
            self.done = True
            self.act()

    def progress(self, progress: Progress) -> None:
        self.progresses.append(progress)


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


def ids(host: Host) -> list[str]:
    return [image.id for image in host.cloud.images]


def ledger_boots(host: Host) -> int:
    with closing(open_ledger(host.state)) as book:
        return len(book.boots.open())


def run_once(host: Host, listener: Reaction) -> str:
    with opened_service(host, listener, patience=QUICK) as service:
        (record,) = service.once()
    return record.state


@pytest.mark.parametrize("case", CASES, ids=[case.fault or "no fault" for case in CASES])
def test_a_fault_has_its_outcome_and_no_instance_is_left(host: Host, case: Case) -> None:
    quick_boots(host, seconds=case.seconds, boot_port=free_port(), instance_type=case.instance_type)
    listener = Reaction("is running", lambda: None)
    if case.fault.startswith(("boot-", "lost-")):
        host.cloud.faults.arm(case.fault)
    elif case.fault == "away in the middle":
        listener.act = lambda: host.cloud.faults.arm("away", 2)
    elif case.fault == "image removed":
        registry = host.cloud.backend.registry
        listener.act = lambda: [registry.remove_image(one) for one in ids(host)]
    drop_tested(host, more="public = true\n")
    assert run_once(host, listener) == case.state
    report = host.report("karmic")
    left = living(host.cloud)
    started = len(host.cloud.instances)
    why = report["error"]["why"] if report["error"] else "its image is published"
    sys.stdout.write(
        f"{case.fault or 'no fault':<20} {case.state:<9} {started} started, {len(left)} left  {why}\n"
    )
    assert case.why in why or case.state == "done"
    assert (left, len(ids(host)), ledger_boots(host)) == ([], case.kept, 0)
    assert (host.spool / "karmic.emi").exists() == (case.state == "done")
    permissions = [host.cloud.backend.registry.permissions(one) for one in ids(host)]
    assert any(permissions) == (case.state == "done"), "nobody else may start what has not passed"
    assert host.cloud.objects("uec-images") == () or case.kept


def test_an_instance_that_this_host_has_ended_is_no_fault_of_its_image(host: Host) -> None:
    quick_boots(host)
    host.cloud.faults.arm("boot-silent")
    drop_tested(host)

    def take_for_left() -> None:
        with closing(open_ledger(host.state)) as book:
            (boot,) = book.boots.open()
            book.boots.drop(boot)
        terminate(make_cloud(account(host), DIALECTS["sandbox"], uploads=1), boot.instance_id)

    assert run_once(host, Reaction("is running", take_for_left)) == "deferred"
    assert host.report("karmic")["error"]["why"] == "this host has terminated its instance"
    assert (len(ids(host)), living(host.cloud)) == (1, [])


def test_an_image_on_trial_leaves_when_its_file_is_replaced(host: Host) -> None:
    quick_boots(host)
    host.cloud.faults.arm("boot-quota")
    drop_tested(host)
    host.ask("once", code=75)
    (first,) = ids(host)
    drop_tested(host, data=b"2" * 4096)
    _, talk = host.ask("once")
    assert ids(host) == [(host.spool / "karmic.emi").read_text().strip()]
    assert f"deregistered {first}, which was not published" in talk
    assert len(host.cloud.objects("uec-images")) == 2, "the bundle of the second"


def test_a_failure_is_reported_with_the_end_of_the_console(host: Host) -> None:
    quick_boots(host)
    host.cloud.faults.arm("boot-panics")
    drop_tested(host)
    host.ask("once", code=65)
    error = host.report("karmic")["error"]
    assert error["what"].startswith("karmic: emi-")
    assert error["hint"].startswith("What it made for this set is withdrawn.")
    assert any("Kernel panic" in line for line in error["console"])
    text = (host.spool / "karmic.uec.error").read_text()
    assert "The end of the console:\n" in text
    assert "    [    1.044010] Kernel panic - not syncing" in text
    assert "console: [    1.044010] Kernel panic" in (host.spool / "karmic.uec.log").read_text()
    assert host.report("karmic")["ids"]["machine"] is None


def test_an_image_that_has_passed_is_not_booted_again(host: Host) -> None:
    quick_boots(host)
    hook = host.folder / "registered"
    host.configure(f'{host.config.read_text()}\n[hooks]\nregistered = ["{hook}"]\n')
    drop_tested(host)
    host.ask("once", code=78)  # the stage after the boot fails
    make_program(hook, "exit 0")
    host.ask("once")
    host.ask("retry", "karmic")
    host.ask("once")
    assert (host.spool / "karmic.emi").read_text().split() == ids(host)
    assert len(host.cloud.instances) == 1


def test_an_image_that_was_there_is_booted_once_and_never_withdrawn(host: Host) -> None:
    quick_boots(host)
    drop_tested(host, more="")
    (host.spool / "karmic.toml").write_text('kernel = "none"\nconvert = "keep"\n')
    host.ask("once")
    published = ids(host)
    (host.spool / "karmic.toml").write_text('kernel = "none"\nconvert = "keep"\ntest = true\n')
    host.cloud.faults.arm("boot-panics")
    host.ask("once", code=65)
    assert ids(host) == published
    assert "Its image was there before, and stays." in host.report("karmic")["error"]["hint"]
    assert not (host.spool / "karmic.emi").exists()
    host.ask("retry", "karmic")
    host.ask("once")
    assert (host.spool / "karmic.emi").read_text().split() == published
    assert (len(host.cloud.instances), living(host.cloud)) == (2, [])


def test_a_cloud_asks_for_a_test_and_a_sidecar_may_decline(host: Host) -> None:
    quick_boots(host)
    host.configure(f"{host.config.read_text()}test = true\n")
    drop_tested(host, "lucid")
    (host.spool / "lucid.toml").write_text('kernel = "none"\nconvert = "keep"\ntest = false\n')
    host.ask("once")
    assert host.cloud.instances == ()
    (host.spool / "lucid.toml").write_text('kernel = "none"\nconvert = "keep"\n')
    host.ask("once")
    assert len(host.cloud.instances) == 1


def test_one_instance_runs_on_a_cloud_at_a_time(host: Host) -> None:
    quick_boots(host)
    for number in range(4):
        drop_tested(host, f"set{number}", data=bytes([number]) * 4096)
    alive: list[int] = []

    class Census(Recorder):
        def progress(self, progress: Progress) -> None:
            alive.append(len(living(host.cloud)))

    with opened_service(host, Census(), patience=QUICK) as service:
        assert {record.state for record in service.once()} == {"done"}
    assert max(alive) == 1
    assert len(host.cloud.instances) == 4


def test_a_boot_and_the_wait_for_another_one_hold_no_worker(host: Host) -> None:
    quick_boots(host, seconds=600.0)
    host.configure(f"{host.config.read_text()}\n[work]\nsets = 1\n")
    host.cloud.faults.arm("boot-never")
    drop_tested(host, "first")
    listener = Reaction("is running", lambda: None)
    with opened_service(host, listener, patience=QUICK) as service, daemon_thread(service):
        until(lambda: listener.done, "the instance to run")
        drop_tested(host, "second", data=b"2" * 4096)
        until(lambda: state_of(host, "second") == "waiting", "the other to wait")
        drop_image(host.spool, "plain", b"3" * 4096)
        until(lambda: (host.spool / "plain.emi").exists(), "a set that needs no boot")
        assert state_of(host, "first") == "waiting"
        until(lambda: "; console: " in host.ask("status", "first")[0], "the console in the ledger")
        shown, _ = host.ask("status")
        assert "for the test boot of emi-" in shown
        assert "for another test boot on cloud default" in shown
        host.cloud.faults.clear()
        host.ask("hold", "first")
        until(lambda: (host.spool / "second.emi").exists(), "its turn comes when the first one stops")
    assert (living(host.cloud), ledger_boots(host)) == ([], 0)


def test_a_wait_for_a_boot_takes_no_number_of_an_attempt(host: Host) -> None:
    quick_boots(host)
    for number in range(3):
        drop_tested(host, f"set{number}", data=bytes([number]) * 4096)
    host.ask("once")
    attempts = json.loads(host.ask("history", "--json")[0])
    assert [(one["number"], one["outcome"]) for one in attempts] == [(1, "done")] * 3
    for one in attempts:
        booted = next(stage for stage in one["stages"] if stage["name"] == BOOT_STAGE)
        assert booted["seconds"] > 0.1, "the time of the boot"
        assert sum(stage["seconds"] for stage in one["stages"]) <= one["seconds"] + 0.1
    log = (host.spool / "set0.uec.log").read_text()
    assert (log.count("--- attempt 1, "), log.count(": attempt 1 on cloud")) == (1, 1)
    assert "--- attempt 1 goes on, " in log
    assert [host.report(f"set{number}")["attempt"] for number in range(3)] == [1, 1, 1]


def state_of(host: Host, name: str) -> str:
    report = host.spool / f"{name}.uec.json"
    return str(host.report(name)["state"]) if report.exists() else ""


def test_a_folder_may_close_tests_to_sidecars(host: Host) -> None:
    quick_boots(host)
    host.configure(host.config.read_text().replace("[spool]\n", '[spool]\nclosed = ["test"]\n'))
    drop_tested(host)
    host.ask("once", code=65)
    assert "test is not open to sidecars" in host.report("karmic")["error"]["what"]


def test_progress_shows_the_last_line_of_the_console(host: Host) -> None:
    quick_boots(host)
    drop_tested(host)
    listener = Reaction("", lambda: None)
    assert run_once(host, listener) == "done"
    shown = [one.file for one in listener.progresses if one.stage == "boot it once" and one.file]
    assert shown[-1] == "recorded login:"
    stages = {stage.name for stage in attempts(host)[-1].stages}
    assert "boot it once" in stages
    booted = [event for event in listener.events if event.kind == Kind.BOOTED]
    assert booted[-1].fields["instance"] == host.cloud.instances[0].id


def attempts(host: Host) -> tuple[AttemptRecord, ...]:
    with closing(open_ledger(host.state)) as book:
        return book.history.attempts(SetId(str(host.spool), "karmic"))


def test_a_port_that_answers_is_looked_for_where_there_is_an_address(host: Host) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        quick_boots(host)
        host.configure(f"{host.config.read_text()}boot_port = {server.getsockname()[1]}\n")
        host.cloud.faults.arm("boot-address")
        drop_tested(host)
        host.ask("once")
    assert "it answers at port" in (host.spool / "karmic.uec.log").read_text()


def test_a_clock_that_jumps_during_a_boot_changes_nothing(host: Host) -> None:
    quick_boots(host)
    ahead = [0.0]
    drop_tested(host)
    listener = Reaction("is running", lambda: ahead.append(86400.0))
    with opened_service(host, listener, now=lambda: time.time() + ahead[-1], patience=QUICK) as service:
        (record,) = service.once()
    assert (record.state, living(host.cloud), ledger_boots(host)) == ("done", [], 0)


def test_a_stop_in_the_middle_ends_the_instance_and_the_next_start_boots_again(host: Host) -> None:
    quick_boots(host, seconds=60.0)
    host.cloud.faults.arm("boot-never")
    drop_tested(host)
    stops: list[Callable[[], None]] = []
    listener = Reaction("is running", lambda: stops[0]())
    with opened_service(host, listener, patience=QUICK) as service:
        stops.append(service.stop)
        (record,) = service.once()
    assert record.state == "queued"
    assert host.cloud.instances[0].state != "running", "its end was asked for"
    host.ask("once")
    assert (living(host.cloud), ledger_boots(host), len(host.cloud.instances)) == ([], 0, 2)


@pytest.mark.parametrize("verb", ["hold", "forget"])
def test_a_request_in_the_middle_ends_the_instance(host: Host, verb: str) -> None:
    quick_boots(host, seconds=60.0)
    host.cloud.faults.arm("boot-never")
    drop_tested(host)
    clocks = Clocks()
    listener = Reaction("is running", lambda: None)
    with (
        opened_service(host, listener, now=clocks.now, monotonic=clocks.monotonic, patience=QUICK) as service,
        daemon_thread(service),
    ):
        until(lambda: listener.done, "the instance to run")
        host.ask(verb, "karmic")
        until(lambda: host.cloud.instances[0].state != "running", "its end to be asked for")
        clocks.pass_by(61.0)
        until(lambda: host.cloud.instances[0].state == "terminated", "the reaper")
        if verb == "forget":  # its files are still there
            until(lambda: (host.spool / "karmic.emi").exists(), "the set that begins again")
        until(lambda: not ledger_boots(host), "the ledger to know it")
    assert living(host.cloud) == []


def test_an_instance_that_does_not_end_defers_the_set_and_the_next_boot(host: Host) -> None:
    quick_boots(host, seconds=900)
    host.cloud.faults.arm("boot-stays")
    drop_tested(host)
    began = time.monotonic()
    listener = Reaction("", lambda: None)

    def fast() -> float:
        return began + (time.monotonic() - began) * 200

    with opened_service(host, listener, monotonic=fast, patience=QUICK) as service:
        (record,) = service.once()
    assert (record.state, ledger_boots(host)) == ("deferred", 1)
    assert "is still shutting-down after 300 s" in record.error.why
    host.cloud.faults.clear()
    host.ask("retry", "karmic")
    host.ask("once")
    assert (host.spool / "karmic.emi").exists()
    assert (len(host.cloud.instances), living(host.cloud), ledger_boots(host)) == (1, [], 0)


DISK = b"\0" * 510 + b"\x55\xaa" + b"\0" * 3584
INSTANCE_ACTIONS = {"RunInstances", "DescribeInstances", "GetConsoleOutput", "TerminateInstances"}


@pytest.mark.parametrize("dialect", ["uec", "euca3", "euca4", "euca5", "openstack", "aws"])
def test_each_generation_boots_and_ends_what_it_is_asked_for(dialect: str, tmp_path: Path) -> None:
    with cloud_host(tmp_path, dialect) as host:
        quick_boots(host, seconds=60, instance_type="m1.small", key_name="mykey", user_data="#!/bin/sh")
        boots_by = 'kernel = "none"\n' if dialect in ("uec", "euca3") else 'virtualization = "hvm"\n'
        (host.spool / "karmic.toml").write_text(f'{boots_by}convert = "keep"\ntest = true\n')
        for content, faults in ((b"1", ()), (b"2", ("lost-launch",))):
            (host.spool / "karmic.img").write_bytes(DISK + content * 4096)
            for fault in faults:
                host.cloud.faults.arm(fault)
            host.ask("once")
            assert (living(host.cloud), ledger_boots(host)) == ([], 0)
        assert len(host.cloud.instances) == 2
        assert {one.key_name for one in host.cloud.instances} == {"mykey"}
        tokens = [one.token for one in host.cloud.instances]
        assert all(token.startswith("uecwatchd-") for token in tokens) == (dialect != "uec")
        tags = {tag.resource for tag in host.cloud.backend.registry.tags() if tag.key == "uecwatchd-boot"}
        assert bool(tags) == (dialect not in ("uec", "euca3"))
        assert [seen for seen in host.cloud.refusals if seen.action in INSTANCE_ACTIONS] == []


def test_on_a_cloud_with_public_images_an_image_is_private_while_it_is_tested(tmp_path: Path) -> None:
    with cloud_host(tmp_path, "uec") as host:
        quick_boots(host)
        drop_tested(host)
        seen: list[bool] = []
        registry = host.cloud.backend.registry

        def look() -> None:
            seen.append(any(registry.permissions(one) for one in ids(host)))

        assert run_once(host, Reaction("is running", look)) == "done"
        assert seen == [False]
        assert all(registry.permissions(one) for one in ids(host)), "and public again, as that cloud has it"
