"""Every generation of the embedded cloud is recognised for what it is, by what it answers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.support.cloud_keys import with_keys
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.connect import connect
from uecwatchd.clouds.credentials.account import Account, gather
from uecwatchd.clouds.detect import detect_dialect
from uecwatchd.clouds.dialects import AWS
from uecwatchd.clouds.images import list_images as own_images
from uecwatchd.clouds.objects import ensure_bucket, put_object
from uecwatchd.config.records import CloudSettings
from uecwatchd.errors import CloudAway, Halted
from uecwatchd.sandbox.rules.generations import RULES
from uecwatchd.sandbox.server import Sandbox

pytestmark = pytest.mark.exhaustive

WHY = {
    "sandbox": "its answers come from uecwatchd-sandbox",
    "uec": "it refuses a filter with",
    "euca3": "it refuses a filter with 412, as Eucalyptus 3.0 to 3.2 do",
    "euca4": "it has /services/objectstorage, as Eucalyptus does from 4.0 on",
    "euca5": "its S3 takes V4 signatures, as Eucalyptus does from 4.4 on",
    "openstack": "its address is neither Amazon's nor one of a Eucalyptus",
    "aws": "its answers come from AmazonS3",
}


def account_of(cloud: Sandbox, **changes: Any) -> Account:
    return gather(replace(CloudSettings(name="default", eucarc=cloud.eucarc), **changes))


@pytest.mark.parametrize("generation", sorted(RULES))
def test_a_generation_is_recognised_by_its_answers(generation: str, tmp_path: Path) -> None:
    with Sandbox(with_keys(tmp_path), dialect=generation) as cloud:
        found = detect_dialect(account_of(cloud))
        assert found.dialect.name == generation
        assert found.why.startswith(WHY[generation])


@pytest.mark.parametrize("generation", sorted(RULES.keys() - {"sandbox", "aws", "openstack"}))
def test_a_wrong_secret_is_reported_instead_of_a_generation(generation: str, tmp_path: Path) -> None:
    with (
        Sandbox(with_keys(tmp_path), dialect=generation) as cloud,
        pytest.raises(Halted, match=r"secret.key"),
    ):
        detect_dialect(account_of(cloud, secret_key=SecretStr("wrong")))


def test_a_cloud_that_is_away_is_not_recognised(tmp_path: Path) -> None:
    with Sandbox(with_keys(tmp_path)) as cloud:
        account = account_of(cloud)
    with pytest.raises(CloudAway, match="finding out its generation"):
        detect_dialect(account)


@pytest.mark.parametrize("url", [None, "https://ec2.eu-west-1.amazonaws.com"])
def test_amazon_is_known_by_its_address_alone(account: Account, url: str | None) -> None:
    assert detect_dialect(replace(account, ec2_url=url, region="eu-west-1")).dialect == AWS


def test_eucalyptus_from_3_3_on_takes_a_filter_and_has_no_object_storage(
    script: Any, scripted: Callable[[str], Cloud]
) -> None:
    script.says(403, "<Error><Code>AccessDenied</Code><Message>V4?</Message></Error>")
    script.says(404, "not found")
    script.says(body="<DescribeImagesResponse><imagesSet/></DescribeImagesResponse>")
    found = detect_dialect(scripted("uec").account)
    assert (found.dialect.name, found.why) == (
        "euca3",
        "it takes filters and has no /services/objectstorage, as Eucalyptus 3.3 and 3.4",
    )


# How many questions each generation is asked before it is known.
QUESTIONS = {"sandbox": 1, "aws": 1, "openstack": 2, "euca5": 1, "euca4": 2, "euca3": 3, "uec": 3}


@pytest.mark.parametrize(("generation", "asked"), [(g, n) for g in QUESTIONS for n in range(QUESTIONS[g])])
def test_an_overloaded_cloud_is_not_detected(generation: str, asked: int, tmp_path: Path) -> None:
    with Sandbox(with_keys(tmp_path), dialect=generation) as cloud:
        cloud.faults.arm("down", 1, spare=asked)
        with pytest.raises(CloudAway):
            detect_dialect(account_of(cloud))
        assert detect_dialect(account_of(cloud)).dialect.name == generation


def test_a_eucalyptus_that_is_known_by_one_address_only_is_recognised(
    script: Any, scripted: Callable[[str], Cloud]
) -> None:
    script.says(body="<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>")
    account = scripted("uec").account
    assert detect_dialect(replace(account, ec2_url=script.url)).dialect.name == "euca5"


NO_FILTER = "Failure: 500 Internal Server Error\r\nFailed to bind the following fields:\nFilter.1.Name\n"
NO_SUCH_PATH = {
    "1.6": (500, "Failure: 500 Internal Server Error\r\n"),
    "2.0": (500, "Failure: 500 Internal Server Error\r\nnull"),
    "2.0 with a message": (500, "Failure: 500 Internal Server Error\r\nNo pipeline accepts /services/x"),
    "2.0 with a stack trace": (
        500,
        "Failure: 500 Internal Server Error\r\nnull\r\njava.lang.Exception\r\n\tat a.b",
    ),
    "3.0 and later": (404, "<Response><Errors><Error><Code>404 Not Found</Code></Error></Errors></Response>"),
    "no such method there": (405, "Failure: 405 Method Not Allowed\r\n"),
}


@pytest.mark.parametrize("version", NO_SUCH_PATH)
def test_each_kind_of_missing_path_counts(
    version: str, script: Any, scripted: Callable[[str], Cloud]
) -> None:
    script.says(403, "<Error><Code>AccessDenied</Code><Message>V4?</Message></Error>")
    status, body = NO_SUCH_PATH[version]
    script.says(status, body)
    script.says(500, NO_FILTER)
    assert detect_dialect(scripted("uec").account).dialect.name == "uec"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (503, "Failure: 503 Service Unavailable\r\nSystem has not yet completed booting."),
        (500, "<Error><Code>InternalError</Code><Message>We failed.</Message></Error>"),
        (502, "<html><h1>502 Bad Gateway</h1></html>"),
        (500, "Internal Server Error. Failure: 500 times."),
    ],
)
def test_a_server_error_does_not_count_as_a_missing_path(
    status: int, body: str, script: Any, scripted: Callable[[str], Cloud]
) -> None:
    script.says(403, "<Error><Code>AccessDenied</Code><Message>V4?</Message></Error>")
    script.says(status, body)
    with pytest.raises(CloudAway):
        detect_dialect(scripted("uec").account)


@pytest.mark.parametrize(
    "path", ["/services/Cloud", "/services/Admin", "/services/Cloud/", "/services/cloud", "/services/Cloud/x"]
)
def test_the_native_nova_interface_is_detected_as_openstack(
    path: str, script: Any, scripted: Callable[[str], Cloud]
) -> None:
    script.says(body="<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>")
    account = replace(scripted("uec").account, ec2_url=script.url + path, s3_url=script.url)
    assert detect_dialect(account).dialect.name == "openstack"


@pytest.mark.parametrize("path", ["/services/CloudWatch", "/services/compute", "/services/Eucalyptus"])
def test_services_with_similar_paths_are_detected_as_eucalyptus(
    path: str, script: Any, scripted: Callable[[str], Cloud]
) -> None:
    script.says(body="<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>")
    account = replace(scripted("uec").account, ec2_url=script.url + path, s3_url=script.url)
    assert detect_dialect(account).dialect.name == "euca5"


@pytest.mark.parametrize("path", ["/services/Cloud", "/services/Admin"])
def test_the_embedded_openstack_answers_where_nova_did(path: str, tmp_path: Path) -> None:
    with Sandbox(with_keys(tmp_path), dialect="openstack") as cloud:
        found = connect(
            CloudSettings(name="default", eucarc=cloud.eucarc, ec2_url=cloud.url + path), uploads=1, before={}
        )
        assert (found.dialect.name, own_images(found)) == ("openstack", ())


# As euca2ools' ini files have it where the cloud has a domain of its own.
NAMES = {
    "ec2 and s3": ("http://ec2.10.104.10.74.xip.io:8773", "http://s3.10.104.10.74.xip.io:8773"),
    "with a slash": ("http://ec2.cloud.example:8773/", "http://s3.cloud.example:8773/"),
    "its own words": ("http://compute.cloud.example:8773/", "http://objectstorage.cloud.example:8773/"),
    "a path at one half": (
        "http://ec2.cloud.example:8773/",
        "http://any.example:8773/services/objectstorage",
    ),
}


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("generation", ["euca4", "euca5"])
def test_a_eucalyptus_with_own_host_names_is_not_detected_as_openstack(
    generation: str, names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ec2_url, s3_url = NAMES[names]
    with Sandbox(with_keys(tmp_path), dialect=generation) as cloud:
        monkeypatch.setenv("http_proxy", cloud.url)  # it answers whatever host is asked for
        settings = CloudSettings(name="default", eucarc=cloud.eucarc, ec2_url=ec2_url, s3_url=s3_url)
        sealed_by = gather(settings).cloud_cert
        without_certificate(cloud.eucarc)
        found = connect(settings, uploads=1, before={})
        assert (found.dialect.name, found.account.cloud_cert) == (generation, sealed_by)
        ensure_bucket(found, "images")
        put_object(found, "images", "karmic.part.0", b"bytes")
        assert own_images(found) == ()
        assert [one.key for one in cloud.objects("images")] == ["karmic.part.0"]


def without_certificate(eucarc: Path) -> None:
    lines = eucarc.read_text().splitlines(keepends=True)
    eucarc.write_text("".join(line for line in lines if not line.startswith("export EUCALYPTUS_CERT")))


FAULT = (
    "<Response><Errors><Error><Code>404 Not Found</Code><Message>unknown</Message></Error></Errors>"
    "</Response>"
)
NO_EUCALYPTUS = {
    "it answers at any path": (200, "<DescribeRegionsResponse><regionInfo/></DescribeRegionsResponse>"),
    "it finds nothing there": (404, "404 Not Found"),
    "a page": (
        404,
        "<html><head><title>404 Not Found</title></head><body><h1>404 Not Found</h1></body></html>",
    ),
    "it does not know us there": (
        401,
        "<Error><Code>AuthFailure</Code><Message>404 Not Found: x</Message></Error>",
    ),
    "another code": (404, FAULT.replace("404 Not Found", "NotFound")),
}


@pytest.mark.parametrize(
    "answer", [*NO_EUCALYPTUS.values(), (404, FAULT)], ids=[*NO_EUCALYPTUS, "a Eucalyptus"]
)
def test_at_a_root_only_a_eucalyptus_refuses_an_unknown_path_as_it_does(
    answer: tuple[int, str], script: Any, scripted: Callable[[str], Cloud]
) -> None:
    script.says(body="<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>")
    script.says(*answer)
    account = replace(scripted("uec").account, ec2_url=script.url, s3_url=script.url)
    assert detect_dialect(account).dialect.name == ("euca5" if answer[1] == FAULT else "openstack")
