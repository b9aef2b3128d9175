"""Answers that are no XML, or hardly, and no answers at all."""

from typing import Any

import pytest
from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    InvalidRegionError,
    NoRegionError,
    ProxyConnectionError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.errors.connection import CONNECTION_FAILURES, QUOTE_CHARACTERS
from uecwatchd.clouds.errors.response_repair import CompressedAnswer, HugeAnswer
from uecwatchd.clouds.errors.translate import translated
from uecwatchd.clouds.exchange_limits import AnswerTooLong
from uecwatchd.clouds.images import list_images
from uecwatchd.clouds.objects import fetch_object, list_objects, remove_object
from uecwatchd.errors import CloudAway, Halted, Rejected, UecError

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
        list_images(cloud) if half == "ec2" else list(fetch_object(cloud, "images", "x"))
    assert words in caught.value.why


@pytest.mark.parametrize("header", ["x_amz_request_id", "x_amzn_requestid"])
@pytest.mark.parametrize("body", ["", "plain words"], ids=["empty", "no XML"])
def test_the_id_of_a_refusal_is_kept_without_a_body_to_hold_it(
    header: str, body: str, cloud: Cloud, script: Any
) -> None:
    script.says(503, body, **{header: "r-4"})
    with pytest.raises(CloudAway) as caught:
        list_images(cloud)
    assert caught.value.request_id == "r-4"


def test_a_long_answer_is_quoted_in_part(cloud: Cloud, script: Any) -> None:
    script.says(400, "at com.eucalyptus.Some.method\n" * 5000)
    with pytest.raises(Halted) as caught:
        list_images(cloud)
    assert len(caught.value.why) < QUOTE_CHARACTERS + 50
    assert caught.value.why.endswith("…)")


@pytest.mark.parametrize(
    ("status", "expected"),
    [(404, None), (403, Halted), (500, Halted), (503, CloudAway)],
)
def test_an_answer_that_may_have_no_body_is_judged_by_its_status(
    status: int, expected: type[UecError] | None, cloud: Cloud, script: Any
) -> None:
    script.says(status)
    if expected is None:
        remove_object(cloud, "images", "x")
    else:
        with pytest.raises(expected):
            remove_object(cloud, "images", "x")


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
    *(
        (SSLError(error=error, **URL), Halted, why)
        for error, why in (
            ("certificate verify failed: certificate has expired", "its TLS certificate has expired"),
            (
                "certificate verify failed: certificate is not yet valid",
                "its TLS certificate is not valid yet",
            ),
            ("hostname 'a' doesn't match 'b'", "its TLS certificate is for another host name"),
            ("certificate verify failed: EE certificate key too weak", "a key of its TLS is too weak"),
            ("[SSL: DH_KEY_TOO_SMALL] dh key too small", "a key of its TLS is too weak"),
            ("[X509: NO_CERTIFICATE_OR_CRL_FOUND] no certificate or crl found", "the file that ca_bundle"),
            ("[SSL: UNSUPPORTED_PROTOCOL] unsupported protocol", "it speaks no newer TLS than 1.1"),
            ("[SSL: TLSV1_ALERT_PROTOCOL_VERSION] tlsv1 alert protocol version", "it speaks no newer TLS"),
            (
                "[SSL: TLSV1_UNRECOGNIZED_NAME] tlsv1 unrecognized name",
                "the TLS server at that address knows",
            ),
            ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required", "it wants a TLS"),
            ("[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] sslv3 alert handshake failure", "its TLS and ours"),
            ("[SSL: UNSAFE_LEGACY_RENEGOTIATION_DISABLED] unsafe legacy renegotiation", "its TLS and ours"),
        )
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
    (
        ProxyConnectionError(proxy_url="x", error="Tunnel connection failed: 407 Proxy Auth"),
        Halted,
        "the proxy on the way to it lets us not through",
    ),
    (
        ProxyConnectionError(proxy_url="x", error="Tunnel connection failed: 503 No"),
        CloudAway,
        "the proxy on the way does not reach it",
    ),
    (
        ConnectionClosedError(error=r"BadStatusLine('\x15\x03\x01')", **URL),
        Halted,
        "it speaks TLS at that address",
    ),
    (
        ConnectionClosedError(error="BadStatusLine('SSH-2.0-x')", **URL),
        Halted,
        "what answers at its address does not speak HTTP",
    ),
    (ConnectionClosedError(error="RemoteDisconnected", **URL), CloudAway, "the connection broke"),
    (HTTPClientError(error="odd"), CloudAway, "the connection broke"),
    (InvalidRegionError(region_name="a b"), Halted, "it sends us to a region that is none"),
    (CompressedAnswer("Content-Encoding: gzip", "id"), Halted, "its answers are packed"),
    (HugeAnswer("it declares a document type", "id"), Halted, "its answer is like none"),
    (ResponseParserError("invalid XML received: b'<Descr'"), CloudAway, "its answer was cut short"),
    (ResponseStreamingError(error="connection broken"), CloudAway, "the connection broke"),
    (IncompleteReadError(actual_bytes=1, expected_bytes=2), CloudAway, "the connection broke"),
    (AnswerTooLong(limit=1000), Halted, "its answer has no end"),
    (NoRegionError(), Halted, "our client library refuses to ask"),
)


