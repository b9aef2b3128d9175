"""Access by generation: accounts, paths, times and rates; and the credentials that each hands out."""

import contextlib
import http.client
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from tests.support.cloud_keys import with_keys
from tests.support.generations import over
from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.http.replay import ReplayCache
from uecwatchd.sandbox.rules.generations import RULES
from uecwatchd.sandbox.server import Sandbox


@pytest.fixture
def cloud(generation: str, clouds: Callable[[str], Sandbox]) -> Iterator[Sandbox]:
    running = clouds(generation)
    yield running
    running.faults.clear()


def status(call: Callable[..., Any], **arguments: Any) -> int:
    """403 also where the first servers say it in plain text, which boto3 cannot read."""
    try:
        call(**arguments)
    except ClientError as error:
        found: int = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return found
    except ResponseParserError as error:
        return 403 if "Failure: 403 Forbidden" in str(error) else 0
    return 200


# signatures


# Version 2 over the whole path, version 2 as boto3 makes it by itself, version 4. 404: it is taken.
@over(
    sandbox=(404, 404, 404),
    uec=(404, 500, 500),
    euca3=(404, 403, 403),
    euca4=(404, 404, 403),
    euca5=(404, 404, 404),
    openstack=(400, 400, 404),
    aws=(400, 400, 404),
)
def test_s3_knows_these_signatures(expected: tuple[int, ...], cloud: Sandbox, make_clients: Any) -> None:
    clients = make_clients(cloud)
    ways = (
        clients.s3(version="s3"),
        clients.s3(version="s3", full_path=False),
        clients.s3(version="s3v4"),
    )
    assert tuple(status(way.get_object, Bucket="none", Key="k") for way in ways) == expected


@pytest.mark.parametrize("generation", ["sandbox", "euca4", "euca5"])
def test_a_bucket_operation_as_boto3_signs_it_matches_nowhere(cloud: Sandbox, make_clients: Any) -> None:
    """It signs a slash after the bucket that is not in its URL."""
    assert status(make_clients(cloud).s3(version="s3", full_path=False).head_bucket, Bucket="none") == 403


# Version 2, version 4.
@over(
    sandbox=(200, 200),
    uec=(200, 403),
    euca3=(200, 403),
    euca4=(200, 200),
    euca5=(200, 200),
    openstack=(403, 200),
    aws=(403, 200),
)
def test_ec2_knows_these_signatures(expected: tuple[int, int], cloud: Sandbox, make_clients: Any) -> None:
    clients = make_clients(cloud)
    ways = (clients.ec2(version="v2"), clients.ec2(version="v4"))
    assert tuple(status(way.describe_images) for way in ways) == expected


@pytest.mark.parametrize("generation", ["uec"])
def test_the_oldest_says_nothing_about_a_failed_authentication(cloud: Sandbox, hand: Any) -> None:
    headers = {**hand(cloud).sign_s3("GET", "/x"), "Authorization": "AWS AKID:c2lnbmF0dXJlc2lnbmF0dXJlc2k="}
    answer = hand(cloud).ask("GET", "/services/Walrus/x", headers=headers)
    assert (answer.status, answer.body) == (500, b"")
    assert cloud.refusals[-1].code == "InvalidAccessKeyId"


@over(sandbox=200, uec=200, euca3=403, euca4=403, euca5=200, openstack=None, aws=None)
def test_a_signature_counts_once_or_more_often(expected: int | None, cloud: Sandbox, hand: Any) -> None:
    if expected is None:
        assert cloud.backend.rules.ec2.signatures == frozenset({"v4"})
        return
    by_hand = hand(cloud)
    query = by_hand.sign_ec2("DescribeImages")
    headers, path = by_hand.sign_s3("DELETE", "/none/k"), cloud.s3_url.removeprefix(cloud.url) + "/none/k"
    assert (by_hand.ask("GET", query).status, by_hand.ask("DELETE", path, headers=headers).status) == (
        200,
        404,
    )
    again = by_hand.ask("GET", query), by_hand.ask("DELETE", path, headers=headers)
    assert [answer.status for answer in again] == [expected, 403 if expected == 403 else 404]
    detected = [b"Message replay detected" in answer.body for answer in again]
    assert detected == [expected == 403] * 2
    if expected == 403:
        assert (b"<Code>AccessDenied</Code>" in again[1].body, cloud.refusals[-1].code) == (
            True,
            "SignatureReplayed",
        )
        assert not any(b"SignatureReplayed" in answer.body for answer in again)


