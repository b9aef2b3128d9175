"""Instances of the embedded cloud: their states and consoles, tokens and tags; and machines under QEMU."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.cloud_keys import with_keys
from uecwatchd.errors import Halted
from uecwatchd.sandbox.server import Sandbox


@pytest.fixture
def image(forge: Any, ec2: Any, contents: Mapping[str, bytes]) -> str:
    found: str = ec2.register_image(ImageLocation=forge.bundle(contents["partition"]))["ImageId"]
    return found


@pytest.fixture(autouse=True)
def without_faults(cloud: Sandbox) -> Iterator[None]:
    yield
    cloud.faults.clear()


def run(ec2: Any, image: str, **more: Any) -> str:
    reservation = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, **more)
    found: str = reservation["Instances"][0]["InstanceId"]
    return found


def look(ec2: Any, instance: str) -> dict[str, Any]:
    (reservation,) = ec2.describe_instances(InstanceIds=[instance])["Reservations"]
    found: dict[str, Any] = reservation["Instances"][0]
    return found


def states(ec2: Any, instance: str, number: int) -> list[str]:
    return [look(ec2, instance)["State"]["Name"] for _ in range(number)]


def test_an_instance_goes_from_pending_to_terminated(ec2: Any, image: str) -> None:
    one = run(ec2, image)
    assert states(ec2, one, 3) == ["pending", "running", "running"]
    (change,) = ec2.terminate_instances(InstanceIds=[one])["TerminatingInstances"]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("running", "shutting-down")
    assert states(ec2, one, 2) == ["shutting-down", "terminated"]
    (change,) = ec2.terminate_instances(InstanceIds=[one])["TerminatingInstances"]
    assert change["CurrentState"]["Name"] == "terminated"


def test_a_console_is_empty_at_first(ec2: Any, image: str) -> None:
    one = run(ec2, image)
    texts = [ec2.get_console_output(InstanceId=one).get("Output", "") for _ in range(3)]
    assert texts[0] == ""
    assert texts[1] in texts[2]
    assert "Linux version" in texts[1]
    assert texts[2].endswith("recorded login: ")


@pytest.mark.parametrize(
    ("fault", "state", "end"),
    [
        ("boot-pending", "pending", ""),
        ("boot-silent", "running", ""),
        ("boot-never", "running", "sshd\n"),
        ("boot-panics", "running", "unknown-block(0,0) ]---\n"),
        ("boot-ends", "terminated", "sshd\n"),
    ],
)
def test_an_instance_may_come_to_nothing(
    fault: str, state: str, end: str, ec2: Any, image: str, cloud: Sandbox
) -> None:
    cloud.faults.arm(fault)
    one = run(ec2, image)
    assert states(ec2, one, 4)[-1] == state
    texts = [ec2.get_console_output(InstanceId=one).get("Output", "") for _ in range(3)]
    assert texts[-1].endswith(end)
    assert bool(texts[-1]) == bool(end)


def test_an_instance_may_stay_shutting_down(ec2: Any, image: str, cloud: Sandbox) -> None:
    cloud.faults.arm("boot-stays")
    one = run(ec2, image)
    ec2.terminate_instances(InstanceIds=[one])
    assert states(ec2, one, 3) == ["shutting-down"] * 3
    cloud.faults.clear()
    assert states(ec2, one, 2)[-1] == "terminated"


def test_an_account_may_have_no_room_and_a_type_may_be_unknown(
    ec2: Any, image: str, refusal: Any, cloud: Sandbox
) -> None:
    cloud.faults.arm("boot-quota")
    assert refusal(run, ec2=ec2, image=image).code == "InstanceLimitExceeded"
    refused = refusal(run, ec2=ec2, image=image, InstanceType="m9.huge")
    assert refused.message == "Instance type does not exist: m9.huge"


def test_a_token_makes_two_requests_one(ec2: Any, image: str, refusal: Any) -> None:
    one = run(ec2, image, ClientToken="t-1")
    assert run(ec2, image, ClientToken="t-1") == one
    assert run(ec2, image, ClientToken="t-2") != one
    assert look(ec2, one)["ClientToken"] == "t-1"
    refused = refusal(run, ec2=ec2, image=image, ClientToken="t-1", KeyName="other")
    assert refused.code == "IdempotentParameterMismatch"


def test_instances_have_tags_and_can_be_filtered(ec2: Any, image: str) -> None:
    one, other = run(ec2, image, ClientToken="t-3", KeyName="filtered"), run(ec2, image)
    ec2.create_tags(Resources=[one], Tags=[{"Key": "filtered", "Value": "me"}])
    assert look(ec2, one)["Tags"] == [{"Key": "filtered", "Value": "me"}]
    filters = [
        {"Name": "tag:filtered", "Values": ["me"]},
        {"Name": "client-token", "Values": ["t-3"]},
        {"Name": "key-name", "Values": ["filtered"]},
    ]
    for one_filter in filters:
        found = ec2.describe_instances(Filters=[one_filter])["Reservations"]
        assert [each["Instances"][0]["InstanceId"] for each in found] == [one]
    by_image = ec2.describe_instances(Filters=[{"Name": "image-id", "Values": [image]}])["Reservations"]
    assert {each["Instances"][0]["InstanceId"] for each in by_image} == {one, other}
    described = ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [one]}])["Tags"]
    assert described[0]["ResourceType"] == "instance"


def test_how_an_instance_ends_is_one_of_two_words(ec2: Any, image: str, refusal: Any) -> None:
    run(ec2, image, InstanceInitiatedShutdownBehavior="terminate")
    refused = refusal(run, ec2=ec2, image=image, InstanceInitiatedShutdownBehavior="hibernate")
    assert refused.code == "InvalidParameterValue"


def test_a_cloud_that_is_to_boot_needs_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Halted, match="cannot boot"), Sandbox(with_keys(tmp_path / "cloud"), boot=True):
        pass
