"""Uploads in parts: begun, sent, put together, given up, listed.

The parts' sizes and order are S3's own rules; the ETag of the whole is the MD5 of the parts' MD5s, a dash and
their number.
"""

import hashlib
import secrets
from collections.abc import Iterable, Iterator
from xml.etree import ElementTree

from werkzeug.wrappers import Response

from uecwatchd.sandbox.backend import Realm
from uecwatchd.sandbox.errors import Refused
from uecwatchd.sandbox.http.responses import Payload
from uecwatchd.sandbox.s3.objects import UNTYPED, object_acl, tagged
from uecwatchd.sandbox.s3.request import (
    CHUNK,
    Visit,
    check_key,
    check_upload,
    notes,
    own_bucket,
    owner,
    read_small_body,
    receive,
    time,
    xml,
)
from uecwatchd.sandbox.state.store import StoredObject
from uecwatchd.sandbox.state.unfinished import Multipart, Piece

PART_LIMIT = 10_000  # of numbers
SMALLEST_PART = 5 << 20  # of all but the last


def create(realm: Realm, visit: Visit) -> Response:
    check_key(visit.key)
    bucket = own_bucket(realm, visit.bucket)
    multipart = Multipart(
        id=secrets.token_urlsafe(24),
        bucket=bucket.name,
        key=visit.key,
        acl=object_acl(realm, visit, bucket),
        content_type=visit.headers.get("content-type") or UNTYPED,
        notes=notes(visit.headers),
        started=realm.clock(),
    )
    realm.store.unfinished.begin(multipart)
    words = {"Bucket": bucket.name, "Key": visit.key, "UploadId": multipart.id}
    return xml("InitiateMultipartUploadResult", words)


def put_part(realm: Realm, visit: Visit) -> Response:
    check_upload(realm, visit)
    number = visit.query.get("partNumber", "")
    if not number.isdecimal() or not 0 < int(number) <= PART_LIMIT:
        raise Refused("InvalidArgument", f"Part number must be an integer between 1 and {PART_LIMIT}")
    multipart = _find(realm, visit)
    upload = receive(realm, visit)
    try:
        realm.store.unfinished.add(multipart.id, Piece(int(number), upload.path, upload.size, upload.md5))
    except Refused:
        realm.store.discard(upload)
        raise
    return tagged(realm, upload.md5)


def complete(realm: Realm, visit: Visit) -> Response:
    body = read_small_body(realm, visit)
    multipart = _find(realm, visit)
    pieces = _chosen(_read_list(body), realm.store.unfinished.pieces(multipart.id))
    upload = realm.store.receive(_contents(pieces))
    digests = b"".join(bytes.fromhex(piece.md5) for piece in pieces)
    etag = f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(pieces)}"
    stored = StoredObject(
        bucket=multipart.bucket,
        key=multipart.key,
        path=upload.path,
        size=upload.size,
        etag=etag,
        acl=multipart.acl,
        content_type=multipart.content_type,
        notes=multipart.notes,
        modified=realm.clock(),
    )
    try:
        realm.store.put(stored)
    except Refused:
        realm.store.discard(upload)
        raise
    realm.store.unfinished.drop(multipart.id)
    words = {
        "Location": visit.request.base_url,
        "Bucket": visit.bucket,
        "Key": visit.key,
        "ETag": f'"{etag}"',
    }
    return xml("CompleteMultipartUploadResult", words)


def abort(realm: Realm, visit: Visit) -> Response:
    realm.store.unfinished.drop(_find(realm, visit).id)
    return Response(status=204)


def list_uploads(realm: Realm, visit: Visit) -> Response:
    """All on one page: a test has few."""
    bucket = own_bucket(realm, visit.bucket).name
    uploads: tuple[Payload, ...] = tuple(
        {"Key": one.key, "UploadId": one.id, "Initiated": time(one.started), "Owner": owner(realm)}
        for one in realm.store.unfinished.in_bucket(bucket)
    )
    return xml("ListMultipartUploadsResult", {"Bucket": bucket, "IsTruncated": False, "Upload": uploads})


def list_parts(realm: Realm, visit: Visit) -> Response:
    multipart = _find(realm, visit)
    parts: tuple[Payload, ...] = tuple(
        {"PartNumber": piece.number, "ETag": f'"{piece.md5}"', "Size": piece.size}
        for piece in realm.store.unfinished.pieces(multipart.id)
    )
    words = {"Bucket": visit.bucket, "Key": visit.key, "UploadId": multipart.id}
    return xml("ListPartsResult", {**words, "IsTruncated": False, "Part": parts})


def _find(realm: Realm, visit: Visit) -> Multipart:
    bucket = own_bucket(realm, visit.bucket).name
    return realm.store.unfinished.find(visit.query.get("uploadId", ""), bucket=bucket, key=visit.key)


def _read_list(body: bytes) -> tuple[tuple[int, str], ...]:
    """Number and ETag of each part the client wants, as it lists them."""
    try:
        root = ElementTree.fromstring(body)  # noqa: S314  # expat bounds what entities may grow to
        found = [
            (int(part.findtext("{*}PartNumber", "")), part.findtext("{*}ETag", "").strip('"'))
            for part in root.iterfind("{*}Part")
        ]
    except (ElementTree.ParseError, ValueError) as error:
        raise Refused("MalformedXML", "The list of parts you provided was not well-formed") from error
    if not found:
        raise Refused("MalformedXML", "You must specify at least one part")
    return tuple(found)


def _chosen(wanted: Iterable[tuple[int, str]], pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    held = {(piece.number, piece.md5): piece for piece in pieces}
    numbers = [number for number, _ in wanted]
    if numbers != sorted(set(numbers)):
        raise Refused("InvalidPartOrder", "The list of parts was not in ascending order")
    if missing := [number for number, etag in wanted if (number, etag) not in held]:
        raise Refused("InvalidPart", f"Part {missing[0]} could not be found, or its ETag was another")
    chosen = tuple(held[one] for one in wanted)
    if any(piece.size < SMALLEST_PART for piece in chosen[:-1]):
        raise Refused("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size")
    return chosen


def _contents(pieces: Iterable[Piece]) -> Iterator[bytes]:
    for piece in pieces:
        with piece.path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