@pytest.mark.parametrize(("error", "kind", "why"), UNHEARD, ids=lambda value: str(value)[:40])
def test_each_missing_answer_has_its_meaning(
    cloud: Cloud, error: Exception, kind: type[UecError], why: str
) -> None:
    with pytest.raises(UecError) as caught, translated(cloud, "trying"):
        raise error
    assert type(caught.value) is kind
    assert caught.value.why.startswith(why)


def test_every_kind_of_missing_answer_is_tested() -> None:
    reached = [next(row for row in CONNECTION_FAILURES if row.fits(error)) for error, _, _ in UNHEARD]
    assert [row.why for row in CONNECTION_FAILURES if row not in reached] == []


@pytest.mark.parametrize(
    ("written", "read"),
    [
        pytest.param("R&D", "R&D", id="a bare ampersand"),
        pytest.param("R&amp;D &lt;3 &#176;", "R&D <3 °", id="what is right already"),
        pytest.param("R&nbsp;D", "R&nbsp;D", id="an entity of HTML"),
        pytest.param("a\x00b\x1bc&#1;d", "a b c d", id="what no XML may hold"),
    ],
)
def test_a_success_with_unusual_user_text_is_read(written: str, read: str, cloud: Cloud, script: Any) -> None:
    item = f"<item><imageId>emi-1</imageId><description>{written}</description></item>"
    script.says(200, f"<DescribeImagesResponse><imagesSet>{item}{item}</imagesSet></DescribeImagesResponse>")
    assert [image.description for image in list_images(cloud)] == [read, read]


def test_a_listing_with_an_unusual_key_is_read(cloud: Cloud, script: Any) -> None:
    one = "<Contents><Key>R&D.part.0</Key><Size>1</Size><ETag>x</ETag></Contents>"
    script.says(200, f"<ListBucketResult>{one}</ListBucketResult>")
    assert [stored.key for stored in list_objects(cloud, "images", "R")] == ["R&D.part.0"]


@pytest.mark.parametrize("body", ["It works! r-3 & more", "<A><requestId>r-3</requestId><B>"])
def test_an_unreadable_success_keeps_its_request_id(body: str, cloud: Cloud, script: Any) -> None:
    script.says(200, body, **({} if "<requestId>" in body else {"x_amz_request_id": "r-3"}))
    with pytest.raises(CloudAway) as caught:
        list_images(cloud)
    assert caught.value.request_id == "r-3"
    assert body.replace("&", "")[:9] in caught.value.why


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param("<html><body>It works!<br></body></html>", Halted, id="a web server stands there"),
        pytest.param("<DescribeImagesResponse><imagesSet><item>", CloudAway, id="cut short"),
        pytest.param("", CloudAway, id="empty"),
    ],
)
def test_an_unreadable_success_is_an_error(
    body: str, kind: type[UecError], cloud: Cloud, script: Any
) -> None:
    script.says(200, body)
    with pytest.raises(kind):
        list_images(cloud)


def test_our_own_errors_pass_unchanged(cloud: Cloud) -> None:
    ours = Rejected("x", "y", "Z.")
    with pytest.raises(Rejected) as caught, translated(cloud, "trying"):
        raise ours
    assert caught.value is ours