@pytest.mark.parametrize("generation", ["euca3", "euca4"])
@pytest.mark.parametrize("fault", ["put-500", "put-503", "reset-in-body"])
def test_an_upload_that_a_fault_spoiled_has_used_up_its_signature(
    fault: str, cloud: Sandbox, hand: Any
) -> None:
    """Here a client is most likely to send the very same again."""
    cloud.faults.arm(fault)
    headers = hand(cloud).sign_s3("PUT", f"/none/{fault}")
    path = f"{cloud.s3_url.removeprefix(cloud.url)}/none/{fault}"
    with contextlib.suppress(ConnectionError):
        assert hand(cloud).ask("PUT", path, headers=headers, body=b"body").status in (500, 503)
    again = hand(cloud).ask("PUT", path, headers=headers, body=b"body")
    assert (again.status, b"Message replay detected" in again.body) == (403, True)


@pytest.mark.parametrize("generation", ["euca3"])
@pytest.mark.parametrize("fault", ["down", "away"])
def test_what_never_reached_the_service_has_used_up_nothing(fault: str, cloud: Sandbox, hand: Any) -> None:
    cloud.faults.arm(fault, 1)
    headers = hand(cloud).sign_s3("PUT", f"/none/{fault}")
    with contextlib.suppress(ConnectionError):
        assert hand(cloud).ask("PUT", f"/services/Walrus/none/{fault}", headers=headers).status == 503
    assert hand(cloud).ask("PUT", f"/services/Walrus/none/{fault}", headers=headers).status == 404


@pytest.mark.parametrize("generation", ["euca3"])
def test_a_signature_that_was_refused_is_refused_again_and_no_replay(cloud: Sandbox, hand: Any) -> None:
    query = hand(cloud).sign_ec2("DescribeImages", **{"Owner.1": "self"}).replace("Owner.1=self", "Owner.1=x")
    for _ in range(2):
        assert b"User authentication failed." in hand(cloud).ask("GET", query).body


def test_signatures_are_remembered_for_fifteen_minutes() -> None:
    signatures, noon = ReplayCache(), datetime(2010, 4, 29, 12, tzinfo=UTC)
    signatures.remember("c2ln", now=noon)
    with pytest.raises(ApiError, match="Message replay detected"):
        signatures.remember("c2ln", now=noon + timedelta(minutes=15))
    signatures.remember("c2ln", now=noon + timedelta(minutes=16))


# clocks


# S3 and EC2: status and what is said.
@over(
    sandbox=((403, b"RequestTimeTooSkewed"), (403, b"RequestTimeTooSkewed")),
    uec=((500, b""), (403, b"Message expired")),
    euca3=((403, b"<Code>AccessDenied</Code><Message>Message expired"), (403, b"Message expired")),
    euca4=((403, b"RequestTimeTooSkewed"), (403, b"Message expired")),
    euca5=((403, b"RequestTimeTooSkewed"), (403, b"Message expired")),
    openstack=None,
    aws=None,
)
def test_an_old_request_is_refused_in_the_generations_words(
    expected: tuple[tuple[int, bytes], ...] | None, cloud: Sandbox, hand: Any, make_clients: Any
) -> None:
    cloud.faults.arm("skew", 1000)
    if expected is None:
        assert status(make_clients(cloud).s3().list_buckets) == 403
        assert status(make_clients(cloud).ec2().describe_images) >= 400
        return
    by_hand = hand(cloud)
    path = cloud.s3_url.removeprefix(cloud.url) + "/none/old"
    answers = (
        by_hand.ask("DELETE", path, headers=by_hand.sign_s3("DELETE", "/none/old")),
        by_hand.ask("GET", by_hand.sign_ec2("DescribeImages", **{"Owner.1": "self"})),
    )
    for answer, (code, words) in zip(answers, expected, strict=True):
        assert answer.status == code
        assert words in answer.body


