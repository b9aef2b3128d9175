"""Refusals of a bucket with dropped files. It is its users', unlike that of the bundles."""

from uecwatchd.clouds.errors.refusals import RefusalRow
from uecwatchd.errors import Deferred, Halted, NotPermitted

SOURCE_ROWS = (
    RefusalRow(
        Halted,
        "the bucket is not there",
        "Make it, or correct the source of the folder in spool.policy.",
        code="NoSuchBucket",
    ),
    RefusalRow(
        NotPermitted,
        "this account may not do that in the bucket",
        "Let it list the bucket, and read, write and delete objects there (s3:ListBucket, s3:GetObject,"
        " s3:PutObject, s3:DeleteObject).",
        code="AccessDenied|AllAccessDisabled|403|Forbidden",
    ),
    RefusalRow(
        Deferred,
        "the object has just been removed",
        "Nothing needs to be done.",
        code="NoSuchKey",
    ),
)
