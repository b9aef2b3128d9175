"""Answers of a cloud are checked before they are believed, kept, printed, or sent to anybody."""

import contextlib
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from uecwatchd.clouds.attributes import permissions
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.errors.xml_limits import PAGE_BYTES, UnsafeXml, check_xml, pages
from uecwatchd.clouds.images import failed_at, image_at, image_of_manifest, list_images
from uecwatchd.clouds.objects import ensure_bucket, list_objects
from uecwatchd.clouds.registration import register
from uecwatchd.errors import CloudAway, Deferred, Halted, Rejected, UecError

pytestmark = pytest.mark.exhaustive

LOCATION = "images/karmic.manifest.xml"
ITEM = (
    "<item><imageId>{id}</imageId><imageLocation>{location}</imageLocation><imageState>available</imageState>"
    "<imageOwnerId>000100729354</imageOwnerId><isPublic>true</isPublic><architecture>x86_64</architecture>"
    "<imageType>machine</imageType><name>{name}</name></item>"
)


def listing(*items: str) -> str:
    return f"<DescribeImagesResponse><imagesSet>{''.join(items)}</imagesSet></DescribeImagesResponse>"


def item(image_id: str, *, location: str = LOCATION, name: str = "") -> str:
    return ITEM.format(id=image_id, location=location, name=name)


def registered(image_id: str) -> str:
    return f"<RegisterImageResponse><imageId>{image_id}</imageId></RegisterImageResponse>"


def ask_for_one(cloud: Cloud) -> str:
    return register(
        cloud,
        location=LOCATION,
        name="karmic",
        description=None,
        arch="x86_64",
        kernel=None,
        ramdisk=None,
        virtualization=None,
        platform="linux",
        role="machine",
    ).image_id


NO_IDS = {
    "an option and a command": "-x $(touch /tmp/x)",
    "two lines": "emi-12345678\nemi-12345679",
    "a line's end": "emi-12345678\n",
    "a path": "../../etc/passwd",
    "too short": "emi-1234567",
    "too long": "emi-123456789",
    "another kind": "eki-12345678",
    "another thing": "snap-12345678",
    "digits of elsewhere": "emi-1234567\u0668",
    "letters that are no hexadecimal digits": "emi-1234567G",
    "an escape": "emi-12345678&#x9b;31m",
    "blanks around": " emi-12345678 ",
    "a million bytes": "emi-" + "A" * 1_000_000,
}


@pytest.mark.parametrize("said", NO_IDS.values(), ids=NO_IDS.keys())
def test_an_invalid_id_in_an_answer_is_refused_and_the_request_is_not_repeated(
    said: str, cloud: Cloud, script: Any
) -> None:
    script.says(body=registered(said))
    with pytest.raises(Rejected, match="which is no id of a machine image") as refused:
        ask_for_one(cloud)
    assert len(str(refused.value)) < 500
    assert str(refused.value).isprintable()
    assert len(script.requests) == 1


@pytest.mark.parametrize("answer", ["<imageId/>", "", "<imageId><b>emi-12345678</b></imageId>"])
def test_an_answer_without_an_id_is_looked_up_first(answer: str, cloud: Cloud, script: Any) -> None:
    script.says(body=f"<RegisterImageResponse>{answer}</RegisterImageResponse>")
    with pytest.raises(CloudAway, match="without an id"):
        ask_for_one(cloud)


def test_an_id_in_the_form_of_another_generation_is_invalid(
    scripted: Callable[[str], Cloud], script: Any
) -> None:
    for dialect, image_id in (("uec", "emi-1234abcd"), ("aws", "emi-12345678"), ("euca4", "ami-12345678")):
        script.says(body=registered(image_id))
        with pytest.raises(Rejected, match=f"dialect \\({dialect}\\)"):
            ask_for_one(scripted(dialect))
    for dialect, image_id in (
        ("uec", "emi-1234ABCD"),
        ("aws", "ami-0a1b2c3d4e5f60718"),
        ("euca5", "ami-1234abcd"),
    ):
        script.says(body=registered(image_id))
        assert ask_for_one(scripted(dialect)) == image_id


@pytest.mark.parametrize(
    "said", [each for each in NO_IDS.values() if each != "eki-12345678" and len(each) < 1000]
)
def test_a_listed_image_without_an_id_is_not_used_and_not_registered_again(
    said: str, cloud: Cloud, script: Any
) -> None:
    script.says(body=listing(item(said)))
    found = list_images(cloud)
    for look in (
        lambda: image_at(cloud, found, LOCATION),
        lambda: image_of_manifest(cloud, found, "karmic.manifest.xml"),
    ):
        with pytest.raises(Halted, match="under an id that is none"):
            look()


def test_of_two_listed_entries_the_one_with_a_valid_id_is_used(cloud: Cloud, script: Any) -> None:
    script.says(body=listing(item("-x"), item("emi-12345678")))
    found = image_at(cloud, list_images(cloud), LOCATION)
    assert found is not None
    assert found.id == "emi-12345678"


