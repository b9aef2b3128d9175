"""`check` of what a test boot needs: asked with a dry run where the cloud has that, and never started."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.host import Host, cloud_host
from tests.support.published_sets import publish
from uecwatchd.cli.check.finding import Finding
from uecwatchd.cli.check.launch import examine_launch
from uecwatchd.clouds.client import make_cloud
from uecwatchd.clouds.credentials.account import gather
from uecwatchd.clouds.dialects import DIALECTS
from uecwatchd.config.load import load

HVM = 'virtualization = "hvm"\nconvert = "keep"\n'


@pytest.fixture
def amazon(tmp_path: Path) -> Iterator[Host]:
    with cloud_host(tmp_path / "amazon", "aws") as host:
        yield host


def finding(host: Host, dialect: str = "aws") -> Finding:
    settings = load(host.config, environ={}).clouds["default"]
    (found,) = examine_launch(make_cloud(gather(settings), DIALECTS[dialect], uploads=1), settings)
    return found


def test_the_right_to_start_an_instance_is_asked_for_and_none_is_started(amazon: Host) -> None:
    assert "not known before an image is registered" in finding(amazon).what
    image_id = publish(amazon, sidecar=HVM)
    found = finding(amazon)
    assert (found.level, found.what.endswith(f"and start one of {image_id}")) == ("ok", True)
    amazon.cloud.faults.arm("boot-forbidden")
    found = finding(amazon)
    assert (found.level, "our account may not start or end instances" in found.what) == ("bad", True)
    amazon.configure(f'{amazon.config.read_text()}instance_type = "m9.huge"\n')
    assert "it has no instance type of that name" in finding(amazon).what
    assert amazon.cloud.instances == ()


def test_a_cloud_without_dry_runs_is_asked_for_its_instances_alone(host: Host) -> None:
    assert "the first boot shows if we may start one" in finding(host, "sandbox").what
    assert not host.cloud.calls("RunInstances")


@pytest.mark.parametrize(("line", "is_asked"), [("test = true", True), ("", False)])
def test_it_is_asked_only_where_sets_are_tested(
    check: Callable[..., list[Finding]],
    line: str,
    is_asked: bool,  # noqa: FBT001 (a parameter)
) -> None:
    assert any("for test boots" in found.what for found in check(line)) == is_asked
