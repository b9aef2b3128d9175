"""Requirements of each generation for a bundle, and for the request that registers it."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

GENERATIONS = ("sandbox", "uec", "euca3", "euca4", "euca5", "openstack", "aws")
EUCALYPTUS = {"uec", "euca3", "euca4", "euca5"}
AMAZON = {"openstack", "aws"}
LATER = {"euca4", "euca5"}
MAPPING = (
    "<block_device_mapping>"
    "<mapping><virtual>ami</virtual><device>sda</device></mapping>"
    "</block_device_mapping>"
)


@pytest.fixture(params=GENERATIONS)
def box(request: pytest.FixtureRequest, boxes: Callable[[str], Any]) -> Any:
    return boxes(request.param)


def said(box: Any, words: str) -> str:
    """The first server gives one reason for whatever is wrong with a manifest."""
    return "the manifest referenced is invalid or unavailable" if box.generation == "uec" else words


def field(**values: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda fields: {**fields, **values}


# names


def test_a_name_is_refused_optional_or_demanded(box: Any) -> None:
    location = {"ImageLocation": box.bundle()}
    without = box.ask("RegisterImage", location)
    assert (without.status == 200) == (box.generation not in LATER | AMAZON)
    if box.generation in LATER | AMAZON:
        assert "MissingParameter" in without.text
    named = box.ask("RegisterImage", {**location, "Name": f"named-{box.generation}"})
    assert (named.status == 200) == (box.generation != "uec")


def test_amazon_takes_more_letters_in_a_name_than_anybody_else(boxes: Callable[[str], Any]) -> None:
    for generation in ("euca4", "openstack", "aws"):
        for name in ("karmic [9.10] 'x' @home", "(k)/._-"):
            answer = boxes(generation).register("images/none", Name=name)
            assert ("AMI names have" in answer.text) == (generation != "aws" and " " in name)
    for name in ("karmic, nightly", "karmic*", "ab", "a" * 129):
        assert "AMI names have" in boxes("aws").register("images/none", Name=name).text


@pytest.mark.parametrize("generation", [name for name in GENERATIONS if name != "uec"])
def test_a_name_is_plain_and_used_once(generation: str, boxes: Callable[[str], Any]) -> None:
    box = boxes(generation)
    for name, wanting in (("karmic-9.10", {"sandbox", "euca3"}), ("karmic, nightly", {*GENERATIONS})):
        answer = box.register("images/none", Name=name)
        assert ("AMI names have" in answer.text) == (generation in wanting)
    location = box.bundle()
    assert box.register(location, Name="only-one").status == 200
    again = box.register(location, Name="only-one")
    assert "already in use" in again.text
    assert again.status == (406 if generation == "euca3" else 400)


# ids

FORMS = {
    "sandbox": r"e[mkr]i-[0-9A-F]{8}",
    "uec": r"e[mkr]i-[0-9A-F]{8}",
    "euca3": r"e[mkr]i-[0-9A-F]{8}",
    "euca4": r"e[mkr]i-[0-9a-f]{8}",
    "euca5": r"a[mkr]i-[0-9a-f]{17}",
    "openstack": r"a[mkr]i-[0-9a-f]{8}",
    "aws": r"a[mkr]i-[0-9a-f]{17}",
}


def test_ids_have_the_generations_form(box: Any) -> None:
    kernel, ramdisk = box.member("kernel"), box.member("ramdisk")
    ids = [box.machine(kernel=kernel, ramdisk=ramdisk), kernel, ramdisk]
    assert all(re.fullmatch(FORMS[box.generation], one) for one in ids)
    assert [one[1] for one in ids] == ["m", "k", "r"]


def test_an_id_in_another_case_is_another_id(box: Any) -> None:
    kernel = box.member("kernel").swapcase()
    answer = box.register(box.bundle(kernel=kernel, ramdisk=box.member("ramdisk")))
    assert f"Referenced kernel id is invalid: {kernel}" in answer.text


def test_one_location_registered_twice_gives_two_ids(box: Any) -> None:
    location = box.bundle()
    first, second = box.register(location), box.register(f"/{location}")
    assert first.one("imageId") != second.one("imageId")


# kernels


def test_kernel_and_ramdisk_travel_in_the_manifest(box: Any) -> None:
    kernel, ramdisk = box.member("kernel"), box.member("ramdisk")
    image = box.image(box.machine(kernel=kernel, ramdisk=ramdisk))
    assert f"<kernelId>{kernel}<" in image
    assert f"<ramdiskId>{ramdisk}<" in image


@pytest.mark.parametrize("generation", ["euca3", "euca4", "euca5", "openstack", "aws"])
def test_the_request_prevails_over_the_manifest(generation: str, boxes: Callable[[str], Any]) -> None:
    box = boxes(generation)
    first = box.member("kernel")
    box.members.pop("kernel")
    second, ramdisk = box.member("kernel"), box.member("ramdisk")
    location = box.bundle(kernel=first, ramdisk=ramdisk)
    image = box.image(box.register(location, KernelId=second, Architecture="i386").one("imageId"))
    assert f"<kernelId>{second}<" in image
    assert "<architecture>i386<" in image
    assert "Referenced ramdisk id is invalid" in box.register(location, RamdiskId=second).text


def verdict(box: Any, answer: Any) -> str:
    """Return the mistake in an image: from the answer, or later from the state of the image."""
    if answer.status != 200:
        return str(answer.text)
    listed = [box.image(answer.one("imageId")) for _ in range(3)][-1]  # it is pending for a look
    return str(listed) if "<imageState>failed<" in listed else ""


def test_later_paravirtual_machines_need_both(box: Any, contents: Mapping[str, bytes]) -> None:
    location = box.forge.bundle(contents["partition"])
    answer = box.register(location)
    assert (answer.status == 200) == (box.generation not in LATER)
    if box.generation in LATER:
        assert (answer.status, answer.one("Code")) == (400, "MissingParameter")
        assert answer.one("Message") == "Kernel ID must be specified"
        half = box.register(location, KernelId=box.member("kernel"))
        assert half.one("Message") == "Ramdisk ID must be specified"


@pytest.mark.parametrize("generation", ["sandbox", "euca4", "euca5", "openstack", "aws"])
def test_an_hvm_machine_is_a_whole_disk(generation: str, boxes: Callable[[str], Any]) -> None:
    box = boxes(generation)
    assert "boot sector" in verdict(box, box.register(box.bundle(), VirtualizationType="hvm"))
    ids = {"kernel": box.member("kernel"), "ramdisk": box.member("ramdisk")}
    image = box.image(box.register(box.bundle("disk", **ids), VirtualizationType="hvm").one("imageId"))
    assert "<virtualizationType>hvm<" in image
    assert ("<kernelId>" in image) == (generation not in LATER)  # which ignore it


def test_later_windows_is_hvm(boxes: Callable[[str], Any], contents: Mapping[str, bytes]) -> None:
    box = boxes("euca4")
    location = box.forge.bundle(contents["disk"], prefix="win-2k3.img")
    image = box.image(box.register(location, Platform="windows").one("imageId"))
    assert "<platform>windows<" in image
    assert "<virtualizationType>hvm<" in image
    assert "Platform cannot be dos" in box.register(location, Platform="dos").text


@pytest.mark.parametrize("generation", GENERATIONS)
def test_on_eucalyptus_only_administrators_register_kernels(
    generation: str, make_box: Any, contents: Mapping[str, bytes]
) -> None:
    box = make_box(generation, administrator=False)
    for type_ in ("kernel", "ramdisk"):
        answer = box.register(box.forge.bundle(contents[type_], type=type_))
        assert (answer.status == 200) == (generation not in EUCALYPTUS)
        if generation in EUCALYPTUS:
            assert f"Only administrators can register {type_} images." in answer.text


# the manifest


def test_a_long_manifest_is_refused(box: Any) -> None:
    limits = {"sandbox": 100 << 10, "uec": 100 << 10, "euca3": 10_000_000, "openstack": None, "aws": None}
    limit = limits.get(box.generation, 5 << 20)
    for size, taken in ((limit - 10_000, True), (limit, False)) if limit else ((11_000_000, True),):
        location = box.bundle(manifest=lambda text, size=size: text.replace("by-hand", "x" * size))
        answer = box.register(location)
        assert (answer.status == 200) == taken
        assert taken or said(box, f"more than {limit}") in answer.text


def test_an_image_has_a_greatest_size(box: Any) -> None:
    limits = {"uec": None, "openstack": None, "aws": 10 << 30}
    limit = limits.get(box.generation, 30 << 30)
    message = verdict(box, box.register(box.bundle(fields=field(size=(limit or 30 << 30) + 512))))
    assert message  # the bundle holds less
    assert ("Cannot register image of size" in message) == (limit is not None)


SIGNED = {
    "sandbox": "register",
    "uec": "register",
    "euca3": "run",
    "euca4": "register",
    "euca5": "never",
    "openstack": "never",
    "aws": "register",
}


def test_a_wrong_signature_of_a_manifest_is_found_out_sooner_later_or_never(box: Any) -> None:
    forge = box.forge
    location = box.bundle(signature=lambda right: forge.sign("x", box.cloud.identity.user_key))
    answer = box.register(location)
    assert (answer.status == 200) == (SIGNED[box.generation] != "register")
    if answer.status != 200:
        assert said(box, "Manifest has invalid signature") in answer.text
        return
    image_id = answer.one("imageId")
    box.read_list()  # a pending image would not be started
    started = box.ask("RunInstances", {"ImageId": image_id, "MinCount": "1", "MaxCount": "1"})
    assert ("invalid signature" in started.text) == (SIGNED[box.generation] == "run")


def test_from_4_0_the_manifests_user_is_the_account(box: Any) -> None:
    answer = box.register(box.bundle(fields=field(user="000000000000")))
    assert (answer.status == 200) == (box.generation in ("uec", "euca3", "openstack"))
    if answer.status != 200:
        assert "is not the account" in answer.text


@pytest.mark.parametrize("which", ["manifest.xml", "part.1"])
def test_later_servers_read_bundles_as_another_user(which: str, box: Any) -> None:
    location = box.bundle()
    key = location.removeprefix("images/").replace("manifest.xml", which)
    _, file = box.cloud.backend.store.open("images", key)
    with file:
        box.forge.s3.put_object(Bucket="images", Key=key, Body=file.read(), ACL="private")
    answer = box.register(location)
    assert (answer.status == 200) == (box.generation not in LATER)
    if box.generation in LATER:
        assert (answer.status, "aws-exec-read may not read it" in answer.text) == (500, True)


def test_a_key_with_a_prefix(box: Any) -> None:
    """Parts are looked for at the root nearly everywhere, whatever the manifest's own key is."""

    def deep(objects: dict[str, bytes]) -> dict[str, bytes]:
        return {key if key.endswith(at_root) else f"a/b/{key}": data for key, data in objects.items()}

    at_root: tuple[str, ...] = ("xml",)
    beside = box.bundle(objects=lambda made: {f"a/b/{key}": data for key, data in made.items()})
    at_root = tuple(f"part.{n}" for n in range(9))
    above = box.bundle(objects=deep)
    for location, taken in ((beside, {"aws"}), (above, {"euca3", "euca4", "euca5", "openstack"})):
        answer = box.register(location.replace("images/", "images/a/b/"))
        assert (answer.status == 200) == (box.generation in taken)
    if box.generation in ("sandbox", "uec"):
        assert "Invalid image location" in answer.text


def test_a_block_device_mapping_breaks_one(box: Any) -> None:
    answer = box.register(box.bundle("disk", fields=field(mapping=MAPPING)))
    assert answer.status == (500 if box.generation == "openstack" else 200)
