"""Objects: put, got, deleted."""

from http import HTTPStatus

from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.wrappers import Response
from werkzeug.wsgi import wrap_file

from uecwatchd.sandbox.backend import Realm
from uecwatchd.sandbox.errors import Refused
from uecwatchd.sandbox.s3.request import (
    CHUNK,
    NOTE,
    Visit,
    canned_acl,
    check_upload,
    notes,
    own_bucket,
    receive,
)
from uecwatchd.sandbox.state.store import Bucket, StoredObject

_UNTYPED = "binary/octet-stream"
# The one canned ACL that says what such a bucket does anyway.
OWNERS_ACL = "bucket-owner-full-control"


def put_object(realm: Realm, visit: Visit) -> Response:
    length = check_upload(realm, visit)
    bucket = own_bucket(realm, visit.bucket)
    acl = _object_acl(realm, visit, bucket)
    _check_room(realm, visit, length=length)
    upload = receive(realm, visit)
    stored = StoredObject(
        bucket=bucket.name,
        key=visit.key,
        path=upload.path,
        size=upload.size,
        etag=upload.md5,
        acl=acl,
        content_type=visit.headers.get("content-type") or _UNTYPED,
        notes=notes(visit.headers),
        modified=realm.clock(),
    )
    try:
        realm.store.put(stored)
    except Refused:
        realm.store.discard(upload)
        raise
    return _with_etag(realm, upload.md5)


def _object_acl(realm: Realm, visit: Visit, bucket: Bucket) -> str:
    acl = canned_acl(realm, visit.headers)
    if not bucket.takes_acls and visit.headers.get("x-amz-acl", OWNERS_ACL) != OWNERS_ACL:
        raise Refused("AccessControlListNotSupported", "The bucket does not allow ACLs")
    return acl


def _check_room(realm: Realm, visit: Visit, *, length: int) -> None:
    limit = realm.rules.s3.bucket_size
    if limit is None:
        return
    others = (stored.size for stored in realm.store.objects(visit.bucket) if stored.key != visit.key)
    if sum(others) + length > limit:
        raise Refused("EntityTooLarge", "Your proposed upload exceeds the maximum allowed object size.")


def _with_etag(realm: Realm, etag: str) -> Response:
    return Response(headers={"ETag": f'"{etag}"' if realm.rules.s3.etag_quoted else etag})


def get_object(realm: Realm, visit: Visit) -> Response:
    """Also HEAD: the body is left off by the wrapper. Ranges and conditions are werkzeug's."""
    bucket = own_bucket(realm, visit.bucket).name
    stored, file = realm.store.open(bucket, visit.key)
    response = Response(wrap_file(visit.request.environ, file, CHUNK), direct_passthrough=True)
    response.call_on_close(file.close)
    response.content_length = stored.size
    response.content_type = stored.content_type
    response.last_modified = stored.modified
    response.set_etag(stored.etag)
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
    realm.store.remove(own_bucket(realm, visit.bucket).name, visit.key)
    return Response(status=204)
