"""One S3 request with a known sender, and the checks that several operations share."""

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from werkzeug.wrappers import Request, Response

from uecwatchd.sandbox.backend import Backend
from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.http.head import CONTROL
from uecwatchd.sandbox.http.responses import Payload, write_s3
from uecwatchd.sandbox.http.signature import VerifiedSignature
from uecwatchd.sandbox.state.store import Bucket, ReceivedFile

CHUNK = 1 << 20  # what an upload holds in memory
OBJECT_LIMIT = 5 << 30  # S3's own limit for one PUT
BODY_LIMIT = 64 * 1024  # bytes of any other request; none that is known here needs as much
KEY_LIMIT = 1024  # bytes of UTF-8
NOTE = "x-amz-meta-"
# Headers that change what a PUT means.
UNKNOWN_PUT_HEADERS = ("x-amz-copy-source", "x-amz-trailer", "if-match", "if-none-match", "content-range")


@dataclass(frozen=True, slots=True)
class S3Request:
    """One S3 request whose signature was checked."""

    http: Request
    headers: Mapping[str, str]  # names in lower case
    query: Mapping[str, str]
    signature: VerifiedSignature
    bucket: str
    key: str


Handler = Callable[[Backend, S3Request], Response]


def own_bucket(backend: Backend, name: str) -> Bucket:
    bucket = backend.store.bucket(name)
    if bucket.owner != backend.identity.account:
        raise ApiError("AccessDenied", "Access Denied")
    return bucket


def canned_acl(backend: Backend, headers: Mapping[str, str]) -> str:
    acl = headers.get("x-amz-acl", "private")
    if acl not in backend.rules.s3.canned_acls:
        raise ApiError("InvalidArgument", f"The canned ACL {acl} is not known")
    return acl


def user_metadata(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name.removeprefix(NOTE): value for name, value in headers.items() if name.startswith(NOTE)}


def xml(root: str, payload: Payload) -> Response:
    return Response(write_s3(root, payload), mimetype="application/xml")


def time(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def owner(backend: Backend) -> Payload:
    return {"ID": backend.identity.account, "DisplayName": "admin"}


# bodies


def read_small_body(backend: Backend, request: S3Request) -> bytes:
    """Read and check the body of any request but an upload."""
    if (request.http.content_length or 0) > BODY_LIMIT:
        raise ApiError("RequestEntityTooLarge", f"The request's body is larger than {BODY_LIMIT} bytes")
    body = request.http.get_data()
    md5 = hashlib.md5(body, usedforsecurity=False).digest()
    check_digests(backend, request, md5=md5, sha256=hashlib.sha256(body).hexdigest())
    return body


def check_upload(backend: Backend, request: S3Request) -> int:
    """Check everything that can be refused before the body is sent, and return the body's size."""
    length = request.http.content_length
    if length is None:
        raise ApiError("MissingContentLength", "You must provide the Content-Length HTTP header")
    if length > OBJECT_LIMIT:
        raise ApiError("EntityTooLarge", f"Your proposed upload exceeds the maximum size of {OBJECT_LIMIT}")
    check_key(request.key)
    for name in UNKNOWN_PUT_HEADERS:
        if name in request.headers:
            raise ApiError("NotImplemented", f"A PUT with {name} is not known here")
    _declared_md5(backend, request.headers)
    return length


def check_key(key: str) -> None:
    if len(key.encode()) > KEY_LIMIT:
        raise ApiError("KeyTooLongError", "Your key is too long")
    if CONTROL.search(key):
        raise ApiError("InvalidArgument", "Your key has control characters in it")


def receive(backend: Backend, request: S3Request) -> ReceivedFile:
    """Receive the body into a file, and compare it with the digests that were declared."""
    upload = backend.store.receive(iter(partial(request.http.stream.read, CHUNK), b""))
    try:
        check_digests(backend, request, md5=bytes.fromhex(upload.md5), sha256=upload.sha256)
    except ApiError:
        backend.store.discard(upload)
        raise
    return upload


def check_digests(backend: Backend, request: S3Request, *, md5: bytes, sha256: str) -> None:
    declared = _declared_md5(backend, request.headers)
    if declared is not None and declared != md5:
        raise ApiError("BadDigest", "The Content-MD5 you specified did not match what we received")
    if request.signature.payload is not None and request.signature.payload != sha256:
        raise ApiError(
            "XAmzContentSHA256Mismatch", "The x-amz-content-sha256 you signed is not that of what we received"
        )


def _declared_md5(backend: Backend, headers: Mapping[str, str]) -> bytes | None:
    text = headers.get("content-md5")
    if text is None or not backend.rules.s3.content_md5_checked:
        return None
    try:
        digest = base64.b64decode(text, validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != hashlib.md5(usedforsecurity=False).digest_size:
        raise ApiError("InvalidDigest", "The Content-MD5 you specified is not valid")
    return digest
