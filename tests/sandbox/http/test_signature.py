"""Signatures, keys and clocks of accepted requests."""

import hmac
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.http.head import RequestHead
from uecwatchd.sandbox.http.signature import check_ec2, check_s3
from uecwatchd.sandbox.rules.generations import RULES
from uecwatchd.sandbox.server import Sandbox

S3, EC2 = ("s3", "s3v4"), ("v2", "v4")
NOW = datetime(2013, 5, 24, tzinfo=UTC)


def ask(clients: Any, version: str, **keys: str) -> Any:
    """The cheapest call of each half, signed that way."""
    if version in S3:
        return clients.s3(version=version, **keys).list_buckets
    return clients.ec2(version=version, **keys).describe_images


@pytest.mark.parametrize("version", [*S3, *EC2])
def test_a_wrong_secret_does_not_match(version: str, clients: Any, refusal: Any) -> None:
    refused = refusal(ask(clients, version, secret_key="wrong"))
    assert (refused.code, refused.status) == ("SignatureDoesNotMatch", 403)


@pytest.mark.parametrize("version", [*S3, *EC2])
def test_an_unknown_key_is_said_to_be_unknown(version: str, clients: Any, refusal: Any) -> None:
    refused = refusal(ask(clients, version, access_key="AKIDNOBODY"))
    assert (refused.code, refused.status) == ("InvalidAccessKeyId", 403)


@pytest.fixture
def clock() -> dict[str, timedelta]:
    return {"ahead": timedelta()}


@pytest.fixture
def off_clock(tmp_path: Path, clock: dict[str, timedelta]) -> Iterator[Sandbox]:
    """A cloud whose clock is `clock["ahead"]` ahead of ours."""
    with Sandbox(tmp_path / "cloud", clock=lambda: datetime.now(UTC) + clock["ahead"]) as running:
        yield running


@pytest.mark.parametrize(
    ("versions", "seconds", "taken"),
    [
        (S3, 800, True),
        (S3, 1000, False),
        (S3, -800, True),
        (S3, -1000, False),
        (EC2, 800, True),
        (EC2, 1000, False),
        (EC2, -10, True),
        (EC2, -30, False),
    ],
)
def test_clocks_may_differ_only_so_far(
    versions: tuple[str, ...],
    seconds: int,
    taken: bool,  # noqa: FBT001  # a parameter of the table
    off_clock: Sandbox,
    clock: dict[str, timedelta],
    make_clients: Any,
    refusal: Any,
) -> None:
    """EC2 takes old requests, but none from further ahead than 20 seconds."""
    clock["ahead"] = timedelta(seconds=seconds)
    for version in versions:
        call = ask(make_clients(off_clock), version)
        if taken:
            call()
        else:
            refused = refusal(call)
            assert (refused.code, refused.status) == ("RequestTimeTooSkewed", 403)


def test_version_2_may_leave_the_service_path_out_of_the_resource(clients: Any) -> None:
    """boto3 signs like this by itself, and servers from 3.3 accept it for objects."""
    s3 = clients.s3(version="s3", full_path=False)
    s3.put_object(Bucket="images", Key="bare", Body=b"x")
    assert s3.get_object(Bucket="images", Key="bare")["Body"].read() == b"x"


def test_odd_keys_are_signed_alike_on_both_sides(clients: Any) -> None:
    for version in S3:
        s3 = clients.s3(version=version)
        for key in ("a b", "a+b", "ü/é", "100%", "a=b&c", "~-_.()'!*"):
            s3.put_object(Bucket="images", Key=key, Body=key.encode())
            assert s3.get_object(Bucket="images", Key=key)["Body"].read() == key.encode()
            assert key in [o["Key"] for o in s3.list_objects(Bucket="images", Prefix=key)["Contents"]]
            s3.delete_object(Bucket="images", Key=key)


