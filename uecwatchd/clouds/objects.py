"""The bucket of a bundle and its objects: made when missing, filled, and read back."""

import hashlib
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from io import SEEK_CUR, SEEK_END, SEEK_SET, RawIOBase
from typing import Any

from botocore.exceptions import ClientError

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.errors.refusals import RefusalRow
from uecwatchd.clouds.errors.translate import code_of, status_of, translated
from uecwatchd.errors import Deferred, Halted, Rejected
from uecwatchd.system import failpoints
from uecwatchd.types import StoredObject

# What any generation takes, and nothing that a path could misread. Which of it names a *new* bucket is the
# dialect's to say: one that exists was taken once, by an older version or another server than today's.
BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,254}")
CHOOSE_A_NAME = "Choose 3 to 63 lower case letters, digits and hyphens, with no hyphen at either end."

# Answers to a canned ACL from stores that have none: Ceph, AWS since 2023, Swift.
ACL_REFUSALS = frozenset({"InvalidArgument", "AccessControlListNotSupported", "NotImplemented"})

# Keys in one page of a list, which is also the most that any server gives.
PAGE_KEYS = 1000

# More than two terabytes in parts, as they are listed; and pages, of a server that gives few keys in each.
MOST_KEYS = 200_000
MOST_PAGES = 2000

# Longer than any digest. Other headers are as long as their sender likes.
ETAG_CHARACTERS = 64
# What a web server on the way adds to one while it packs answers, or only might: nginx, Apache, Jetty.
WEAK = re.compile(r'w/(?=")|(?<![-;])[-;]+(?:gzip|br|deflate|zstd)(?="?$)')
MD5 = re.compile("[0-9a-f]{32}")

