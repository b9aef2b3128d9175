"""Preparation and kernels out of an image in a real system: under the shipped unit, and as a user's own."""

import json
from typing import Any

import pytest

from tests.booted.conftest import CONFIGURATION, EUCARC, Instance, Machine, give
from tests.support.memory_source import MemorySource
from tests.support.prepared_sets import SIDECAR, VERSION, unprepared_qcow2
from uecwatchd.images.guest.volumes import VolumeReader
from uecwatchd.sandbox.server import Sandbox

pytestmark = pytest.mark.exhaustive

HOME = "/home/alice"
# The brackets are for the shell that has these words in its own command line.
LEFT = "find {0} -path '*/work/*' -type f; pgrep -f '[d]ebugfs|[r]eader_process' || true"


@pytest.fixture(scope="module")
def dropped(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The command with which alice drops the set, but for the folder."""
    image = unprepared_qcow2(tmp_path_factory.mktemp("image"))
    machine.path(f"{HOME}/m.qcow2").write_bytes(image.read_bytes())
    machine.write(f"{HOME}/m.toml", SIDECAR)
    machine.shell(f"chmod 644 {HOME}/m.*")
    return f"runuser -u alice -- cp {HOME}/m.toml {HOME}/m.qcow2"


def check_report(report: dict[str, Any], cloud: Sandbox) -> None:
    members = {member["role"]: member for member in report["members"]}
    assert members["kernel"]["part"] == f"guest:/boot/vmlinuz-{VERSION}"
    assert members["ramdisk"]["part"] == f"guest:/boot/initrd.img-{VERSION}"
    assert "/etc/machine-id emptied: each instance makes its own" in members["machine"]["prepared"]
    with VolumeReader(MemorySource(bytes(512)), name="nothing") as reader:
        assert report["image"]["remarks"] == [reader.remark][: bool(reader.remark)], "confined as outside"
    assert {image.id for image in cloud.images} >= set(report["ids"].values())


def test_an_image_is_prepared_under_the_shipped_unit_and_its_kernel_taken_out_of_it(
    machine: Machine, instance_class: type[Instance], cloud: Sandbox, dropped: str
) -> None:
    one = instance_class(machine, "preparing", "/var/spool/preparing")
    one.make_spool()
    one.install(dropin=f"ReadWritePaths={one.spool}\n")
    machine.shell("systemctl daemon-reload; systemctl start preparing")
    machine.shell(f"{dropped} {one.spool}")
    assert one.wait_for("m.emi").startswith("emi-")
    report = json.loads(machine.path(f"{one.spool}/m.uec.json").read_text())
    check_report(report, cloud)
    assert machine.shell(LEFT.format(one.state)).stdout == ""
    told = json.loads(one.verb("inspect", "m", "--json").stdout)
    assert told["prepared"] == report["members"][-1]["prepared"]


def test_a_user_without_rights_prepares_an_image(machine: Machine, cloud: Sandbox, dropped: str) -> None:
    spool, state = f"{HOME}/own-spool", f"{HOME}/own-state"
    give(machine, cloud, "/etc/alice", group="alice")
    tables = {"spool": f'folders = ["{spool}"]', "state": f'dir = "{state}"', "work": "", "defaults": ""}
    text = CONFIGURATION.format(**tables, cloud=EUCARC.replace("/etc/uecwatchd", "/etc/alice"))
    machine.write(f"{HOME}/own.toml", text)
    machine.shell(f"install -d -oalice -galice {spool}; {dropped} {spool}")
    own = ("runuser", "-u", "alice", "--", "uecwatchd")
    machine.run(*own, "once", "--config", f"{HOME}/own.toml")
    report = json.loads(machine.path(f"{spool}/m.uec.json").read_text())
    check_report(report, cloud)
    assert machine.shell(LEFT.format(state)).stdout == ""
    told = json.loads(machine.run(*own, "inspect", "m", "--json", "--config", f"{HOME}/own.toml").stdout)
    assert told["prepared"] == report["members"][-1]["prepared"]
