"""The life of an image on each generation, and what can be found out and changed about it."""

from collections.abc import Callable
from typing import Any

import pytest

GENERATIONS = ("sandbox", "uec", "euca3", "euca4", "euca5", "openstack", "aws")
PENDING = {"openstack", "aws"}
PUBLIC = {"uec", "euca3"}
LATER = {"sandbox", "euca4", "euca5", "openstack", "aws"}
OLD_FORM = {"Attribute": "launchPermission", "OperationType": "add"}
OTHER_USER = "123456789012"


@pytest.fixture(params=GENERATIONS)
def box(request: pytest.FixtureRequest, boxes: Callable[[str], Any]) -> Any:
    return boxes(request.param)


def state(box: Any, image_id: str) -> str:
    return str(box.image(image_id).split("<imageState>")[1].partition("<")[0])


def is_public(box: Any, image_id: str) -> bool:
    return "<isPublic>true<" in box.image(image_id)


def unknown_id(box: Any) -> str:
    """Well formed."""
    stem, _, digits = box.member("kernel").partition("-")
    return f"{stem}-{'0' * len(digits)}"


def test_an_image_is_available_at_once_or_pending_first(box: Any) -> None:
    image_id = box.machine()
    assert state(box, image_id) == ("pending" if box.generation in PENDING else "available")
    assert state(box, image_id) == "available"


def test_a_pending_image_may_fail(box: Any) -> None:
    location = box.bundle()
    box.cloud.backend.faults.arm("image-fails")
    failed = box.register(location).one("imageId")
    assert [state(box, failed), state(box, failed)] == ["pending", "failed"]
    assert "<stateReason><message>" in box.image(failed)
    start = {"ImageId": failed, "MinCount": "1", "MaxCount": "1"}
    assert f"{failed} is failed, not available" in box.ask("RunInstances", start).text
    again = box.machine()
    box.read_list()
    assert state(box, again) == "available"


@pytest.mark.parametrize(
    ("faults", "end"),
    [(("pending",), "available"), (("pending", "image-fails"), "failed")],
    ids=["and then available", "and then failed"],
)
def test_an_image_may_be_pending_for_longer(faults: tuple[str, ...], end: str, box: Any) -> None:
    location = box.bundle()
    for fault in faults:
        box.cloud.faults.arm(fault)
    image_id = box.register(location).one("imageId")
    box.cloud.faults.clear()
    assert [state(box, image_id) for _ in range(5)] == ["pending"] * 3 + [end] * 2


def test_an_image_is_public_or_private_from_the_start(box: Any) -> None:
    image_id = box.machine()
    assert is_public(box, image_id) == (box.generation in PUBLIC)
    private = {**OLD_FORM, "OperationType": "remove", "ImageId": image_id, "UserGroup.1": "all"}
    assert box.ask("ModifyImageAttribute", private).status == 200
    assert not is_public(box, image_id)
    box.ask("ResetImageAttribute", {"ImageId": image_id, "Attribute": "launchPermission"})
    assert is_public(box, image_id) == (box.generation in PUBLIC)


def test_the_old_form_of_a_permission_is_understood_if_users_can_be_named(box: Any) -> None:
    image_id = box.machine()
    user = "alice" if box.generation == "uec" else OTHER_USER
    change = {**OLD_FORM, "ImageId": image_id, "UserId.1": user}
    named = box.generation != "openstack"  # which knows everybody and nobody
    assert (box.ask("ModifyImageAttribute", change).status == 200) == named
    asked = {"ImageId": image_id, "Attribute": "launchPermission"}
    assert (user in box.ask("DescribeImageAttribute", asked).all("userId")) == named


def test_the_first_generation_knows_its_users_by_name_alone(box: Any) -> None:
    change = {**OLD_FORM, "ImageId": box.machine(), "UserId.1": OTHER_USER}
    assert (box.ask("ModifyImageAttribute", change).status == 200) == (
        box.generation not in ("uec", "openstack")
    )


def test_the_new_form_only_by_later_servers(box: Any) -> None:
    change = {"ImageId": box.machine(), "LaunchPermission.Add.1.Group": "all"}
    assert (box.ask("ModifyImageAttribute", change).status == 200) == (box.generation in LATER)


