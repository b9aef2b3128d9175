"""The certificate to seal bundles for, fetched from a cloud that gives it to everybody.

Eucalyptus does from 4.2 on, at a service of its own beside EC2: `DescribeServiceCertificates` lists one
certificate for each service and use, with its fingerprint.
"""

import hashlib
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session
from botocore.parsers import ResponseParserError
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate, load_pem_x509_certificate

from uecwatchd.clouds.credentials.account import DEFAULT_REGION, Account
from uecwatchd.clouds.errors.connection import translate_connection_error
from uecwatchd.clouds.errors.foreign_answers import refuse_foreign_answers
from uecwatchd.clouds.errors.refusals import Refusal
from uecwatchd.clouds.errors.response_repair import (
    check_uncompressed,
    code_and_message,
    request_id_of,
    text_of,
)
from uecwatchd.clouds.errors.table import NO_RIGHT_OF_EC2, NO_SERVICE, OTHER_GENERATION
from uecwatchd.clouds.errors.translate import in_one_line, translate_refusal
from uecwatchd.clouds.errors.xml_limits import check_xml
from uecwatchd.clouds.exchange_limits import CONNECT_SECONDS, BoundedSession
from uecwatchd.clouds.proxy import name_proxy, proxies_for
from uecwatchd.errors import CloudAway, Halted, Rejected, Stopped, UecError
from uecwatchd.system.signals import NEVER, Stop

SERVICE_PATH = "/services/Empyrean"
QUESTION = {
    "Action": "DescribeServiceCertificates",
    "Version": "eucalyptus",
    "Format": "pem",
    "FingerprintDigest": "SHA-256",
}
FORM = "application/x-www-form-urlencoded; charset=utf-8"
WANTED = {"serviceType": "compute", "certificateUsage": "image-bundling"}

# Words of one dialect alone are words of the older ones, and none of these has this service.
NEWER = ""
# What a service that has none for us says: it is not there, does not know the question, or wants a right.
GIVES_NONE = tuple(f"{why} (" for why in (NO_SERVICE, OTHER_GENERATION, NO_RIGHT_OF_EC2))

# It is answered from memory.
READ_SECONDS = 30
# A certificate has two kilobytes, and a cloud has some ten.
ANSWER_BYTES = 1024 * 1024


def is_of_another(account: Account, *, stop: Stop = NEVER) -> bool:
    """Tell whether the configured certificate differs from the one that the cloud gives itself.

    False if the cloud gives none, as Eucalyptus 4.0 and 4.1.
    """
    try:
        return fetch_certificate(account, stop=stop) != account.cloud_cert
    except Stopped:
        raise
    except UecError:
        return False


def fetch_certificate(account: Account, *, stop: Stop = NEVER) -> Certificate:
    """Ask the cloud for its certificate. Raises `Halted` if there is none or it is unusable."""
    what = f"cloud {account.cloud}, fetching its certificate"
    offered = [one for one in _listed(_answer(account, what, stop), what) if WANTED.items() <= one.items()]
    if not offered:
        raise _not_offered(account, what, "it lists none for the bundling of images")
    return _certificate(offered[0], what)


def _answer(account: Account, what: str, stop: Stop) -> bytes:
    request = _signed(account)
    proxies = proxies_for(request.url)
    session = URLLib3Session(
        verify=str(account.ca_bundle) if account.ca_bundle else True,
        proxies=proxies,
        timeout=(CONNECT_SECONDS, READ_SECONDS),
    )
    wire = BoundedSession(session, seconds=2 * READ_SECONDS, limit=ANSWER_BYTES, most=1, stop=stop)
    try:
        sent = wire.send(request.prepare())
        answer = {"status_code": sent.status_code, "headers": sent.headers, "body": bytes(sent.content)}
        refuse_foreign_answers(proxy=name_proxy(request.url), regional=False)(response_dict=answer)
        check_uncompressed(answer)
    except (BotoCoreError, ResponseParserError) as error:
        raise translate_connection_error(what, error) from error
    finally:
        session.close()
    if answer["status_code"] < HTTPStatus.MULTIPLE_CHOICES:
        return bytes(sent.content)
    raise _refused(account, what, answer)


def _refused(account: Account, what: str, answer: Mapping[str, Any]) -> UecError:
    """Translate a refusal as all others; a cloud without a certificate for us gets its own remedy."""
    text = text_of(answer)
    code, message = code_and_message(answer["status_code"], text)
    refusal = Refusal("ec2", answer["status_code"], code, in_one_line(message))
    error = translate_refusal(NEWER, what, refusal, request_id=request_id_of(answer, text))
    if isinstance(error, Rejected) or error.why.startswith(GIVES_NONE):
        return _not_offered(account, what, error.why)
    return error


def _signed(account: Account) -> AWSRequest:
    """Sign the question as newer generations do: only they know an answer."""
    parts = urlsplit(account.ec2_url or "")
    request = AWSRequest(
        "POST",
        f"{parts.scheme}://{parts.netloc}{SERVICE_PATH}",
        headers={"Content-Type": FORM},
        data=QUESTION,
    )
    keys = Credentials(account.access_key, account.secret_key, account.session_token)
    SigV4Auth(keys, "ec2", account.region or DEFAULT_REGION).add_auth(request)
    return request


def _listed(body: bytes, what: str) -> Iterator[Mapping[str, str]]:
    """Return the elements of each certificate by name, in any namespace."""
    try:
        check_xml(body)
        root = ET.fromstring(body)  # noqa: S314 (it has no entities, for it was looked through)
    except (ET.ParseError, ValueError, LookupError) as error:
        raise CloudAway(what, f"its answer was cut short ({error})", "No action is needed.") from error
    for item in root.iter():
        yield {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in item}


def _certificate(item: Mapping[str, str], what: str) -> Certificate:
    try:
        certificate = load_pem_x509_certificate(item.get("certificate", "").encode())
        key = certificate.public_key()
    except ValueError as error:
        raise _unusable(what, "what it gives is no certificate in PEM form") from error
    if not isinstance(key, RSAPublicKey):
        raise _unusable(what, "its key is not RSA, with which bundles are sealed")
    if item.get("certificateFingerprint", "").replace(":", "").lower() != fingerprint(certificate):
        raise _unusable(what, "the certificate is not the one whose fingerprint it gives")
    return certificate


def fingerprint(certificate: Certificate) -> str:
    """Return the SHA-256 of its DER form in lower-case hex digits."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def _not_offered(account: Account, what: str, why: str) -> Halted:
    return Halted(
        what,
        why,
        f"Set cloud_cert under [cloud.{account.cloud}] to the cloud's certificate, or ask its administrator"
        " for the right euserv:DescribeServiceCertificates.",
    )


def _unusable(what: str, why: str) -> Halted:
    return Halted(what, why, "Ask the cloud's administrator for its certificate, and set cloud_cert to it.")