# Examples of the scheme's own documentation, with its keys.
AWS = {"AKIAIOSFODNN7EXAMPLE": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
V4_HEADERS = {
    "host": "examplebucket.s3.amazonaws.com",
    "x-amz-content-sha256": EMPTY,
    "x-amz-date": "20130524T000000Z",
    "authorization": "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
    "SignedHeaders=host;x-amz-content-sha256;x-amz-date,"
    "Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
}


def s3_key(wire: RequestHead, *, now: datetime = NOW) -> str:
    return check_s3(wire, secrets=AWS, now=now, rules=RULES["sandbox"].s3).access_key


def test_the_documented_example_of_s3_version_4_is_right() -> None:
    assert s3_key(RequestHead("GET", "/", "max-keys=2&prefix=J", V4_HEADERS)) == "AKIAIOSFODNN7EXAMPLE"


def test_the_documented_example_of_s3_version_2_is_right() -> None:
    headers = {
        "host": "awsexamplebucket1.us-west-1.s3.amazonaws.com",
        "date": "Tue, 27 Mar 2007 19:36:42 +0000",
        "authorization": "AWS AKIAIOSFODNN7EXAMPLE:qgk2+6Sv9/oM7G3qLEjTH1a1l1g=",
    }
    wire = RequestHead("GET", "/awsexamplebucket1/photos/puppy.jpg", "", headers)
    assert s3_key(wire, now=datetime(2007, 3, 27, 19, 36, tzinfo=UTC)) == "AKIAIOSFODNN7EXAMPLE"


WRONG_V4 = {
    "another query": ({}, {"query": "max-keys=3&prefix=J"}, "SignatureDoesNotMatch"),
    "another path": ({}, {"path": "/x"}, "SignatureDoesNotMatch"),
    "another method": ({}, {"method": "PUT"}, "SignatureDoesNotMatch"),
    "another host": ({"host": "other"}, {}, "SignatureDoesNotMatch"),
    "another payload": ({"x-amz-content-sha256": "0" * 64}, {}, "SignatureDoesNotMatch"),
    "an unsigned payload nobody signed": (
        {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"},
        {},
        "SignatureDoesNotMatch",
    ),
    "another day": ({"x-amz-date": "20130525T000000Z"}, {}, "SignatureDoesNotMatch"),
    "a header that is not signed": ({"x-amz-acl": "private"}, {}, "AccessDenied"),
    "a streamed body": ({"x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"}, {}, "NotImplemented"),
    "no payload digest": ({"x-amz-content-sha256": ""}, {}, "AccessDenied"),
    "no date": ({"x-amz-date": ""}, {}, "AccessDenied"),
    "another scheme": ({"authorization": "Bearer x"}, {}, "AccessDenied"),
}


@pytest.mark.parametrize("name", WRONG_V4)
def test_a_signed_request_changed_in_one_place_is_refused(name: str) -> None:
    headers, head, code = WRONG_V4[name]
    sent = {"method": "GET", "path": "/", "query": "max-keys=2&prefix=J", **head}
    with pytest.raises(ApiError) as caught:
        s3_key(RequestHead(sent["method"], sent["path"], sent["query"], {**V4_HEADERS, **headers}))
    assert caught.value.code == code


def test_a_signature_for_another_service_is_refused() -> None:
    """Right in itself: made by botocore, with the right key."""
    request = AWSRequest("GET", "http://cloud/services/Walrus", headers={"X-Amz-Content-SHA256": EMPTY})
    (key, secret), *_ = AWS.items()
    SigV4Auth(Credentials(key, secret), "sns", "us-east-1").add_auth(request)
    headers = {"host": "cloud", **{name.lower(): value for name, value in request.headers.items()}}
    with pytest.raises(ApiError, match="scope") as caught:
        s3_key(RequestHead("GET", "/services/Walrus", "", headers), now=datetime.now(UTC))
    assert caught.value.code == "SignatureDoesNotMatch"


@pytest.mark.parametrize("authorization", ["AWS AKIAIOSFODNN7EXAMPLE", "AWS a:b", None])
def test_a_version_2_header_that_is_none_is_refused(authorization: str | None) -> None:
    headers = {"host": "cloud", "date": "Fri, 24 May 2013 00:00:00 GMT"}
    if authorization:
        headers["authorization"] = authorization
    with pytest.raises(ApiError) as caught:
        s3_key(RequestHead("GET", "/services/Walrus", "", headers))
    assert caught.value.code == "AccessDenied"


def test_a_request_without_a_readable_date_is_refused() -> None:
    text = "GET\n\n\nyesterday\n/services/Walrus"
    signature = b64encode(hmac.digest(AWS["AKIAIOSFODNN7EXAMPLE"].encode(), text.encode(), "sha1")).decode()
    headers = {"date": "yesterday", "authorization": f"AWS AKIAIOSFODNN7EXAMPLE:{signature}"}
    with pytest.raises(ApiError, match="no Date"):
        s3_key(RequestHead("GET", "/services/Walrus", "", headers))


WRONG_V2 = {
    "version 1": ({"SignatureVersion": "1"}, "InvalidParameterValue"),
    "another method": ({"SignatureMethod": "HmacMD5"}, "InvalidParameterValue"),
    "another parameter": ({"ImageId.1": "emi-00000000"}, "SignatureDoesNotMatch"),
    "another time": ({"Timestamp": "2013-05-24T00:00:01Z"}, "SignatureDoesNotMatch"),
    "no signature": ({"Signature": None}, "MissingAuthenticationToken"),
}
V2_PARAMETERS = {
    "Action": "DescribeImages",
    "AWSAccessKeyId": "AKIAIOSFODNN7EXAMPLE",
    "SignatureVersion": "2",
    "SignatureMethod": "HmacSHA256",
    "Timestamp": "2013-05-24T00:00:00Z",
    "Signature": "3jeo7RpglirhJgqynggxNAiUM0klxiNLUv4WFH8mC5I=",
}


def ec2_key(parameters: dict[str, str]) -> str:
    wire = RequestHead("POST", "/services/Eucalyptus", "", {"host": "cloud:8773"})
    return check_ec2(wire, parameters, b"", secrets=AWS, now=NOW, rules=RULES["sandbox"].ec2)


def test_parameters_without_a_readable_time_are_refused() -> None:
    unsigned = {**V2_PARAMETERS, "Timestamp": "yesterday"}
    del unsigned["Signature"]
    query = "&".join(f"{name}={value}" for name, value in sorted(unsigned.items()))
    text = f"POST\ncloud:8773\n/services/Eucalyptus\n{query}"
    signature = b64encode(hmac.digest(AWS["AKIAIOSFODNN7EXAMPLE"].encode(), text.encode(), "sha256")).decode()
    with pytest.raises(ApiError, match="ISO 8601"):
        ec2_key({**unsigned, "Signature": signature})


@pytest.mark.parametrize("name", WRONG_V2)
def test_signed_parameters_changed_in_one_place_are_refused(name: str) -> None:
    changes, code = WRONG_V2[name]
    assert ec2_key(V2_PARAMETERS) == "AKIAIOSFODNN7EXAMPLE"
    changed = {key: value for key, value in {**V2_PARAMETERS, **changes}.items() if value is not None}
    with pytest.raises(ApiError) as caught:
        ec2_key(changed)
    assert caught.value.code == code


# --- which host a V2 signature of EC2 covers --------------------------------------------------------------


def signed_for(host: str, header: str, *, path: str = "/services/Eucalyptus") -> str:
    """Return the signer of a request with that Host header, by a signature that covers `host`."""
    parameters = {
        "AWSAccessKeyId": "AK",
        "Action": "DescribeImages",
        "SignatureMethod": "HmacSHA256",
        "SignatureVersion": "2",
        "Timestamp": NOW.isoformat(),
    }
    query = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(parameters.items()))
    text = f"POST\n{host}\n{path}\n{query}"
    parameters["Signature"] = b64encode(hmac.digest(b"secret", text.encode(), "sha256")).decode()
    wire = RequestHead("POST", path, "", {"host": header})
    return check_ec2(wire, parameters, b"", secrets={"AK": "secret"}, now=NOW, rules=RULES["uec"].ec2)


@pytest.mark.parametrize(
    ("host", "header"),
    [
        ("cloud:28773", "cloud:28773"),
        ("cloud", "cloud:28773"),
        ("cloud", "cloud"),
        ("cloud:8773", "cloud"),
        ("Cloud:28773", "Cloud:28773"),
    ],
)
def test_the_host_is_signed_as_it_is_sent_with_its_port_or_without(host: str, header: str) -> None:
    assert signed_for(host, header) == "AK"


@pytest.mark.parametrize(
    ("host", "header"),
    [
        ("LocalHost:28773", "localhost:28773"),
        ("localhost:28773", "LocalHost:28773"),
        ("cloud:80", "cloud"),
        ("cloud:443", "cloud"),
        ("cloud:8774", "cloud:8773"),
        ("other", "cloud"),
        ("cloud.", "cloud"),
        ("[fd00::a]:8773", "[fd00::a]:8773"),
    ],
)
def test_another_host_is_not_what_was_signed(host: str, header: str) -> None:
    with pytest.raises(ApiError, match="does not match"):
        signed_for(host, header)
