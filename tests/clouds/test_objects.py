import hashlib
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.objects import (
    check_bucket_name,
    check_objects,
    ensure_bucket,
    fetch_object,
    list_objects,
    put_object,
    remove_object,
)
from uecwatchd.errors import CloudAway, Deferred, Halted, Rejected
from uecwatchd.types import StoredObject

DATA = b"encrypted"
MD5 = hashlib.md5(DATA).hexdigest()


def error(code: str) -> str:
    return f"<Error><Code>{code}</Code><Message>no</Message></Error>"


# --- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bucket", ["abc", "uec-images", "9-9", "a" * 63, "UEC-Images", "my_images", "a.b.c"])
def test_a_bucket_name_that_some_cloud_accepts_is_valid(bucket: str) -> None:
    check_bucket_name(bucket, from_config=True)


BAD_NAMES = [
    "",
    "ab",
    "a" * 256,
    "-abc",
    ".abc",
    "_abc",
    "a b",
    "a?b",
    "a/b",
    "büc",
    "abc\n",
    "../x",
]


@pytest.mark.parametrize("bucket", BAD_NAMES)
def test_a_bad_bucket_name_halts_or_rejects_depending_on_its_source(bucket: str) -> None:
    with pytest.raises(Halted):
        check_bucket_name(bucket, from_config=True)
    with pytest.raises(Rejected, match="no cloud takes that"):
        check_bucket_name(bucket, from_config=False)


# --- the bucket --------------------------------------------------------------------------------------------


def test_an_existing_bucket_is_not_created_again(cloud: Cloud, script: Any) -> None:
    script.says(body="<ListBucketResult/>")
    ensure_bucket(cloud, "images")
    assert [request.method for request in script.requests] == ["GET"]


def test_a_missing_bucket_is_made(cloud: Cloud, script: Any) -> None:
    script.says(404, error("NoSuchBucket"))
    script.says()
    ensure_bucket(cloud, "images")
    assert [request.method for request in script.requests] == ["GET", "PUT"]
    assert script.requests[1].body == b""


OLD_NAMES = ["UEC-Images", "my_images", "images.of.2009", "a" * 64]


@pytest.mark.parametrize("bucket", OLD_NAMES)
@pytest.mark.parametrize("dialect", ["uec", "euca3", "euca4", "euca5"])
def test_walrus_creates_buckets_with_its_own_naming_rules(
    scripted: Callable[[str], Cloud], script: Any, dialect: str, bucket: str
) -> None:
    script.says(404, error("NoSuchBucket"))
    script.says(200)
    ensure_bucket(scripted(dialect), bucket)
    assert script.requests[-1].method == "PUT"


@pytest.mark.parametrize("bucket", ["UEC-Images", "my_images", "a..b", "a" * 64])
@pytest.mark.parametrize("dialect", ["openstack", "aws", "sandbox"])
def test_a_bucket_name_that_is_no_longer_allowed_is_not_requested(
    scripted: Callable[[str], Cloud], script: Any, dialect: str, bucket: str
) -> None:
    script.says(404, error("NoSuchBucket"))
    with pytest.raises(Halted, match=f"bucket {bucket}: it is not there, and the cloud makes none"):
        ensure_bucket(scripted(dialect), bucket)
    assert {request.method for request in script.requests} <= {"GET", "HEAD"}


@pytest.mark.parametrize("bucket", OLD_NAMES)
@pytest.mark.parametrize("dialect", ["openstack", "aws", "sandbox"])
def test_a_bucket_that_exists_is_taken_whatever_its_name(
    scripted: Callable[[str], Cloud], script: Any, dialect: str, bucket: str
) -> None:
    script.says(body="<ListBucketResult/>")
    ensure_bucket(scripted(dialect), bucket)
    assert len(script.requests) == 1


def test_a_bucket_that_another_thread_just_made_is_fine(cloud: Cloud, script: Any) -> None:
    script.says(404, error("NoSuchBucket"))
    script.says(409, error("BucketAlreadyOwnedByYou"))
    ensure_bucket(cloud, "images")


