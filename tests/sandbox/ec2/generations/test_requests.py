"""Requests that each generation understands, and its answers to the others."""

from collections.abc import Callable, Mapping
from typing import Any
from xml.etree import ElementTree

import pytest

GENERATIONS = ("sandbox", "uec", "euca3", "euca4", "euca5", "openstack", "aws")

# Statuses of: a failure of the service, a failure with a code, an unknown parameter, a wrong signature.
STATUSES = {
    "sandbox": (400, 400, 400, 403),
    "uec": (400, 400, 500, 403),
    "euca3": (406, 406, 412, 403),
    "euca4": (500, 400, 400, 403),
    "euca5": (500, 400, 400, 403),
    "openstack": (400, 400, 400, 403),
    "aws": (400, 400, 400, 403),
}
CODES = {
    "sandbox": "InvalidParameterValue",
    "uec": "ImageManager",
    "euca3": "ImageManager",
    "euca4": "InternalFailure",
    "euca5": "InternalError",
    "openstack": "InvalidParameterValue",
    "aws": "InvalidParameterValue",
}


@pytest.fixture(params=GENERATIONS)
def box(request: pytest.FixtureRequest, boxes: Callable[[str], Any]) -> Any:
    return boxes(request.param)


def test_each_kind_of_refusal_has_its_status(box: Any) -> None:
    service = box.register("nowhere")
    coded = box.ask("RunInstances", {"ImageId": "emi-00000000", "MinCount": "1", "MaxCount": "1"})
    unknown = box.register("images/none", Color="red")
    forbidden = box.ask("DescribeImages", secret="another")
    answers = (service, coded, unknown, forbidden)
    assert tuple(answer.status for answer in answers) == STATUSES[box.generation]
    assert service.one("Code") == CODES[box.generation]
    assert "Invalid image location: nowhere" in service.one("Message")


@pytest.mark.parametrize("generation", ["uec", "euca3"])
def test_what_the_first_servers_cannot_bind_they_refuse_in_plain_text(
    generation: str, boxes: Callable[[str], Any]
) -> None:
    answer = boxes(generation).register("images/none", Color="red & blue", Size="L")
    assert answer.type.startswith("text/plain")
    assert answer.text.startswith(f"Failure: {answer.status} ")
    assert "Failed to bind the following fields:\nColor = red & blue\nSize = L\n" in answer.text


@pytest.mark.parametrize("generation", ["euca4", "euca5"])
def test_what_later_servers_cannot_bind_they_refuse_in_xml(
    generation: str, boxes: Callable[[str], Any]
) -> None:
    answer = boxes(generation).register("images/none", Color="red & blue")
    ElementTree.fromstring(answer.text)  # noqa: S314  # our own cloud's
    assert "Failed to bind the following fields:\nColor = red &amp; blue\n" in answer.one("Message")


def test_only_later_servers_write_a_sentence_as_xml_wants_it(box: Any) -> None:
    answer = box.register("images/a&b")
    bare = box.generation in ("uec", "euca3")
    assert answer.one("Message").endswith("images/a&b" if bare else "images/a&amp;b")


# Each has all of those before it.
REGISTER = {
    "uec": (),
    "euca3": ("Name", "Description", "Architecture", "KernelId", "RamdiskId", "RootDeviceName"),
    "euca4": ("VirtualizationType", "Platform"),
    "euca5": ("SriovNetSupport",),
    "openstack": (),
    "aws": ("EnaSupport", "BootMode"),
}
PORTABLE = ("Name", "Description", "Architecture", "KernelId", "RamdiskId", "VirtualizationType")
VALUES = {"Name": "some-name", "Architecture": "x86_64", "VirtualizationType": "hvm", "Platform": "windows"}


def known(generation: str) -> set[str]:
    order = list(REGISTER)
    upto = order[: order.index(generation) + 1] if generation in order else []
    return {name for one in upto for name in REGISTER[one]} if upto else set(PORTABLE)