@pytest.mark.parametrize("generation", RULES)
@pytest.mark.parametrize(
    "request_line", ["GET /services/Eucalyptus", "GET /x/y", "PUT /services/Walrus/b", "GET /a b"]
)
def test_every_answer_is_dated_by_the_clouds_clock(request_line: str, cloud: Sandbox, hand: Any) -> None:
    """A client that is refused for its date finds the right one there."""
    cloud.faults.arm("skew", -7200)
    answer = hand(cloud).send(f"{request_line} HTTP/1.1")
    off = parsedate_to_datetime(answer.headers["date"]) - datetime.now(UTC)
    assert -7210 < off.total_seconds() < -7190


# paths and headers


# The status of a request nobody signed, at S3's paths old and new and at EC2's.
@over(
    sandbox=(403, 404, 403, 404),
    uec=(500, 500, 403, 500),
    euca3=(403, 404, 403, 404),
    euca4=(403, 403, 403, 403),
    euca5=(403, 403, 403, 403),
    openstack=(403, 403, 403, 403),
    aws=(403, 403, 403, 403),
)
def test_services_are_where_the_generation_had_them(
    expected: tuple[int, ...], cloud: Sandbox, hand: Any
) -> None:
    """If S3 is at the root, any other path is one of its buckets."""
    words = ("Walrus", "objectstorage", "Eucalyptus", "compute")
    assert tuple(hand(cloud).ask("GET", f"/services/{word}").status for word in words) == expected


@pytest.mark.parametrize("generation", ["euca4", "euca5"])
@pytest.mark.parametrize("path", ["/services/Walrus", "/services/objectstorage"])
def test_both_paths_of_s3_can_be_signed(path: str, cloud: Sandbox, hand: Any) -> None:
    headers = hand(cloud).sign_s3("GET", "", service=path)
    assert hand(cloud).ask("GET", path, headers=headers).status == 200


@pytest.mark.parametrize("generation", ["openstack", "aws"])
def test_two_services_at_one_root_are_distinguished(cloud: Sandbox, hand: Any, make_clients: Any) -> None:
    assert b"test cloud" in hand(cloud).ask("GET", "/").body
    assert b"<Errors>" in hand(cloud).ask("GET", "/?Action=DescribeImages").body
    assert b"<Errors>" in hand(cloud).ask("POST", "/").body
    assert make_clients(cloud).s3().list_buckets()["Buckets"] == []
    assert make_clients(cloud).ec2().describe_images()["Images"] == []


@over(
    sandbox=("uecwatchd-sandbox", "uecwatchd-sandbox"),
    uec=(None, None),
    euca3=(None, None),
    euca4=(None, None),
    euca5=(None, None),
    openstack=(None, None),
    aws=("AmazonEC2", "AmazonS3"),
)
def test_each_half_says_of_itself_what_such_a_server_does(
    expected: tuple[str | None, str | None], cloud: Sandbox, hand: Any
) -> None:
    ec2 = hand(cloud).ask("POST", cloud.ec2_url.removeprefix(cloud.url))
    s3 = hand(cloud).ask("GET", cloud.s3_url.removeprefix(cloud.url).rstrip("/") + "/bucket/key")
    assert (ec2.headers.get("server"), s3.headers.get("server")) == expected


# connections


@over(sandbox="close", uec=None, euca3="close", euca4="close", euca5="close", openstack="close", aws="close")
def test_a_connection_is_over_after_a_hundred_requests_announced_or_not(
    expected: str | None, cloud: Sandbox
) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", cloud.port, timeout=10)) as connection:
        for number in range(1, 101):
            connection.request("HEAD", "/")
            answer = connection.getresponse()
            answer.read()
            assert answer.getheader("connection") == (expected if number == 100 else None)
            assert connection.sock or (number, expected) == (100, "close")
        if connection.sock:
            assert connection.sock.recv(1) == b""