def test_a_bucket_said_only_to_exist_is_looked_at_once_more(cloud: Cloud, script: Any) -> None:
    script.says(404, error("NoSuchBucket"))
    script.says(409, error("BucketAlreadyExists"))
    script.says(body="<ListBucketResult/>")
    ensure_bucket(cloud, "images")


def test_a_bucket_of_somebody_else_halts(cloud: Cloud, script: Any) -> None:
    script.says(403, error("AccessDenied"))
    with pytest.raises(Halted, match=r"looking for bucket images: .* the bucket is another account's"):
        ensure_bucket(cloud, "images")


def test_an_existing_bucket_that_is_not_listed_halts(cloud: Cloud, script: Any) -> None:
    script.says(404, error("NoSuchBucket"))
    script.says(409, error("BucketAlreadyExists"))
    script.says(404, error("NoSuchBucket"))
    with pytest.raises(Halted, match="making bucket images: the bucket belongs to another account"):
        ensure_bucket(cloud, "images")


def test_a_bucket_beyond_the_quota_halts(cloud: Cloud, script: Any) -> None:
    script.says(404, error("NoSuchBucket"))
    script.says(400, error("TooManyBuckets"))
    script.says(404, error("NoSuchBucket"))
    with pytest.raises(Halted, match="our account may have no more buckets"):
        ensure_bucket(cloud, "images")


def test_a_bucket_is_checked_by_head_where_the_cloud_has_it(
    scripted: Callable[[str], Cloud], script: Any
) -> None:
    script.says()
    ensure_bucket(scripted("euca4"), "images")
    assert [request.method for request in script.requests] == ["HEAD"]


def test_the_reason_of_a_failed_head_is_requested(scripted: Callable[[str], Cloud], script: Any) -> None:
    script.says(403)
    script.says(403, error("InvalidAccessKeyId"))
    with pytest.raises(Halted, match="does not know our access key"):
        ensure_bucket(scripted("euca4"), "images")
    assert [request.method for request in script.requests] == ["HEAD", "GET"]


# --- objects -----------------------------------------------------------------------------------------------


ETAGS = {
    "quoted": f'"{MD5}"',
    "bare": MD5,
    "upper case": f'"{MD5.upper()}"',
    "weak": f'W/"{MD5}"',
    "packed by Apache": f'"{MD5}-gzip"',
    "packed by Jetty": f'"{MD5}--gzip"',
    "packed, and bare": f"{MD5}-br",
    "weak and packed": f'W/"{MD5};gzip"',
}


@pytest.mark.parametrize("etag", ETAGS.values(), ids=ETAGS)
def test_an_etag_is_compared_with_our_own_md5(cloud: Cloud, script: Any, etag: str) -> None:
    script.says(ETag=etag)
    put_object(cloud, "images", "karmic.part.0", DATA)


@pytest.mark.parametrize("etag", ["-" * 60000, ";-" * 30000, "-gzi" * 15000])
def test_an_etag_takes_no_longer_to_read_than_its_length(cloud: Cloud, script: Any, etag: str) -> None:
    script.says(ETag=etag)
    script.says(body=DATA.decode())
    begun = time.process_time()
    put_object(cloud, "images", "karmic.part.0", DATA)
    assert time.process_time() - begun < 3


def test_a_part_with_another_etag_is_deferred(cloud: Cloud, script: Any) -> None:
    script.says(ETag=f'"{"0" * 32}"')
    with pytest.raises(
        Deferred, match=rf"uploading images/karmic\.part\.0: it has stored other bytes.*{MD5}"
    ):
        put_object(cloud, "images", "karmic.part.0", DATA)


