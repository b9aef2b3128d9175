"""The EC2 half through boto3, with both versions of the signature."""

from collections.abc import Mapping
from typing import Any

import pytest


@pytest.fixture
def image(forge: Any, ec2: Any, contents: Mapping[str, bytes]) -> str:
    found: str = ec2.register_image(ImageLocation=forge.bundle(contents["partition"]))["ImageId"]
    return found


@pytest.mark.parametrize("version", ["v2", "v4"])
def test_an_image_is_registered_described_and_deregistered(
    version: str, clients: Any, forge: Any, refusal: Any, contents: Mapping[str, bytes]
) -> None:
    ec2 = clients.ec2(version=version)
    location = forge.bundle(contents["partition"])
    image_id = ec2.register_image(ImageLocation=location)["ImageId"]
    (found,) = ec2.describe_images(ImageIds=[image_id], Owners=["self"])["Images"]
    assert (found["ImageLocation"], found["OwnerId"]) == (location, clients.cloud.identity.account)
    ec2.deregister_image(ImageId=image_id)
    assert image_id not in [i["ImageId"] for i in ec2.describe_images(Owners=["self"])["Images"]]
    assert refusal(ec2.describe_images, ImageIds=[image_id]).code == "InvalidAMIID.NotFound"
    assert refusal(ec2.deregister_image, ImageId=image_id).code == "InvalidAMIID.NotFound"
    assert refusal(ec2.deregister_image, ImageId="banana").code == "InvalidAMIID.Malformed"


@pytest.mark.parametrize(
    ("name", "value", "hits"),
    [
        ("image-type", "machine", True),
        ("image-type", "kernel", False),
        ("state", "available", True),
        ("is-public", "false", True),
        ("is-public", "true", False),
        ("tag:team", "infra", True),
        ("tag:team", "web", False),
        ("tag:none", "", False),
    ],
)
def test_filters_select_images(name: str, value: str, hits: bool, ec2: Any, image: str) -> None:  # noqa: FBT001  # a parameter of the table
    ec2.create_tags(Resources=[image], Tags=[{"Key": "team", "Value": "infra"}])
    found = ec2.describe_images(ImageIds=[image], Filters=[{"Name": name, "Values": [value, "x"]}])["Images"]
    assert bool(found) == hits


def test_an_unknown_filter_is_refused(ec2: Any, refusal: Any, image: str) -> None:
    filters = [{"Name": "color", "Values": ["red"]}]
    assert refusal(ec2.describe_images, ImageIds=[image], Filters=filters).code == "InvalidParameterValue"


def test_other_owners_have_no_images_here(ec2: Any, image: str) -> None:
    assert ec2.describe_images(ImageIds=[image], Owners=["amazon"])["Images"] == []
    assert ec2.describe_images(ImageIds=[image], ExecutableUsers=["self"])["Images"] != []
    assert ec2.describe_images(ImageIds=[image], ExecutableUsers=["all"])["Images"] == []


def test_tags_are_kept_replaced_and_deleted(ec2: Any, image: str) -> None:
    tags = [{"Key": "team", "Value": "infra"}, {"Key": "build", "Value": "1 & 2 <3>"}]
    ec2.create_tags(Resources=[image], Tags=tags)
    ec2.create_tags(Resources=[image], Tags=[{"Key": "build", "Value": "4"}])
    ec2.delete_tags(Resources=[image], Tags=[{"Key": "team"}])
    found = ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [image]}])["Tags"]
    assert found == [{"Key": "build", "Value": "4", "ResourceId": image, "ResourceType": "image"}]
    (described,) = ec2.describe_images(ImageIds=[image])["Images"]
    assert described["Tags"] == [{"Key": "build", "Value": "4"}]


