"""The error table, row by row: each row is reached by an answer that a real generation of server gives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import (
    ConnectTimeoutError,
    EndpointConnectionError,
    IncompleteReadError,
    NoRegionError,
    ProxyConnectionError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from uecwatchd.cloud.client import Cloud
from uecwatchd.cloud.refusal import ROWS, translated
from uecwatchd.cloud.register import images
from uecwatchd.cloud.silence import QUOTE_CHARACTERS, SILENCES
from uecwatchd.cloud.upload import fetch, holds
from uecwatchd.errors import CloudAway, Deferred, Halted, Rejected, UecError


@dataclass(frozen=True)
class Case:
    """An answer (status, code and message) and what it means; `why` begins our sentence about it."""

    status: int
    code: str
    message: str
    kind: type[UecError]
    why: str

    def __str__(self) -> str:
        return f"{self.status} {self.code} {self.message}"[:70]


CASES = (
    # Eucalyptus 3.0 to 4.1 refuses a signature it has seen.
    Case(
        403,
        "403",
        "Message replay detected.  Same signature was used within the last 15 minutes",
        Deferred,
        "it takes",
    ),
    Case(
        403, "403", "Message expired (Tue Nov 03 10:00:00 2009)", Halted, "it finds our requests out of date"
    ),
    Case(
        403,
        "RequestTimeTooSkewed",
        "The difference is too large.",
        Halted,
        "it finds our requests out of date",
    ),
    Case(
        403, "RequestExpired", "Timestamp 2009 is in the future", Halted, "it finds our requests out of date"
    ),
    Case(
        403,
        "SignatureDoesNotMatch",
        "The signature does not match.",
        Halted,
        "it did not accept our signature",
    ),
    Case(403, "InvalidAccessKeyId", "No such key.", Halted, "it does not know our access key"),
    Case(401, "InvalidClientTokenId", "No such token.", Halted, "it does not know our access key"),
    Case(403, "AuthFailure", "User authentication failed.", Halted, "it did not accept our credentials"),
    Case(401, "AuthFailure", "Not authorized for image:emi-1", Halted, "our account may not do that"),
    Case(403, "AccessDenied", "Access Denied", Halted, "our account may not do that"),
    # The bucket
    Case(
        400, "", "Image registration failed: you must own the bucket images", Halted, "the bucket belongs to"
    ),
    Case(409, "BucketAlreadyExists", "It exists.", Halted, "the bucket belongs to another account"),
    Case(400, "TooManyBuckets", "You have 5.", Halted, "our account may have no more buckets"),
    Case(400, "EntityTooLarge", "Your proposed upload exceeds the maximum", Halted, "the bucket is full"),
    Case(404, "NoSuchBucket", "The specified bucket does not exist", Deferred, "the bucket is not there"),
    Case(
        404,
        "NoSuchKey",
        "The specified key does not exist",
        Rejected,
        "a file of the bundle is not in the bucket",
    ),
    Case(
        400,
        "BadDigest",
        "The Content-MD5 you specified did not match",
        Deferred,
        "what arrived is not what we sent",
    ),
    # The manifest
    Case(
        400,
        "",
        "Failed to read manifest file: images/x.manifest.xml",
        Rejected,
        "it cannot read the manifest",
    ),
    Case(500, "InternalError", "Failed to read manifest file: x", Rejected, "it cannot read the manifest"),
    Case(
        500, "InternalError", "the manifest referenced is invalid or unavailable", Rejected, "it cannot read"
    ),
    Case(406, "", "Manifest has invalid signature: x", Halted, "it does not know the certificate"),
    Case(
        400,
        "InvalidManifest",
        "The manifest's user 999999999999 is not the account that registers it",
        Halted,
        "the account number that we write",
    ),
    Case(500, "", "Manifest user does not match account 000100729354", Halted, "the account number that we"),
    Case(
        500, "", "Cannot register image of size 32 bytes because it exceeds", Rejected, "the image is larger"
    ),
    Case(400, "InvalidManifest", "Manifest is invalid", Rejected, "it finds a mistake in the manifest"),
    # The registration
    Case(406, "", "Only administrators can register kernel images.", Rejected, "only its administrators may"),
    Case(
        400,
        "",
        "Referenced kernel id is invalid: eki-00000000",
        Rejected,
        "it has no kernel or ramdisk of that id",
    ),
    Case(400, "InvalidAKIID.NotFound", "no such aki", Rejected, "it has no kernel or ramdisk of that id"),
    Case(500, "InternalFailure", "Kernel ID must be specified", Rejected, "it boots this image only with"),
    Case(400, "", "Invalid image location.", Rejected, "it does not accept the manifest's place"),
    Case(400, "InvalidAMIName.Duplicate", "in use", Rejected, "an image of that name is registered already"),
    Case(400, "InvalidAMIName.Malformed", "bad", Rejected, "it does not accept the image's name"),
    Case(
        400,
        "",
        "Invalid virtualization type: xen",
        Rejected,
        "it does not boot images of that virtualization",
    ),
    Case(400, "InvalidAMIID.NotFound", "no such emi", Rejected, "it has no image of that id"),
    # The dialect
    Case(500, "", "Failed to bind the following fields: {Name=x}", Halted, "it is of another generation"),
    Case(412, "", "Failed to bind the following fields: {Name=x}", Halted, "it is of another generation"),
    Case(400, "MissingParameter", "Image name is required", Halted, "it is of another generation"),
    # What passes
    Case(503, "SlowDown", "Please reduce your request rate.", CloudAway, "it is too busy just now"),
    Case(400, "RequestLimitExceeded", "Request limit exceeded.", CloudAway, "it is too busy just now"),
    # Nothing known was said
    Case(403, "Strange", "no", Halted, "it did not accept our credentials"),
    Case(404, "", "<html>Not here</html>", Halted, "there is no such service at its address"),
    Case(405, "", "", Halted, "there is no such service at its address"),
    Case(301, "PermanentRedirect", "elsewhere", Halted, "the service is at another address"),
    Case(408, "", "", CloudAway, "it was too slow to hear us out"),
    Case(429, "", "", CloudAway, "it is too busy just now"),
    Case(400, "Strange", "the moon is full", Rejected, "it refused (400 Strange: the moon is full)"),
    Case(406, "", "something of Eucalyptus 3", Rejected, "it refused (406 406: something of Eucalyptus 3)"),
    Case(501, "NotImplemented", "not here", Halted, "it does not know this request"),
    Case(500, "", "", CloudAway, "it failed without a word"),
    Case(
        500, "InternalError", "the disk is full", CloudAway, "it failed (500 InternalError: the disk is full)"
    ),
    Case(599, "", "", CloudAway, "it failed"),
)


def body_of(case: Case) -> str:
    error = f"<Error><Code>{case.code}</Code><Message>{case.message}</Message></Error>"
    return (
        f"<Response><Errors>{error}</Errors><RequestID>r-1</RequestID></Response>"
        if case.code
        else case.message
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_answer_of_ec2_means(case: Case, scripted: Callable[[str], Cloud], script: Any) -> None:
    for _ in range(2):  # one that is cured by asking again must be heard twice to be believed
        script.says(case.status, body_of(case))
    with pytest.raises(UecError) as caught:
        images(scripted("euca4"))
    assert caught.value.why.startswith(case.why)
    assert type(caught.value) is case.kind
    assert caught.value.what == "cloud test, listing its images"
    assert caught.value.request_id == ("r-1" if case.code else "")


@pytest.mark.parametrize("case", [case for case in CASES if case.code not in ("NoSuchBucket",)], ids=str)
def test_an_answer_of_s3_means(case: Case, scripted: Callable[[str], Cloud], script: Any) -> None:
    for _ in range(2):
        script.says(case.status, body_of(case), x_amz_request_id="r-2")
    with pytest.raises(UecError) as caught:
        list(fetch(scripted("euca4"), "images", "karmic.part.0"))
    assert caught.value.why.startswith(case.why)
    assert type(caught.value) is case.kind
    assert caught.value.request_id == "r-2"


def test_every_row_of_the_table_is_reached() -> None:
    def phrase(case: Case) -> str:
        return f"{case.code or case.status}: {case.message or 'Internal Server Error'}"

    reached = [next(row for row in ROWS if row.fits(case.status, phrase(case))) for case in CASES]
    assert [row.words or row.why for row in ROWS if row not in reached] == []


# --- bodies that are not what the protocol promises --------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param("Only administrators can register kernel images.", "kernel images", id="plain text"),
        pytest.param(
            "<html><body><h1>Only administrators can register</h1></body></html>", "only", id="web page"
        ),
        pytest.param(
            "<Message>Only administrators can register R&D images</Message>", "R&D", id="a bare ampersand"
        ),
        pytest.param("<Message>Only administrators can register R&amp;D</Message>", "R&D", id="an ampersand"),
        pytest.param("<Response><Message>Only administrators can register", "register", id="cut short"),
        pytest.param(
            "Only administrators can register\x00 & &#1; images", "images", id="no XML could say it"
        ),
    ],
)
@pytest.mark.parametrize("half", ["ec2", "s3"])
def test_an_error_is_read_however_badly_it_is_written(
    half: str, body: str, words: str, cloud: Cloud, script: Any
) -> None:
    script.says(500, body)
    with pytest.raises(Rejected, match="only its administrators may register kernels and ramdisks") as caught:
        images(cloud) if half == "ec2" else list(fetch(cloud, "images", "x"))
    assert words in caught.value.why


def test_a_long_answer_is_quoted_in_part(cloud: Cloud, script: Any) -> None:
    script.says(400, "at com.eucalyptus.Some.method\n" * 5000)
    with pytest.raises(Rejected) as caught:
        images(cloud)
    assert len(caught.value.why) < QUOTE_CHARACTERS + 50
    assert caught.value.why.endswith("…)")


@pytest.mark.parametrize(
    ("status", "expected"),
    [(404, None), (403, Halted), (500, CloudAway), (503, CloudAway)],
)
def test_an_answer_that_may_have_no_body_is_judged_by_its_status(
    status: int, expected: type[UecError] | None, cloud: Cloud, script: Any
) -> None:
    script.says(status)
    if expected is None:
        assert not holds(cloud, "images", "x", b"")
    else:
        with pytest.raises(expected):
            holds(cloud, "images", "x", b"")


# --- no answer at all --------------------------------------------------------------------------------------

URL = {"endpoint_url": "http://127.0.0.1:9/"}

UNHEARD = (
    (
        SSLError(error="certificate verify failed: self-signed certificate", **URL),
        Halted,
        "its TLS certificate",
    ),
    (
        SSLError(error="[SSL: WRONG_VERSION_NUMBER] wrong version number", **URL),
        Halted,
        "it does not speak TLS",
    ),
    (SSLError(error="EOF occurred in violation of protocol", **URL), CloudAway, "the TLS connection failed"),
    (
        EndpointConnectionError(error="Name or service not known", **URL),
        CloudAway,
        "its host name is not known",
    ),
    (EndpointConnectionError(error="Connection refused", **URL), CloudAway, "nobody answers at its address"),
    (ConnectTimeoutError(error="timed out", **URL), CloudAway, "nobody answers at its address"),
    (ReadTimeoutError(error="timed out", **URL), CloudAway, "it did not answer in time"),
    (ProxyConnectionError(proxy_url="http://127.0.0.1:3128"), CloudAway, "the proxy on the way to it"),
    (ResponseParserError("invalid XML received: b'<html>Hello'"), Halted, "a web page answered"),
    (ResponseParserError("invalid XML received: b'<Descr'"), CloudAway, "its answer was cut short"),
    (ResponseStreamingError(error="connection broken"), CloudAway, "the connection broke"),
    (IncompleteReadError(actual_bytes=1, expected_bytes=2), CloudAway, "the connection broke"),
    (NoRegionError(), Halted, "our client library refuses to ask"),
)


@pytest.mark.parametrize(("error", "kind", "why"), UNHEARD, ids=lambda value: str(value)[:40])
def test_no_answer_means(error: Exception, kind: type[UecError], why: str) -> None:
    with pytest.raises(UecError) as caught, translated("test", "trying"):
        raise error
    assert type(caught.value) is kind
    assert caught.value.why.startswith(why)


def test_every_way_of_not_answering_is_tested() -> None:
    reached = [next(row for row in SILENCES if row.fits(error)) for error, _, _ in UNHEARD]
    assert [row.why for row in SILENCES if row not in reached] == []


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param("<html><body>It works!<br></body></html>", Halted, id="a web server stands there"),
        pytest.param("<DescribeImagesResponse><imagesSet><item>", CloudAway, id="cut short"),
        pytest.param("", CloudAway, id="empty"),
    ],
)
def test_a_success_that_cannot_be_read_is_no_success(
    body: str, kind: type[UecError], cloud: Cloud, script: Any
) -> None:
    script.says(200, body)
    with pytest.raises(kind):
        images(cloud)


def test_our_own_errors_pass_unchanged() -> None:
    ours = Rejected("x", "y", "Z.")
    with pytest.raises(Rejected) as caught, translated("test", "trying"):
        raise ours
    assert caught.value is ours