def test_an_image_without_an_id_is_not_deregistered(cloud: Cloud, script: Any) -> None:
    failed = item("emi-*").replace("available", "failed")
    script.says(body=listing(failed))
    assert failed_at(cloud, list_images(cloud), LOCATION) == ()


@pytest.mark.parametrize("bucket", ["-x", "..", "a b", "$(touch x)", "A" * 300, ""])
def test_a_kernel_at_an_invalid_location_is_not_ours(bucket: str, cloud: Cloud, script: Any) -> None:
    script.says(body=listing(item("eki-12345678", location=f"{bucket}/vmlinuz.manifest.xml")))
    assert image_of_manifest(cloud, list_images(cloud), "vmlinuz.manifest.xml") is None


@pytest.mark.parametrize("said", ["-x $(touch x)", "a\nb", "\u0661" * 12, "1" * 1000])
def test_an_invalid_account_is_not_sent_to_the_cloud(said: str, cloud: Cloud, script: Any) -> None:
    script.says(
        body="<DescribeImageAttributeResponse><launchPermission><item><userId>"
        f"{said}</userId></item></launchPermission></DescribeImageAttributeResponse>"
    )
    with pytest.raises(Rejected, match="accounts that are none"):
        permissions(cloud, "emi-12345678")


# --- what is printed --------------------------------------------------------------------------------------


def test_a_long_refusal_is_shortened(cloud: Cloud, script: Any) -> None:
    error = f"<Error><Code>{'C' * 9000}</Code><Message>{'m' * 90_000}</Message></Error>"
    script.says(400, f"<Response><Errors>{error}</Errors><RequestID>{'r' * 900}</RequestID></Response>")
    with pytest.raises(UecError) as refused:
        list_images(cloud)
    assert len(str(refused.value)) < 1000
    assert len(refused.value.request_id) <= 128


@pytest.mark.parametrize(
    "body",
    ["<Code>" * 10_000, "<" * 60_000, "<Message" * 8_000, "&" * 60_000, "<Message>" + "<" * 50_000],
    ids=["openings", "angles", "names", "ampersands", "a message of angles"],
)
def test_no_refusal_takes_longer_to_read_than_its_length(body: str, cloud: Cloud, script: Any) -> None:
    script.says(500, body)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    with pytest.raises(UecError):
        list_images(cloud)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 2


@pytest.mark.parametrize("size", ["x", "", "1e3", "9" * 5000, "\u0661x"])
def test_an_invalid_number_is_a_malformed_answer(size: str, cloud: Cloud, script: Any) -> None:
    content = f"<Contents><Key>karmic.part.0</Key><Size>{size}</Size><ETag>e</ETag></Contents>"
    script.says(body=f"<ListBucketResult>{content}</ListBucketResult>")
    with pytest.raises(CloudAway):
        list(list_objects(cloud, "images", "karmic"))


# --- lists ------------------------------------------------------------------------------------------------


def page(*keys: str) -> str:
    contents = "".join(f"<Contents><Key>{key}</Key><Size>1</Size></Contents>" for key in keys)
    return f"<ListBucketResult><IsTruncated>true</IsTruncated>{contents}</ListBucketResult>"


@pytest.mark.parametrize(
    "said", [[page("a"), page("a")], [page("a", "b"), page("b")], [page("a"), page("b"), page("a", "b")]]
)
def test_a_list_without_progress_is_abandoned(said: list[str], cloud: Cloud, script: Any) -> None:
    for body in said:
        script.says(body=body)
    with pytest.raises(Deferred, match="does not come to an end"):
        list(list_objects(cloud, "images", "karmic"))
    assert len(script.requests) == len(said)


