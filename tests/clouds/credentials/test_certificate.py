"""A cloud's certificate, fetched from it: what is asked, which is taken, and what is not believed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import Certificate

from uecwatchd.clouds.credentials.account import Account
from uecwatchd.clouds.credentials.certificate import fetch_certificate
from uecwatchd.errors import CloudAway, Halted, UecError

ANSWER = """\
<?xml version="1.0" encoding="utf-8"?>
<DescribeServiceCertificatesResponse xmlns="http://msgs.eucalyptus.com/eucalyptus"><requestId>r</requestId>\
<serviceCertificates>{items}</serviceCertificates></DescribeServiceCertificatesResponse>"""
ITEM = """\
<item><serviceType>{service}</serviceType><certificateUsage>{usage}</certificateUsage>\
<certificateFormat>pem</certificateFormat><certificate>{pem}</certificate>\
<certificateFingerprintDigest>SHA-256</certificateFingerprintDigest>\
<certificateFingerprint>{fingerprint}</certificateFingerprint></item>"""


def item(
    certificate: Certificate,
    *,
    service: str = "compute",
    usage: str = "image-bundling",
    fingerprint: str = "",
) -> str:
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    digits = certificate.fingerprint(hashes.SHA256()).hex(":").upper()
    return ITEM.format(service=service, usage=usage, pem=pem, fingerprint=fingerprint or digits)


def answer(*items: str) -> str:
    return ANSWER.format(items="".join(items))


@pytest.fixture
def near(script: Any, account: Account) -> Account:
    """An account of the cloud that follows the script."""
    return replace(account, ec2_url=f"{script.url}/services/compute", cloud_cert=None)


def test_the_certificate_for_bundling_is_chosen_among_all(
    script: Any, near: Account, user: Any, cloud_keys: Any
) -> None:
    others = [
        item(user.certificate, usage="password-encryption"),
        item(user.certificate, service="euare"),
    ]
    script.says(200, answer(*others, item(cloud_keys.certificate)))
    assert fetch_certificate(near) == cloud_keys.certificate


def test_the_certificate_request_is_signed_as_for_ec2(script: Any, near: Account, cloud_keys: Any) -> None:
    script.says(200, answer(item(cloud_keys.certificate)))
    fetch_certificate(replace(near, session_token="lent"))
    (request,) = script.requests
    assert (request.method, request.path) == ("POST", "/services/Empyrean")
    asked = dict(pair.split("=") for pair in request.body.decode().split("&"))
    assert asked == {
        "Action": "DescribeServiceCertificates",
        "Version": "eucalyptus",
        "Format": "pem",
        "FingerprintDigest": "SHA-256",
    }
    assert request.headers["authorization"].startswith(f"AWS4-HMAC-SHA256 Credential={near.access_key}/")
    assert request.headers["x-amz-security-token"] == "lent"


def unknown(script: Any, cloud: Certificate) -> None:
    script.says(404, "<html>Not Found</html>")


def forbidden(script: Any, cloud: Certificate) -> None:
    script.says(403, "<Error><Code>AccessDenied</Code></Error>")


def none_for_bundling(script: Any, cloud: Certificate) -> None:
    script.says(200, answer(item(cloud, usage="password-encryption")))


def other_fingerprint(script: Any, cloud: Certificate) -> None:
    script.says(200, answer(item(cloud, fingerprint="AB:CD")))


def no_certificate(script: Any, cloud: Certificate) -> None:
    script.says(200, answer(item(cloud).replace("BEGIN CERTIFICATE", "BEGIN NOTHING")))


@pytest.mark.parametrize(
    ("says", "words"),
    [
        pytest.param(unknown, "404", id="no such service"),
        pytest.param(forbidden, "euserv:DescribeServiceCertificates", id="no right to ask"),
        pytest.param(none_for_bundling, "none for the bundling of images", id="none for bundling"),
        pytest.param(other_fingerprint, "whose fingerprint", id="another fingerprint"),
        pytest.param(no_certificate, "no certificate in PEM form", id="no certificate"),
    ],
)
def test_an_unusable_certificate_halts_and_names_the_setting(
    script: Any, near: Account, cloud_keys: Any, says: Callable[[Any, Certificate], None], words: str
) -> None:
    says(script, cloud_keys.certificate)
    with pytest.raises(Halted) as caught:
        fetch_certificate(near)
    assert words in str(caught.value)
    assert "cloud_cert" in caught.value.hint


PAGE = "<!DOCTYPE html><html><head><title>Please log in</title></head></html>"
SQUID = {"Server": "squid/5.7", "X_Squid_Error": "ERR_ACCESS_DENIED 0", "Via": "1.1 gate (squid/5.7)"}
REFUSAL = "<Response><Errors><Error><Code>{}</Code><Message>{}</Message></Error></Errors></Response>"
# Status, body, headers; what it is taken for, its words, and what the hint says.
ANSWERS: dict[str, tuple[int, str, dict[str, str], type[UecError], str, str]] = {
    "a proxy wants a password": (
        407,
        "",
        {"Proxy_Authenticate": "Basic"},
        Halted,
        "wants to know who we",
        "",
    ),
    "a proxy forbids": (403, PAGE, SQUID, Halted, "a proxy on the way", "no_proxy"),
    "a log-in page": (200, PAGE, {}, Halted, "a web page answered", "Compare ec2_url"),
    "a way to a log-in page": (302, "", {"Location": "http://login.example/"}, Halted, "at http://login", ""),
    "a network with a log-in": (511, "", {}, Halted, "a web page answered", ""),
    "too many requests": (429, "", {}, CloudAway, "too busy", "No action is needed"),
    "a throttled request": (
        400,
        REFUSAL.format("Throttling", "Slow."),
        {},
        CloudAway,
        "too busy",
        "No action is needed",
    ),
    "a failure": (
        500,
        REFUSAL.format("InternalError", "Failed."),
        {},
        CloudAway,
        "it failed",
        "No action is needed",
    ),
    "a gateway behind a proxy": (502, PAGE, SQUID, CloudAway, "does not reach it", "no_proxy"),
    "a gateway": (504, PAGE, {}, CloudAway, "something before it", "No action is needed"),
    "a wrong key": (
        403,
        REFUSAL.format("InvalidClientTokenId", "No."),
        {},
        Halted,
        "access key",
        "access_key",
    ),
    "a wrong secret": (
        403,
        REFUSAL.format("SignatureDoesNotMatch", "No."),
        {},
        Halted,
        "secret",
        "secret_key",
    ),
    "a wrong clock": (400, REFUSAL.format("RequestExpired", "Old."), {}, Halted, "clock", "date -u"),
    "keys that have run out": (403, REFUSAL.format("ExpiredToken", "Old."), {}, Halted, "have run out", ""),
    "no TLS": (400, "Client sent an HTTP request to an HTTPS server.", {}, Halted, "speaks TLS", "https://"),
    "a packed answer": (200, "packed", {"Content_Encoding": "gzip"}, Halted, "packed", "gzip off"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_refusal_of_the_certificate_request_means_the_same_as_any_other(
    name: str, script: Any, near: Account
) -> None:
    status, body, headers, kind, why, hint = ANSWERS[name]
    script.says(status, body, **headers)
    with pytest.raises(UecError) as caught:
        fetch_certificate(near)
    assert isinstance(caught.value, kind)
    assert why in caught.value.why
    assert hint in caught.value.hint
    assert "cloud_cert" not in caught.value.hint


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, REFUSAL.format("UnauthorizedOperation", "You are not authorized to perform this operation.")),
        (400, REFUSAL.format("InvalidAction", "There is none.")),
        (400, REFUSAL.format("InvalidParameterValue", "Failed to construct message of type X")),
        (405, "Failure: 405 Method Not Allowed"),
        (404, REFUSAL.format("404 Not Found", "unknown")),
    ],
)
def test_a_missing_certificate_halts_and_names_the_setting(
    status: int, body: str, script: Any, near: Account
) -> None:
    script.says(status, body)
    with pytest.raises(Halted) as caught:
        fetch_certificate(near)
    assert "Set cloud_cert" in caught.value.hint


def test_a_certificate_without_an_rsa_key_is_refused(script: Any, near: Account, certified: Any) -> None:
    script.says(200, answer(item(certified(ec.generate_private_key(ec.SECP256R1()), "cloud"))))
    with pytest.raises(Halted, match="not RSA"):
        fetch_certificate(near)


def test_a_request_with_a_truncated_answer_is_repeated(script: Any, near: Account, cloud_keys: Any) -> None:
    text = answer(item(cloud_keys.certificate))
    script.says(200, text, sent=len(text) // 2)
    with pytest.raises(CloudAway):
        fetch_certificate(near)
    script.says(200, text[: len(text) // 2])
    with pytest.raises(CloudAway, match="cut short"):
        fetch_certificate(near)
    script.says(503, "busy")
    with pytest.raises(CloudAway, match="503"):
        fetch_certificate(near)


def test_a_cloud_that_is_away_is_reported(near: Account) -> None:
    with pytest.raises(CloudAway, match="fetching its certificate: nobody answers"):
        fetch_certificate(replace(near, ec2_url="http://127.0.0.1:9/services/compute"))
