"""Requests on the wire: recorded by a server, with the signatures made again from them."""

import base64
import contextlib
import hashlib
import hmac
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from botocore.parsers import ResponseParserError

from uecwatchd.clouds.client import Cloud, is_insecure, make_cloud
from uecwatchd.clouds.credentials.account import Account
from uecwatchd.clouds.dialects import DIALECTS, UEC
from uecwatchd.clouds.images import list_images
from uecwatchd.clouds.objects import ensure_bucket, list_objects, put_object, remove_object
from uecwatchd.clouds.proxy import is_loopback
from uecwatchd.clouds.registration import probe_ec2, register
from uecwatchd.errors import CloudAway

SECRET_KEY = "secret/for+tests"
NO_IMAGES = "<DescribeImagesResponse><imagesSet/></DescribeImagesResponse>"
NO_BUCKETS = "<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>"
EMPTY_LISTING = "<ListBucketResult><Name>b</Name></ListBucketResult>"


def quoted_md5(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def s3_v2(request: Any) -> str:
    """The signature that Walrus computes: over the path of the request itself."""
    headers = request.headers
    named = [headers.get(name, "") for name in ("content-md5", "content-type", "date")]
    amz = [f"{name}:{headers[name]}" for name in sorted(headers) if name.startswith("x-amz-")]
    text = "\n".join([request.method, *named, *amz, urlsplit(request.path).path])
    digest = hmac.new(SECRET_KEY.encode(), text.encode(), hashlib.sha1).digest()
    return f"AWS AKIDFORTESTS00000001:{base64.b64encode(digest).decode()}"


def ec2_v2(request: Any) -> str:
    sent = dict(parse_qsl(request.body.decode(), keep_blank_values=True))
    pairs = sorted((key, value) for key, value in sent.items() if key != "Signature")
    query = "&".join(f"{quote(key, safe='')}={quote(value, safe='-_.~')}" for key, value in pairs)
    text = f"POST\n{request.headers['host']}\n{request.path}\n{query}"
    return base64.b64encode(hmac.new(SECRET_KEY.encode(), text.encode(), hashlib.sha256).digest()).decode()


def test_a_v2_signature_of_an_object_covers_the_service_path(cloud: Cloud, script: Any) -> None:
    script.says(ETag=quoted_md5(b"data"))
    put_object(cloud, "images", "karmic.part.0", b"data")
    request = script.requests[0]
    assert request.path == "/services/Walrus/images/karmic.part.0"
    assert request.headers["authorization"] == s3_v2(request)


def test_a_v2_signature_of_a_bucket_covers_the_path_as_it_is_asked_for(cloud: Cloud, script: Any) -> None:
    script.says(404, "<Error><Code>NoSuchBucket</Code></Error>")
    script.says()
    ensure_bucket(cloud, "images")
    looked, made = script.requests
    assert looked.path == "/services/Walrus/images?max-keys=1"
    assert (made.method, made.path) == ("PUT", "/services/Walrus/images")
    assert looked.headers["authorization"] == s3_v2(looked)
    assert made.headers["authorization"] == s3_v2(made)


def test_a_v2_signature_of_ec2_is_the_one_eucalyptus_computes(cloud: Cloud, script: Any) -> None:
    script.says(body=NO_IMAGES)
    list_images(cloud)
    sent = dict(parse_qsl(script.requests[0].body.decode()))
    assert script.requests[0].path == "/services/Eucalyptus"
    assert (sent["SignatureVersion"], sent["SignatureMethod"]) == ("2", "HmacSHA256")
    assert sent["Signature"] == ec2_v2(script.requests[0])


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_each_generation_is_signed_for_as_it_knows(
    name: str, scripted: Callable[[str], Cloud], script: Any
) -> None:
    script.says(body=NO_BUCKETS)
    script.says(body=NO_IMAGES)
    probe_ec2(scripted(name))
    s3, ec2 = script.requests
    begins = {"s3": "AWS AKID", "s3v4": "AWS4-HMAC-SHA256 "}[DIALECTS[name].s3_signature]
    assert s3.headers["authorization"].startswith(begins)
    assert ("SignatureVersion=2" in ec2.body.decode()) == (DIALECTS[name].ec2_signature == "v2")
    assert ("AWS4-HMAC-SHA256" in ec2.headers.get("authorization", "")) == (
        DIALECTS[name].ec2_signature == "v4"
    )


@pytest.mark.parametrize("name", ["uec", "aws"])
def test_temporary_keys_are_sent_with_their_token(name: str, account: Account, script: Any) -> None:
    urls = {"ec2_url": script.url, "s3_url": script.url}
    cloud = make_cloud(replace(account, session_token="TOKEN", **urls), DIALECTS[name], uploads=1)
    script.says(body=NO_BUCKETS)
    script.says(body=NO_IMAGES)
    probe_ec2(cloud)
    s3, ec2 = script.requests
    assert s3.headers["x-amz-security-token"] == "TOKEN"
    assert "SecurityToken=TOKEN" in ec2.body.decode() or ec2.headers["x-amz-security-token"] == "TOKEN"


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_an_upload_carries_nothing_that_old_stores_refuse(
    name: str, scripted: Callable[[str], Cloud], script: Any
) -> None:
    data = os.urandom(300_000)
    script.says(ETag=quoted_md5(data))
    put_object(scripted(name), "images", "karmic.part.0", data)
    request = script.requests[0]
    assert request.body == data
    assert request.headers["content-length"] == "300000"
    assert request.headers["content-md5"] == base64.b64encode(hashlib.md5(data).digest()).decode()
    assert request.headers.get("x-amz-acl") == DIALECTS[name].canned_acl
    refused = (
        "expect",
        "transfer-encoding",
        "content-encoding",
        "x-amz-trailer",
        "x-amz-sdk-checksum-algorithm",
    )
    assert not set(refused) & set(request.headers)
    assert not any(header.startswith("x-amz-checksum") for header in request.headers)


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_a_listing_is_asked_for_without_keys_the_server_does_not_know(
    name: str, scripted: Callable[[str], Cloud], script: Any
) -> None:
    script.says(body=EMPTY_LISTING)
    assert list(list_objects(scripted(name), "b", "karmic")) == []
    asked = dict(parse_qsl(urlsplit(script.requests[0].path).query))
    assert asked.pop("encoding-type", None) == ("url" if DIALECTS[name].unknown_query_keys else None)
    assert asked.keys() == {"prefix", "max-keys"}


def test_other_signatures_are_those_of_the_library(account: Account, script: Any) -> None:
    dialect = replace(UEC, signs_whole_path=False)
    cloud = make_cloud(replace(account, s3_url=f"{script.url}/services/Walrus"), dialect, uploads=1)
    script.says(ETag=quoted_md5(b"data"))
    put_object(cloud, "images", "karmic.part.0", b"data")
    request = script.requests[0]
    assert request.headers["authorization"] != s3_v2(request)
    assert request.headers["authorization"] == s3_v2(replace(request, path="/images/karmic.part.0"))


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_a_parameter_that_only_eucalyptus_has_is_sent(
    name: str, scripted: Callable[[str], Cloud], script: Any
) -> None:
    script.says(body="<RegisterImageResponse><imageId>emi-00000001</imageId></RegisterImageResponse>")
    scripted(name).ec2.register_image(ImageLocation="images/w.manifest.xml", Platform="windows")
    sent = dict(parse_qsl(script.requests[0].body.decode()))
    ours = {"Action", "Version", "ImageLocation", "Platform"}
    assert {key for key in sent if "Signature" not in key} - {"AWSAccessKeyId", "Timestamp"} == ours
    assert sent["Platform"] == "windows"


def test_no_client_token_is_made_up(cloud: Cloud, script: Any) -> None:
    script.says(body="<RunInstancesResponse/>")
    cloud.ec2.run_instances(ImageId="emi-00000000", MinCount=1, MaxCount=1)
    assert "ClientToken" not in script.requests[0].body.decode()


# --- connections that die ----------------------------------------------------------------------------------


def test_a_part_whose_connection_died_unanswered_is_sent_again_whole(cloud: Cloud, script: Any) -> None:
    data = os.urandom(2_000_000)
    script.hangs_up()
    script.says(ETag=quoted_md5(data))
    put_object(cloud, "images", "karmic.part.0", data)
    first, second = script.requests
    assert first.body == second.body == data
    assert first.headers["date"] != second.headers["date"], "the same signature twice is a replay"


def test_a_kept_connection_closed_by_the_server_costs_nothing(cloud: Cloud, script: Any) -> None:
    for _ in range(2):
        script.says(body=NO_IMAGES)
        list_images(cloud)
        script.hangs_up()
        script.says(body=NO_IMAGES)
        list_images(cloud)
    assert script.replies == []


def test_a_request_is_sent_again_only_once(cloud: Cloud, script: Any) -> None:
    script.hangs_up()
    script.hangs_up()
    with pytest.raises(CloudAway, match="the connection broke"):
        put_object(cloud, "images", "karmic.part.0", b"data")
    assert len(script.requests) == 2


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda cloud: remove_object(cloud, "images", "karmic.part.0"), id="deleting"),
        pytest.param(
            lambda cloud: cloud.ec2.modify_image_attribute(ImageId="emi-00000001", Attribute="description"),
            id="describing",
        ),
        pytest.param(lambda cloud: cloud.ec2.create_tags(Resources=["emi-00000001"]), id="tagging"),
    ],
)
def test_a_repeatable_request_is_sent_again(
    ask: Callable[[Cloud], object], cloud: Cloud, script: Any
) -> None:
    script.hangs_up()
    script.says()
    with contextlib.suppress(ResponseParserError):  # of EC2, which says more than nothing
        ask(cloud)
    assert len(script.requests) == 2


