"""The S3 half: the operation of a request, and its absence in some generations.

Copies, versions, ACL documents and multipart uploads are answered with 501 NotImplemented: a client for every
generation can do without them, and no sub-resource is ever ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from werkzeug.wrappers import Request, Response

from uecwatchd.sandbox.backend import Backend
from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.http.head import RequestHead, read_pairs
from uecwatchd.sandbox.http.signature import SUB_RESOURCES, VerifiedSignature, check_s3
from uecwatchd.sandbox.rules.s3 import S3Rules
from uecwatchd.sandbox.s3 import buckets, objects
from uecwatchd.sandbox.s3.request import Handler, S3Request, read_small_body


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. `keys` are the query keys it knows; with `reads` it reads its body by itself."""

    run: Handler
    keys: frozenset[str] = frozenset()
    reads: bool = False


OPERATIONS: Mapping[str, Operation] = {
    "ListBuckets": Operation(buckets.list_buckets),
    "CreateBucket": Operation(buckets.create_bucket),
    "HeadBucket": Operation(buckets.head_bucket),
    "GetBucketLocation": Operation(buckets.bucket_location, frozenset({"location"})),
    "ListObjects": Operation(buckets.list_objects),
    "DeleteBucket": Operation(buckets.delete_bucket),
    "PutObject": Operation(objects.put_object, reads=True),
    "GetObject": Operation(objects.get_object),
    "HeadObject": Operation(objects.get_object),
    "DeleteObject": Operation(objects.delete_object),
}

# By level, method, and the query key that makes it another operation.
NAMES: Mapping[tuple[str, str, str], str] = {
    ("service", "GET", ""): "ListBuckets",
    ("bucket", "PUT", ""): "CreateBucket",
    ("bucket", "HEAD", ""): "HeadBucket",
    ("bucket", "GET", ""): "ListObjects",
    ("bucket", "GET", "location"): "GetBucketLocation",
    ("bucket", "DELETE", ""): "DeleteBucket",
    ("object", "PUT", ""): "PutObject",
    ("object", "GET", ""): "GetObject",
    ("object", "HEAD", ""): "HeadObject",
    ("object", "DELETE", ""): "DeleteObject",
}


def operation(method: str, bucket: str, key: str, query: str) -> str:
    """Return S3's own name for the operation, or an empty text if there is none."""
    names = {name for name, _ in read_pairs(query)}
    level = "bucket" if bucket else "service"
    if key:
        level = "object"
    sub_resource = "location" if "location" in names else ""
    return NAMES.get((level, method, sub_resource)) or NAMES.get((level, method, ""), "")


def authenticate(backend: Backend, head: RequestHead) -> VerifiedSignature:
    """Check who signed the request. Raises `Unauthenticated`."""
    return check_s3(head, secrets=backend.secrets, now=backend.clock(), rules=backend.rules.s3)


def answer(
    backend: Backend, http: Request, head: RequestHead, signature: VerifiedSignature, *, bucket: str, key: str
) -> Response:
    """Carry out the operation and return its answer. Raises `ApiError`."""
    query = dict(read_pairs(head.query))
    found = _find(backend.rules.s3, operation(head.method, bucket, key, head.query), query)
    request = S3Request(http, head.headers, query, signature, bucket, key)
    if not found.reads:
        read_small_body(backend, request)
    return found.run(backend, request)


def _find(rules: S3Rules, name: str, query: Mapping[str, str]) -> Operation:
    """Return the operation of that name, if this generation has it and knows or ignores each query key.

    Raises `ApiError`: NotImplemented for a sub-resource, which makes any request another operation.
    """
    found = OPERATIONS.get(name)
    keys = found.keys if found else frozenset()
    for key in query.keys() & SUB_RESOURCES - keys:
        raise ApiError("NotImplemented", f"The query key {key} is not implemented here")
    if found is None or (name == "HeadBucket" and not rules.head_bucket):
        raise ApiError("MethodNotAllowed", "The specified method is not allowed against this resource")
    known = keys | rules.harmless_keys | (rules.listing_keys if name == "ListObjects" else frozenset())
    if rules.unknown_key_code:
        for key in query.keys() - known:
            raise ApiError(rules.unknown_key_code, f"Failed to bind the following fields: {key}")
    return found
