from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import pytest

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.dialects import DIALECTS
from uecwatchd.clouds.images import find_image, image_at, image_named, image_of_manifest, list_images
from uecwatchd.clouds.registration import deregister, probe_ec2, register, wait_until_available
from uecwatchd.errors import BundleRefused, CloudAway, Deferred, Stopped

NAMESPACE = "http://ec2.amazonaws.com/doc/2009-04-04/"

# As Eucalyptus 1.6 writes it: no name, no virtualization, and a location that begins with a slash.
UEC_LISTING = f"""<DescribeImagesResponse xmlns="{NAMESPACE}"><requestId>7f2b</requestId><imagesSet>
<item><imageId>eki-F6DD1103</imageId><imageLocation>/images/vmlinuz-1.manifest.xml</imageLocation>
<imageState>available</imageState><imageOwnerId>admin</imageOwnerId><isPublic>true</isPublic>
<architecture>x86_64</architecture><imageType>kernel</imageType></item>
<item><imageId>emi-3C9F10E7</imageId><imageLocation>images/karmic-1.manifest.xml</imageLocation>
<imageState>available</imageState><imageOwnerId>admin</imageOwnerId><isPublic>false</isPublic><productCodes/>
<architecture>x86_64</architecture><imageType>machine</imageType><kernelId>eki-F6DD1103</kernelId>
<ramdiskId>eri-0B3E1166</ramdiskId></item></imagesSet></DescribeImagesResponse>"""


def item(image_id: str, state: str, *, location: str = "images/x.manifest.xml", reason: str = "") -> str:
    why = f"<stateReason><code>1</code><message>{reason}</message></stateReason>" if reason else ""
    return (
        f"<item><imageId>{image_id}</imageId><imageLocation>{location}</imageLocation>"
        f"<imageState>{state}</imageState>{why}</item>"
    )


def listing(*items: str) -> str:
    return f"<DescribeImagesResponse><imagesSet>{''.join(items)}</imagesSet></DescribeImagesResponse>"


def asked(request: Any) -> dict[str, str]:
    return dict(parse_qsl(request.body.decode()))


# --- looking -----------------------------------------------------------------------------------------------


def test_a_listing_of_the_first_generation_is_understood(cloud: Cloud, script: Any) -> None:
    script.says(body=UEC_LISTING)
    kernel, machine = list_images(cloud)
    assert (kernel.id, kernel.type, kernel.public) == ("eki-F6DD1103", "kernel", True)
    assert kernel.location == "images/vmlinuz-1.manifest.xml"
    assert (machine.id, machine.kernel, machine.ramdisk) == ("emi-3C9F10E7", "eki-F6DD1103", "eri-0B3E1166")
    assert (machine.arch, machine.owner, machine.public, machine.name) == ("x86_64", "admin", False, "")


def test_images_are_asked_for_whole_and_without_filters(cloud: Cloud, script: Any) -> None:
    script.says(body=listing())
    assert list_images(cloud) == ()
    sent = asked(script.requests[0])
    assert sent["Action"] == "DescribeImages"
    assert sent["Owner.1"] == "self"
    assert not any(key.startswith(("Filter", "ImageId", "ExecutableBy", "MaxResults")) for key in sent)


@pytest.mark.parametrize("location", ["images/vmlinuz-1.manifest.xml", "/images/vmlinuz-1.manifest.xml"])
def test_an_image_is_found_by_its_location_with_or_without_a_slash(
    cloud: Cloud, script: Any, location: str
) -> None:
    script.says(body=UEC_LISTING)
    found = image_at(cloud, list_images(cloud), location)
    assert found
    assert found.id == "eki-F6DD1103"


@pytest.mark.parametrize(
    "location", ["images/VMLINUZ-1.manifest.xml", "other/vmlinuz-1.manifest.xml", "vmlinuz-1"]
)
def test_an_image_elsewhere_is_not_found(cloud: Cloud, script: Any, location: str) -> None:
    script.says(body=UEC_LISTING)
    assert image_at(cloud, list_images(cloud), location) is None


