"""Requests that the S3 half of one generation accepts and another refuses, in tables for all of them."""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.handlers import set_list_objects_encoding_type_url

from tests.support.generations import over
from uecwatchd.sandbox.rules.generations import RULES
from uecwatchd.sandbox.server import Sandbox
from uecwatchd.sandbox.state.store import Bucket

# How a client of each generation signs.
SIGNED = {
    "sandbox": "s3v4",
    "uec": "s3",
    "euca3": "s3",
    "euca4": "s3",
    "euca5": "s3v4",
    "openstack": "s3v4",
    "aws": "s3v4",
}


@pytest.fixture
def cloud(generation: str, clouds: Callable[[str], Sandbox]) -> Iterator[Sandbox]:
    """Empty again afterwards, since some generations allow five buckets only."""
    running = clouds(generation)
    yield running
    store = running.backend.store
    for bucket in store.buckets():
        for stored in store.objects(bucket.name):
            store.remove(bucket.name, stored.key)
        store.remove_bucket(bucket.name)


@pytest.fixture
def s3(cloud: Sandbox, generation: str, make_clients: Any) -> Any:
    client = make_clients(cloud).s3(version=SIGNED[generation])
    client.meta.events.unregister("before-parameter-build.s3.ListObjects", set_list_objects_encoding_type_url)
    return client


@pytest.fixture
def bucket(s3: Any, serial: Iterator[int]) -> str:
    """Of another name each time: some generations refuse to see one signature twice."""
    name = f"images-{next(serial)}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="module")
def serial() -> Iterator[int]:
    return itertools.count()


def outcome(call: Callable[..., Any], **arguments: Any) -> str:
    """`ok`, or the code that the call is refused with: the bare status if there was no code."""
    try:
        call(**arguments)
    except ClientError as error:
        found: str = error.response["Error"]["Code"]
        return found
    return "ok"


# queries and methods


@over(
    sandbox="ok",
    uec="InternalError",
    euca3="InvalidArgument",
    euca4="ok",
    euca5="ok",
    openstack="ok",
    aws="ok",
)
def test_a_query_key_of_later_days_is_refused_or_not(
    expected: str, cloud: Sandbox, bucket: str, generation: str, make_clients: Any
) -> None:
    """boto3 adds encoding-type to every listing by itself."""
    s3 = make_clients(cloud).s3(version=SIGNED[generation])
    assert outcome(s3.list_objects, Bucket=bucket) == expected
    if expected != "ok":
        assert "Failed to bind the following fields: encoding-type" in cloud.refusals[-1].message