@pytest.mark.parametrize("name", [name for names in REGISTER.values() for name in names])
def test_a_registration_may_say_only_what_its_generation_knows(name: str, box: Any) -> None:
    answer = box.register("images/none", **{name: VALUES.get(name, "x")})
    refused = "Failed to bind" in answer.text or "is not recognized" in answer.text
    assert refused == (name not in known(box.generation))


FROM_EUCA4 = {"sandbox", "euca4", "euca5", "openstack", "aws"}
FILTER = {"Filter.1.Name": "state", "Filter.1.Value.1": "available"}
LATER: Mapping[str, tuple[str, Mapping[str, str], set[str]]] = {
    "filters": ("DescribeImages", FILTER, FROM_EUCA4),
    "describing tags": ("DescribeTags", {}, FROM_EUCA4),
}


@pytest.mark.parametrize("what", LATER)
def test_the_first_servers_lack(what: str, box: Any) -> None:
    action, parameters, having = LATER[what]
    answer = box.ask(action, parameters)
    assert answer.status == (200 if box.generation in having else STATUSES[box.generation][2])
    if box.generation not in having:
        assert "Failed to " in answer.text


def test_an_action_nobody_has_is_refused_like_a_parameter(box: Any) -> None:
    answer = box.ask("MakeCoffee")
    assert answer.status == STATUSES[box.generation][2]
    assert "MakeCoffee" in answer.text


def test_only_the_first_refuses_the_token_that_boto3_adds(box: Any, make_clients: Any, refusal: Any) -> None:
    version = "v4" if box.generation in ("openstack", "aws") else "v2"
    run = make_clients(box.cloud).ec2(version=version).run_instances
    if box.generation == "uec":
        answer = box.ask(
            "RunInstances", {"ImageId": "emi-0", "MinCount": "1", "MaxCount": "1", "ClientToken": "t"}
        )
        assert "ClientToken = t" in answer.text
    else:
        assert "emi-0" in refusal(run, ImageId="emi-0", MinCount=1, MaxCount=1).message


@pytest.mark.parametrize("version", ["v2", "v4"])
def test_a_generation_knows_its_versions_of_the_signature(version: str, box: Any) -> None:
    knows = {"uec": ["v2"], "euca3": ["v2"], "openstack": ["v4"], "aws": ["v4"]}
    taken = version in knows.get(box.generation, ["v2", "v4"])
    assert box.ask("DescribeInstances", version=version).status == (200 if taken else 403)


# How many seconds a request may be dated ahead, and how many behind.
WINDOWS = dict.fromkeys(GENERATIONS, (20, 900)) | dict.fromkeys(("openstack", "aws"), (300, 300))
SIGNED_BY_TIME = {
    f"{generation}, {ago} seconds old": (generation, ago, taken)
    for generation, (ahead, behind) in WINDOWS.items()
    for ago, taken in ((5 - ahead, True), (-5 - ahead, False), (behind - 5, True), (behind + 5, False))
}


@pytest.mark.parametrize("name", SIGNED_BY_TIME)
def test_a_request_is_of_now(name: str, boxes: Callable[[str], Any]) -> None:
    generation, ago, taken = SIGNED_BY_TIME[name]
    box = boxes(generation)
    box.cloud.faults.arm("skew", ago)
    answer = box.ask("DescribeInstances")
    box.cloud.faults.clear()
    assert answer.status == (200 if taken else 403)
    if not taken:
        coded = generation in ("sandbox", "openstack", "aws")
        assert ("RequestTimeTooSkewed" if coded else "Message expired (") in answer.text