def test_a_registration_without_an_answer_is_never_sent_again(cloud: Cloud, script: Any) -> None:
    script.hangs_up()
    with pytest.raises(CloudAway, match=r"registering images/karmic\.manifest\.xml: the connection broke"):
        register(
            cloud,
            location="images/karmic.manifest.xml",
            name="karmic",
            description=None,
            arch="x86_64",
            kernel=None,
            ramdisk=None,
            virtualization=None,
            platform="linux",
        )
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    "ask", [partial(list_images, owned=False), lambda cloud: list(list_objects(cloud, "images", "karmic"))]
)
def test_no_signature_is_sent_twice_where_that_is_a_replay(
    ask: Callable[[Cloud], object], scripted: Callable[[str], Cloud], script: Any
) -> None:
    for _ in range(3):
        script.says(body=NO_IMAGES)
    cloud = scripted("euca3")
    threads = [threading.Thread(target=ask, args=[cloud]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({signature_of(request) for request in script.requests}) == 3


def test_another_client_of_that_cloud_sends_no_signature_twice_either(account: Account, script: Any) -> None:
    """The cloud is recognised by one client, and the next one begins with the same question."""
    urls = {"ec2_url": f"{script.url}/services/Eucalyptus", "s3_url": f"{script.url}/services/Walrus"}
    both = [make_cloud(replace(account, **urls), DIALECTS["euca3"], uploads=1) for _ in range(2)]
    for body in (NO_BUCKETS, NO_IMAGES) * 2:
        script.says(body=body)
    time.sleep(1 - time.time() % 1)  # so that nothing but our patience parts the questions
    for cloud in both:
        probe_ec2(cloud)
    assert len({signature_of(request) for request in script.requests}) == 4


def signature_of(request: Any) -> str:
    form = dict(parse_qsl(request.body.decode()))
    return form.get("Signature") or str(request.headers["authorization"])


def test_a_replay_error_is_followed_by_a_retry_in_the_next_second(
    scripted: Callable[[str], Cloud], script: Any
) -> None:
    replay = "<Error><Code>403</Code><Message>Message replay detected.</Message></Error>"
    script.says(403, f"<Response><Errors>{replay}</Errors></Response>")
    script.says(body=NO_IMAGES)
    assert list_images(scripted("euca3")) == ()
    first, second = script.requests
    assert signature_of(first) != signature_of(second)


@pytest.mark.parametrize("status", [500, 503, 406])
def test_a_refused_request_is_not_repeated(cloud: Cloud, script: Any, status: int) -> None:
    script.says(
        status, "<Response><Errors><Error><Code>X</Code><Message>no</Message></Error></Errors></Response>"
    )
    with pytest.raises(Exception, match="no"):
        list_images(cloud)
    assert len(script.requests) == 1


# --- what does not concern it ------------------------------------------------------------------------------

PROBE = """
import sys
from uecwatchd.clouds.client import make_cloud
from uecwatchd.clouds.credentials.account import Account
from uecwatchd.clouds.dialects import DIALECTS
from uecwatchd.clouds.registration import probe_ec2
url = sys.argv[1]
fields = dict.fromkeys(Account.__slots__) | {"cloud": "c", "access_key": "AK", "secret_key": "SK"}
account = Account(**fields | {"ec2_url": url + "/ec2", "s3_url": url + "/s3"})
probe_ec2(make_cloud(account, DIALECTS["uec"], uploads=1))
"""


def test_environment_and_home_do_not_change_the_client(script: Any, tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text(
        "[default]\nendpoint_url = http://127.0.0.1:9/\nregion = mars\n"
    )
    (tmp_path / ".aws" / "credentials").write_text("[default]\naws_access_key_id = OTHER\nbroken")
    elsewhere = "http://127.0.0.1:9"
    environ = {
        "HOME": str(tmp_path),
        "AWS_PROFILE": "nobody",
        "AWS_ENDPOINT_URL": elsewhere,
        "AWS_ACCESS_KEY_ID": "OTHER",
        "AWS_SESSION_TOKEN": "TOKEN",
        "AWS_CA_BUNDLE": "/nowhere.pem",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_RETRY_MODE": "adaptive",
        "AWS_MAX_ATTEMPTS": "9",
        "http_proxy": elsewhere,
        "HTTP_PROXY": elsewhere,
        "PATH": os.environ["PATH"],
    }
    script.says(body=NO_BUCKETS)
    script.says(body=NO_IMAGES)
    ran = subprocess.run(
        [sys.executable, "-c", PROBE, script.url], env=environ, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    s3, ec2 = script.requests
    assert (s3.path, ec2.path) == ("/s3", "/ec2")
    assert s3.headers["authorization"].startswith("AWS AK:")
    assert "AWSAccessKeyId=AK&" in ec2.body.decode()
    assert "TOKEN" not in str(s3.headers) + ec2.body.decode()


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:8773/services/Walrus", True),
        ("http://127.8.9.1/", True),
        ("http://[::1]:8773/", True),
        ("http://localhost:8773/", True),
        ("http://10.0.0.1:8773/", False),
        ("http://localhost.example.com/", False),
    ],
)
def test_no_proxy_stands_before_an_address_of_this_machine(url: str, loopback: bool) -> None:  # noqa: FBT001 (a table)
    assert is_loopback(url) is loopback


@pytest.mark.parametrize(
    ("url", "open_to_others"),
    [
        ("http://10.0.0.1:8773/services/Walrus", True),
        ("http://cloud.example.com/", True),
        ("HTTP://cloud.example.com/", True),
        ("https://cloud.example.com/", False),
        ("http://127.0.0.1:8773/", False),
        (None, False),  # Amazon's known addresses
    ],
)
def test_plain_http_to_another_machine_is_insecure(url: str | None, open_to_others: bool) -> None:  # noqa: FBT001 (a table)
    assert is_insecure(url) is open_to_others


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_a_cloud_may_read_for_minutes_before_it_answers_a_registration(
    dialect: str, scripted: Callable[[str], Cloud], script: Any
) -> None:
    cloud, minutes = scripted(dialect), []
    script.says(body=NO_IMAGES)
    script.says(body="<RegisterImageResponse><imageId>emi-00000001</imageId></RegisterImageResponse>")
    cloud.ec2.meta.events.register_last(
        "before-send.ec2", lambda request, **_: minutes.append(getattr(request, "seconds", 0.0) / 60)
    )
    list_images(cloud)
    cloud.ec2.register_image(ImageLocation="b/k.manifest.xml")
    assert minutes[0] == 0
    assert min(minutes[1], cloud.ec2.meta.config.read_timeout / 60) > 10


def test_no_key_is_in_the_representation_of_a_cloud(cloud: Cloud) -> None:
    assert SECRET_KEY not in repr(cloud)