@pytest.mark.parametrize(
    ("states", "found"),
    [
        (("failed", "deregistered"), None),
        (("failed", "available"), "ami-00000001"),
        (("pending", "available"), "ami-00000001"),
        (("pending",), "ami-00000000"),
    ],
)
def test_only_what_is_or_may_become_available_is_found(
    scripted: Callable[[str], Cloud], script: Any, states: tuple[str, ...], found: str | None
) -> None:
    script.says(body=listing(*(item(f"ami-{index:08}", state) for index, state in enumerate(states))))
    cloud = scripted("openstack")
    image = image_at(cloud, list_images(cloud), "images/x.manifest.xml")
    assert (image and image.id) == found


@pytest.mark.parametrize("bucket", ["images", "elsewhere"])
def test_a_kernel_is_found_by_its_key_in_whatever_bucket(cloud: Cloud, script: Any, bucket: str) -> None:
    script.says(body=listing(item("eki-00000001", "available", location=f"{bucket}/vmlinuz-1.manifest.xml")))
    found = image_of_manifest(cloud, list_images(cloud), "vmlinuz-1.manifest.xml")
    assert found
    assert found.id == "eki-00000001"


def test_an_image_without_a_name_has_no_name_that_could_be_taken(cloud: Cloud, script: Any) -> None:
    script.says(body=UEC_LISTING)
    assert image_named(list_images(cloud), "") is None


def test_the_first_generation_is_asked_for_all_images_to_find_one(cloud: Cloud, script: Any) -> None:
    """It answers a question by id wrongly: with nothing for an id that it knows."""
    script.says(body=UEC_LISTING)
    assert find_image(cloud, "eki-F6DD1103", owned=False)
    assert not any(key.startswith(("ImageId", "Owner")) for key in asked(script.requests[0]))
    script.says(body=UEC_LISTING)
    assert find_image(cloud, "eki-f6dd1103", owned=False) is None


def test_later_generations_are_asked_by_id(scripted: Callable[[str], Cloud], script: Any) -> None:
    cloud = scripted("euca4")
    script.says(body=listing(item("eki-0a1b2c3d", "available")))
    assert find_image(cloud, "eki-0a1b2c3d", owned=False)
    assert asked(script.requests[0])["ImageId.1"] == "eki-0a1b2c3d"
    script.says(body=listing())
    assert find_image(cloud, "eki-0a1b2c3d", owned=False) is None
    script.says(
        400, "<Response><Errors><Error><Code>InvalidAMIID.NotFound</Code></Error></Errors></Response>"
    )
    assert find_image(cloud, "eki-0a1b2c3d", owned=False) is None


def test_a_missing_image_needs_no_deregistration(cloud: Cloud, script: Any) -> None:
    """Eucalyptus 3 would answer that there is no such image, with a 406."""
    script.says(body=listing())
    deregister(cloud, "emi-00000001")
    assert len(script.requests) == 1


DONE = "<DeregisterImageResponse><return>true</return></DeregisterImageResponse>"


def test_deregistering_may_take_two_requests(cloud: Cloud, script: Any) -> None:
    there, marked = listing(item("emi-00000001", "available")), listing(item("emi-00000001", "deregistered"))
    for body in (there, DONE, marked, DONE, listing()):
        script.says(body=body)
    deregister(cloud, "emi-00000001")
    assert [asked(request)["Action"] for request in script.requests].count("DeregisterImage") == 2


def test_an_image_that_stays_on_the_list_is_tried_again_later(cloud: Cloud, script: Any) -> None:
    script.says(body=listing(item("emi-00000001", "available")))
    for _ in range(2):
        script.says(body=DONE)
        script.says(body=listing(item("emi-00000001", "available")))
    with pytest.raises(Deferred, match="it is still listed after 2 requests"):
        deregister(cloud, "emi-00000001")


