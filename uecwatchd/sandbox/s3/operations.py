"""The S3 half: which operation a request is, and whether this generation has it.

Copies, versions and ACL documents do not exist here: not every generation has them, and nothing that would
have to be ignored to go on is ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from werkzeug.wrappers import Request, Response

from uecwatchd.sandbox.backend import Realm
from uecwatchd.sandbox.errors import Refused
from uecwatchd.sandbox.http.signature import SUB_RESOURCES, Proof, Wire, check_s3, read_pairs
from uecwatchd.sandbox.rules.s3 import S3Rules
from uecwatchd.sandbox.s3 import buckets, multipart, objects
from uecwatchd.sandbox.s3.request import Handler, Visit, read_small_body


@dataclass(frozen=True, slots=True)
class Operation:
    """`keys` are the query keys it knows. `reads`: it takes in its body by itself."""

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
    "CreateMultipartUpload": Operation(multipart.create, frozenset({"uploads"})),
    "UploadPart": Operation(multipart.put_part, frozenset({"uploadId", "partNumber"}), reads=True),
    "CompleteMultipartUpload": Operation(multipart.complete, frozenset({"uploadId"}), reads=True),
    "AbortMultipartUpload": Operation(multipart.abort, frozenset({"uploadId"})),
    "ListMultipartUploads": Operation(multipart.list_uploads, frozenset({"uploads"})),
    "ListParts": Operation(multipart.list_parts, frozenset({"uploadId"})),
}

# By level, method, and the query key that makes it another operation.
NAMES: Mapping[tuple[str, str, str], str] = {
    ("service", "GET", ""): "ListBuckets",
    ("bucket", "PUT", ""): "CreateBucket",
    ("bucket", "HEAD", ""): "HeadBucket",
    ("bucket", "GET", ""): "ListObjects",
    ("bucket", "GET", "location"): "GetBucketLocation",
    ("bucket", "GET", "uploads"): "ListMultipartUploads",
    ("bucket", "DELETE", ""): "DeleteBucket",
    ("object", "PUT", ""): "PutObject",
    ("object", "GET", ""): "GetObject",
    ("object", "HEAD", ""): "HeadObject",
    ("object", "DELETE", ""): "DeleteObject",
    ("object", "POST", "uploads"): "CreateMultipartUpload",
    ("object", "PUT", "uploadId"): "UploadPart",
    ("object", "GET", "uploadId"): "ListParts",
    ("object", "POST", "uploadId"): "CompleteMultipartUpload",
    ("object", "DELETE", "uploadId"): "AbortMultipartUpload",
}
IN_PARTS = frozenset(name for (_, _, key), name in NAMES.items() if key in ("uploads", "uploadId"))
MAKES_ANOTHER = ("location", "uploads", "uploadId")


def operation(method: str, bucket: str, key: str, query: str) -> str:
    """The operation's name in S3's own words, or nothing if there is none."""
    names = {name for name, _ in read_pairs(query)}
    level = "object" if key else "bucket" if bucket else "service"
    other = next((name for name in MAKES_ANOTHER if name in names), "")
    return NAMES.get((level, method, other)) or NAMES.get((level, method, ""), "")


def authenticate(realm: Realm, wire: Wire) -> Proof:
    """Raises `Unproven`."""
    return check_s3(wire, secrets=realm.secrets, now=realm.clock(), rules=realm.rules.s3)


def answer(realm: Realm, request: Request, wire: Wire, proof: Proof, *, bucket: str, key: str) -> Response:
    """Raises `Refused`."""
    query = dict(read_pairs(wire.query))
    found = _find(realm.rules.s3, operation(wire.method, bucket, key, wire.query), query)
    visit = Visit(request, wire.headers, query, proof, bucket, key)
    if not found.reads:
        read_small_body(realm, visit)
    return found.run(realm, visit)


def _find(rules: S3Rules, name: str, query: Mapping[str, str]) -> Operation:
    """An operation of this generation, all query keys of which it knows or ignores."""
    found = OPERATIONS.get(name)
    if found is None or name in _lacking(rules):
        raise Refused("MethodNotAllowed", "The specified method is not allowed against this resource")
    known = found.keys | rules.harmless_keys | (rules.listing_keys if name == "ListObjects" else frozenset())
    for unknown in query.keys() - known:
        _refuse_key(rules, unknown)
    return found


def _lacking(rules: S3Rules) -> frozenset[str]:
    head = frozenset() if rules.head_bucket else frozenset({"HeadBucket"})
    return head if rules.multipart else head | IN_PARTS


def _refuse_key(rules: S3Rules, key: str) -> None:
    """A key that names a part of the resource makes it another operation: no generation ignores those."""
    if key in SUB_RESOURCES:
        raise Refused("NotImplemented", f"The query key {key} is not known here")
    if rules.unknown_key_code:
        raise Refused(rules.unknown_key_code, f"Failed to bind the following fields: {key}")