@pytest.mark.parametrize("generation", ["uec", "euca3"])
def test_before_there_were_codes_an_unknown_user_got_a_line_of_text(
    generation: str, boxes: Callable[[str], Any]
) -> None:
    box = boxes(generation)
    box.cloud.faults.arm("skew", 1000)
    expired = box.ask("DescribeInstances")
    box.cloud.faults.clear()
    for answer in (
        box.ask("DescribeInstances", secret="another"),
        box.ask("DescribeInstances", version="v4"),
    ):
        assert answer.text == "Failure: 403 Forbidden\nUser authentication failed.\n\n"
    assert expired.text.startswith("Failure: 403 Forbidden\nMessage expired (The request is dated ")
    assert {expired.type, answer.type} == {"text/plain; charset=utf-8"}


@pytest.mark.parametrize("generation", ["sandbox", "uec", "euca3", "euca4", "euca5"])
def test_some_take_the_same_request_again_for_a_replay(generation: str, boxes: Callable[[str], Any]) -> None:
    box = boxes(generation)
    # Three times, so that two are of one second even if it changes.
    answers = [box.ask("DescribeInstances", {"InstanceId.1": "i-0"}, ago=1) for _ in range(3)]
    replayed = [answer for answer in answers if "Message replay detected" in answer.text]
    assert bool(replayed) == (generation in ("euca3", "euca4"))
    assert {answer.status for answer in replayed} <= {403}
    words = "Message replay detected.  Same signature was used within the last 15 minutes"
    if generation == "euca3":
        assert replayed[0].text == f"Failure: 403 Forbidden\n{words}\n\n"
    if generation == "euca4":
        assert (replayed[0].one("Code"), replayed[0].one("Message")) == ("AccessDenied", words)


def test_two_paths_lead_to_later_servers(box: Any) -> None:
    there = box.ask("DescribeInstances", path="/services/compute").status
    assert (there == 200) == (box.generation in ("euca4", "euca5"))


HOLLOW = {
    "CopyImage": {"SourceRegion": "eucalyptus", "SourceImageId": "emi-00000000"},
    "ImportImage": {"DiskContainer.1.UserBucket.S3Key": "disk.vmdk"},
    "ImportSnapshot": {"DiskContainer.UserBucket.S3Key": "disk.vmdk"},
}


@pytest.mark.parametrize("action", HOLLOW)
def test_later_eucalyptus_copies_and_imports_nothing_with_success(action: str, box: Any) -> None:
    before = box.read_list()
    answer = box.ask(action, HOLLOW[action])
    assert (answer.status == 200) == (box.generation in ("euca4", "euca5"))
    assert answer.status != 200 or "Id>" not in answer.text.replace("requestId", "")
    assert box.read_list() == before


def certificates(box: Any, **parameters: str) -> Any:
    return box.ask("DescribeServiceCertificates", parameters, path="/services/Empyrean")


def test_later_servers_hand_out_the_certificate_that_bundles_are_sealed_for(box: Any) -> None:
    answer = certificates(box, Format="pem", FingerprintDigest="SHA-1")
    assert (answer.status == 200) == (box.generation in ("euca4", "euca5"))
    if answer.status == 200:
        usages = answer.all("certificateUsage")
        found = dict(zip(usages, answer.all("certificate"), strict=True))
        assert found["image-bundling"] == box.cloud.identity.cloud_certificate.decode()
        assert set(answer.all("serviceType")) == {"compute"}
        assert {len(print_) for print_ in answer.all("certificateFingerprint")} == {20 * 3 - 1}
        assert usages[0] != "image-bundling"  # the first is not the one


def test_certificates_can_be_asked_for_by_their_use_and_in_der(boxes: Callable[[str], Any]) -> None:
    box = boxes("euca5")
    wanted = {"Filter.1.Name": "certificate-usage", "Filter.1.Value.1": "image-bundling"}
    answer = certificates(box, Format="der", **wanted)
    assert answer.one("certificateFormat") == "der"
    lines = box.cloud.identity.cloud_certificate.decode().splitlines()
    assert answer.one("certificate") == "".join(lines[1:-1])
    assert answer.one("certificateFingerprintDigest") == "SHA-256"
    assert box.ask("DescribeServiceCertificates").status == 400
    assert box.ask("DescribeImages", path="/services/Empyrean").status == 400