# As each generation gives them.
IDS = dict.fromkeys(("uec", "euca3", "sandbox"), "emi-3C9F10E7")
IDS |= dict.fromkeys(("euca4", "euca5"), "emi-3c9f10e7")
IDS |= dict.fromkeys(("openstack", "aws"), "ami-0a1b2c3d4e5f60718")


# --- registering -------------------------------------------------------------------------------------------


def register_all(cloud: Cloud) -> str:
    return register(
        cloud,
        location="images/karmic-9.10.manifest.xml",
        name="karmic-9.10",
        description="Karmic server",
        arch="x86_64",
        kernel="eki-F6DD1103",
        ramdisk="eri-0B3E1166",
        virtualization="paravirtual",
        platform="linux",
    ).image_id


BARE = {"ImageLocation": "images/karmic-9.10.manifest.xml"}
DESCRIBED = BARE | {
    "Name": "karmic-9.10",
    "Description": "Karmic server",
    "Architecture": "x86_64",
    "KernelId": "eki-F6DD1103",
    "RamdiskId": "eri-0B3E1166",
}
WHOLE = DESCRIBED | {"VirtualizationType": "paravirtual"}
SENT = {
    "uec": BARE,
    "euca3": DESCRIBED | {"Name": "karmic-9-10"},
    "euca4": WHOLE,
    "euca5": WHOLE,
    "openstack": WHOLE,
    "aws": WHOLE,
    "sandbox": BARE
    | {"Name": "karmic-9-10", "Description": "Karmic server", "VirtualizationType": "paravirtual"},
}


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_each_generation_is_sent_only_what_it_takes(
    name: str, scripted: Callable[[str], Cloud], script: Any
) -> None:
    script.says(body=f"<RegisterImageResponse><imageId>{IDS[name]}</imageId></RegisterImageResponse>")
    assert register_all(scripted(name)) == IDS[name]
    signature = ("AWSAccessKeyId", "Signature", "SignatureMethod", "SignatureVersion", "Timestamp")
    sent = asked(script.requests[0])
    assert {key: sent[key] for key in sent if key not in ("Action", "Version", *signature)} == SENT[name]


# All that clouds of a generation give, by their version, their history, and what their administrators chose.
SPELLINGS = {
    "uec": ("emi-3C9F10E7", "emi-00000001"),
    "euca3": ("emi-3C9F10E7", "emi-3c9f10e7"),
    "euca4": ("emi-3c9f10e7", "emi-3C9F10E7"),
    "euca5": (
        "emi-3c9f10e7",
        "emi-3C9F10E7",
        "emi-3c9f10e70a1b2c3d4",
        "ami-3c9f10e7",
        "ami-3C9F10E70A1B2C3D4",
    ),
    "openstack": ("ami-00000001", "ami-0a1b2c3d"),
    "aws": ("ami-0a1b2c3d", "ami-0a1b2c3d4e5f60718"),
    "sandbox": ("emi-3C9F10E7",),
}


@pytest.mark.parametrize(("name", "given"), [(name, one) for name in SPELLINGS for one in SPELLINGS[name]])
def test_ids_in_any_spelling_are_accepted(
    name: str, given: str, scripted: Callable[[str], Cloud], script: Any
) -> None:
    script.says(body=f"<RegisterImageResponse><imageId>{given}</imageId></RegisterImageResponse>")
    script.says(body=listing(item(given, "available")))
    cloud = scripted(name)
    assert register_all(cloud) == given
    found = image_at(cloud, list_images(cloud), "images/x.manifest.xml")
    assert found
    assert found.id == given


