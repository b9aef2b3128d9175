"""Buckets: made, looked at, listed, deleted."""

from collections.abc import Callable
from urllib.parse import quote

from werkzeug.wrappers import Response

from uecwatchd.sandbox.backend import Realm
from uecwatchd.sandbox.errors import Refused
from uecwatchd.sandbox.http.responses import Payload, Value
from uecwatchd.sandbox.s3.listing import cut_page
from uecwatchd.sandbox.s3.request import Visit, canned_acl, own_bucket, owner, time, xml
from uecwatchd.sandbox.state.store import Bucket, StoredObject

PAGE_LIMIT = 1000  # keys in one answer
OWNERSHIP = "x-amz-object-ownership"
ENFORCED = "BucketOwnerEnforced"


def list_buckets(realm: Realm, visit: Visit) -> Response:
    del visit
    mine = (bucket for bucket in realm.store.buckets() if bucket.owner == realm.identity.account)
    buckets = tuple({"Name": bucket.name, "CreationDate": time(bucket.created)} for bucket in mine)
    return xml("ListAllMyBucketsResult", {"Owner": owner(realm), "Buckets": {"Bucket": buckets}})


def create_bucket(realm: Realm, visit: Visit) -> Response:
    rules = realm.rules.s3
    if not rules.bucket_name.fullmatch(visit.bucket):
        raise Refused("InvalidBucketName", "Bucket names have 3 to 63 lower-case letters, digits and dashes")
    acl, takes_acls = canned_acl(realm, visit.headers), _takes_acls(realm, visit)
    if acl != "private" and not takes_acls:
        raise Refused(
            "InvalidBucketAclWithObjectOwnership",
            f"Bucket cannot have ACLs set with ObjectOwnership {ENFORCED}",
        )
    bucket = Bucket(visit.bucket, realm.identity.account, acl, realm.clock(), takes_acls=takes_acls)
    realm.store.add_bucket(
        bucket,
        quota=rules.bucket_quota,
        quota_first=rules.quota_first,
        own_bucket_code=rules.own_bucket_code,
    )
    return Response(headers={"Location": f"/{visit.bucket}"})


def _takes_acls(realm: Realm, visit: Visit) -> bool:
    default = ENFORCED if realm.rules.s3.owner_enforced else ""
    return visit.headers.get(OWNERSHIP, default) != ENFORCED


def head_bucket(realm: Realm, visit: Visit) -> Response:
    own_bucket(realm, visit.bucket)
    return Response()


def bucket_location(realm: Realm, visit: Visit) -> Response:
    own_bucket(realm, visit.bucket)
    return xml("LocationConstraint", {})


def delete_bucket(realm: Realm, visit: Visit) -> Response:
    realm.store.remove_bucket(own_bucket(realm, visit.bucket).name)
    return Response(status=204)


def list_objects(realm: Realm, visit: Visit) -> Response:
    """Both versions: they differ in the words for where a page begins and ends."""
    known = realm.rules.s3.listing_keys
    query = {name: value for name, value in visit.query.items() if name in known}
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
    objects = {stored.key: stored for stored in realm.store.objects(own_bucket(realm, visit.bucket).name)}
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
    return xml("ListBucketResult", payload)


def _content(realm: Realm, stored: StoredObject, encode: Callable[[str], str]) -> Payload:
    return {
        "Key": encode(stored.key),
        "LastModified": time(stored.modified),
        "ETag": f'"{stored.etag}"',
        "Size": stored.size,
        "StorageClass": "STANDARD",
        "Owner": owner(realm),
    }
