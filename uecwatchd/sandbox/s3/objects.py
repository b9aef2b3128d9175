"""Operations on objects: put, get, delete."""

from http import HTTPStatus

from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.wrappers import Response
from werkzeug.wsgi import wrap_file

from uecwatchd.sandbox.backend import Backend
from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.s3.request import (
    CHUNK,
    NOTE,
    S3Request,
    canned_acl,
    check_upload,
    own_bucket,
    receive,
    user_metadata,
)
from uecwatchd.sandbox.state.store import Bucket, S3Object

_UNTYPED = "binary/octet-stream"
# The one canned ACL that says what such a bucket does anyway.
OWNERS_ACL = "bucket-owner-full-control"


def put_object(backend: Backend, request: S3Request) -> Response:
    length = check_upload(backend, request)
    bucket = own_bucket(backend, request.bucket)
    acl = _object_acl(backend, request, bucket)
    _check_bucket_size(backend, request, length=length)
    upload = receive(backend, request)
    stored = S3Object(
        bucket=bucket.name,
        key=request.key,
        path=upload.path,
        size=upload.size,
        etag=upload.md5,
        acl=acl,
        content_type=request.headers.get("content-type") or _UNTYPED,
        metadata=user_metadata(request.headers),
        modified=backend.clock(),
    )
    try:
        backend.store.put(stored)
    except ApiError:
        backend.store.discard(upload)
        raise
    etag = f'"{upload.md5}"' if backend.rules.s3.etag_quoted else upload.md5
    return Response(headers={"ETag": etag})


def _object_acl(backend: Backend, request: S3Request, bucket: Bucket) -> str:
    acl = canned_acl(backend, request.headers)
    if not bucket.takes_acls and request.headers.get("x-amz-acl", OWNERS_ACL) != OWNERS_ACL:
        raise ApiError("AccessControlListNotSupported", "The bucket does not allow ACLs")
    return acl


def _check_bucket_size(backend: Backend, request: S3Request, *, length: int) -> None:
    limit = backend.rules.s3.bucket_size
    if limit is None:
        return
    others = (stored.size for stored in backend.store.objects(request.bucket) if stored.key != request.key)
    if sum(others) + length > limit:
        raise ApiError("EntityTooLarge", "Your proposed upload exceeds the maximum allowed object size.")


def get_object(backend: Backend, request: S3Request) -> Response:
    """Answer GetObject and HeadObject, with ranges and conditions as werkzeug knows them.

    For HEAD the server leaves out the body.
    """
    bucket = own_bucket(backend, request.bucket).name
    stored, file = backend.store.open(bucket, request.key)
    response = Response(wrap_file(request.http.environ, file, CHUNK), direct_passthrough=True)
    response.call_on_close(file.close)
    response.content_length = stored.size
    response.content_type = stored.content_type
    response.last_modified = stored.modified
    response.set_etag(stored.etag)
    for name, value in stored.metadata.items():
        response.headers[f"{NOTE}{name}"] = value
    try:
        response.make_conditional(request.http, accept_ranges=True, complete_length=stored.size)
    except RequestedRangeNotSatisfiable as error:
        response.close()
        raise ApiError("InvalidRange", "The requested range cannot be satisfied") from error
    if response.status_code == HTTPStatus.PRECONDITION_FAILED:
        response.close()
        raise ApiError("PreconditionFailed", "At least one of the conditions you gave did not hold")
    return response


def delete_object(backend: Backend, request: S3Request) -> Response:
    """Delete an object; a missing one counts as deleted."""
    backend.store.remove(own_bucket(backend, request.bucket).name, request.key)
    return Response(status=204)
