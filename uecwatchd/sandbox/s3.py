"""The S3 half: buckets and objects by path, as Walrus had them.

Multipart uploads, copies, versions and ACL documents do not exist here: not every generation has them, and
nothing that would have to be ignored to go on is ignored.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from urllib.parse import quote

from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.wrappers import Request, Response
from werkzeug.wsgi import wrap_file

from uecwatchd.sandbox.listing import cut_page
from uecwatchd.sandbox.parameters import CONTROL
from uecwatchd.sandbox.realm import Realm
from uecwatchd.sandbox.refusal import Refused
from uecwatchd.sandbox.reply import Payload, Value, write_s3
from uecwatchd.sandbox.signature import SUB_RESOURCES, Proof, Wire, check_s3, read_pairs
from uecwatchd.sandbox.store import Bucket, StoredObject, Upload

CHUNK = 1 << 20  # what an upload holds in memory
OBJECT_LIMIT = 5 << 30  # S3's own limit for one PUT
BODY_LIMIT = 64 * 1024  # of any other request; a bucket's configuration is the largest
KEY_LIMIT = 1024  # bytes of UTF-8
PAGE_LIMIT = 1000  # keys in one answer

CANNED_ACLS = frozenset(
    (
        *("private", "public-read", "public-read-write", "authenticated-read", "aws-exec-read"),
        *("bucket-owner-read", "bucket-owner-full-control", "ec2-bundle-read", "log-delivery-write"),
    )
)
LIST_KEYS = frozenset(
    (
        *("prefix", "marker", "max-keys", "delimiter", "encoding-type"),
        *("list-type", "continuation-token", "start-after", "fetch-owner"),
    )
)
# SDKs name the operation in the URL; it changes nothing.
HARMLESS_KEYS = frozenset({"x-id"})
# Headers that change what a PUT means.
UNKNOWN_PUT_HEADERS = ("x-amz-copy-source", "if-match", "if-none-match", "content-range")
NOTE = "x-amz-meta-"


@dataclass(frozen=True, slots=True)
class Visit:
    """One request, its signature checked."""

    request: Request
    headers: Mapping[str, str]
    query: Mapping[str, str]
    proof: Proof
    bucket: str
    key: str


def operation(method: str, bucket: str, key: str, query: str) -> str:
    """The operation's name in S3's own words, or nothing if there is none."""
    names = {name for name, _ in read_pairs(query)}
    if method == "GET" and bucket and not key and "location" in names:
        return "GetBucketLocation"
    level = "object" if key else "bucket" if bucket else "service"
    return OPERATIONS.get((level, method), "")


def answer(realm: Realm, request: Request, wire: Wire, *, bucket: str, key: str) -> Response:
    """Raises `Refused`."""
    proof = check_s3(wire, secrets=realm.secrets, now=realm.clock(), rules=realm.rules.s3)
    name = operation(wire.method, bucket, key, wire.query)
    if not name:
        raise Refused("MethodNotAllowed", "The specified method is not allowed against this resource")
    handle, known = HANDLERS[name]
    query = dict(read_pairs(wire.query))
    for unknown in query.keys() - known - HARMLESS_KEYS:
        code = "NotImplemented" if unknown in SUB_RESOURCES else "InvalidArgument"
        raise Refused(code, f"The query key {unknown} is not known here")
    visit = Visit(request, wire.headers, query, proof, bucket, key)
    if name != "PutObject":
        _check_small_body(visit)
    return handle(realm, visit)


def _check_small_body(visit: Visit) -> None:
    if (visit.request.content_length or 0) > BODY_LIMIT:
        raise Refused("RequestEntityTooLarge", f"The request's body is larger than {BODY_LIMIT} bytes")
    body = visit.request.get_data()
    _check_digests(
        visit, md5=hashlib.md5(body, usedforsecurity=False).digest(), sha256=hashlib.sha256(body).hexdigest()
    )


def _check_digests(visit: Visit, *, md5: bytes, sha256: str) -> None:
    declared = _declared_md5(visit.headers)
    if declared is not None and declared != md5:
        raise Refused("BadDigest", "The Content-MD5 you specified did not match what we received")
    if visit.proof.payload is not None and visit.proof.payload != sha256:
        raise Refused(
            "XAmzContentSHA256Mismatch", "The x-amz-content-sha256 you signed is not that of what we received"
        )


def _declared_md5(headers: Mapping[str, str]) -> bytes | None:
    text = headers.get("content-md5")
    if text is None:
        return None
    try:
        digest = base64.b64decode(text, validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != hashlib.md5(usedforsecurity=False).digest_size:
        raise Refused("InvalidDigest", "The Content-MD5 you specified is not valid")
    return digest


def _own_bucket(realm: Realm, name: str) -> Bucket:
    bucket = realm.store.bucket(name)
    if bucket.owner != realm.identity.account:
        raise Refused("AccessDenied", "Access Denied")
    return bucket


def _canned_acl(headers: Mapping[str, str]) -> str:
    acl = headers.get("x-amz-acl", "private")
    if acl not in CANNED_ACLS:
        raise Refused("InvalidArgument", f"The canned ACL {acl} is not known")
    return acl


def _xml(root: str, payload: Payload) -> Response:
    return Response(write_s3(root, payload), mimetype="application/xml")


def _time(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _owner(realm: Realm) -> Payload:
    return {"ID": realm.identity.account, "DisplayName": "admin"}


# buckets


def list_buckets(realm: Realm, visit: Visit) -> Response:
    del visit
    mine = (bucket for bucket in realm.store.buckets() if bucket.owner == realm.identity.account)
    buckets = tuple({"Name": bucket.name, "CreationDate": _time(bucket.created)} for bucket in mine)
    return _xml("ListAllMyBucketsResult", {"Owner": _owner(realm), "Buckets": {"Bucket": buckets}})


def create_bucket(realm: Realm, visit: Visit) -> Response:
    if not realm.rules.s3.bucket_name.fullmatch(visit.bucket):
        raise Refused("InvalidBucketName", "Bucket names have 3 to 63 lower-case letters, digits and dashes")
    bucket = Bucket(visit.bucket, realm.identity.account, _canned_acl(visit.headers), realm.clock())
    realm.store.add_bucket(bucket, quota=realm.rules.s3.bucket_quota)
    return Response(headers={"Location": f"/{visit.bucket}"})


def head_bucket(realm: Realm, visit: Visit) -> Response:
    _own_bucket(realm, visit.bucket)
    return Response()


def bucket_location(realm: Realm, visit: Visit) -> Response:
    _own_bucket(realm, visit.bucket)
    return _xml("LocationConstraint", {})


def delete_bucket(realm: Realm, visit: Visit) -> Response:
    realm.store.remove_bucket(_own_bucket(realm, visit.bucket).name)
    return Response(status=204)


def list_objects(realm: Realm, visit: Visit) -> Response:
    """Both versions: they differ in the words for where a page begins and ends."""
    query = visit.query
    second = query.get("list-type") == "2"
    after = (
        query.get("continuation-token") or query.get("start-after", "") if second else query.get("marker", "")
    )
    limit = query.get("max-keys", str(PAGE_LIMIT))
    if (
        not limit.isdecimal()
        or query.get("encoding-type", "url") != "url"
        or query.get("list-type", "2") != "2"
    ):
        raise Refused("InvalidArgument", "max-keys must be a number, encoding-type url, list-type 2")
    objects = {stored.key: stored for stored in realm.store.objects(_own_bucket(realm, visit.bucket).name)}
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    page = cut_page(
        objects, prefix=prefix, delimiter=delimiter, after=after, limit=min(int(limit), PAGE_LIMIT)
    )
    encode: Callable[[str], str] = quote if "encoding-type" in query else str
    where: Payload = (
        {"KeyCount": len(page.keys) + len(page.prefixes), "NextContinuationToken": page.last}
        if second
        else {"Marker": encode(after), "NextMarker": page.last and encode(page.last)}
    )
    payload: dict[str, Value] = {
        "Name": visit.bucket,
        "Prefix": encode(prefix),
        "Delimiter": encode(delimiter) or None,
        "MaxKeys": limit,
        "EncodingType": query.get("encoding-type"),
        "IsTruncated": page.last is not None,
        **where,
        "Contents": tuple(_content(realm, objects[key], encode) for key in page.keys),
        "CommonPrefixes": tuple({"Prefix": encode(shared)} for shared in page.prefixes),
    }
    return _xml("ListBucketResult", payload)


def _content(realm: Realm, stored: StoredObject, encode: Callable[[str], str]) -> Payload:
    return {
        "Key": encode(stored.key),
        "LastModified": _time(stored.modified),
        "ETag": f'"{stored.md5}"',
        "Size": stored.size,
        "StorageClass": "STANDARD",
        "Owner": _owner(realm),
    }


# objects


def put_object(realm: Realm, visit: Visit) -> Response:
    _check_put(visit)
    acl = _canned_acl(visit.headers)
    bucket = _own_bucket(realm, visit.bucket).name
    upload = realm.store.receive(_chunks(visit.request))
    try:
        _check_digests(visit, md5=bytes.fromhex(upload.md5), sha256=upload.sha256)
        realm.store.put(_stored(realm, visit, upload, bucket=bucket, acl=acl))
    except Refused:
        realm.store.discard(upload)
        raise
    return Response(headers={"ETag": f'"{upload.md5}"'})


def _check_put(visit: Visit) -> None:
    """Everything that can be refused before the body is sent."""
    length = visit.request.content_length
    if length is None:
        raise Refused("MissingContentLength", "You must provide the Content-Length HTTP header")
    if length > OBJECT_LIMIT:
        raise Refused("EntityTooLarge", f"Your proposed upload exceeds the maximum size of {OBJECT_LIMIT}")
    if len(visit.key.encode()) > KEY_LIMIT:
        raise Refused("KeyTooLongError", "Your key is too long")
    if CONTROL.search(visit.key):
        raise Refused("InvalidArgument", "Your key has control characters in it")
    for name in UNKNOWN_PUT_HEADERS:
        if name in visit.headers:
            raise Refused("NotImplemented", f"A PUT with {name} is not known here")
    _declared_md5(visit.headers)


def _chunks(request: Request) -> Iterator[bytes]:
    while chunk := request.stream.read(CHUNK):
        yield chunk


def _stored(realm: Realm, visit: Visit, upload: Upload, *, bucket: str, acl: str) -> StoredObject:
    headers = visit.headers
    return StoredObject(
        bucket=bucket,
        key=visit.key,
        path=upload.path,
        size=upload.size,
        md5=upload.md5,
        acl=acl,
        content_type=headers.get("content-type") or "binary/octet-stream",
        notes={name.removeprefix(NOTE): value for name, value in headers.items() if name.startswith(NOTE)},
        modified=realm.clock(),
    )


def get_object(realm: Realm, visit: Visit) -> Response:
    """Also HEAD: the body is left off by the wrapper. Ranges and conditions are werkzeug's."""
    bucket = _own_bucket(realm, visit.bucket).name
    stored, file = realm.store.open(bucket, visit.key)
    response = Response(wrap_file(visit.request.environ, file, CHUNK), direct_passthrough=True)
    response.call_on_close(file.close)
    response.content_length = stored.size
    response.content_type = stored.content_type
    response.last_modified = stored.modified
    response.set_etag(stored.md5)
    for name, value in stored.notes.items():
        response.headers[f"{NOTE}{name}"] = value
    try:
        response.make_conditional(visit.request, accept_ranges=True, complete_length=stored.size)
    except RequestedRangeNotSatisfiable as error:
        response.close()
        raise Refused("InvalidRange", "The requested range cannot be satisfied") from error
    if response.status_code == HTTPStatus.PRECONDITION_FAILED:
        response.close()
        raise Refused("PreconditionFailed", "At least one of the conditions you gave did not hold")
    return response


