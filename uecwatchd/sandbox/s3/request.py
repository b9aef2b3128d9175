"""One S3 request whose sender is known, and what every operation asks of it."""

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from werkzeug.wrappers import Request, Response

from uecwatchd.sandbox.backend import Realm
from uecwatchd.sandbox.ec2.parameters import CONTROL
from uecwatchd.sandbox.errors import Refused
from uecwatchd.sandbox.http.responses import Payload, write_s3
from uecwatchd.sandbox.http.signature import Proof
from uecwatchd.sandbox.state.store import Bucket, Upload

CHUNK = 1 << 20  # what an upload holds in memory
OBJECT_LIMIT = 5 << 30  # S3's own limit for one PUT
BODY_LIMIT = 64 * 1024  # bytes of any other request; none that is known here needs as much
KEY_LIMIT = 1024  # bytes of UTF-8
NOTE = "x-amz-meta-"
# Headers that change what a PUT means.
UNKNOWN_PUT_HEADERS = ("x-amz-copy-source", "x-amz-trailer", "if-match", "if-none-match", "content-range")


@dataclass(frozen=True, slots=True)
class Visit:
    request: Request
    headers: Mapping[str, str]  # names in lower case
    query: Mapping[str, str]
    proof: Proof
    bucket: str
    key: str


Handler = Callable[[Realm, Visit], Response]


def own_bucket(realm: Realm, name: str) -> Bucket:
    bucket = realm.store.bucket(name)
    if bucket.owner != realm.identity.account:
        raise Refused("AccessDenied", "Access Denied")
    return bucket


def canned_acl(realm: Realm, headers: Mapping[str, str]) -> str:
    acl = headers.get("x-amz-acl", "private")
    if acl not in realm.rules.s3.canned_acls:
        raise Refused("InvalidArgument", f"The canned ACL {acl} is not known")
    return acl


def notes(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name.removeprefix(NOTE): value for name, value in headers.items() if name.startswith(NOTE)}


def xml(root: str, payload: Payload) -> Response:
    return Response(write_s3(root, payload), mimetype="application/xml")


def time(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def owner(realm: Realm) -> Payload:
    return {"ID": realm.identity.account, "DisplayName": "admin"}


# bodies


def read_small_body(realm: Realm, visit: Visit) -> bytes:
    """The body of anything but an upload."""
    if (visit.request.content_length or 0) > BODY_LIMIT:
        raise Refused("RequestEntityTooLarge", f"The request's body is larger than {BODY_LIMIT} bytes")
    body = visit.request.get_data()
    md5 = hashlib.md5(body, usedforsecurity=False).digest()
    check_digests(realm, visit, md5=md5, sha256=hashlib.sha256(body).hexdigest())
    return body


def check_upload(realm: Realm, visit: Visit) -> int:
    """Everything that can be refused before the body is sent. The body's size."""
    length = visit.request.content_length
    if length is None:
        raise Refused("MissingContentLength", "You must provide the Content-Length HTTP header")
    if length > OBJECT_LIMIT:
        raise Refused("EntityTooLarge", f"Your proposed upload exceeds the maximum size of {OBJECT_LIMIT}")
    check_key(visit.key)
    for name in UNKNOWN_PUT_HEADERS:
        if name in visit.headers:
            raise Refused("NotImplemented", f"A PUT with {name} is not known here")
    _declared_md5(realm, visit.headers)
    return length


def check_key(key: str) -> None:
    if len(key.encode()) > KEY_LIMIT:
        raise Refused("KeyTooLongError", "Your key is too long")
    if CONTROL.search(key):
        raise Refused("InvalidArgument", "Your key has control characters in it")


def receive(realm: Realm, visit: Visit) -> Upload:
    """The body, on disk and what it was said to be."""
    upload = realm.store.receive(_chunks(visit.request))
    try:
        check_digests(realm, visit, md5=bytes.fromhex(upload.md5), sha256=upload.sha256)
    except Refused:
        realm.store.discard(upload)
        raise
    return upload


def _chunks(request: Request) -> Iterator[bytes]:
    while chunk := request.stream.read(CHUNK):
        yield chunk


def check_digests(realm: Realm, visit: Visit, *, md5: bytes, sha256: str) -> None:
    declared = _declared_md5(realm, visit.headers)
    if declared is not None and declared != md5:
        raise Refused("BadDigest", "The Content-MD5 you specified did not match what we received")
    if visit.proof.payload is not None and visit.proof.payload != sha256:
        raise Refused(
            "XAmzContentSHA256Mismatch", "The x-amz-content-sha256 you signed is not that of what we received"
        )


def _declared_md5(realm: Realm, headers: Mapping[str, str]) -> bytes | None:
    text = headers.get("content-md5")
    if text is None or not realm.rules.s3.content_md5_checked:
        return None
    try:
        digest = base64.b64decode(text, validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != hashlib.md5(usedforsecurity=False).digest_size:
        raise Refused("InvalidDigest", "The Content-MD5 you specified is not valid")
    return digest