def test_special_characters_survive_the_way_there_and_back(ec2: Any, image: str) -> None:
    value = 'ä & <b> "q" + % ~ \''
    ec2.create_tags(Resources=[image], Tags=[{"Key": "odd", "Value": value}])
    (described,) = ec2.describe_images(ImageIds=[image])["Images"]
    assert described["Tags"] == [{"Key": "odd", "Value": value}]


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ([{"Key": f"k{n}", "Value": ""} for n in range(11)], "TagLimitExceeded"),
        ([{"Key": "aws:team", "Value": "x"}], "InvalidParameterValue"),
        ([{"Key": "k" * 128, "Value": "x"}], "InvalidParameterValue"),
        ([{"Key": "k", "Value": "a\nb"}], "InvalidParameterValue"),
    ],
    ids=["eleven", "reserved", "long", "control-characters"],
)
def test_tags_a_cloud_would_not_take_are_refused_together(
    tags: list[dict[str, str]], code: str, ec2: Any, refusal: Any, image: str
) -> None:
    assert refusal(ec2.create_tags, Resources=[image], Tags=tags).code == code
    assert "Tags" not in ec2.describe_images(ImageIds=[image])["Images"][0]


OLD_FORM = {"Attribute": "launchPermission", "OperationType": "add"}


@pytest.mark.parametrize(
    "arguments",
    [
        {**OLD_FORM, "UserGroups": ["all"]},
        {"LaunchPermission": {"Add": [{"Group": "all"}]}},
    ],
    ids=["old form", "new form"],
)
def test_an_image_is_made_public_and_private_again(arguments: dict[str, Any], ec2: Any, image: str) -> None:
    ec2.modify_image_attribute(ImageId=image, **arguments)
    assert ec2.describe_images(ImageIds=[image])["Images"][0]["Public"] is True
    ec2.reset_image_attribute(ImageId=image, Attribute="launchPermission")
    assert ec2.describe_images(ImageIds=[image])["Images"][0]["Public"] is False


def test_an_image_is_shared_with_accounts_and_taken_back(ec2: Any, image: str) -> None:
    users = ["123456789012", "210987654321"]
    ec2.modify_image_attribute(ImageId=image, **OLD_FORM, UserIds=users)
    remove = {"Remove": [{"UserId": users[0]}]}
    ec2.modify_image_attribute(ImageId=image, LaunchPermission=remove)
    found = ec2.describe_image_attribute(ImageId=image, Attribute="launchPermission")
    assert found["LaunchPermissions"] == [{"UserId": users[1]}]


def test_a_description_can_be_changed(ec2: Any, image: str) -> None:
    ec2.modify_image_attribute(ImageId=image, Description={"Value": "new"})
    assert ec2.describe_image_attribute(ImageId=image, Attribute="description")["Description"] == {
        "Value": "new"
    }
    ec2.modify_image_attribute(ImageId=image, Attribute="description", Value="newer")
    assert ec2.describe_images(ImageIds=[image])["Images"][0]["Description"] == "newer"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({}, "InvalidParameterCombination"),
        ({"UserGroups": ["all"]}, "InvalidParameterCombination"),
        ({**OLD_FORM, "UserGroups": ["some"]}, "InvalidAMIAttributeItemValue"),
        ({**OLD_FORM, "UserIds": ["1234-5678-9012"]}, "InvalidAMIAttributeItemValue"),
        ({"Description": {"Value": "d" * 256}}, "InvalidParameterValue"),
        ({"ProductCodes": ["774F4FF8"]}, "UnknownParameter"),
    ],
    ids=["nothing", "no operation", "unknown group", "dashes", "long description", "unknown attribute"],
)
def test_a_change_that_makes_no_sense_is_refused(
    arguments: dict[str, Any], code: str, ec2: Any, refusal: Any, image: str
) -> None:
    assert refusal(ec2.modify_image_attribute, ImageId=image, **arguments).code == code


def test_an_unknown_attribute_is_not_shown_and_not_reset(ec2: Any, refusal: Any, image: str) -> None:
    for call in (ec2.describe_image_attribute, ec2.reset_image_attribute):
        assert refusal(call, ImageId=image, Attribute="bootMode").code == "InvalidParameterValue"


def test_an_unknown_action_is_refused(ec2: Any, refusal: Any) -> None:
    refused = refusal(ec2.describe_vpcs)
    assert (refused.code, refused.status) == ("InvalidAction", 400)
    assert "DescribeVpcs" in refused.message