def delete_object(realm: Realm, visit: Visit) -> Response:
    """An object that is not there is deleted as well."""
    realm.store.remove(_own_bucket(realm, visit.bucket).name, visit.key)
    return Response(status=204)


OPERATIONS: Mapping[tuple[str, str], str] = {
    ("service", "GET"): "ListBuckets",
    ("bucket", "PUT"): "CreateBucket",
    ("bucket", "HEAD"): "HeadBucket",
    ("bucket", "GET"): "ListObjects",
    ("bucket", "DELETE"): "DeleteBucket",
    ("object", "PUT"): "PutObject",
    ("object", "GET"): "GetObject",
    ("object", "HEAD"): "HeadObject",
    ("object", "DELETE"): "DeleteObject",
}

# Each operation's handler, and the query keys it knows.
HANDLERS: Mapping[str, tuple[Callable[[Realm, Visit], Response], frozenset[str]]] = {
    "ListBuckets": (list_buckets, frozenset()),
    "CreateBucket": (create_bucket, frozenset()),
    "HeadBucket": (head_bucket, frozenset()),
    "GetBucketLocation": (bucket_location, frozenset({"location"})),
    "ListObjects": (list_objects, LIST_KEYS),
    "DeleteBucket": (delete_bucket, frozenset()),
    "PutObject": (put_object, frozenset()),
    "GetObject": (get_object, frozenset()),
    "HeadObject": (get_object, frozenset()),
    "DeleteObject": (delete_object, frozenset()),
}
