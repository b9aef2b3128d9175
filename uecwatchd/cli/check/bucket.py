"""Checks that bundles can be stored in the bucket."""

import secrets
from collections.abc import Collection, Iterator
from contextlib import nullcontext, suppress

from botocore.exceptions import ClientError

from uecwatchd.cli.check.finding import Finding, bad
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.errors.translate import code_of, status_of, translated
from uecwatchd.clouds.objects import check_bucket_can_be_made, put_object, remove_object
from uecwatchd.errors import Halted, UecError

KEY_PREFIX = "uecwatchd-check-"
CONTENT = b"Left by `uecwatchd check`, which should have deleted it.\n"


def examine_bucket(cloud: Cloud, bucket: str, ours: Collection[str]) -> Iterator[Finding]:
    """Check the bucket; `ours` are the buckets that the cloud lists for us."""
    if bucket in ours:
        yield _rights(cloud, bucket)
        return
    try:
        exists = _exists(cloud, bucket)
    except UecError as error:
        yield bad(error, cloud.name)
        return
    if exists is None:
        yield _closed(cloud, bucket)
    else:
        yield _of_another(cloud, bucket) if exists else _missing(cloud, bucket, len(ours))


def _exists(cloud: Cloud, bucket: str) -> bool | None:
    """Return True if the bucket belongs to somebody else, False if it does not exist, None if unknown."""
    with translated(cloud, f"looking for bucket {bucket}"):
        try:
            cloud.s3.list_objects(Bucket=bucket, MaxKeys=1)
        except ClientError as error:
            if code_of(error) == "NoSuchBucket":
                return False
            if status_of(error) != 403:
                raise
            return _tells_what_is_missing(cloud) or None
    return True


def _tells_what_is_missing(cloud: Cloud) -> bool:
    """Return True if the cloud reports a missing bucket even to users who may not create one."""
    try:
        cloud.s3.list_objects(Bucket=KEY_PREFIX + secrets.token_hex(8), MaxKeys=1)
    except ClientError as error:
        return code_of(error) == "NoSuchBucket"
    return False


def _closed(cloud: Cloud, bucket: str) -> Finding:
    return Finding(
        "bad",
        f"cloud {cloud.name}: bucket {bucket} is closed to us: it belongs to another account, or it does"
        " not exist and our account may not create it",
        'Choose another: bucket = "…" under [defaults]; or ask the cloud\'s administrator to create it,'
        " or for the right to do so.",
        Halted.exit_code,
    )


def _of_another(cloud: Cloud, bucket: str) -> Finding:
    return Finding(
        "bad",
        f"cloud {cloud.name}: bucket {bucket} belongs to another account",
        'Choose another: bucket = "…" under [defaults].',
        Halted.exit_code,
    )


def _missing(cloud: Cloud, bucket: str, number: int) -> Finding:
    try:
        check_bucket_can_be_made(cloud, bucket)
    except UecError as error:
        return bad(error, cloud.name)
    quota = cloud.dialect.bucket_quota
    if quota is None or number < quota:
        return Finding(
            "ok", f"cloud {cloud.name}: bucket {bucket} does not exist, and is created when it is needed"
        )
    return Finding(
        "bad",
        f"cloud {cloud.name}: bucket {bucket} does not exist and probably cannot be created: we have"
        f" {number} buckets, and {cloud.dialect.versions} allows {quota}",
        "Name one that exists under [defaults], delete one, or have the quota raised and make it by hand.",
        Halted.exit_code,
    )


def _rights(cloud: Cloud, bucket: str) -> Finding:
    try:
        put_and_remove(cloud, bucket, KEY_PREFIX)
    except UecError as error:
        return bad(error, cloud.name)
    about_acl = ""
    if acl := cloud.dialect.canned_acl:
        given = "without" if bucket in cloud.without_acl else "with"
        about_acl = f", {given} the ACL {acl}"
    return Finding(
        "ok", f"cloud {cloud.name}: bucket {bucket} is ours, and takes and deletes objects{about_acl}"
    )


def put_and_remove(cloud: Cloud, bucket: str, prefix: str, *, is_for_cloud: bool = True) -> None:
    """Store and delete an object. Both are tried in any case; the first failure is raised."""
    key, stored = prefix + secrets.token_hex(8), False
    try:
        put_object(cloud, bucket, key, CONTENT, is_for_cloud=is_for_cloud)
        stored = True
    finally:
        with nullcontext() if stored else suppress(UecError):
            remove_object(cloud, bucket, key)