def test_a_missing_value_is_not_sent(scripted: Callable[[str], Cloud], script: Any) -> None:
    script.says(body="<RegisterImageResponse><imageId>eki-00000001</imageId></RegisterImageResponse>")
    nothing = {"description": None, "kernel": None, "ramdisk": None, "virtualization": None}
    place = {"location": "images/k.manifest.xml", "name": "vmlinuz-1", "arch": "i386", "platform": "linux"}
    register(scripted("euca5"), **place, **nothing)
    sent = asked(script.requests[0])
    assert sent.keys().isdisjoint({"KernelId", "RamdiskId", "Description", "VirtualizationType", "Platform"})


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_windows_is_named_where_a_registration_can_name_it(
    name: str, scripted: Callable[[str], Cloud], script: Any
) -> None:
    script.says(body=f"<RegisterImageResponse><imageId>{IDS[name]}</imageId></RegisterImageResponse>")
    rest = {"description": None, "kernel": None, "ramdisk": None, "virtualization": "hvm"}
    place = {"location": "images/w.manifest.xml", "name": "win", "arch": "x86_64", "platform": "windows"}
    register(scripted(name), **place, **rest)
    assert asked(script.requests[0]).get("Platform") == ("windows" if name in ("euca4", "euca5") else None)


def test_a_success_without_an_id_is_an_error(cloud: Cloud, script: Any) -> None:
    script.says(body="<RegisterImageResponse/>")
    with pytest.raises(CloudAway, match="it answered without an id"):
        register_all(cloud)


# --- waiting -----------------------------------------------------------------------------------------------


def test_an_image_that_is_available_is_not_waited_for(cloud: Cloud, script: Any) -> None:
    script.says(body=UEC_LISTING)
    slept: list[float] = []
    image = wait_until_available(cloud, "emi-3C9F10E7", pauses=(1.0, 2.0), sleep=slept.append)
    assert image
    assert (image.state, slept) == ("available", [])


@pytest.mark.parametrize("looks", [2, 3, 4])
def test_a_pending_image_is_looked_at_as_often_as_there_are_pauses(
    scripted: Callable[[str], Cloud], script: Any, looks: int
) -> None:
    states = [(), ("pending",), ("pending",), ("available",)]
    for listed in states[:looks]:
        script.says(body=listing(*(item("ami-00000001", state) for state in listed)))
    slept: list[float] = []
    image = wait_until_available(
        scripted("openstack"), "ami-00000001", pauses=[1.0] * (looks - 1), sleep=slept.append
    )
    assert (image is not None) == (looks == len(states))
    assert slept == [1.0] * (looks - 1)


@pytest.mark.parametrize("state", ["failed", "error", "deregistered", "invalid"])
def test_of_a_failed_image_the_bundle_is_refused_with_the_clouds_reason_and_the_certificate_named(
    scripted: Callable[[str], Cloud], script: Any, state: str
) -> None:
    script.says(body=listing(item("ami-00000001", "pending")))
    script.says(body=listing(item("ami-00000001", state, reason="Checksum mismatch")))
    with pytest.raises(
        BundleRefused,
        match=rf"images/x\.manifest\.xml: ami-00000001 is {state} \(Checksum mismatch\).*cloud_cert",
    ):
        wait_until_available(scripted("openstack"), "ami-00000001", pauses=(1.0,), sleep=lambda _: None)


def test_a_watch_is_stopped_by_a_sleep_that_raises(scripted: Callable[[str], Cloud], script: Any) -> None:
    script.says(body=listing(item("ami-00000001", "pending")))
    stopped = Stopped("ami-00000001", "the service stops", "It goes on at the next start.")

    def sleep(_: float) -> None:
        raise stopped

    with pytest.raises(Stopped) as raised:
        wait_until_available(scripted("openstack"), "ami-00000001", pauses=(1.0,), sleep=sleep)
    assert raised.value is stopped
    assert len(script.requests) == 1


def test_a_probe_asks_ec2_and_s3(cloud: Cloud, script: Any) -> None:
    script.says(body="<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>")
    script.says(body=listing())
    probe_ec2(cloud)
    assert [request.path for request in script.requests] == ["/services/Walrus", "/services/Eucalyptus"]