@pytest.mark.parametrize("generation", RULES)
def test_an_upload_of_unknown_length_is_refused(cloud: Sandbox, hand: Any) -> None:
    head = "PUT /services/Walrus/b/k HTTP/1.1\r\nTransfer-Encoding: chunked"
    assert hand(cloud).send(head, b"1\r\nx\r\n0\r\n\r\n").status == 411


FAULT = '<?xml version="1.0"?><Response><Errors><Error><Code>404 Not Found</Code>'


@pytest.mark.parametrize(
    ("generation", "code", "begins"),
    [
        ("sandbox", 404, "Nothing is here"),
        ("uec", 500, "Failure: 500 Internal Server Error\r\n"),
        ("euca3", 404, FAULT),
        ("euca4", 404, FAULT),
        ("euca5", 404, FAULT),
    ],
)
def test_a_path_that_nobody_serves_is_answered_as_by_that_generation(
    code: int, begins: str, cloud: Sandbox, hand: Any
) -> None:
    for path in ("/services/Nothing", "/services/objectstorageX", "/nothing/at/all"):
        answer = hand(cloud).ask("GET", path)
        assert (answer.status, answer.body.decode().startswith(begins)) == (code, True)


LIMITS = {
    "a line within its limit": ("GET /" + "x" * 4000 + " HTTP/1.1", 404),
    "a line beyond it": ("GET /" + "x" * 4200 + " HTTP/1.1", 414),
    "headers within their limit": ("GET /x HTTP/1.1\r\nX-Long: " + "x" * 8000, 404),
    "headers beyond it": ("GET /x HTTP/1.1\r\nX-Long: " + "x" * 8300, 431),
}


@pytest.mark.parametrize("generation", ["sandbox"])
@pytest.mark.parametrize("name", LIMITS)
def test_the_head_of_a_request_has_limits(name: str, cloud: Sandbox, hand: Any) -> None:
    head, code = LIMITS[name]
    assert hand(cloud).send(head).status == code
    seen = cloud.requests[-1]
    assert (seen.method, seen.path, seen.status, bool(seen.code)) == ("GET", head.split()[1], code, True)


UNREADABLE = {
    "two lengths": ("PUT /b/k?acl HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2", "PUT", "/b/k", 400),
    "too many headers": ("GET /x HTTP/1.1" + "\r\nX-One: 1" * 200, "GET", "/x", 431),
    "a word too many": ("GET /x y HTTP/1.1", "GET", "/x", 400),
    "one word": ("hello", "", "", 400),
    "HTTP of another age": ("GET /x HTTP/2.0", "GET", "/x", 505),
}


@pytest.mark.parametrize("generation", ["sandbox"])
@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_refused_before_anybody_looks_at_it_is_on_the_record(
    name: str, cloud: Sandbox, hand: Any
) -> None:
    head, method, path, code = UNREADABLE[name]
    hand(cloud).send("GET /the-one-before HTTP/1.1")
    before = len(cloud.refusals)
    with contextlib.suppress(http.client.HTTPException):  # of HTTP 0.9, which has no head
        assert hand(cloud).send(head).status == code
    (seen,) = cloud.refusals[before:]
    assert (seen.method, seen.path, seen.action, seen.status) == (method, path, "", code)
    assert (bool(seen.code), bool(seen.message), bool(seen.request_id)) == (True, True, True)


# credentials


COMMON = {
    "EC2_URL",
    "S3_URL",
    "EC2_ACCESS_KEY",
    "EC2_SECRET_KEY",
    "EC2_PRIVATE_KEY",
    "EC2_CERT",
    "EUCALYPTUS_CERT",
}


# In the place of the account, if the generation has none: the user's number, or what nova writes for all.
ODD_USERS = {"uec": re.compile("[0-9]{38}"), "openstack": re.compile("42")}