SAYING_NOTHING = {
    "of several parts": {"ETag": f'"{"0" * 32}-1"'},
    "no hex": {"ETag": '"CKih16GjycICEAE="'},
    "shorter": {"ETag": '"5d8c72a5"'},
    "none": {},
    "of encrypted bytes": {"ETag": f'"{"0" * 32}"', "x_amz_server_side_encryption": "AES256"},
}


@pytest.mark.parametrize("headers", SAYING_NOTHING.values(), ids=SAYING_NOTHING)
def test_bytes_are_read_back_if_the_etag_is_no_digest(
    cloud: Cloud, script: Any, headers: dict[str, str]
) -> None:
    script.says(**headers)
    script.says(body=DATA.decode())
    put_object(cloud, "images", "karmic.part.0", DATA)
    assert [request.method for request in script.requests] == ["PUT", "GET"]


@pytest.mark.parametrize("headers", SAYING_NOTHING.values(), ids=SAYING_NOTHING)
@pytest.mark.parametrize(
    ("status", "there"), [(200, "other"), (404, error("NoSuchKey"))], ids=["another object", "none"]
)
def test_a_different_read_back_is_deferred(
    cloud: Cloud, script: Any, headers: dict[str, str], status: int, there: str
) -> None:
    script.says(**headers)
    script.says(status, there)
    with pytest.raises(Deferred, match="it has stored other bytes than were sent"):
        put_object(cloud, "images", "karmic.part.0", DATA)


def test_an_etag_made_of_encrypted_bytes_is_not_compared(cloud: Cloud, script: Any) -> None:
    script.says(ETag=f'"{"0" * 32}"', x_amz_server_side_encryption="aws:kms")
    put_object(cloud, "images", "karmic.part.0", DATA)


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "InvalidArgument"), (400, "AccessControlListNotSupported"), (501, "NotImplemented")],
)
def test_a_store_without_acls_is_asked_once_with_one(
    scripted: Callable[[str], Cloud], script: Any, status: int, code: str
) -> None:
    cloud = scripted("euca4")
    script.says(status, error(code))
    for _ in range(3):
        script.says(ETag=MD5)
    for key in ("one", "two"):
        put_object(cloud, "images", key, DATA)
    put_object(cloud, "other", "one", DATA)
    sent = [
        (request.path.removeprefix("/services/Walrus/"), "x-amz-acl" in request.headers)
        for request in script.requests
    ]
    assert sent == [("images/one", True), ("images/one", False), ("images/two", False), ("other/one", True)]
    assert {request.body for request in script.requests} == {DATA}


def test_an_argument_that_is_invalid_for_another_reason_is_reported(
    scripted: Callable[[str], Cloud], script: Any
) -> None:
    script.says(400, error("InvalidArgument"))
    script.says(400, error("InvalidArgument"))
    cloud = scripted("euca4")
    with pytest.raises(Rejected, match="InvalidArgument"):
        put_object(cloud, "images", "karmic.part.0", DATA)
    assert cloud.without_acl == set()


def test_an_object_is_fetched_in_pieces(cloud: Cloud, script: Any) -> None:
    script.says(body="x" * 700_000)
    pieces = list(fetch_object(cloud, "images", "karmic.part.0"))
    assert len(pieces) == 3
    assert b"".join(pieces) == b"x" * 700_000


def test_an_object_cut_short_is_an_error_not_an_end(cloud: Cloud, script: Any) -> None:
    script.says(body="x" * 700_000, sent=300_000)
    with pytest.raises(CloudAway, match=r"fetching images/karmic\.part\.0: the connection broke"):
        list(fetch_object(cloud, "images", "karmic.part.0"))


@pytest.mark.parametrize("status", [204, 404])
def test_an_object_that_is_gone_is_deleted(cloud: Cloud, script: Any, status: int) -> None:
    script.says(status)
    remove_object(cloud, "images", "karmic.part.0")
    assert [request.method for request in script.requests] == ["DELETE"]


def test_an_object_of_another_user_is_not_deleted(cloud: Cloud, script: Any) -> None:
    script.says(403, error("AccessDenied"))
    with pytest.raises(Halted, match=r"deleting images/karmic\.part\.0: our account may not do that"):
        remove_object(cloud, "images", "karmic.part.0")


