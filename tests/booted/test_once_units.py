"""The units of those who want no service that always runs: started by a drop or by the hour, as confined."""

import shutil
from collections.abc import Iterator

import pytest

from tests.booted.conftest import Instance, Machine
from uecwatchd.sandbox.server import Sandbox

pytestmark = pytest.mark.exhaustive

UNITS = "/etc/systemd/system"
ONCE = f"{UNITS}/uecwatchd-once.service"
INSTALL = f"""
cd /opt/source/systemd
cp uecwatchd.service uecwatchd-once.service uecwatchd-once.path uecwatchd-once.timer {UNITS}
install -Dm644 uecwatchd-once.conf {ONCE}.d/20-once.conf
ln -sf ../uecwatchd.service {ONCE}.d/10-as-the-service.conf
cp /opt/source/etc/examples/uecwatchd-failed.service {UNITS}
systemctl daemon-reload
"""


@pytest.fixture(scope="module")
def once(machine: Machine, instance_class: type[Instance], cloud: Sandbox) -> Iterator[Instance]:
    """The units as the package installs them, and a configuration at its own place."""
    one = instance_class(machine, "uecwatchd", "/var/spool/uecwatchd")
    one.make_spool()
    one.install()
    machine.run("rm", "-rf", f"{UNITS}/uecwatchd.service.d")
    machine.shell(INSTALL)
    yield one
    machine.shell(
        "systemctl stop uecwatchd-once.path uecwatchd-once.timer uecwatchd-once.service uecwatchd.service\n"
        f"rm -rf {UNITS}/uecwatchd*; systemctl daemon-reload"
    )


def test_systemd_understands_the_units_and_the_example(once: Instance) -> None:
    names = [f"uecwatchd-{end}" for end in ("once.service", "once.path", "once.timer", "failed.service")]
    assert once.machine.run("systemd-analyze", "verify", "--man=no", *names).stderr == ""


def test_a_single_run_has_the_rights_of_the_service_and_no_others(once: Instance) -> None:
    shown = once.machine.run("systemd-analyze", "security", "--no-pager", "uecwatchd-once.service").stdout
    same = once.machine.run("systemd-analyze", "security", "--no-pager", "uecwatchd.service").stdout
    assert shown.splitlines()[1:-1] == same.splitlines()[1:-1]


def test_a_drop_starts_a_single_run(once: Instance) -> None:
    once.machine.run("systemctl", "start", "uecwatchd-once.path")
    once.drop("dropped")
    assert once.wait_for("dropped.emi").startswith("emi-")
    once.until(lambda: state(once, "uecwatchd-once.service", "ActiveState") == "inactive")
    assert state(once, "uecwatchd-once.service", "Result") == "success"
    once.machine.run("systemctl", "stop", "uecwatchd-once.path")


def test_the_timer_starts_a_run_for_what_no_event_was_seen_of(once: Instance) -> None:
    soon = "[Timer]\nOnCalendar=\nOnActiveSec=100ms\nRandomizedDelaySec=0\nAccuracySec=1ms\n"
    once.machine.write(f"{UNITS}/uecwatchd-once.timer.d/soon.conf", soon)
    once.machine.run("systemctl", "daemon-reload")
    once.drop("unseen")
    once.machine.run("systemctl", "start", "uecwatchd-once.timer")
    assert once.wait_for("unseen.emi").startswith("emi-")
    once.machine.run("systemctl", "stop", "uecwatchd-once.timer")


def test_a_run_beside_the_service_is_no_failure(once: Instance) -> None:
    once.machine.run("systemctl", "start", "uecwatchd")
    try:
        once.machine.run("systemctl", "start", "uecwatchd-once.service")
        assert state(once, "uecwatchd-once.service", "Result") == "success"
    finally:
        once.machine.run("systemctl", "stop", "uecwatchd")


def test_a_rejected_set_is_no_failure_of_the_unit(once: Instance) -> None:
    rejected = f"{once.spool}/rejected.img"
    once.machine.shell(f"runuser -u alice -- sh -c 'echo no image >{rejected}'")
    try:
        once.machine.run("systemctl", "start", "uecwatchd-once.service")
        assert once.machine.path(f"{once.spool}/rejected.uec.error").exists()
        assert state(once, "uecwatchd-once.service", "ActiveState") == "inactive"
    finally:
        once.machine.shell(f"rm {rejected}")


def test_own_changes_of_the_service_apply_to_single_runs_by_a_link(once: Instance) -> None:
    once.machine.write(f"{UNITS}/uecwatchd.service.d/own.conf", "[Service]\nEnvironment=OWN=change\n")
    once.machine.shell(f"ln -s ../uecwatchd.service.d/own.conf {ONCE}.d/; systemctl daemon-reload")
    assert "OWN=change" in state(once, "uecwatchd-once.service", "Environment")


def test_an_administrator_is_told_of_a_service_that_has_failed(once: Instance) -> None:
    once.machine.write(
        f"{UNITS}/uecwatchd.service.d/told.conf", "[Unit]\nOnFailure=uecwatchd-failed.service\n"
    )
    once.machine.shell(
        f"systemctl daemon-reload; mv {once.config} {once.config}.away; echo x > {once.config}"
    )
    try:
        assert once.machine.run("systemctl", "start", "uecwatchd", check=False).returncode != 0
        once.until(lambda: "Try: uecwatchd check" in told(once))
    finally:
        once.machine.shell(f"mv {once.config}.away {once.config}; systemctl reset-failed uecwatchd")


def told(one: Instance) -> str:
    mail = "mail" if shutil.which("mail") else ""  # then it is in a mailbox, and the unit has ended well
    if mail:
        return "Try: uecwatchd check" * (state(one, "uecwatchd-failed.service", "Result") == "success")
    return one.machine.run("journalctl", "-t", "uecwatchd-failed", "--output=cat", "--no-pager").stdout


def state(one: Instance, unit: str, setting: str) -> str:
    return one.machine.run("systemctl", "show", unit, f"--property={setting}", "--value").stdout.strip()