# How much of an object is in memory while it is read back: as much as makes the calls cheap.
FETCH_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object as a bucket lists it. `modified` is in seconds of the epoch, infinite if it is not said."""

    key: str
    size: int  #: bytes
    modified: float


def check_bucket_name(bucket: str, *, from_config: bool) -> None:
    """Raise `Halted` for a bad name in the configuration, `Rejected` for one in a sidecar."""
    if BUCKET_NAME.fullmatch(bucket):
        return
    kind = Halted if from_config else Rejected
    raise kind(
        f"bucket {bucket!r}",
        "no cloud takes that as a bucket's name",
        CHOOSE_A_NAME,
    )


def ensure_bucket(cloud: Cloud, bucket: str) -> bool:
    """Ensure that the bucket exists and is ours; return True if it was made now.

    Raises `Halted` if it is another's or may not be made.

    It is looked for before it is made: some servers check the quota first, and count it twice.
    """
    with cloud.bucket_lock:
        if _is_there(cloud, bucket):
            return False
        check_bucket_can_be_made(cloud, bucket)
        with failpoints.effect("make bucket"):
            _make(cloud, bucket)
        return True


def check_bucket_can_be_made(cloud: Cloud, bucket: str) -> None:
    """Raise `Halted` if the cloud makes no bucket of this name."""
    if not cloud.dialect.bucket_pattern.fullmatch(bucket):
        raise Halted(
            f"cloud {cloud.name}: bucket {bucket}",
            "it is not there, and the cloud makes none of such a name",
            CHOOSE_A_NAME,
        )


def _make(cloud: Cloud, bucket: str) -> None:
    # us-east-1 is the one region of AWS that must not be named.
    region = cloud.s3.meta.region_name
    is_named = cloud.dialect.regional and region != "us-east-1"
    place = {"CreateBucketConfiguration": {"LocationConstraint": region}} if is_named else {}
    with translated(cloud, f"making bucket {bucket}"):
        try:
            cloud.s3.create_bucket(Bucket=bucket, **place)
        except ClientError as error:
            # Another host may just have made it for us; Eucalyptus 3 then says that it exists, no more.
            if code_of(error) == "BucketAlreadyOwnedByYou" or _is_there(cloud, bucket):
                return
            raise


def _is_there(cloud: Cloud, bucket: str) -> bool:
    if cloud.dialect.head_bucket and (answer := _headed(cloud, bucket)) is not None:
        return answer
    # One key is listed: the first generations have no HEAD for buckets, and no HEAD can say a reason.
    with translated(cloud, f"looking for bucket {bucket}"):
        try:
            cloud.s3.list_objects(Bucket=bucket, MaxKeys=1)
        except ClientError as error:
            if code_of(error) == "NoSuchBucket":
                return False
            raise
    return True


def _headed(cloud: Cloud, bucket: str) -> bool | None:
    """Return the answer to HEAD for a bucket; None if the refusal has a reason that HEAD cannot tell."""
    with translated(cloud, f"looking for bucket {bucket}"):
        try:
            cloud.s3.head_bucket(Bucket=bucket)
        except ClientError as error:
            return False if status_of(error) == HTTPStatus.NOT_FOUND else None
    return True


class UploadBody(RawIOBase):
    """The body of a PUT: bytes as a file, without a second copy."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # typeshed wants any Buffer
        piece = self._data[self._at : self._at + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def seek(self, offset: int, whence: int = SEEK_SET, /) -> int:
        self._at = offset + {SEEK_SET: 0, SEEK_CUR: self._at, SEEK_END: len(self._data)}[whence]
        return self._at

    def tell(self) -> int:
        return self._at


def put_object(
    cloud: Cloud, bucket: str, key: str, data: bytes | memoryview, *, is_for_cloud: bool = True
) -> StoredObject:
    """Store an object, and see by its ETag that it arrived as it was sent; `Deferred` if it did not.

    One that `is_for_cloud` may be read by the cloud itself, as far as the store has ACLs.
    Where that is no MD5 of it, as of a store that packs or encrypts, the object is read back instead.
    """
    md5 = hashlib.md5(data)
    request = {
        "Bucket": bucket,
        "Key": key,
        "Body": UploadBody(data),  # read in pieces, each with a time-out of its own: a slow line may be slow
        "ContentLength": len(data),
        "ContentMD5": b64encode(md5.digest()).decode(),
    }
    doing = f"uploading {bucket}/{key}"
    with translated(cloud, doing):
        answer = _put_readable(cloud, bucket, request) if is_for_cloud else _put(cloud, request)
    stored = StoredObject(key, len(data), _etag(answer))
    # With a key of its own service AWS forms the ETag from the encrypted bytes.
    is_encrypted_there = str(answer.get("ServerSideEncryption", "")).startswith("aws:kms")
    if is_encrypted_there or stored.etag == md5.hexdigest():
        return stored
    says_nothing = "ServerSideEncryption" in answer or not MD5.fullmatch(stored.etag)
    if says_nothing and _md5_there(cloud, bucket, key) == md5.hexdigest():
        return stored
    raise Deferred(
        f"cloud {cloud.name}, {doing}",
        f"it has stored other bytes than were sent (its ETag is {stored.etag or 'missing'},"
        f" the MD5 {md5.hexdigest()})",
        "If that goes on, suspect a proxy on the way or the server's disk.",
    )


def _put_readable(cloud: Cloud, bucket: str, request: dict[str, Any]) -> dict[str, Any]:
    """Put an object that the cloud itself may read, as far as the store behind it has ACLs at all."""
    acl = cloud.dialect.canned_acl
    if acl is None or bucket in cloud.without_acl:
        return _put(cloud, request)
    try:
        return _put(cloud, request | {"ACL": acl})
    except ClientError as error:
        if code_of(error) not in ACL_REFUSALS:
            raise
    answer = _put(cloud, request)
    cloud.without_acl.add(bucket)
    return answer


def _put(cloud: Cloud, request: dict[str, Any]) -> dict[str, Any]:
    request["Body"].seek(0)
    answer: dict[str, Any] = cloud.s3.put_object(**request)
    return answer


def _etag(answer: Mapping[str, Any]) -> str:
    return WEAK.sub("", str(answer.get("ETag", "")).strip().lower()).strip('"')[:ETAG_CHARACTERS]


def _md5_there(cloud: Cloud, bucket: str, key: str) -> str:
    """Return the MD5 of an object as fetched; the MD5 of nothing if it is not there, or not yet."""
    digest = hashlib.md5()
    with suppress(Rejected):
        for piece in fetch_object(cloud, bucket, key):
            digest.update(piece)
    return digest.hexdigest()


def fetch_object(cloud: Cloud, bucket: str, key: str) -> Iterator[bytes]:
    """Fetch an object, yielding its bytes as they arrive. Raises `Rejected` if it is not there."""
    with translated(cloud, f"fetching {bucket}/{key}"):
        answer = cloud.s3.get_object(Bucket=bucket, Key=key)
        with closing(answer["Body"]) as body:
            yield from body.iter_chunks(FETCH_BYTES)


def fetch_piece(
    cloud: Cloud,
    bucket: str,
    stored: StoredObject,
    begin: int,
    length: int,
    *,
    first: Sequence[RefusalRow] = (),
) -> bytes:
    """Fetch a piece of an object; `begin` and `length` are in bytes.

    Raises Rejected if the object is not there, Deferred if it is another one by now.
    """
    doing = f"fetching {bucket}/{stored.key}"
    with translated(cloud, doing, first=first):
        answer = cloud.s3.get_object(
            Bucket=bucket, Key=stored.key, Range=f"bytes={begin}-{begin + length - 1}"
        )
        with closing(answer["Body"]) as body:
            data: bytes = body.read()
    if _etag(answer) != stored.etag or len(data) != length:
        raise Deferred(f"cloud {cloud.name}, {doing}", "it has just been replaced", "It is fetched again.")
    return data


def is_same_object(stored: StoredObject | None, data: bytes | memoryview) -> bool:
    """Tell whether the bucket lists exactly these bytes, as far as size and ETag can tell."""
    if stored is None or stored.size != len(data):
        return False
    return stored.etag == hashlib.md5(data).hexdigest()


def remove_object(cloud: Cloud, bucket: str, key: str) -> None:
    """Delete an object; one that is not there is deleted already."""
    with translated(cloud, f"deleting {bucket}/{key}"), failpoints.effect("remove object"):
        try:
            cloud.s3.delete_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if status_of(error) != HTTPStatus.NOT_FOUND:
                raise


def remove_empty_bucket(cloud: Cloud, bucket: str) -> bool:
    """Delete a bucket if nothing is in it. Returns False if there is something, or the cloud says so."""
    if next(list_objects(cloud, bucket, "", page_keys=1), None):
        return False
    with translated(cloud, f"deleting bucket {bucket}"), failpoints.effect("remove bucket"):
        try:
            cloud.s3.delete_bucket(Bucket=bucket)
        except ClientError as error:
            if code_of(error) == "BucketNotEmpty":
                return False
            if status_of(error) != HTTPStatus.NOT_FOUND:
                raise
    return True


def list_objects(
    cloud: Cloud,
    bucket: str,
    prefix: str,
    *,
    page_keys: int = PAGE_KEYS,
    first: Sequence[RefusalRow] = (),
) -> Iterator[StoredObject]:
    """List the objects whose keys begin with `prefix`, in the order of the keys.

    `first` are refusals that mean something else than in a bucket of ours; so it is below.
    """
    for one in _listed(cloud, bucket, prefix, page_keys, first):
        yield StoredObject(str(one.get("Key")), int(one.get("Size") or 0), _etag(one))


def list_dated_objects(cloud: Cloud, bucket: str) -> Iterator[ListedObject]:
    """List all objects of a bucket with the times of their last change; none if there is no such bucket."""
    if _is_there(cloud, bucket):
        for one in _listed(cloud, bucket, "", PAGE_KEYS):
            modified = _moment(str(one.get("LastModified") or ""))
            yield ListedObject(str(one.get("Key")), int(one.get("Size") or 0), modified)


def _moment(text: str) -> float:
    """Return a time in seconds of the epoch, infinite for one that is missing or in another form."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return float("inf")
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _listed(
    cloud: Cloud, bucket: str, prefix: str, page_keys: int, first: Sequence[RefusalRow] = ()
) -> Iterator[Mapping[str, Any]]:
    seen: set[str] = set()
    after: dict[str, str] = {}
    doing = f"listing {bucket}/{prefix}*"
    for _ in range(MOST_PAGES):
        with translated(cloud, doing, first=first):
            page = cloud.s3.list_objects(Bucket=bucket, Prefix=prefix, MaxKeys=page_keys, **after)
        found = page.get("Contents", [])
        new = [one for one in found if one.get("Key") not in seen]
        seen.update(str(one.get("Key")) for one in new)
        yield from new
        if not page.get("IsTruncated") or not found:
            return
        if not new or len(seen) > MOST_KEYS:
            break
        after = {"Marker": str(found[-1].get("Key"))}  # NextMarker is only sent to those who give a delimiter
    raise Deferred(
        f"cloud {cloud.name}, {doing}",
        f"its list does not come to an end ({len(seen)} keys so far)",
        "If that goes on, ask its administrator to look at its S3 service.",
    )


def _is_the_same(there: StoredObject | None, sent: StoredObject) -> bool:
    """Tell whether the two may be equal: ETags can be compared if both are digests, or if they are equal."""
    if there is None or there.size != sent.size:
        return False
    return there.etag == sent.etag or not (MD5.fullmatch(there.etag) and MD5.fullmatch(sent.etag))


def check_objects(cloud: Cloud, bucket: str, prefix: str, sent: Iterable[StoredObject]) -> None:
    """Check by sizes and ETags that a bucket holds what was sent. Raises `Deferred`, naming what is wrong."""
    there = {one.key: one for one in list_objects(cloud, bucket, prefix)}
    wrong = [one for one in sent if not _is_the_same(there.get(one.key), one)]
    if not wrong:
        return
    first = wrong[0]
    other = there.get(first.key)
    why = f"it has {other.size} bytes and the ETag {other.etag}" if other else "it is not there any more"
    others = f", and {len(wrong) - 1} more are not as they were sent" if len(wrong) > 1 else ""
    raise Deferred(
        f"cloud {cloud.name}, looking over {bucket}/{first.key}",
        f"{why}; {first.size} bytes with the ETag {first.etag} were sent{others}",
        "They are sent again by themselves; if that goes on, look who else writes to the bucket.",
    )