# --- a bucket looked over ----------------------------------------------------------------------------------


def page(*keys: str, more: bool) -> str:
    found = "".join(
        f"<Contents><Key>{key}</Key><Size>{len(DATA)}</Size><ETag>&quot;{MD5}&quot;</ETag></Contents>"
        for key in keys
    )
    return f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{found}</ListBucketResult>"


def test_a_listing_continues_after_its_last_key(cloud: Cloud, script: Any) -> None:
    script.says(body=page("k.0", "k.1", more=True))
    script.says(body=page("k.2", more=False))
    assert list(list_objects(cloud, "images", "k.")) == [
        StoredObject(f"k.{index}", len(DATA), MD5) for index in range(3)
    ]
    first, second = (dict(parse_qsl(urlsplit(request.path).query)) for request in script.requests)
    assert second == first | {"marker": "k.1"}


def test_a_truncated_listing_without_keys_ends(cloud: Cloud, script: Any) -> None:
    script.says(body=page(more=True))
    assert list(list_objects(cloud, "images", "k.")) == []


SENT = [StoredObject(f"k.{i}", len(DATA), MD5) for i in range(3)]


def test_an_object_as_it_was_sent_passes_the_check(cloud: Cloud, script: Any) -> None:
    script.says(body=page("k.0", "k.1", "k.2", "k.of-somebody-else", more=False))
    check_objects(cloud, "images", "k.", SENT)


@pytest.mark.parametrize(
    "listed_etag", ['W/"MD5"', '"MD5-gzip"', "", '"x-1"'], ids=["weak", "packed", "none", "of several parts"]
)
def test_etags_in_a_listing_may_have_another_form(cloud: Cloud, script: Any, listed_etag: str) -> None:
    there = page("k.0", "k.1", "k.2", more=False).replace(
        f"&quot;{MD5}&quot;", listed_etag.replace("MD5", MD5)
    )
    script.says(body=there)
    check_objects(cloud, "images", "k.", SENT)


@pytest.mark.parametrize(
    "moment",
    ["", "yesterday", "2026-02-31T99:00:00Z", "Sat, 28 Nov 2026 22:28:40 -0000 GMT", "0", "99999999999999"],
)
def test_the_date_format_of_a_listing_does_not_matter(cloud: Cloud, script: Any, moment: str) -> None:
    times = f"<Key>k.0</Key><LastModified>{moment}</LastModified>"
    script.says(body=page("k.0", more=False).replace("<Key>k.0</Key>", times))
    assert list(list_objects(cloud, "images", "k.")) == [StoredObject("k.0", len(DATA), MD5)]
    for header in ("last_modified", "expires"):
        script.says(body="data", **{header: moment or "-"})
        assert b"".join(fetch_object(cloud, "images", "k.0")) == b"data"


@pytest.mark.parametrize(
    ("there", "why"),
    [
        pytest.param(page("k.0", "k.2", more=False), r"k\.1: it is not there any more; 9 bytes", id="gone"),
        pytest.param(
            page("k.0", more=False), r"k\.1: .* and 1 more are not as they were sent", id="two gone"
        ),
        pytest.param(
            page("k.0", "k.1", "k.2", more=False).replace("<Size>9<", "<Size>8<"),
            r"k\.0: it has 8 bytes and the ETag",
            id="cut short",
        ),
        pytest.param(
            page("k.0", "k.1", "k.2", more=False).replace(MD5, "0" * 32),
            r"k\.0: it has 9 bytes and the ETag 0{32}",
            id="other bytes",
        ),
    ],
)
def test_an_object_that_differs_is_deferred(cloud: Cloud, script: Any, there: str, why: str) -> None:
    script.says(body=there)
    with pytest.raises(Deferred, match=why):
        check_objects(cloud, "images", "k.", SENT)
