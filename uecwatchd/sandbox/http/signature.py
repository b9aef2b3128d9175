"""Check of a request's signature, computed again from the request as it was sent.

    EC2 V2   AWSAccessKeyId … Signature among the parameters; signs method, host, path, sorted parameters.
             Eucalyptus takes the host as it came, with its port or without
    EC2 V4   Authorization: AWS4-HMAC-SHA256 …; signs method, path, query, headers, SHA-256 of the body
    S3 V2    Authorization: AWS KEY:SIGNATURE; signs method, MD5, type, date, x-amz-* headers, resource
    S3 V4    as EC2 V4, with the body's SHA-256 announced in x-amz-content-sha256

Signatures in a query string ("presigned") and bodies signed chunk by chunk ("streaming") are refused: no
generation before 4.4 knew them.

Every refusal here is `Unauthenticated`. Codes: MissingAuthenticationToken and AuthFailure (EC2),
AccessDenied and InvalidRequest (S3), InvalidAccessKeyId, SignatureDoesNotMatch, RequestTimeTooSkewed,
NotImplemented, InvalidParameterValue.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote

from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.http.head import RequestHead, read_pairs
from uecwatchd.sandbox.rules.ec2 import Ec2Rules
from uecwatchd.sandbox.rules.s3 import S3Rules

V4_ALGORITHM = "AWS4-HMAC-SHA256"
V4_AUTHORIZATION = re.compile(
    V4_ALGORITHM
    + r" Credential=(?P<key>[^/,\s]+)/(?P<day>\d{8})/(?P<region>[a-z0-9-]+)/(?P<service>[a-z0-9]+)"
    r"/aws4_request,\s*SignedHeaders=(?P<headers>[a-z0-9;-]+),\s*Signature=(?P<signature>[0-9a-f]{64})"
)
V4_TIME = "%Y%m%dT%H%M%SZ"
S3_V2_SCHEME = "AWS "
S3_V2_AUTHORIZATION = re.compile(S3_V2_SCHEME + r"(?P<key>[^:\s]+):(?P<signature>[A-Za-z0-9+/]{27}=)")
EC2_V2_METHODS = {"HmacSHA256": hashlib.sha256, "HmacSHA1": hashlib.sha1}
UNSIGNED = "UNSIGNED-PAYLOAD"
EUCALYPTUS_PORT = "8773"  # of a Host header that names none
SHA256_HEX = re.compile(r"[0-9a-f]{64}")

# Query keys that name a part of a resource and are therefore signed with it in S3 V2.
SUB_RESOURCES = frozenset(
    (
        *(
            "acl",
            "cors",
            "delete",
            "lifecycle",
            "location",
            "logging",
            "notification",
            "partNumber",
            "policy",
        ),
        *("requestPayment", "tagging", "torrent", "uploadId", "uploads"),
        *("versionId", "versioning", "versions", "website"),
        *(f"response-{word}" for word in ("cache-control", "expires")),
        *(f"response-content-{word}" for word in ("disposition", "encoding", "language", "type")),
    )
)


class Unauthenticated(ApiError):
    """No known user has signed this request, or not at this time."""


@dataclass(frozen=True, slots=True)
class VerifiedSignature:
    """The facts that an S3 signature proves.

    `payload` is the SHA-256 that the body must have, None if the signature leaves it open.
    """

    access_key: str
    payload: str | None


def check_ec2(
    head: RequestHead,
    parameters: Mapping[str, str],
    body: bytes,
    *,
    secrets: Mapping[str, str],
    now: datetime,
    rules: Ec2Rules,
) -> str:
    """Return the access key that signed this EC2 request."""
    if "authorization" in head.headers and "v4" in rules.signatures:
        day = _v4_time(head)
        key = _check_v4(head, hashlib.sha256(body).hexdigest(), service="ec2", at=day, secrets=secrets)
        _check_ec2_time(day, now=now, rules=rules)
        return key
    if "Signature" not in parameters:
        raise Unauthenticated(
            "MissingAuthenticationToken", "The request carries no signature that is known here"
        )
    if "v2" not in rules.signatures:
        raise Unauthenticated("AuthFailure", "Version 2 of the signature is not taken here, use version 4")
    key = _check_ec2_v2(head, parameters, secrets=secrets)
    _check_ec2_time(_ec2_v2_time(parameters), now=now, rules=rules)
    return key


def check_s3(
    head: RequestHead, *, secrets: Mapping[str, str], now: datetime, rules: S3Rules
) -> VerifiedSignature:
    """Check the signature of an S3 request, and return what it binds."""
    authorization = head.headers.get("authorization")
    if authorization is None:
        raise Unauthenticated("AccessDenied", "The request carries no Authorization header")
    if authorization.startswith(S3_V2_SCHEME):
        if "v2" not in rules.signatures:
            raise Unauthenticated(
                "InvalidRequest", f"This authorization is not supported. Use {V4_ALGORITHM}."
            )
        signature, at = (
            VerifiedSignature(_check_s3_v2(head, secrets=secrets, rules=rules), None),
            _s3_v2_time(head),
        )
    else:
        if "v4" not in rules.signatures:
            raise Unauthenticated("AccessDenied", "Invalid authorization header")
        signature, at = _check_s3_v4(head, secrets=secrets), _v4_time(head)
    if abs(now - at) > timedelta(seconds=rules.window):
        raise Unauthenticated(rules.skewed_code, f"Message expired. {_dated(at, now)}")
    return signature


def check_ssm(
    head: RequestHead, payload: str, *, secrets: Mapping[str, str], now: datetime, rules: Ec2Rules
) -> str:
    """Return the access key that signed this request to the parameter store."""
    if "authorization" not in head.headers:
        raise Unauthenticated("MissingAuthenticationToken", "The request carries no signature")
    at = _v4_time(head)
    key = _check_v4(head, payload, service="ssm", at=at, secrets=secrets)
    _check_ec2_time(at, now=now, rules=rules)
    return key


def v2_signature(head: RequestHead, parameters: Mapping[str, str]) -> str:
    """Return the version 2 signature, which counts only once; empty for a request signed otherwise."""
    authorization = head.headers.get("authorization", "")
    return authorization if authorization.startswith(S3_V2_SCHEME) else parameters.get("Signature", "")


def _dated(at: datetime, now: datetime) -> str:
    return f"The request is dated {at:%F %T}, this cloud's clock says {now:%F %T}"


def _secret(access_key: str, secrets: Mapping[str, str]) -> bytes:
    if access_key not in secrets:
        raise Unauthenticated("InvalidAccessKeyId", "The access key id does not exist in our records")
    return secrets[access_key].encode()


def _compare(ours: str, theirs: str) -> None:
    if not hmac.compare_digest(ours.encode(), theirs.encode()):
        raise Unauthenticated(
            "SignatureDoesNotMatch", "The signature we calculated does not match the one you provided"
        )


# EC2, version 2


def _check_ec2_v2(head: RequestHead, parameters: Mapping[str, str], *, secrets: Mapping[str, str]) -> str:
    if parameters.get("SignatureVersion") != "2":
        raise Unauthenticated("InvalidParameterValue", "SignatureVersion must be 2")
    digest = EC2_V2_METHODS.get(parameters.get("SignatureMethod", ""))
    if digest is None:
        raise Unauthenticated("InvalidParameterValue", "SignatureMethod must be HmacSHA256 or HmacSHA1")
    key = parameters.get("AWSAccessKeyId", "")
    signed = _canonical_query((n, v) for n, v in parameters.items() if n != "Signature")
    secret = _secret(key, secrets)
    texts = ("\n".join((head.method, host, head.path, signed)) for host in _ec2_v2_hosts(head))
    ours = [base64.b64encode(hmac.digest(secret, text.encode(), digest)).decode() for text in texts]
    if parameters["Signature"] not in ours:
        _compare(ours[0], parameters["Signature"])
    return key


def _ec2_v2_hosts(head: RequestHead) -> tuple[str, str]:
    """Return the host with its port and without.

    A second colon ends the port: no signature is right for an IPv6 address, as on Eucalyptus.
    """
    host, port, *_ = (*head.headers.get("host", "").split(":"), EUCALYPTUS_PORT)
    return f"{host}:{port or EUCALYPTUS_PORT}", host


def _ec2_v2_time(parameters: Mapping[str, str]) -> datetime:
    try:
        return _aware(datetime.fromisoformat(parameters.get("Timestamp", "")))
    except ValueError as error:
        raise Unauthenticated("InvalidParameterValue", "Timestamp must be a time in ISO 8601") from error


def _aware(at: datetime) -> datetime:
    """Take a date without a zone as UTC; both kinds of date may come without one."""
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _check_ec2_time(at: datetime, *, now: datetime, rules: Ec2Rules) -> None:
    if at - now > timedelta(seconds=rules.ahead) or now - at > timedelta(seconds=rules.behind):
        raise Unauthenticated("RequestTimeTooSkewed", _dated(at, now))


# S3, version 2


def _check_s3_v2(head: RequestHead, *, secrets: Mapping[str, str], rules: S3Rules) -> str:
    match = S3_V2_AUTHORIZATION.fullmatch(head.headers["authorization"])
    if match is None:
        raise Unauthenticated("AccessDenied", "The Authorization header has no form we know")
    secret = _secret(match["key"], secrets)
    candidates = [head.path]
    if rules.bare_resource:
        candidates.append(head.path.removeprefix(rules.find_path(unquote(head.path)) or "") or "/")
    texts = (_s3_v2_text(head, resource) for resource in candidates)
    ours = [base64.b64encode(hmac.digest(secret, text.encode(), hashlib.sha1)).decode() for text in texts]
    if match["signature"] not in ours:
        _compare(ours[0], match["signature"])
    return match["key"]


def _s3_v2_text(head: RequestHead, resource: str) -> str:
    headers = head.headers
    date = "" if "x-amz-date" in headers else headers.get("date", "")
    amz = [f"{name}:{headers[name].strip()}" for name in sorted(headers) if name.startswith("x-amz-")]
    named = sorted((n, v) for n, v in read_pairs(head.query) if n in SUB_RESOURCES)
    suffix = "&".join(f"{n}={v}" if v else n for n, v in named)
    lines = [head.method, headers.get("content-md5", ""), headers.get("content-type", ""), date, *amz]
    return "\n".join([*lines, f"{resource}?{suffix}" if suffix else resource])


def _s3_v2_time(head: RequestHead) -> datetime:
    try:
        return _aware(parsedate_to_datetime(head.headers.get("x-amz-date") or head.headers.get("date", "")))
    except ValueError as error:
        raise Unauthenticated("AccessDenied", "The request has no Date we can read") from error


# Both, version 4


def _check_s3_v4(head: RequestHead, *, secrets: Mapping[str, str]) -> VerifiedSignature:
    payload = head.headers.get("x-amz-content-sha256", "")
    if payload.startswith("STREAMING-"):
        raise Unauthenticated("NotImplemented", "Bodies signed in chunks are not supported")
    if payload != UNSIGNED and not SHA256_HEX.fullmatch(payload):
        raise Unauthenticated(
            "AccessDenied", "x-amz-content-sha256 must be the SHA-256 of the body, or UNSIGNED-PAYLOAD"
        )
    key = _check_v4(head, payload, service="s3", at=_v4_time(head), secrets=secrets)
    return VerifiedSignature(key, None if payload == UNSIGNED else payload)


def _v4_time(head: RequestHead) -> datetime:
    try:
        return datetime.strptime(head.headers.get("x-amz-date", ""), V4_TIME).replace(tzinfo=UTC)
    except ValueError as error:
        raise Unauthenticated("AccessDenied", "The request has no X-Amz-Date we can read") from error


def _check_v4(
    head: RequestHead, payload: str, *, service: str, at: datetime, secrets: Mapping[str, str]
) -> str:
    match = V4_AUTHORIZATION.fullmatch(head.headers["authorization"])
    if match is None:
        raise Unauthenticated("AccessDenied", "The Authorization header has no form we know")
    if match["service"] != service or match["day"] != f"{at:%Y%m%d}":
        raise Unauthenticated(
            "SignatureDoesNotMatch", f"The credential's scope is not of this day and of {service}"
        )
    names = match["headers"].split(";")
    _check_signed_names(head, names)
    scope = f"{match['day']}/{match['region']}/{service}/aws4_request"
    canonical = hashlib.sha256(_v4_canonical(head, names, payload).encode()).hexdigest()
    text = "\n".join((V4_ALGORITHM, f"{at:{V4_TIME}}", scope, canonical))
    step = b"AWS4" + _secret(match["key"], secrets)
    for word in scope.split("/"):
        step = hmac.digest(step, word.encode(), hashlib.sha256)
    _compare(hmac.digest(step, text.encode(), hashlib.sha256).hex(), match["signature"])
    return match["key"]


def _check_signed_names(head: RequestHead, names: list[str]) -> None:
    """Refuse `x-amz-` headers that are not signed: they could be changed on the way."""
    needed = {"host", *(name for name in head.headers if name.startswith("x-amz-"))}
    if missing := sorted(needed.difference(names)):
        raise Unauthenticated(
            "AccessDenied", f"There were headers present which were not signed: {', '.join(missing)}"
        )


def _v4_canonical(head: RequestHead, names: list[str], payload: str) -> str:
    path = quote(unquote(head.path), safe="/-_.~")
    headers = "".join(f"{name}:{' '.join(head.headers.get(name, '').split())}\n" for name in names)
    return "\n".join(
        (head.method, path, _canonical_query(read_pairs(head.query)), headers, ";".join(names), payload)
    )


def _canonical_query(pairs: Iterable[tuple[str, str]]) -> str:
    quoted = ((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in pairs)
    return "&".join(f"{name}={value}" for name, value in sorted(quoted))