def test_an_unknown_parameter_is_refused_by_its_name(ec2: Any, refusal: Any) -> None:
    refused = refusal(ec2.describe_images, IncludeDeprecated=True)
    assert (refused.code, refused.status) == ("UnknownParameter", 400)
    assert "IncludeDeprecated" in refused.message


def test_an_instance_runs_says_something_and_ends(ec2: Any, image: str) -> None:
    reservation = ec2.run_instances(
        ImageId=image, MinCount=1, MaxCount=2, InstanceType="c1.medium", KeyName="k"
    )
    first, second = (instance["InstanceId"] for instance in reservation["Instances"])
    assert {instance["State"]["Name"] for instance in reservation["Instances"]} == {"pending"}
    (found,) = ec2.describe_instances(InstanceIds=[second])["Reservations"]
    assert found["ReservationId"] == reservation["ReservationId"]
    assert found["Instances"][0]["ImageId"] == image
    ec2.get_console_output(InstanceId=first)
    assert f"{image} images/" in ec2.get_console_output(InstanceId=first)["Output"]
    (change,) = ec2.terminate_instances(InstanceIds=[second])["TerminatingInstances"]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("running", "shutting-down")


def test_an_unknown_instance_is_not_found(ec2: Any, refusal: Any) -> None:
    assert refusal(ec2.describe_instances, InstanceIds=["i-0"]).code == "InvalidInstanceID.NotFound"
    assert refusal(ec2.terminate_instances, InstanceIds=["i-0"]).code == "InvalidInstanceID.NotFound"


@pytest.mark.parametrize(("least", "most"), [(0, 1), (2, 1), (1, 21)])
def test_counts_of_instances_have_bounds(least: int, most: int, ec2: Any, refusal: Any, image: str) -> None:
    refused = refusal(ec2.run_instances, ImageId=image, MinCount=least, MaxCount=most)
    assert refused.code == "InvalidParameterValue"


def test_a_kernel_is_not_run(ec2: Any, refusal: Any, forge: Any, contents: Mapping[str, bytes]) -> None:
    kernel = ec2.register_image(ImageLocation=forge.bundle(contents["kernel"], type="kernel"))["ImageId"]
    refused = refusal(ec2.run_instances, ImageId=kernel, MinCount=1, MaxCount=1)
    assert refused.code == "InvalidAMIID.Malformed"


@pytest.mark.parametrize(
    "change", ["manifest replaced", "part replaced", "part deleted", "kernel's part replaced"]
)
def test_what_changed_since_registration_is_not_run(
    change: str, forge: Any, ec2: Any, s3: Any, refusal: Any, contents: Mapping[str, bytes]
) -> None:
    kernel_at = forge.bundle(contents["kernel"], type="kernel")
    kernel = ec2.register_image(ImageLocation=kernel_at)["ImageId"]
    location = forge.bundle(contents["partition"], kernel=kernel)
    image_id = ec2.register_image(ImageLocation=location)["ImageId"]
    ec2.run_instances(ImageId=image_id, MinCount=1, MaxCount=1)
    stem, kernel_stem = (
        at.removeprefix("images/").removesuffix(".manifest.xml") for at in (location, kernel_at)
    )
    if change == "manifest replaced":
        again = forge.bundle(contents["partition"]).removeprefix("images/")
        body = s3.get_object(Bucket="images", Key=again)["Body"].read()
        s3.put_object(Bucket="images", Key=f"{stem}.manifest.xml", Body=body)
    elif change == "part deleted":
        s3.delete_object(Bucket="images", Key=f"{stem}.part.1")
    else:
        key = f"{kernel_stem if 'kernel' in change else stem}.part.0"
        body = s3.get_object(Bucket="images", Key=key)["Body"].read()
        s3.put_object(Bucket="images", Key=key, Body=body[::-1])
    assert refusal(ec2.run_instances, ImageId=image_id, MinCount=1, MaxCount=1).code == "InvalidManifest"