@over(sandbox=True, uec=None, euca3=None, euca4=False, euca5=False, openstack=True, aws=True)
def test_the_second_version_of_listings_is_refused_ignored_or_there(
    expected: bool | None,  # noqa: FBT001  # a parameter of the table
    bucket: str,
    s3: Any,
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    if expected is None:
        assert outcome(s3.list_objects_v2, Bucket=bucket) != "ok"
    else:
        answer = s3.list_objects_v2(Bucket=bucket)
        assert ([found["Key"] for found in answer["Contents"]], "KeyCount" in answer) == (["k"], expected)


@pytest.mark.parametrize("generation", RULES)
def test_a_listing_as_the_oldest_had_it_works_everywhere(bucket: str, s3: Any) -> None:
    for key in ("a", "b", "c"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    page = s3.list_objects(Bucket=bucket, Prefix="", Marker="a", MaxKeys=1)
    assert ([found["Key"] for found in page["Contents"]], page["IsTruncated"]) == (["b"], True)


@pytest.mark.parametrize("generation", RULES)
def test_a_part_of_a_resource_is_never_ignored(bucket: str, s3: Any) -> None:
    assert outcome(s3.get_bucket_acl, Bucket=bucket) == "NotImplemented"


@over(sandbox="ok", uec="405", euca3="405", euca4="ok", euca5="ok", openstack="ok", aws="ok")
def test_buckets_can_be_asked_for_or_not(expected: str, bucket: str, s3: Any) -> None:
    assert outcome(s3.head_bucket, Bucket=bucket) == expected


# buckets


@over(
    sandbox="BucketAlreadyOwnedByYou",
    uec="BucketAlreadyOwnedByYou",
    euca3="BucketAlreadyExists",
    euca4="ok",
    euca5="ok",
    openstack="BucketAlreadyOwnedByYou",
    aws="BucketAlreadyOwnedByYou",
)
def test_a_bucket_of_our_own_made_again(expected: str, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    assert outcome(s3.create_bucket, Bucket=bucket, ACL="private") == expected
    assert len(s3.list_objects(Bucket=bucket)["Contents"]) == 1


@pytest.mark.parametrize("generation", RULES)
def test_a_bucket_of_somebody_else_is_taken(cloud: Sandbox, s3: Any) -> None:
    cloud.grant_bucket_to_other("theirs")
    assert outcome(s3.create_bucket, Bucket="theirs") == "BucketAlreadyExists"
    assert outcome(s3.put_object, Bucket="theirs", Key="k", Body=b"x") == "AccessDenied"


@over(
    sandbox=(100, "BucketAlreadyOwnedByYou"),
    uec=(5, "TooManyBuckets"),
    euca3=(5, "BucketAlreadyExists"),
    euca4=(100, "ok"),
    euca5=(100, "ok"),
    openstack=(100, "BucketAlreadyOwnedByYou"),
    aws=(100, "BucketAlreadyOwnedByYou"),
)
def test_a_full_account_can_make_no_bucket_and_on_the_oldest_not_even_its_own_again(
    expected: tuple[int, str], cloud: Sandbox, s3: Any
) -> None:
    quota, again = expected
    for number in range(quota):
        made = Bucket(f"b-{number}", cloud.identity.account, "private", datetime.now(UTC))
        cloud.backend.store.add_bucket(made, quota=quota)
    assert outcome(s3.create_bucket, Bucket="one-more") == "TooManyBuckets"
    assert outcome(s3.create_bucket, Bucket="b-0") == again


@pytest.mark.parametrize("generation", ["uec"])
def test_a_bucket_of_the_oldest_is_full_at_five_gigabytes(
    cloud: Sandbox, bucket: str, s3: Any, hand: Any
) -> None:
    """The answer comes before the body is sent."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    headers = hand(cloud).sign_s3("PUT", f"/{bucket}/large", headers={"Content-Length": str(5 << 30)})
    answer = hand(cloud).ask("PUT", f"/services/Walrus/{bucket}/large", headers=headers)
    assert (answer.status, b"EntityTooLarge" in answer.body) == (400, True)


# objects


ACLS = ("private", "public-read", "aws-exec-read", "ec2-bundle-read", "bucket-owner-full-control")


@over(
    sandbox={},
    uec={},
    euca3={},
    euca4={},
    euca5={},
    openstack={"aws-exec-read": "InvalidArgument", "ec2-bundle-read": "InvalidArgument"},
    aws=dict.fromkeys(ACLS[:-1], "AccessControlListNotSupported"),
)
def test_canned_acls_are_kept_or_refused(
    expected: Mapping[str, str], cloud: Sandbox, bucket: str, s3: Any
) -> None:
    for acl in ACLS:
        code = expected.get(acl, "ok")
        assert outcome(s3.put_object, Bucket=bucket, Key=acl, Body=b"", ACL=acl) == code
    assert {stored.key: stored.acl for stored in cloud.objects(bucket)} == {
        acl: acl for acl in ACLS if acl not in expected
    }
    assert outcome(s3.put_object, Bucket=bucket, Key="k", Body=b"", ACL="everybody") == "InvalidArgument"


@pytest.mark.parametrize("generation", ["aws"])
def test_a_bucket_made_to_take_acls_takes_them(cloud: Sandbox, s3: Any) -> None:
    s3.create_bucket(Bucket="old-ways", ObjectOwnership="ObjectWriter", ACL="public-read")
    s3.put_object(Bucket="old-ways", Key="k", Body=b"", ACL="aws-exec-read")
    assert [stored.acl for stored in cloud.objects("old-ways")] == ["aws-exec-read"]
    code = "InvalidBucketAclWithObjectOwnership"
    assert outcome(s3.create_bucket, Bucket="new-ways", ACL="public-read") == code


@over(
    sandbox="BadDigest",
    uec="ok",
    euca3="BadDigest",
    euca4="ok",
    euca5="ok",
    openstack="BadDigest",
    aws="BadDigest",
)
def test_a_wrong_digest_is_noticed_or_not(expected: str, bucket: str, s3: Any) -> None:
    wrong = "1B2M2Y8AsgTpgAmY7PhCfg=="
    assert outcome(s3.put_object, Bucket=bucket, Key="k", Body=b"body", ContentMD5=wrong) == expected


@over(sandbox='"{}"', uec="{}", euca3='"{}"', euca4='"{}"', euca5='"{}"', openstack='"{}"', aws='"{}"')
def test_the_etag_of_an_upload_is_its_digest_in_quotes_or_bare(expected: str, bucket: str, s3: Any) -> None:
    answer = s3.put_object(Bucket=bucket, Key="k", Body=b"body")
    assert answer["ETag"] == expected.format(hashlib.md5(b"body").hexdigest())


@over(sandbox="a+b", uec="a b", euca3="a b", euca4="a b", euca5="a b", openstack="a+b", aws="a+b")
def test_a_plus_in_a_key_is_kept_or_becomes_a_space(
    expected: str, cloud: Sandbox, bucket: str, s3: Any
) -> None:
    s3.put_object(Bucket=bucket, Key="a+b", Body=b"")
    assert [stored.key for stored in cloud.objects(bucket)] == [expected]


@pytest.mark.parametrize("generation", RULES)
def test_uploads_in_parts_are_refused_as_not_implemented(bucket: str, cloud: Sandbox, s3: Any) -> None:
    upload = {"Bucket": bucket, "Key": "k", "UploadId": "u"}
    refused = [
        outcome(s3.create_multipart_upload, Bucket=bucket, Key="k"),
        outcome(s3.upload_part, **upload, PartNumber=1, Body=b"part"),
        outcome(s3.complete_multipart_upload, **upload, MultipartUpload={"Parts": []}),
        outcome(s3.abort_multipart_upload, **upload),
        outcome(s3.list_multipart_uploads, Bucket=bucket),
        outcome(s3.list_parts, **upload),
    ]
    assert refused == ["NotImplemented"] * len(refused)
    assert {seen.status for seen in cloud.requests[-len(refused) :]} == {501}
    assert cloud.objects(bucket) == ()