# What else it exports, and the words its URLs end with.
@over(
    sandbox=({"EC2_USER_ID"}, ("/services/Eucalyptus", "/services/Walrus")),
    uec=({"EC2_USER_ID"}, ("/services/Eucalyptus", "/services/Walrus")),
    euca3=(
        {"EC2_USER_ID", "EC2_ACCOUNT_NUMBER", "EUARE_URL", "TOKEN_URL", "AWS_ACCESS_KEY"},
        ("/services/Eucalyptus", "/services/Walrus"),
    ),
    euca4=(
        {"EC2_USER_ID", "EC2_ACCOUNT_NUMBER", "AWS_IAM_URL", "TOKEN_URL", "AWS_CREDENTIAL_FILE"},
        ("", "/services/objectstorage"),
    ),
    euca5=({"EC2_USER_ID", "EC2_ACCOUNT_NUMBER", "AWS_IAM_URL"}, ("", "/services/objectstorage")),
    openstack=({"EC2_USER_ID", "NOVA_CERT"}, ("/", "/")),
    aws=({"EC2_ACCOUNT_NUMBER", "AWS_ACCESS_KEY_ID"}, ("/", "/")),
)
def test_a_shell_understands_the_eucarc_of_each_generation(
    expected: tuple[set[str], tuple[str, str]], cloud: Sandbox, generation: str
) -> None:
    more, (ec2, s3) = expected
    variables = sourced(cloud)
    assert variables.keys() >= COMMON | more
    assert variables["EC2_URL"] == cloud.ec2_url
    assert cloud.ec2_url.endswith(ec2)
    assert variables["S3_URL"] == cloud.s3_url
    assert cloud.s3_url.endswith(s3)
    assert variables["EC2_SECRET_KEY"] == cloud.identity.secret_key
    accounts = {variables[name] for name in ("EC2_USER_ID", "EC2_ACCOUNT_NUMBER") if name in variables}
    odd = ODD_USERS.get(generation)
    assert all(odd.fullmatch(one) for one in accounts) if odd else accounts == {cloud.identity.account}
    for name in ("EC2_PRIVATE_KEY", "EC2_CERT", "EUCALYPTUS_CERT"):
        assert variables[name].startswith(f"{cloud.folder}/")


def sourced(cloud: Sandbox) -> dict[str, str]:
    script = f"set -u; . {cloud.eucarc} && env && cat $EC2_PRIVATE_KEY $EC2_CERT $EUCALYPTUS_CERT >/dev/null"
    done = subprocess.run(
        ["bash", "-c", script], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


NAMED = [
    ("ec2.cloud.example:8773", "/?Action=DescribeImages", "DescribeImages"),
    ("COMPUTE.cloud.example", "/?Action=DescribeImages", "DescribeImages"),
    ("s3.cloud.example:8773", "/images", "ListObjects"),
    ("s3.cloud.example:8773", "/services/objectstorage/images", "ListObjects"),
    ("ec2.cloud.example:8773", "/services/None", ""),
    ("ec2.cloud.example:8773", "/images", ""),
    ("s3.cloud.example:8773", "/?Action=DescribeImages", "ListBuckets"),
    ("127.0.0.1", "/?Action=DescribeImages", ""),
    ("127.0.0.1", "/images", ""),
    ("iam.cloud.example", "/?Action=ListUsers", ""),
]


@pytest.mark.parametrize("dialect", ["euca4", "euca5"])
@pytest.mark.parametrize(("host", "path", "action"), NAMED)
def test_each_half_of_a_newer_eucalyptus_has_a_root_at_its_own_name_alone(
    dialect: str, host: str, path: str, action: str, tmp_path: Path
) -> None:
    with (
        Sandbox(with_keys(tmp_path), dialect=dialect) as cloud,
        closing(http.client.HTTPConnection("127.0.0.1", cloud.port)) as line,
    ):
        line.request("GET", path, headers={"Host": host, "Authorization": "AWS x:y"})
        answer = line.getresponse()
        assert (answer.status, cloud.requests[-1].action) == (403 if action else 404, action)


@pytest.mark.parametrize("dialect", ["uec", "euca3"])
def test_older_ones_have_none(dialect: str, tmp_path: Path) -> None:
    with (
        Sandbox(with_keys(tmp_path), dialect=dialect) as cloud,
        closing(http.client.HTTPConnection("127.0.0.1", cloud.port)) as line,
    ):
        line.request("POST", "/", b"Action=DescribeImages", headers={"Host": "ec2.cloud.example"})
        line.getresponse()
        assert cloud.requests[-1].code == "NotFound"
