"""Answers that are not the cloud's: what each is taken for, over real HTTP and by itself."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from uecwatchd.clouds.client import MOST_REQUESTS, Cloud
from uecwatchd.clouds.connect import detected
from uecwatchd.clouds.detect import detect_dialect
from uecwatchd.clouds.errors.foreign_answers import detect_foreign_answer
from uecwatchd.clouds.errors.translate import translated
from uecwatchd.clouds.images import list_images
from uecwatchd.config.records import CloudSettings
from uecwatchd.errors import CloudAway, Halted, UecError

# For 64 KiB that are read in milliseconds, and would take minutes if each could be divided in many ways.
ANSWER_SECONDS = 2

PAGE = "<!DOCTYPE html>\n<html><head><title>Please log in</title></head><body>Hello</body></html>"
SQUID = {"server": "squid/5.7", "x-squid-error": "ERR_ACCESS_DENIED 0", "via": "1.1 gate (squid/5.7)"}
S3_ERROR = "<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>No.</Message></Error>"
PROXY = "http://10.0.0.1:3128"

STRANGE = {
    "a proxy that wants a password": (
        407,
        SQUID,
        "",
        PROXY,
        Halted,
        f"the proxy {PROXY} (squid/5.7) wants to know",
    ),
    "one that nobody told us of": (407, {}, "", "", Halted, "a proxy wants to know who we are (407"),
    "a proxy that forbids": (
        403,
        SQUID,
        PAGE,
        "",
        Halted,
        "a proxy on the way (squid/5.7) answered in its place",
    ),
    "a proxy that forbids without a word": (403, SQUID, "", PROXY, Halted, f"the proxy {PROXY}"),
    "a proxy that forbids in text": (
        403,
        {"proxy-status": "x; error=http_request_denied"},
        "No.",
        PROXY,
        Halted,
        f"the proxy {PROXY}",
    ),
    "a proxy that cannot reach it": (
        503,
        SQUID,
        PAGE,
        PROXY,
        CloudAway,
        f"the proxy {PROXY} (squid/5.7) does not",
    ),
    "a gateway without a server": (
        502,
        {"server": "nginx"},
        PAGE,
        "",
        CloudAway,
        "something before it answered",
    ),
    "a gateway whose server is slow": (504, {}, PAGE, "", CloudAway, "something before it answered"),
    "a page behind a relay": (403, {"via": "1.1 x"}, PAGE, "", Halted, "a web page answered"),
    "text behind a relay": (403, {"via": "1.1 x"}, "Blocked by policy", "", Halted, "a web page answered"),
    "a log-in page": (
        200,
        {},
        PAGE,
        "",
        Halted,
        "a web page answered where the cloud should have (200 OK: Please",
    ),
    "a page with an XML declaration": (200, {}, f"<?xml version='1.0'?>\n{PAGE}", "", Halted, "a web page"),
    "a page with a comment before it": (403, {}, f"<!-- x -->{PAGE}", "", Halted, "a web page"),
    "a network with a log-in": (511, {}, "", "", Halted, "a web page answered"),
    "a redirect": (
        302,
        {"location": "http://login.example/?x=1"},
        "",
        "",
        Halted,
        "it is at http://login.example/",
    ),
    "a redirect to nowhere": (301, {}, "", "", Halted, "says that it is elsewhere (301), and not where"),
    "an empty place": (302, {"location": " "}, "", "", Halted, "says that it is elsewhere (302), and not"),
    "a redirect for ever": (308, {"location": "/same"}, "", "", Halted, "says that it is at /same (308)"),
    "a region of a cloud that has none": (
        301,
        {"location": "http://b", "x-amz-bucket-region": "eu-west-1"},
        "",
        "",
        Halted,
        "says that it is at http://b",
    ),
    "a place in the body": (
        301,
        {},
        "<Error><Endpoint>s3.example</Endpoint></Error>",
        "",
        Halted,
        "at s3.example",
    ),
    "what moves a terminal's cursor": (
        302,
        {"location": "http://a\x1b[2J"},
        "",
        "",
        Halted,
        r"http://a\x1b[2J",
    ),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_program_that_answers_instead_of_the_cloud_is_named(name: str) -> None:
    status, headers, text, proxy, kind, why = STRANGE[name]
    found = detect_foreign_answer(status, headers, text, proxy=proxy, regional=False)
    assert found is not None
    assert found.kind is kind
    assert why in found.why
    assert found.hint.endswith(".")


OWN = {
    "an error in XML": (403, {}, S3_ERROR),
    "an error in XML that was handed on": (403, {"via": "1.1 squid"}, S3_ERROR),
    "the first generations' text": (
        403,
        {"via": "1.1 x"},
        "Failure: 403 Forbidden\r\nUser authentication failed.",
    ),
    "the first generation's silence": (500, {"via": "1.1 x"}, ""),
    "text that a proxy kept the connection for": (
        500,
        {"proxy-connection": "keep-alive"},
        "Failure: 500 Internal Server Error",
    ),
    "other text that a proxy kept the connection for": (
        500,
        {"proxy-connection": "keep-alive"},
        "Only administrators can register kernel images.",
    ),
    "no word that a proxy kept the connection for": (500, {"proxy-connection": "close"}, ""),
    "text with a proxy's word on how it got it": (
        500,
        {"proxy-status": "gate; received-status=500"},
        "Only administrators can register kernel images.",
    ),
    "the first generations' text, signed": (
        403,
        {"server": "squid/5.7", "via": "1.1 x (squid/5.7)"},
        "Failure: 403 Forbidden\r\nUser authentication failed.",
    ),
    "text of a server": (500, {}, "Only administrators can register kernel images."),
    "its words in a page": (500, {}, "<html><h1>Only administrators can register</h1></html>"),
    "no such path": (404, {"server": "nginx"}, PAGE),
    "a list": (200, {"via": "1.1 squid"}, "<ListAllMyBucketsResult/>"),
    "an object that is a page": (200, {}, ""),
    "too busy": (503, {}, "Service Unavailable\n"),
    "nothing to tell": (304, {}, ""),
}


@pytest.mark.parametrize("name", OWN)
def test_answers_of_the_cloud_itself_are_translated_by_the_table(name: str) -> None:
    status, headers, text = OWN[name]
    assert detect_foreign_answer(status, headers, text, proxy="", regional=False) is None


@pytest.mark.parametrize(
    ("region", "strange"), [("eu-west-1", 0), ("no region", 1), ("-", 1), ("", 1), ("0", 1)]
)
def test_a_redirect_to_a_region_is_followed(region: str, strange: int) -> None:
    headers = {"location": "http://elsewhere", "x-amz-bucket-region": region}
    assert bool(detect_foreign_answer(301, headers, "", proxy="", regional=True)) == bool(strange)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("dialect", ["uec", "euca5", "aws"])
def test_the_target_of_a_redirect_is_reported(
    status: int, dialect: str, script: Any, scripted: Callable[[str], Cloud]
) -> None:
    cloud = scripted(dialect)
    for ask in (
        cloud.s3.list_buckets,
        lambda: list_images(cloud),
        lambda: cloud.s3.head_bucket(Bucket="images"),
    ):
        script.says(status, location="http://login.example/portal")
        with (
            pytest.raises(Halted, match=r"the service says that it is at http://login\.example/portal"),
            translated(cloud, "asking"),
        ):
            ask()


@pytest.mark.parametrize("status", [301, 303, 308])
@pytest.mark.parametrize(
    "place", ["http://[::1", "http://a:b:c/", "http://x:99999999/", "//", "\xff", "ftp:/x"]
)
def test_a_redirect_to_an_invalid_address_is_reported(
    status: int, place: str, script: Any, cloud: Cloud
) -> None:
    for ask in (
        cloud.s3.list_buckets,
        lambda: list_images(cloud),
        lambda: cloud.s3.put_object(Bucket="b", Key="x"),
    ):
        script.says(status, location=place)
        with pytest.raises(Halted, match="the service says that it is at"), translated(cloud, "asking"):
            ask()


# What botocore takes for advice to look for another region.
ADVICE = {
    "redirect": (301, ""),
    "moved for now": (307, "<Error><Code>TemporaryRedirect</Code><Message>Elsewhere</Message></Error>"),
    "moved": (403, "<Error><Code>PermanentRedirect</Code><Message>Elsewhere</Message></Error>"),
    "place": (400, "<Error><Code>IllegalLocationConstraintException</Code><Message>No</Message></Error>"),
    "region": (400, "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-1</Region></Error>"),
}


@pytest.mark.parametrize("advice", ADVICE)
@pytest.mark.parametrize("dialect", ["uec", "euca4", "openstack", "aws"])
def test_advice_to_ask_elsewhere_is_reported_and_not_followed_for_ever(
    advice: str, dialect: str, script: Any, scripted: Callable[[str], Cloud]
) -> None:
    cloud = scripted(dialect)
    asking = [cloud.s3.list_buckets]
    if dialect != "aws":
        asking.append(lambda: cloud.s3.list_objects(Bucket="images"))
        asking.append(lambda: cloud.s3.put_object(Bucket="images", Key="x"))
    for ask in asking:
        script.requests.clear()
        for _ in range(9):
            script.says(*ADVICE[advice])
        with pytest.raises(UecError), translated(cloud, "asking"):
            ask()
        assert len(script.requests) == 1
        script.replies.clear()


def test_a_wrong_region_is_reported_as_a_configuration_mistake(
    script: Any, scripted: Callable[[str], Cloud]
) -> None:
    cloud = scripted("aws")
    script.says(400, x_amz_bucket_region="no such region")
    with pytest.raises(Halted, match="a region that is none"), translated(cloud, "looking"):
        cloud.s3.head_bucket(Bucket="images")


REFUSALS = [(407, ""), (403, PAGE), (400, PAGE), (511, PAGE), (302, ""), (418, "short and stout"), (451, "")]


@pytest.mark.parametrize(("status", "body"), REFUSALS)
def test_no_refusal_makes_an_unknown_cloud_look_like_a_generation(
    status: int, body: str, script: Any, scripted: Callable[[str], Cloud]
) -> None:
    account = scripted("uec").account
    for asked in range(3):
        script.replies.clear()
        for earlier in ((403, ""), (404, ""))[:asked]:
            script.says(*earlier)
        script.says(status, body, location="http://x")
        with pytest.raises(UecError) as caught:
            detected(CloudSettings(name="test"), account)
        assert isinstance(caught.value, Halted), asked


def test_answers_of_other_programs_keep_no_connection_from_other_requests(script: Any, cloud: Cloud) -> None:
    for _ in range(MOST_REQUESTS + 1):
        script.says(200, "<html>Hello</html>")
        with pytest.raises(Halted), translated(cloud, "asking"):
            cloud.s3.list_buckets()
        script.says(200, "cut")
        with pytest.raises(CloudAway), translated(cloud, "asking"):
            cloud.s3.list_buckets()


def test_a_cloud_is_not_recognized_by_what_another_program_says(
    script: Any, scripted: Callable[[str], Cloud]
) -> None:
    account = scripted("uec").account
    script.says(403, PAGE)
    with pytest.raises(Halted, match="a web page answered"):
        detect_dialect(replace(account))


NGINX = (
    "<html>\r\n<head><title>{0}</title></head>\r\n<body><center><h1>{0}</h1></center>\r\n{1}</body></html>"
)
HAPROXY = "<html><body><h1>{0}</h1>\nYour browser didn't send a complete request in time.\n</body></html>\n"
APACHE = """<!DOCTYPE HTML PUBLIC "-//IETF//DTD HTML 2.0//EN">
<html><head><title>400 Bad Request</title></head><body><h1>Bad Request</h1>
<p>Your browser sent a request that this server could not understand.<br />
Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />
 Instead use the HTTPS scheme to access this URL, please.<br /></p></body></html>"""
PLAIN_400 = NGINX.format(
    "400 The plain HTTP request was sent to HTTPS port",
    "<center>The plain HTTP request was sent to HTTPS port</center>",
)

SAID_BY_ANYBODY = {
    "HAProxy waits no longer": (408, HAPROXY.format("408 Request Time-out"), CloudAway, "No action"),
    "a limit of requests": (429, NGINX.format("429 Too Many Requests", ""), CloudAway, "No action"),
    "a limit in text": (429, "Too Many Requests\n", CloudAway, "No action"),
    "early data": (425, NGINX.format("425 Too Early", ""), CloudAway, "No action"),
    "early data in text": (425, "Too Early", CloudAway, "No action"),
    "a part too large": (
        413,
        NGINX.format("413 Request Entity Too Large", ""),
        Halted,
        "client_max_body_size",
    ),
    "a part too large, in text": (413, "Request Entity Too Large", Halted, "client_max_body_size"),
    "a part too large, without a word": (413, "", Halted, "client_max_body_size"),
    "nginx speaks TLS": (400, PLAIN_400, Halted, "Write https://"),
    "Apache speaks TLS": (400, APACHE, Halted, "Write https://"),
    "a server in Go speaks TLS": (
        400,
        "Client sent an HTTP request to an HTTPS server.\n",
        Halted,
        "Write https://",
    ),
    "Tomcat speaks TLS": (
        400,
        "Bad Request\nThis combination of host and port requires TLS.\n",
        Halted,
        "Write https://",
    ),
}


@pytest.mark.parametrize("signed", [{}, {"Via": "1.1 gate"}, {"X_Squid_Error": "ERR_X 0"}], ids=repr)
@pytest.mark.parametrize("name", SAID_BY_ANYBODY)
def test_answers_with_one_meaning_from_any_program_are_understood(
    name: str, signed: dict[str, str], script: Any, cloud: Cloud
) -> None:
    status, body, kind, hint = SAID_BY_ANYBODY[name]
    for ask in (cloud.s3.list_buckets, cloud.ec2.describe_images):
        script.says(status, body, **signed)
        with pytest.raises(UecError) as caught, translated(cloud, "asking"):
            ask()
        assert isinstance(caught.value, kind)
        assert hint in caught.value.hint


MONSTERS = {
    "comments without a page": "<!---->" * 9000 + "x",
    "comments and spaces": "<!-- x --> \n" * 5000 + "<!--",
    "declarations": "<?xml " * 10000 + ">" * 4000,
    "titles": "<html>" + "<title>" * 9000,
    "titles that do not end": "<html>" + "<title " * 9000,
    "tags in a title": "<html><title>" + "<" * 65000 + "</title>",
    "places": "<Endpoint>" * 6500,
    "digits of no character": f"<html><title>&#{'9' * 60000};</title>",
}


@pytest.mark.parametrize("status", [200, 301, 400, 502])
@pytest.mark.parametrize("name", MONSTERS)
def test_no_answer_takes_longer_to_recognise_than_its_length(
    name: str, status: int, script: Any, cloud: Cloud
) -> None:
    script.says(status, MONSTERS[name])
    begun = time.process_time()
    with pytest.raises(UecError), translated(cloud, "asking"):
        cloud.s3.list_buckets()
    assert time.process_time() - begun < ANSWER_SECONDS