def test_groups_and_users_are_changed_by_separate_calls(box: Any) -> None:
    both = {**OLD_FORM, "ImageId": box.machine(), "UserId.1": OTHER_USER, "UserGroup.1": "all"}
    assert (box.ask("ModifyImageAttribute", both).status == 200) == (box.generation == "sandbox")


def test_a_description_is_kept_where_there_is_one(box: Any) -> None:
    image_id = box.machine()
    words = {"ImageId": image_id, "Attribute": "description", "Value": "Nightly & fresh"}
    assert (box.ask("ModifyImageAttribute", words).status == 200) == (box.generation != "uec")
    assert ("<description>Nightly &amp; fresh<" in box.image(image_id)) == (box.generation != "uec")


def test_tags_are_kept_up_to_a_limit_where_there_are_any(box: Any) -> None:
    limits = {"uec": 0, "euca3": 0, "aws": 50}
    limit = limits.get(box.generation, 10)
    image_id = box.machine()
    for count, taken in ((limit, limit > 0), (limit + 1, False)):
        tags = {f"Tag.{n}.{what}": f"v{n}" for n in range(1, count + 1) for what in ("Key", "Value")}
        answer = box.ask("CreateTags", {"ResourceId.1": image_id, **tags})
        assert (answer.status == 200) == taken
    assert box.image(image_id).count("<key>") == limit


def test_tags_may_be_lost_without_an_error(boxes: Callable[[str], Any]) -> None:
    box = boxes("euca4")
    image_id = box.machine()
    box.cloud.backend.faults.arm("lost-tags")
    answer = box.ask("CreateTags", {"ResourceId.1": image_id, "Tag.1.Key": "k", "Tag.1.Value": "v"})
    assert (answer.status, answer.one("return")) == (200, "false")
    assert "<key>" not in box.image(image_id)


# finding


def test_looking_for_an_image_by_its_id(box: Any) -> None:
    image_id = box.machine()
    found = box.ask("DescribeImages", {"ImageId.1": image_id}).all("imageId")
    assert found == ([] if box.generation == "uec" else [image_id])


def test_looking_for_an_image_that_is_not_there(box: Any) -> None:
    answer = box.ask("DescribeImages", {"ImageId.1": unknown_id(box)})
    if box.generation == "uec":
        assert sorted(answer.all("imageId")) == sorted(box.read_list())
    elif box.generation in ("euca3", "euca4"):
        assert (answer.status, answer.all("imageId")) == (200, [])
    else:
        assert (answer.status, answer.one("Code")) == (400, "InvalidAMIID.NotFound")


def test_looking_for_what_everybody_may_launch(box: Any) -> None:
    image_id = box.machine()
    box.ask("ModifyImageAttribute", {**OLD_FORM, "ImageId": image_id, "UserGroup.1": "all"})
    found = box.ask("DescribeImages", {"ExecutableBy.1": "all"}).all("imageId")
    assert (image_id in found) == (box.generation != "uec")


# the end


def test_deregistering_takes_one_call_or_two(box: Any) -> None:
    image_id = box.machine()
    assert box.ask("DeregisterImage", {"ImageId": image_id}).one("return") == "true"
    if box.generation == "euca3":
        assert state(box, image_id) == "deregistered"
        assert box.ask("DeregisterImage", {"ImageId": image_id}).one("return") == "true"
    assert image_id not in box.read_list()
    gone = box.ask("DeregisterImage", {"ImageId": image_id})
    if box.generation == "uec":
        assert (gone.status, gone.one("return")) == (200, "false")
    else:
        assert gone.status == (406 if box.generation == "euca3" else 400)
        assert "does not exist" in gone.text


def test_a_deregistered_kernel_is_no_kernel(boxes: Callable[[str], Any]) -> None:
    box = boxes("euca3")
    kernel = box.member("kernel")
    box.members.pop("kernel")
    box.ask("DeregisterImage", {"ImageId": kernel})
    assert kernel in box.read_list()
    assert "Referenced kernel id is invalid" in box.register(box.bundle(kernel=kernel)).text