def test_a_list_is_followed_while_it_makes_progress(cloud: Cloud, script: Any) -> None:
    for number in range(20):
        script.says(body=page(f"karmic.{number:03}", f"karmic.{number:03}a"))
    script.says(body="<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
    assert len(list(list_objects(cloud, "images", "karmic"))) == 40


def test_a_long_list_of_images_is_read_a_page_at_a_time(
    scripted: Callable[[str], Cloud], script: Any
) -> None:
    ids = [f"emi-{number:08X}" for number in range(5000)]
    script.says(body=listing(*(item(each, name=f"n{each}") for each in ids)))
    assert [(image.id, image.name) for image in list_images(scripted("uec"))] == [
        (each, f"n{each}") for each in ids
    ]


MEMORY = """
import resource, sys
from uecwatchd.clouds.client import make_cloud
from uecwatchd.clouds.credentials.account import Account
from uecwatchd.clouds.dialects import DIALECTS
from uecwatchd.clouds.images import list_images
from uecwatchd.errors import UecError
fields = dict.fromkeys(Account.__slots__) | {"cloud": "c", "access_key": "AK", "secret_key": "SK"}
account = Account(**fields | {"ec2_url": sys.argv[1] + "/ec2", "s3_url": sys.argv[1] + "/s3"})
cloud = make_cloud(account, DIALECTS["uec"], uploads=1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print(len(list_images(cloud)))
except UecError as error:
    print(error.why)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def memory_for(script: Any, body: str) -> tuple[str, int]:
    """Return the output of a separate process about a list of images, and the MiB that it took."""
    script.says(body=body)
    ran = subprocess.run(
        [sys.executable, "-c", MEMORY, script.url], capture_output=True, text=True, check=True
    )
    said, mib = ran.stdout.splitlines()
    return said, int(mib)


UNREADABLE = "its answer was cut short"
MONSTROUS = "its answer is like none"
LARGE: dict[str, tuple[Callable[[], str], str]] = {
    "many images": (lambda: listing(item("emi-12345678") * 20_000), "20000"),
    "many nothings": (lambda: listing("<item/>" * 2_000_000), "it lists more than 100000"),
    "a long id": (lambda: listing(f"<item><imageId>{'x' * 20_000_000}</imageId></item>"), MONSTROUS),
    "many elements": (lambda: listing(f"<item>{'<a/>' * 3_000_000}</item>"), MONSTROUS),
    "many attributes": (lambda: "<r " + " ".join(f"a{n}='1'" for n in range(2_000_000)) + "/>", MONSTROUS),
    "depth": (lambda: "<a>" * 5_000_000, MONSTROUS),
    "a comment": (lambda: f"{listing()}<!--{'-' * 20_000_000}", UNREADABLE),
}


@pytest.mark.parametrize(("body", "said"), LARGE.values(), ids=LARGE.keys())
def test_a_huge_list_is_read_in_bounded_memory(body: Callable[[], str], said: str, script: Any) -> None:
    """Of the 1 GiB that the unit allows; as a tree, each of these took nearly all of it, or more."""
    heard, mib = memory_for(script, body())
    assert heard.startswith(said)
    assert mib < 250


ENTITIES = f"<!ENTITY x '{'y' * 1000}'><!ENTITY z '{'&x;' * 1000}'>"
BOMB = f"<!DOCTYPE a [{ENTITIES}]><a>{'&z;' * 1000}</a>"


@pytest.mark.parametrize("said", [BOMB, '<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "<!DOCTYPE a><a/>"])
def test_a_document_with_entities_is_refused(said: str, cloud: Cloud, script: Any) -> None:
    with pytest.raises(UnsafeXml, match="document type"):
        check_xml(said.encode())
    script.says(body=said)
    with pytest.raises(UecError):
        list_images(cloud)


@pytest.mark.parametrize("encoding", ["utf-16", "cp037", "utf-7", "no-such-encoding", "big5"])
def test_an_unsupported_encoding_is_a_malformed_answer(encoding: str, cloud: Cloud, script: Any) -> None:
    script.says(body=f'<?xml version="1.0" encoding="{encoding}"?>{listing(item("emi-12345678"))}')
    # It may be UTF-8 after all.
    with contextlib.suppress(CloudAway):
        assert len(list_images(cloud)) == 1


def fragments() -> Iterator[bytes]:
    head, tail = b'<?xml version="1.0"?><n:r xmlns:n="u"><n:s>', b"</n:s><id>1</id></n:r>"
    thing = b"<n:item><n:s><n:item>\xc3\xa9</n:item></n:s></n:item>"
    for count in (0, 1, 2, PAGE_BYTES // len(thing), 3 * PAGE_BYTES // len(thing)):
        yield head + thing * count + tail
        yield head + (thing + b"<n:item/>\n") * count + tail


@pytest.mark.parametrize("body", list(fragments()))
def test_pages_hold_together_what_the_list_held(body: bytes) -> None:
    cut = pages(body, "s")
    assert all(len(each) <= PAGE_BYTES + 200 for each in cut)
    assert sum(each.count(b"<n:item>") for each in cut) == body.count(b"<n:item>")
    assert sum(each.count(b"<n:item/>") for each in cut) == body.count(b"<n:item/>")
    for each in cut:
        check_xml(each)


def test_a_malformed_bucket_listing_proves_no_bucket(cloud: Cloud, script: Any) -> None:
    script.says(body="<ListBucketResult><Contents><Size>-x</Size></Contents></ListBucketResult>")
    with pytest.raises(CloudAway):
        ensure_bucket(cloud, "images")


# --- packed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "deflate", "br", "x-gzip", "gzip, identity"])
@pytest.mark.parametrize("status", [200, 403, 500])
def test_a_compressed_answer_is_reported_as_such(cloud: Cloud, script: Any, coding: str, status: int) -> None:
    script.says(status, "\x1f\x8b\x08 whatever", Content_Encoding=coding, x_amz_request_id="id-7")
    with pytest.raises(Halted, match=rf"answers are packed.*Content-Encoding: {coding.lower()}") as caught:
        list(list_objects(cloud, "images", "karmic"))
    assert caught.value.request_id == "id-7"
    assert "\x1f" not in str(caught.value)
    assert script.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("coding", ["identity", "none", "aws-chunked", " "])
def test_an_answer_with_identity_encoding_is_read(cloud: Cloud, script: Any, coding: str) -> None:
    script.says(body="<ListBucketResult></ListBucketResult>", Content_Encoding=coding)
    assert list(list_objects(cloud, "images", "karmic")) == []
