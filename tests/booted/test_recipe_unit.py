"""A recipe in a real system: the service and the worker each under its own shipped unit."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.booted.conftest import Instance, Machine
from tests.support.boot_code import GOOD_SYSTEM, POWER_OFF, installer, make_iso
from uecwatchd.sandbox.server import Sandbox

pytestmark = pytest.mark.exhaustive

UNITS = "/etc/systemd/system"
HOME = "/home/alice"
INSTALL = f"""
cp /opt/source/systemd/uecwatchd-build.service /opt/source/systemd/uecwatchd-build.path {UNITS}
systemctl daemon-reload
systemctl start uecwatchd-build.path
"""
RECIPE = '[install]\niso = "disk.iso"\ndisk = "4M"\nmemory = "32M"\ntime_limit = "60s"\nkeep = false\n'
# With a partition in its table: otherwise it is no disk of a machine.
GOOD_DISK = GOOD_SYSTEM.ljust(0x1BE, b"\0") + bytes([0x80, 0, 0, 0, 0x83, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0])


@pytest.fixture
def building(machine: Machine) -> Iterator[Machine]:
    machine.shell(INSTALL)
    yield machine
    machine.shell(
        f"systemctl stop uecwatchd-build.path uecwatchd-build.service; rm {UNITS}/uecwatchd-build.*"
    )


def test_a_dropped_recipe_becomes_an_image_and_the_service_stays_confined(
    building: Machine, instance_class: type[Instance], cloud: Sandbox, tmp_path: Path
) -> None:
    one = instance_class(building, "installing", "/var/spool/installing")
    one.make_spool()
    one.install(dropin=f"ReadWritePaths={one.spool}\n")
    iso = make_iso(tmp_path / "disk.iso", installer(GOOD_DISK, POWER_OFF))
    building.path(f"{HOME}/disk.iso").write_bytes(iso.read_bytes())
    building.write(f"{HOME}/web.toml", RECIPE)
    building.shell(f"chmod 644 {HOME}/disk.iso {HOME}/web.toml")
    building.shell("systemctl daemon-reload; systemctl start installing")
    building.shell(f"runuser -u alice -- cp {HOME}/disk.iso {HOME}/web.toml {one.spool}")
    image_id = one.wait_for("web.emi").strip()
    assert image_id in {image.id for image in cloud.images}
    report = json.loads(building.path(f"{one.spool}/web.uec.json").read_text())
    assert report["members"][-1]["origin"] == "disk installed from disk.iso"
    left = building.path(f"/var/lib/uecwatchd-build/{report['build']['key']}")
    one.until(lambda: not left.exists())
    assert "console: karmic login:" in building.path(f"{one.spool}/web.uec.log").read_text()
    shown = building.run("systemctl", "show", "-pMemoryDenyWriteExecute", "-pPrivateDevices", "installing")
    assert sorted(shown.stdout.split()) == ["MemoryDenyWriteExecute=yes", "PrivateDevices=yes"]
    building.shell("systemctl stop installing")
