"""The S3 half through boto3, with both versions of the signature."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from botocore.handlers import validate_bucket_name
from hypothesis import given, settings
from hypothesis import strategies as st

from uecwatchd.sandbox.s3.listing import cut_page

BOTH = pytest.mark.parametrize("version", ["s3", "s3v4"])


@BOTH
def test_an_object_comes_back_as_it_was_sent(clients: Any, cloud: Any, version: str) -> None:
    s3, key = clients.s3(version=version), f"object-{version}"
    data = bytes(range(256)) * 10_000
    answer = s3.put_object(
        Bucket="images",
        Key=key,
        Body=data,
        ACL="aws-exec-read",
        ContentType="text/plain",
        Metadata={"by": "hand"},
    )
    assert answer["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    head = s3.head_object(Bucket="images", Key=key)
    assert (head["ContentLength"], head["ETag"]) == (len(data), answer["ETag"])
    assert (head["ContentType"], head["Metadata"]) == ("text/plain", {"by": "hand"})
    assert s3.get_object(Bucket="images", Key=key)["Body"].read() == data
    assert s3.get_object(Bucket="images", Key=key, Range="bytes=255-257")["Body"].read() == b"\xff\x00\x01"
    (stored,) = (stored for stored in cloud.objects("images") if stored.key == key)
    assert stored.acl == "aws-exec-read"


@BOTH
def test_buckets_are_made_listed_and_deleted(clients: Any, refusal: Any, version: str) -> None:
    s3, bucket = clients.s3(version=version), f"fresh-{version}"
    assert refusal(s3.head_bucket, Bucket=bucket).status == 404
    s3.create_bucket(Bucket=bucket)
    assert s3.head_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert bucket in [found["Name"] for found in s3.list_buckets()["Buckets"]]
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    assert refusal(s3.delete_bucket, Bucket=bucket)[::2] == ("BucketNotEmpty", 409)
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_bucket(Bucket=bucket)
    assert refusal(s3.delete_bucket, Bucket=bucket)[::2] == ("NoSuchBucket", 404)


def test_an_object_put_again_is_replaced_and_its_old_bytes_are_gone(s3: Any, cloud: Any) -> None:
    s3.put_object(Bucket="images", Key="twice", Body=b"first")
    before = files(cloud)
    s3.put_object(Bucket="images", Key="twice", Body=b"second")
    assert s3.get_object(Bucket="images", Key="twice")["Body"].read() == b"second"
    assert (len(before - files(cloud)), len(files(cloud) - before)) == (1, 1)


def files(cloud: Any) -> set[Path]:
    return set((cloud.folder / "objects").iterdir())


def test_a_missing_object_is_a_404(s3: Any, refusal: Any) -> None:
    assert refusal(s3.get_object, Bucket="images", Key="none")[::2] == ("NoSuchKey", 404)
    assert refusal(s3.head_object, Bucket="images", Key="none").status == 404
    assert refusal(s3.get_object, Bucket="nowhere", Key="none")[::2] == ("NoSuchBucket", 404)
    s3.delete_object(Bucket="images", Key="none")


WRONG = {
    "a wrong Content-MD5": ({"ContentMD5": "1B2M2Y8AsgTpgAmY7PhCfg=="}, "BadDigest", 400),
    "a Content-MD5 that is none": ({"ContentMD5": "1B2M"}, "InvalidDigest", 400),
    "an unknown ACL": ({"ACL": "everybody"}, "InvalidArgument", 400),
    "a key too long": ({"Key": "k" * 1025}, "KeyTooLongError", 400),
    "a key with control characters": ({"Key": "a\tb"}, "InvalidArgument", 400),
    "a condition": ({"IfNoneMatch": "*"}, "NotImplemented", 501),
    "a bucket that is not there": ({"Bucket": "nowhere"}, "NoSuchBucket", 404),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_upload_wrong_in_one_place_is_refused_and_leaves_nothing(
    name: str, s3: Any, cloud: Any, refusal: Any
) -> None:
    arguments, code, status = WRONG[name]
    before = cloud.objects("images"), files(cloud)
    refused = refusal(s3.put_object, **{"Bucket": "images", "Key": "wrong", "Body": b"body", **arguments})
    assert (refused.code, refused.status) == (code, status)
    assert (cloud.objects("images"), files(cloud)) == before


def test_a_body_other_than_the_signed_one_is_refused(clients: Any, cloud: Any, refusal: Any) -> None:
    def swap(request: Any, **_: Any) -> None:
        request.body = b"other"

    s3, before = clients.s3(), files(cloud)
    s3.meta.events.register("before-send.s3.PutObject", swap)
    refused = refusal(s3.put_object, Bucket="images", Key="swapped", Body=b"bytes")
    assert (refused.code, refused.status) == ("XAmzContentSHA256Mismatch", 400)
    assert files(cloud) == before


WRONG_READS = {
    "another version asked for": ({"IfMatch": '"0"'}, "PreconditionFailed", 412),
    "a range beyond the end": ({"Range": "bytes=100-"}, "InvalidRange", 416),
    "a range that is none": ({"Range": "bytes=5-2"}, "InvalidRange", 416),
}


@pytest.mark.parametrize("name", WRONG_READS)
def test_a_read_that_cannot_be_answered_is_refused(name: str, s3: Any, refusal: Any) -> None:
    arguments, code, status = WRONG_READS[name]
    s3.put_object(Bucket="images", Key="read", Body=b"0123456789")
    assert refusal(s3.get_object, Bucket="images", Key="read", **arguments)[::2] == (code, status)


@pytest.mark.parametrize("arguments", [{"MaxKeys": -1}, {"EncodingType": "base64"}])
def test_a_listing_in_no_known_form_is_refused(arguments: dict[str, Any], s3: Any, refusal: Any) -> None:
    assert refusal(s3.list_objects, Bucket="images", **arguments).code == "InvalidArgument"


@pytest.mark.parametrize("name", ["ab", "a" * 64, "Images", "my.images", "my_images"])
def test_a_bucket_name_not_every_generation_takes_is_refused(name: str, clients: Any, refusal: Any) -> None:
    s3 = clients.s3()
    s3.meta.events.unregister("before-parameter-build.s3", validate_bucket_name)
    assert refusal(s3.create_bucket, Bucket=name)[::2] == ("InvalidBucketName", 400)


def test_a_bucket_of_our_own_is_not_made_twice(s3: Any, refusal: Any) -> None:
    assert refusal(s3.create_bucket, Bucket="images")[::2] == ("BucketAlreadyOwnedByYou", 409)


def test_a_bucket_of_somebody_else_is_closed(s3: Any, cloud: Any, refusal: Any) -> None:
    cloud.grant_bucket_to_other("theirs")
    assert refusal(s3.create_bucket, Bucket="theirs")[::2] == ("BucketAlreadyExists", 409)
    assert refusal(s3.head_bucket, Bucket="theirs").status == 403
    assert refusal(s3.list_objects, Bucket="theirs")[::2] == ("AccessDenied", 403)
    assert refusal(s3.put_object, Bucket="theirs", Key="k", Body=b"x")[::2] == ("AccessDenied", 403)
    assert refusal(s3.delete_bucket, Bucket="theirs")[::2] == ("AccessDenied", 403)
    assert "theirs" not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]


NOT_THERE = {
    "copying": ("copy_object", {"Key": "k", "CopySource": "images/j"}, "NotImplemented"),
    "versioning": ("get_bucket_versioning", {}, "NotImplemented"),
    "ACL documents": ("get_object_acl", {"Key": "k"}, "NotImplemented"),
}


@pytest.mark.parametrize("name", NOT_THERE)
def test_what_not_every_generation_has_is_refused_rather_than_ignored(
    name: str, s3: Any, refusal: Any
) -> None:
    call, arguments, code = NOT_THERE[name]
    assert refusal(getattr(s3, call), Bucket="images", **arguments).code == code


@pytest.mark.parametrize("version", [1, 2])
def test_long_listings_come_in_pages(version: int, s3: Any) -> None:
    bucket = f"pages-{version}"
    s3.create_bucket(Bucket=bucket)
    keys = sorted([f"k/{n:02}" for n in range(5)] + ["a b+c", "é", "z"], key=str.encode)
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    paginator = s3.get_paginator("list_objects" if version == 1 else "list_objects_v2")
    pages = list(paginator.paginate(Bucket=bucket, PaginationConfig={"PageSize": 3}))
    assert [found["Key"] for page in pages for found in page["Contents"]] == keys
    assert len(pages) == 3
    folded = list(paginator.paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 2}))
    assert [p["Prefix"] for page in folded for p in page.get("CommonPrefixes", [])] == ["k/"]
    inside = s3.list_objects(Bucket=bucket, Prefix="k/", Marker="k/01")
    assert [found["Key"] for found in inside["Contents"]] == ["k/02", "k/03", "k/04"]


@given(
    st.sets(st.text("ab/", min_size=1, max_size=5), max_size=12),
    st.text("ab/", max_size=2),
    st.sampled_from(["", "/"]),
    st.integers(1, 4),
)
@settings(max_examples=200, deadline=None)
def test_pages_put_together_are_the_whole_listing(
    keys: set[str], prefix: str, delimiter: str, limit: int
) -> None:
    ordered = sorted(keys)
    whole = cut_page(ordered, prefix=prefix, delimiter=delimiter, after="", limit=1000)
    assert whole.last is None
    found: tuple[list[str], list[str]] = ([], [])
    after: str | None = ""
    while after is not None:
        page = cut_page(ordered, prefix=prefix, delimiter=delimiter, after=after, limit=limit)
        assert 0 < len(page.keys) + len(page.prefixes) <= limit or not after
        found[0].extend(page.keys)
        found[1].extend(page.prefixes)
        after = page.last
    assert (tuple(found[0]), tuple(found[1])) == (whole.keys, whole.prefixes)
    assert all(key.startswith(whole.prefixes) or key in whole.keys for key in keys if key.startswith(prefix))
