"""Requests that only Amazon knows: deprecation, references to images, a parameter store."""

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from uecwatchd.sandbox.server import Sandbox
from uecwatchd.sandbox.state.image_marks import ImageReference
from uecwatchd.sandbox.state.registry import RegisteredImage

NAME = "/images/karmic/latest"


@pytest.fixture(scope="module")
def amazon(clouds: Callable[[str], Sandbox]) -> Sandbox:
    return clouds("aws")


@pytest.fixture(scope="module")
def ec2(amazon: Sandbox, make_clients: Callable[[Sandbox], Any]) -> Any:
    return make_clients(amazon).ec2()


@pytest.fixture
def image(amazon: Sandbox) -> str:
    """An image that is available, put into the cloud's list by hand."""
    texts = dict.fromkeys((field.name for field in fields(RegisteredImage)), "")
    draft = RegisteredImage(**{**texts, "type": "machine", "state": "available", "size": 1, "looks": 0})
    draft = replace(draft, registered="2026-11-30T00:00:00.000+00:00")
    return amazon.backend.registry.add_image(draft, ids=amazon.backend.rules.ec2.ids, permissions=()).id


@pytest.fixture(scope="module")
def store(amazon: Sandbox) -> Any:
    return boto3.client(
        "ssm",
        endpoint_url=amazon.url,
        region_name="us-east-1",
        aws_access_key_id=amazon.identity.access_key,
        aws_secret_access_key=amazon.identity.secret_key,
    )


def code_of(call: Callable[..., Any], **arguments: Any) -> str:
    with pytest.raises(ClientError) as refused:
        call(**arguments)
    return str(refused.value.response["Error"]["Code"])


def test_an_image_is_deprecated_and_restored(ec2: Any, image: str) -> None:
    def deprecation() -> str | None:
        (found,) = ec2.describe_images(ImageIds=[image])["Images"]
        text: str | None = found.get("DeprecationTime")
        return text

    assert deprecation() is None
    at = datetime.now(UTC) + timedelta(hours=1)
    ec2.enable_image_deprecation(ImageId=image, DeprecateAt=at)
    assert deprecation() == at.strftime("%Y-%m-%dT%H:%M:00.000Z")
    ec2.disable_image_deprecation(ImageId=image)
    assert deprecation() is None


@pytest.mark.parametrize("days", [-1, 4000])
def test_a_deprecation_is_in_the_future_and_within_ten_years(ec2: Any, image: str, days: int) -> None:
    at = datetime.now(UTC) + timedelta(days=days)
    assert code_of(ec2.enable_image_deprecation, ImageId=image, DeprecateAt=at) == "InvalidParameterValue"


def test_references_are_told_of_the_images_asked_for(amazon: Sandbox, ec2: Any, image: str) -> None:
    template = ImageReference(image, "ec2:LaunchTemplate", "arn:aws:ec2:r:0:launch-template/lt-1")
    for one in (template, ImageReference("ami-00000000000000000", "ec2:Instance", "arn:i-1")):
        amazon.backend.registry.marks.refer(one)
    asked = {"ImageIds": [image], "IncludeAllResourceTypes": True}
    (found,) = ec2.describe_image_references(**asked)["ImageReferences"]
    assert (found["ImageId"], found["ResourceType"], found["Arn"]) == (image, template.type, template.arn)


def test_other_generations_know_none_of_it(clients: Any, clouds: Callable[[str], Sandbox]) -> None:
    ec2 = clients.ec2()
    at = datetime.now(UTC) + timedelta(hours=1)
    assert code_of(ec2.enable_image_deprecation, ImageId="emi-00000000", DeprecateAt=at) == "InvalidAction"
    assert not clouds("openstack").backend.rules.parameters


def test_a_parameter_holds_the_id_of_an_image(store: Any, image: str) -> None:
    assert code_of(store.get_parameter, Name=NAME) == "ParameterNotFound"
    store.put_parameter(Name=NAME, Value=image, Type="String", DataType="aws:ec2:image")
    found = store.get_parameter(Name=NAME)["Parameter"]
    assert (found["Value"], found["DataType"], found["Version"]) == (image, "aws:ec2:image", 1)
    again = {"Name": NAME, "Value": image, "Type": "String", "DataType": "aws:ec2:image"}
    assert code_of(store.put_parameter, **again) == "ParameterAlreadyExists"
    assert store.put_parameter(**again, Overwrite=True)["Version"] == 2


def test_an_id_of_no_image_is_answered_with_success_and_not_kept(store: Any) -> None:
    name = "/images/none"
    store.put_parameter(Name=name, Value="ami-00000000000000000", Type="String", DataType="aws:ec2:image")
    assert code_of(store.get_parameter, Name=name) == "ParameterNotFound"


@pytest.mark.parametrize("name", ["a b", "/aws/mine", "ssm-mine"])
def test_a_bad_name_of_a_parameter_is_refused(store: Any, name: str) -> None:
    assert code_of(store.put_parameter, Name=name, Value="1", Type="String") == "ValidationException"


def test_a_stranger_reads_no_parameter(amazon: Sandbox) -> None:
    store = boto3.client(
        "ssm",
        endpoint_url=amazon.url,
        region_name="us-east-1",
        aws_access_key_id=amazon.identity.access_key,
        aws_secret_access_key="wrong",
    )
    assert code_of(store.get_parameter, Name=NAME) == "SignatureDoesNotMatch"
