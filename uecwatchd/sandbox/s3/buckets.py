"""Operations on buckets: create, look up, list, delete."""

from collections.abc import Callable
from urllib.parse import quote

from werkzeug.wrappers import Response

from uecwatchd.sandbox.backend import Backend
from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.http.responses import Payload, Value
from uecwatchd.sandbox.s3.listing import cut_page
from uecwatchd.sandbox.s3.request import S3Request, canned_acl, own_bucket, owner, time, xml
from uecwatchd.sandbox.state.store import Bucket, S3Object

PAGE_LIMIT = 1000  # keys in one answer
OWNERSHIP = "x-amz-object-ownership"
ENFORCED = "BucketOwnerEnforced"


def list_buckets(backend: Backend, request: S3Request) -> Response:
    del request
    mine = (bucket for bucket in backend.store.buckets() if bucket.owner == backend.identity.account)
    buckets = tuple({"Name": bucket.name, "CreationDate": time(bucket.created)} for bucket in mine)
    return xml("ListAllMyBucketsResult", {"Owner": owner(backend), "Buckets": {"Bucket": buckets}})


def create_bucket(backend: Backend, request: S3Request) -> Response:
    rules = backend.rules.s3
    if not rules.bucket_name.fullmatch(request.bucket):
        raise ApiError("InvalidBucketName", "Bucket names have 3 to 63 lower-case letters, digits and dashes")
    acl = canned_acl(backend, request.headers)
    takes_acls = request.headers.get(OWNERSHIP, ENFORCED if rules.owner_enforced else "") != ENFORCED
    if acl != "private" and not takes_acls:
        raise ApiError(
            "InvalidBucketAclWithObjectOwnership",
            f"Bucket cannot have ACLs set with ObjectOwnership {ENFORCED}",
        )
    bucket = Bucket(request.bucket, backend.identity.account, acl, backend.clock(), takes_acls=takes_acls)
    backend.store.add_bucket(
        bucket,
        quota=rules.bucket_quota,
        quota_first=rules.quota_first,
        own_bucket_code=rules.own_bucket_code,
    )
    return Response(headers={"Location": f"/{request.bucket}"})


def head_bucket(backend: Backend, request: S3Request) -> Response:
    own_bucket(backend, request.bucket)
    return Response()


def bucket_location(backend: Backend, request: S3Request) -> Response:
    own_bucket(backend, request.bucket)
    return xml("LocationConstraint", {})


def delete_bucket(backend: Backend, request: S3Request) -> Response:
    backend.store.remove_bucket(own_bucket(backend, request.bucket).name)
    return Response(status=204)


def list_objects(backend: Backend, request: S3Request) -> Response:
    """Answer both versions of ListObjects, which name the ends of a page differently."""
    known = backend.rules.s3.listing_keys
    query = {name: value for name, value in request.query.items() if name in known}
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
        raise ApiError("InvalidArgument", "max-keys must be a number, encoding-type url, list-type 2")
    stored = backend.store.objects(own_bucket(backend, request.bucket).name)
    objects = {} if backend.faults.strikes("empty-list") else {one.key: one for one in stored}
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
        "Name": request.bucket,
        "Prefix": encode(prefix),
        "Delimiter": encode(delimiter) or None,
        "MaxKeys": limit,
        "EncodingType": query.get("encoding-type"),
        "IsTruncated": page.last is not None,
        **where,
        "Contents": tuple(_content(backend, objects[key], encode) for key in page.keys),
        "CommonPrefixes": tuple({"Prefix": encode(shared)} for shared in page.prefixes),
    }
    return xml("ListBucketResult", payload)


def _content(backend: Backend, stored: S3Object, encode: Callable[[str], str]) -> Payload:
    return {
        "Key": encode(stored.key),
        "LastModified": time(stored.modified),
        "ETag": f'"{stored.etag}"',
        "Size": stored.size,
        "StorageClass": "STANDARD",
        "Owner": owner(backend),
    }
