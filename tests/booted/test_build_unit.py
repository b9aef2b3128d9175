"""The unit of installations: started by a request of the service's user, confined, with a user of its own."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.booted.conftest import Machine
from tests.support.boot_code import GOOD_SYSTEM, HANG, POWER_OFF, installer, make_iso
from tests.support.waiting import until

pytestmark = pytest.mark.exhaustive

ROOT = Path(__file__).parents[2]
UNITS = "/etc/systemd/system"
SPOOL = "/var/spool/uecwatchd"
BUILDS = "/var/lib/uecwatchd-build"
WORST_SCORE = 1.5
INSTALL = f"""
cp /opt/source/systemd/uecwatchd-build.service /opt/source/systemd/uecwatchd-build.path {UNITS}
systemctl daemon-reload
systemctl start uecwatchd-build.path
"""
# What the service does, run once under all settings of its unit.
ASK = """
import os
from pathlib import Path
from uecwatchd.install.recipe import read_recipe
from uecwatchd.install.request import BuildRequest, RecipeFile, withdraw_request, write_request
from uecwatchd.types import FileStamp
builds = Path("/var/lib/uecwatchd-build")
what, key, iso = (os.environ[name] for name in ("WHAT", "KEY", "ISO"))
if what == "withdraw":
    withdraw_request(builds, key)
elif what == "read":
    assert (builds / key / "disk.qcow2").read_bytes().startswith(b"QFI")
else:
    recipe = read_recipe({"iso": "x.iso", "disk": "4M", "memory": "32M", "time_limit": "60s"})
    files = {"iso": RecipeFile(Path(iso), FileStamp.of(os.stat(iso)))}
    write_request(builds, BuildRequest(key, "karmic", recipe, files, "tcg"))
"""
ASKING = """[Service]
Type=oneshot
EnvironmentFile=/run/ask
ExecStart=
ExecStart=/opt/uecwatchd/bin/python /usr/share/ask.py
Restart=no
WatchdogSec=0
"""


@pytest.fixture(scope="module")
def unit(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    made = tmp_path_factory.mktemp("isos")
    machine.write("/usr/share/ask.py", ASK)
    machine.run("cp", "/opt/source/systemd/uecwatchd.service", f"{UNITS}/uecwatchd-ask.service")
    machine.write(f"{UNITS}/uecwatchd-ask.service.d/ask.conf", ASKING)
    machine.shell(INSTALL)
    for name, code in (("good", installer(GOOD_SYSTEM, POWER_OFF)), ("hang", installer(None, HANG))):
        iso = make_iso(made / f"{name}.iso", code)
        machine.path(f"{SPOOL}/{name}.iso").write_bytes(iso.read_bytes())
        machine.shell(f"chown alice:uecdrop {SPOOL}/{name}.iso; chmod 640 {SPOOL}/{name}.iso")
    return machine


def as_the_service(machine: Machine, what: str, key: str, iso: str = "") -> None:
    machine.write("/run/ask", f"WHAT={what}\nKEY={key}\nISO={SPOOL}/{iso}\n")
    done = machine.run("systemctl", "start", "uecwatchd-ask", check=False)
    assert done.returncode == 0, machine.run("journalctl", "--unit=uecwatchd-ask", "--output=cat").stdout


def status(machine: Machine, key: str) -> dict[str, Any]:
    path = machine.path(f"{BUILDS}/{key}/status.json")
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def installing(machine: Machine, key: str) -> None:
    until(lambda: status(machine, key).get("stage") == "install" or status(machine, key).get("failure"))
    assert not status(machine, key)["failure"], log(machine)


def log(machine: Machine) -> str:
    return machine.run("journalctl", "--unit=uecwatchd-build*", "--output=cat").stdout


def test_systemd_understands_the_units(unit: Machine) -> None:
    names = ["uecwatchd-build.service", "uecwatchd-build.path"]
    assert unit.run("systemd-analyze", "verify", "--man=no", *names).stderr == ""


def test_the_unit_is_nearly_as_confined_as_the_service(unit: Machine) -> None:
    shown = unit.run("systemd-analyze", "security", "--no-pager", "uecwatchd-build.service").stdout
    (score,) = re.findall(r"Overall exposure level.*: ([0-9.]+)", shown)
    assert float(score) <= WORST_SCORE


def test_the_service_still_may_not_run_what_qemu_needs() -> None:
    text = (ROOT / "systemd/uecwatchd.service").read_text()
    for line in ("MemoryDenyWriteExecute=yes", "PrivateDevices=yes", "NoNewPrivileges=yes"):
        assert f"\n{line}\n" in text


def test_a_request_of_the_service_is_carried_out_and_its_disk_can_be_read(unit: Machine) -> None:
    key = "a" * 32
    as_the_service(unit, "ask", key, "good.iso")
    until(lambda: status(unit, key).get("state") in ("done", "failed"), detail=lambda: log(unit))
    assert status(unit, key)["failure"] is None, log(unit)
    as_the_service(unit, "read", key)
    assert (
        unit.run("stat", "-c", "%U:%G %a", f"{BUILDS}/{key}/disk.qcow2").stdout == "uecbuild:uecbuild 640\n"
    )
    until(lambda: unit.run("systemctl", "is-active", "uecwatchd-build", check=False).stdout == "inactive\n")
    assert unit.run("systemctl", "is-active", "uecwatchd-build.path").stdout == "active\n"


def test_the_worker_may_not_see_what_is_the_services_own(unit: Machine) -> None:
    for path in ("/etc/uecwatchd/eucarc", "/var/lib/uecwatchd"):
        denied = unit.run("runuser", "-u", "uecbuild", "--", "ls", f"{path}/.", check=False)
        assert denied.returncode != 0, path


def test_a_withdrawn_installation_leaves_no_machine_and_no_file(unit: Machine) -> None:
    key = "b" * 32
    as_the_service(unit, "ask", key, "hang.iso")
    installing(unit, key)
    as_the_service(unit, "withdraw", key)
    until(lambda: not unit.path(f"{BUILDS}/{key}").exists(), detail=lambda: log(unit))
    until(lambda: unit.run("systemctl", "is-active", "uecwatchd-build", check=False).stdout == "inactive\n")
    assert unit.run("pgrep", "-u", "uecbuild", check=False).stdout == ""
    assert "was withdrawn" in log(unit)


def test_a_stop_of_the_unit_ends_its_machines_and_the_next_start_goes_on(unit: Machine) -> None:
    key = "c" * 32
    as_the_service(unit, "ask", key, "hang.iso")
    installing(unit, key)
    # The path first, which any start of the service's unit has started: it would start the worker again.
    unit.run("systemctl", "stop", "uecwatchd-build.path")
    unit.run("systemctl", "stop", "uecwatchd-build")
    assert unit.run("systemctl", "show", "--value", "-pResult", "uecwatchd-build").stdout == "success\n"
    # The cgroup is empty, but what was killed in it may still have to be reaped.
    until(lambda: unit.run("pgrep", "-u", "uecbuild", check=False).stdout == "", "the end of its machine")
    assert status(unit, key)["state"] == "running", status(unit, key)["failure"]
    as_the_service(unit, "withdraw", key)
    unit.run("systemctl", "start", "uecwatchd-build.path")
    until(lambda: not unit.path(f"{BUILDS}/{key}").exists(), detail=lambda: log(unit))
