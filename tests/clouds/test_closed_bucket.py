"""`check` of a bucket that is closed to us, by the other answers of the store."""

from typing import Any

import pytest

from uecwatchd.cli.check.bucket import examine_bucket
from uecwatchd.clouds.client import Cloud

DENIED = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
MISSING = "<Error><Code>NoSuchBucket</Code><Message>It is not there</Message></Error>"
EMPTY = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
EITHER = "it belongs to another account, or it does not exist and our account may not create it"


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([(403, DENIED), (404, MISSING)], "belongs to another account"),
        ([(403, DENIED), (403, DENIED)], EITHER),
        ([(403, DENIED), (200, EMPTY)], EITHER),
        ([(200, EMPTY)], "belongs to another account"),
        ([(404, MISSING)], "does not exist, and is created when it is needed"),
    ],
    ids=["another's", "a store that tells nobody", "a store that has everything", "readable", "missing"],
)
def test_each_reason_for_a_closed_bucket_is_reported(
    cloud: Cloud, script: Any, answers: list[tuple[int, str]], words: str
) -> None:
    for status, body in answers:
        script.says(status, body=body)
    (finding,) = examine_bucket(cloud, "images", frozenset())
    assert words in finding.what
    assert len(script.requests) == len(answers)
