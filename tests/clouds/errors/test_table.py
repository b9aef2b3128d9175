"""The error table, row by row: what each generation sends, over HTTP, and what we make of it.

Older servers say little about the kind of a mistake: where one has a code at all, it is the name of the
component that failed. So the same mistake is here once for each form that it comes in.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

import pytest

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.dialects import DIALECTS
from uecwatchd.clouds.errors.refusals import ANY_STATUS, BOTH_HALVES, Half, Refusal, RefusalRow
from uecwatchd.clouds.errors.table import ROWS, find_row
from uecwatchd.clouds.errors.translate import translated
from uecwatchd.errors import BundleRefused, CloudAway, Deferred, Halted, Rejected, UecError

REQUEST_ID = "e4f1db24-8ad6-4c2d-a6e0-6b1f8a5a9b0e"


@dataclass(frozen=True)
class Answer:
    """A refusal as it is sent: `body` in the form of its generation, `code` and `message` are read of it."""

    half: Half
    status: int
    body: str
    code: str
    message: str

    @property
    def refusal(self) -> Refusal:
        return Refusal(self.half, self.status, self.code, self.message)

    @property
    def headers(self) -> dict[str, str]:
        return {"x_amz_request_id": REQUEST_ID} if self.half == "s3" else {}

    @property
    def request_id(self) -> str:
        return REQUEST_ID if self.half == "s3" or REQUEST_ID in self.body else ""


def plain(status: int, message: str) -> Answer:
    """Make an answer of the first layers of Eucalyptus' EC2: no XML, the status once more in words."""
    body = f"Failure: {status} {HTTPStatus(status).phrase}\n{message}\n\n"
    return Answer("ec2", status, body, str(status), " ".join(body.split()))


def ec2(status: int, code: str, message: str) -> Answer:
    error = f"<Error><Code>{code}</Code><Message>\n{message}\n</Message></Error>"
    body = f"<Response><Errors>{error}</Errors><RequestID>{REQUEST_ID}</RequestID></Response>"
    return Answer("ec2", status, f'<?xml version="1.0"?>{body}', code, message)


def s3(status: int, code: str, message: str) -> Answer:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message><Resource>/b/k</Resource></Error>"
    return Answer("s3", status, f'<?xml version="1.0" encoding="UTF-8"?>\n{body}', code, message)


def wordless(half: Half, status: int) -> Answer:
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    return Answer(half, status, "", str(status), phrase)


@dataclass(frozen=True)
class Example:
    dialect: str
    answer: Answer
    kind: type[UecError]
    why: str  # words of it
    hint: str  # words of it

    def __str__(self) -> str:
        return f"{self.dialect}: {self.answer.status} {self.answer.code}: {self.answer.message}"[:90]


UEC_DATE = (
    "Message has expired (times in UTC): Timestamp=2009-11-03T10:00:00 Expires=null Deadline=2009-11-03"
)
FUTURE = "Message was generated in the future (times in UTC): Timestamp=Tue Nov 03 10:00:00 UTC 2009"
REPLAY = "Message replay detected.  Same signature was used within the last 15 minutes"
UNBOUND = "Failed to bind the following fields:\nVirtualizationType = hvm"
NOT_MINE = "Image registration failed: you must own the bucket containing the image."
BAD_MANIFEST = "Image registration failed because the manifest referenced is invalid or unavailable."
UNREAD = "Failed to read manifest file: images/karmic.manifest.xml"
PUBLICIZE = "403 Forbidden: You are not authorized to complete publicize_image action."
NO_BUCKET = "(NoSuchBucket) when calling the GetObject operation: The specified bucket does not exist"
UNREAD_1 = "Failed to read manifest file: images/AccessDenied-1.manifest.xml"
UNREAD_2 = "Failed to read manifest file: images/my-signature-1.manifest.xml"
UNREAD_3 = "Failed to read manifest file: /b/TooManyBuckets.manifest.xml"
ADMINS = "Only administrators can register kernel images."
NO_KERNEL = "Referenced kernel id is invalid: eki-00000000"
NO_PLACE = "Image registration failed:  Invalid image location: /karmic.manifest.xml"
TOO_BIG = (
    "Cannot register image of size 42949672960 bytes because it exceeds the configured maximum instance-store"
    " image size of 30 GB. Please contact your administrator "
)

UNKNOWN = "The parameter VirtualizationType is not recognized"
USE_V4 = "This authorization is not supported. Use AWS4-HMAC-SHA256."
AMAZON_USES_V4 = (
    "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
)
STRANGE_HEADER = "Invalid authorization header"
NO_V2 = "Version 2 of the signature is not taken here, use version 4"
NOT_VALIDATED = "AWS was not able to validate the provided access credentials"

CLOCK = "its clock and ours differ"
ADDRESS = "Compare ec2_url and s3_url"
GENERATION = "of another generation than its dialect says"

EXAMPLES = (
    # Unknown parameters: their names and values are quoted, and mean nothing
    Example("uec", plain(500, UNBOUND), Halted, GENERATION, "Set dialect"),
    Example("uec", ec2(400, "Images", UNBOUND), Halted, GENERATION, "Set dialect"),
    Example("euca3", plain(412, UNBOUND), Halted, GENERATION, "Set dialect"),
    Example("euca3", ec2(400, "Images", UNBOUND), Halted, GENERATION, "Set dialect"),
    Example("euca4", ec2(400, "InvalidParameter", UNBOUND), Halted, GENERATION, "Set dialect"),
    Example("euca3", plain(412, "Could not be bound."), Halted, GENERATION, "Set dialect"),
    Example("euca4", ec2(400, "MissingParameter", "Name is required"), Halted, GENERATION, "Set dialect"),
    Example("openstack", ec2(400, "InvalidAction", "Unknown action"), Halted, GENERATION, "Set dialect"),
    Example("aws", ec2(400, "UnknownParameter", "Owner.7 is not known"), Halted, GENERATION, "Set dialect"),
    Example("aws", ec2(400, "UnknownParameter", UNKNOWN), Halted, GENERATION, "Set dialect"),
    Example("openstack", ec2(400, "UnknownParameter", UNKNOWN), Halted, GENERATION, "Set dialect"),
    Example("euca3", ec2(400, "MissingParameter", "VirtualizationType"), Halted, GENERATION, "Set dialect"),
    # Signatures of another version
    Example("uec", s3(400, "InvalidRequest", USE_V4), Halted, GENERATION, "Set dialect"),
    Example("euca4", s3(400, "InvalidRequest", USE_V4), Halted, GENERATION, "Set dialect"),
    Example("euca4", s3(400, "InvalidRequest", AMAZON_USES_V4), Halted, "of the signature", "Set dialect"),
    Example("euca5", s3(403, "AccessDenied", STRANGE_HEADER), Halted, "of the signature", "Set dialect"),
    Example("openstack", s3(403, "AccessDenied", STRANGE_HEADER), Halted, GENERATION, "Set dialect"),
    Example("uec", ec2(403, "AuthFailure", NO_V2), Halted, GENERATION, "Set dialect"),
    Example(
        "euca5", ec2(403, "MissingAuthenticationToken", "It has no token"), Halted, GENERATION, "Set dialect"
    ),
    # The clock
    Example("uec", plain(403, UEC_DATE), Halted, CLOCK, "date -u"),
    Example("euca3", plain(403, FUTURE), Halted, CLOCK, "date -u"),
    Example("euca4", ec2(403, "AccessDenied", UEC_DATE), Halted, CLOCK, "date -u"),
    Example("uec", s3(403, "403", "Unable to parse date."), Halted, CLOCK, "date -u"),
    Example("euca3", s3(403, "AccessDenied", "Message expired. Sorry."), Halted, CLOCK, "date -u"),
    Example(
        "euca5", s3(403, "RequestTimeTooSkewed", "The difference is too large."), Halted, CLOCK, "date -u"
    ),
    Example("openstack", ec2(403, "AuthFailure", "Timestamp failed validation."), Halted, CLOCK, "date -u"),
    Example("aws", ec2(400, "RequestExpired", "Request has expired."), Halted, CLOCK, "date -u"),
    Example("euca3", plain(403, REPLAY), Deferred, "for one request sent twice", "No action is needed"),
    Example(
        "euca4",
        s3(403, "AccessDenied", REPLAY),
        Deferred,
        "for one request sent twice",
        "No action is needed",
    ),
    # Who we are
    Example(
        "uec", plain(403, "User authentication failed."), Halted, "did not accept our credentials", "eucarc"
    ),
    Example("euca3", s3(403, "AccessDenied", "User authentication failed."), Halted, "credentials", "eucarc"),
    Example("openstack", ec2(401, "AuthFailure", "Unauthorized"), Halted, "credentials", "eucarc"),
    Example(
        "aws", s3(400, "AuthorizationHeaderMalformed", "expecting 'eu-west-1'"), Halted, "creden", "region"
    ),
    Example("aws", s3(400, "AuthorizationQueryParametersError", "expecting"), Halted, "creden", "region"),
    Example("aws", s3(400, "IllegalLocationConstraintException", "No"), Halted, "another region", "region"),
    Example("aws", s3(403, "PermanentRedirect", "Elsewhere"), Halted, "another region", "s3_url"),
    Example(
        "euca4",
        ec2(403, "InvalidAccessKeyId", "Invalid"),
        Halted,
        "does not know our access key",
        "access_key",
    ),
    Example(
        "aws", ec2(401, "InvalidClientTokenId", "No such token."), Halted, "our access key", "access_key"
    ),
    Example("euca3", s3(403, "InvalidAccessKeyId", "No such key."), Halted, "our access key", "access_key"),
    Example("euca4", s3(403, "SignatureDoesNotMatch", "No."), Halted, "the secret key is not", "secret_key"),
    Example("openstack", s3(403, "SignatureDoesNotMatch", "No."), Halted, "the secret key is not", "dialect"),
    Example(
        "aws", s3(400, "ExpiredToken", "The token has expired."), Halted, "temporary cred", "renews them"
    ),
    Example("euca5", plain(403, "User authentication failed"), Halted, "credentials", "the dialect"),
    Example("aws", ec2(401, "AuthFailure", NOT_VALIDATED), Halted, "did not accept our cred", "secret_key"),
    Example("uec", wordless("s3", 500), Halted, "without a word", "the secret key for S3"),
    Example("aws", ec2(403, "UnauthorizedOperation", "No."), Halted, "our account may not do that", "right"),
    Example(
        "aws", ec2(401, "AuthFailure", "Not authorized for image:ami-1"), Halted, "may not do that", "right"
    ),
    Example("euca4", s3(403, "AccessDenied", "Access Denied"), Halted, "may not do that", "another bucket"),
    Example("openstack", s3(403, "403", "You are not authorized"), Halted, "may not", "another bucket"),
    Example("aws", ec2(403, "UnauthorizedOperation", "No."), Halted, "a right is missing", "for the right"),
    Example("openstack", ec2(403, "403", "You are not authorized"), Halted, "a right is missing", "right"),
    Example("openstack", ec2(403, "HTTPForbidden", PUBLICIZE), Rejected, "image public", "publicize_image"),
    Example("openstack", ec2(400, "NoSuchBucket", "Not there."), Halted, "does not know", "of one cloud"),
    Example("openstack", ec2(500, "ClientError", NO_BUCKET), Halted, "does not know", "of one cloud"),
    # The bucket
    Example(
        "uec", ec2(400, "Images", NOT_MINE), Halted, "belongs to another account", "Choose another bucket"
    ),
    Example(
        "euca3", ec2(406, "Images", NOT_MINE), Halted, "belongs to another account", "Choose another bucket"
    ),
    Example("euca5", s3(409, "BucketAlreadyExists", "Taken."), Halted, "another account", "another bucket"),
    Example(
        "aws", s3(409, "OperationAborted", "Try again."), Deferred, "at this moment", "No action is needed"
    ),
    Example("uec", s3(400, "TooManyBuckets", "You have 5."), Halted, "no more buckets", "a higher quota"),
    Example(
        "uec", s3(400, "EntityTooLarge", "Exceeds the maximum."), Halted, "bucket is full", "a higher quota"
    ),
    Example(
        "euca3", ec2(406, "Images", "EC2 image quota exceeded"), Halted, "account's quota", "higher quota"
    ),
    Example(
        "openstack", s3(404, "NoSuchBucket", "Not there."), Deferred, "bucket is not there", "makes a new one"
    ),
    Example("euca3", s3(404, "NoSuchKey", "Not there."), Rejected, "file of the bundle is not", "deregister"),
    Example(
        "euca3", s3(400, "BadDigest", "Not the same."), Deferred, "not what we sent", "No action is needed"
    ),
    # The manifest
    Example(
        "uec",
        ec2(400, "Images", BAD_MANIFEST),
        BundleRefused,
        "or does not know the certificate",
        "user_cert",
    ),
    Example(
        "euca3", ec2(406, "Images", BAD_MANIFEST), BundleRefused, "cannot read the", "the dialect is right"
    ),
    Example("uec", ec2(400, "Images", UNREAD), BundleRefused, "cannot read the manifest", "s3_url"),
    Example("euca3", ec2(406, "Images", UNREAD), BundleRefused, "cannot read the manifest", "s3_url"),
    Example(
        "euca4",
        ec2(500, "InternalError", UNREAD),
        BundleRefused,
        "cannot read the manifest",
        "allowed to read",
    ),
    Example(
        "euca4",
        ec2(500, "InternalError", "Manifest has invalid signature"),
        Halted,
        "certificate",
        "user_key",
    ),
    Example(
        "euca3",
        ec2(406, "Images", "Invalid Manifest: Failed to verify signature"),
        Halted,
        "certi",
        "user_key",
    ),
    Example(
        "euca5",
        ec2(400, "AuthFailure", "Manifest is not accessible"),
        Halted,
        "account number",
        "EC2_USER_ID",
    ),
    Example("euca3", ec2(406, "Images", TOO_BIG), Rejected, "larger than it takes", "raise the limit"),
    Example(
        "euca5", ec2(500, "InternalFailure", TOO_BIG), Rejected, "larger than it takes", "raise the limit"
    ),
    Example(
        "aws",
        ec2(400, "InvalidManifest", "Manifest is invalid"),
        BundleRefused,
        "a mistake in the",
        "dialect",
    ),
    Example(
        "euca4", ec2(500, "InternalError", UNREAD_1), BundleRefused, "cannot read the", "allowed to read"
    ),
    Example(
        "euca4", ec2(500, "InternalError", UNREAD_2), BundleRefused, "cannot read the", "allowed to read"
    ),
    Example("uec", ec2(400, "Images", UNREAD_3), BundleRefused, "cannot read the manifest", "s3_url"),
    # The registration
    Example("uec", ec2(400, "Images", ADMINS), Rejected, "only its administrators", 'kernel = "eki-…"'),
    Example("euca3", ec2(406, "Images", ADMINS), Rejected, "only its administrators", 'kernel = "eki-…"'),
    Example(
        "euca4", ec2(500, "InternalError", ADMINS), Rejected, "only its administrators", "administrator's"
    ),
    Example(
        "uec", ec2(400, "Images", NO_KERNEL), Rejected, "no kernel or ramdisk of that id", "Compare kernel"
    ),
    Example(
        "aws", ec2(400, "InvalidAKIID.NotFound", "No."), Rejected, "no kernel or ramdisk", "Compare kernel"
    ),
    Example(
        "euca3",
        ec2(406, "Images", "Access to kernel image eki-12345678 is denied for karl"),
        Rejected,
        "may not use that kernel",
        "share it with our account",
    ),
    Example(
        "euca4",
        ec2(400, "MissingParameter", "Kernel ID must be specified"),
        Rejected,
        "with a kernel",
        "Add the",
    ),
    Example(
        "euca4",
        ec2(400, "MissingParameter", "Ramdisk ID must be specified"),
        Rejected,
        "a ramdisk",
        "Add the",
    ),
    Example("uec", ec2(400, "Images", NO_PLACE), Rejected, "the manifest's place", "bucket name"),
    Example("euca4", ec2(500, "InternalError", NO_PLACE), Rejected, "the manifest's place", "bucket name"),
    Example(
        "euca4",
        ec2(400, "InvalidAMIName.Duplicate", "In use."),
        Rejected,
        "registered already",
        "Deregister the image that has it, or choose another name",
    ),
    Example(
        "aws", ec2(400, "InvalidAMIName.Malformed", "No."), Rejected, "does not accept the image's", "128"
    ),
    Example(
        "euca3", ec2(406, "Images", "Invalid virtualization type: xen"), Rejected, "virtualization", "sidecar"
    ),
    Example(
        "euca4",
        ec2(500, "InternalError", "Unknown virtualization-type"),
        Rejected,
        "virtualization",
        "sidecar",
    ),
    Example(
        "euca4", ec2(400, "InvalidAMIID.NotFound", "No emi."), Rejected, "no image of that id", "Compare"
    ),
    Example(
        "euca4",
        ec2(500, "InternalError", "Not a valid userId : 12"),
        Rejected,
        "to be shared",
        "Correct share",
    ),
    Example(
        "aws", ec2(400, "InvalidAMIAttributeItemValue", "No."), Rejected, "to be shared", "Correct share"
    ),
    # What passes
    Example(
        "aws", s3(503, "SlowDown", "Reduce your request rate."), CloudAway, "too busy", "No action is needed"
    ),
    Example(
        "openstack",
        ec2(400, "RequestLimitExceeded", "Exceeded."),
        CloudAway,
        "too busy",
        "No action is needed",
    ),
    Example("euca4", wordless("s3", 429), CloudAway, "too busy", "No action is needed"),
    Example("euca4", wordless("s3", 408), CloudAway, "too slow to hear us out", "No action is needed"),
    Example(
        "euca3", wordless("s3", 413), Halted, "takes no request as large as ours", "client_max_body_size"
    ),
    Example("euca5", wordless("ec2", 425), CloudAway, "wants to be asked later", "No action is needed"),
    Example(
        "euca5",
        plain(400, "Client sent an HTTP request to an HTTPS server.\n"),
        Halted,
        "it speaks TLS at that address",
        "Write https://",
    ),
    Example("uec", wordless("ec2", 500), CloudAway, "failed without a word", "No action is needed"),
    Example("euca3", wordless("s3", 500), CloudAway, "failed without a word", "No action is needed"),
    Example(
        "uec", s3(500, "InternalError", "The disk is full."), CloudAway, "it failed", "No action is needed"
    ),
    Example(
        "euca4", ec2(500, "InternalError", "No database."), CloudAway, "it failed", "No action is needed"
    ),
    Example("aws", wordless("ec2", 599), CloudAway, "it failed", "No action is needed"),
    # Nothing known was said
    Example("euca3", plain(403, "No."), Halted, "did not accept our credentials", "uecwatchd check"),
    Example(
        "euca5", Answer("ec2", 404, "<html>Not here</html>", "404", "Not here"), Halted, "no such", ADDRESS
    ),
    Example("aws", wordless("ec2", 405), Halted, "no such service", ADDRESS),
    Example(
        "openstack", s3(501, "NotImplemented", "Not here."), Halted, "does not know this request", "dialect"
    ),
    *(
        Example(dialect, Answer(half, status, body, str(status), said), Halted, why, "in its place")
        for dialect in ("uec", "euca4", "aws")
        for half in BOTH_HALVES
        for status, body, said, why in (
            (418, "teapot", "teapot", "not in the way of a cloud (418 teapot)"),
            (418, "Teapot", "Teapot", "not in the way of a cloud (418 Teapot)"),
            (400, "Error: no", "Error: no", "not in the way of a cloud (400 Error: no)"),
            (400, "\0\0", "", "not in the way of a cloud (400)"),
            (409, "", "Conflict", "not in the way of a cloud (409 Conflict)"),
            (422, '{"error": "no"}', '{"error": "no"}', "not in the way of a cloud (422"),
            (400, "<a><Code>400</Code></a>", "400", "not in the way of a cloud (400"),
        )
    ),
    Example("uec", ec2(400, "Images", "The moon is full"), Rejected, "Images: The moon is full", "own words"),
    Example(
        "euca3", ec2(406, "Images", "The moon is full"), Rejected, "Images: The moon is full", "own words"
    ),
    Example("euca4", plain(412, "The moon is full"), Rejected, "The moon is full", "own words"),
)


def ask(cloud: Cloud, half: str) -> None:
    """For another thing each time, or a cloud that refuses replays would be waited for."""
    name = os.urandom(8).hex()
    with translated(cloud, "asking"):
        if half == "ec2":
            cloud.ec2.describe_images(ImageIds=[name])
        else:
            cloud.s3.get_object(Bucket="images", Key=name)


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_each_known_refusal_has_its_meaning(
    example: Example, scripted: Callable[[str], Cloud], script: Any
) -> None:
    answer = example.answer
    for _ in range(2):  # one that is cured by asking again must be heard twice to be believed
        script.says(answer.status, answer.body, **answer.headers)
    with pytest.raises(UecError) as caught:
        ask(scripted(example.dialect), answer.half)
    assert type(caught.value) is example.kind
    assert example.why in caught.value.why
    assert example.hint in caught.value.hint
    assert caught.value.request_id == answer.request_id


@pytest.mark.parametrize(
    "row", ROWS, ids=lambda row: f"{row.code or row.words or row.why} {row.statuses} {sorted(row.dialects)}"
)
def test_every_row_is_used_for_some_answer(row: object) -> None:
    """So none is shadowed by one above it."""
    decided = [find_row(one.dialect, one.answer.refusal) for one in EXAMPLES]
    assert any(decision is row for decision in decided)


def test_rows_name_only_dialects_that_exist() -> None:
    assert frozenset().union(*(row.dialects for row in ROWS)) <= DIALECTS.keys()


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
@pytest.mark.parametrize(("statuses", "kind"), [(range(502, 600), Deferred), (range(414, 425), Rejected)])
def test_an_unknown_refusal_is_temporary_or_rejects_by_its_status(
    dialect: str, statuses: range, kind: type[UecError]
) -> None:
    rows = {
        find_row(dialect, Refusal(half, status, "Strange", "the moon is full"))
        for status in statuses
        for half in BOTH_HALVES
    }
    assert len(rows) == 1
    assert issubclass(rows.pop().kind, kind)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.code or row.words or row.why)
def test_the_reason_of_a_row_is_a_part_of_the_sentence(row: Any) -> None:
    assert row.why[0].islower()
    assert not row.why.endswith(".")
    assert row.hint[0].isupper()
    assert row.hint.endswith(".")


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if (row.code or row.words) and row.statuses == ANY_STATUS],
    ids=lambda row: row.code or row.words,
)
def test_words_of_a_row_count_for_any_status(row: RefusalRow) -> None:
    """Unless a row of words is above it: that is what makes a permanent 500 one."""
    for one in EXAMPLES:
        said = one.answer.refusal
        if find_row(one.dialect, said) is row:
            elsewhere = (replace(said, status=status) for status in (400, 403, 406, 412, 500))
            assert {find_row(one.dialect, other) for other in elsewhere} == {row}


# --- names that users have chosen --------------------------------------------------------------------------

# What quotes them: {} is the name of an image, a file, a bucket or a parameter.
QUOTING = (
    ("InternalError", "Failed to read manifest file: images/{}.manifest.xml"),
    ("InternalError", "Failed to read manifest file: {}/karmic.manifest.xml"),
    ("ImageManager", "Image registration failed: you must own the bucket containing the image {}"),
    ("InvalidAMIName.Duplicate", "AMI name {} is in use by emi-00000000"),
    ("InvalidAMIName.Malformed", "{} is no name"),
    ("UnknownParameter", "The parameter {} is not recognized"),
    ("MissingParameter", "{}"),
    ("InvalidParameterValue", "Failed to bind the following fields: Name = {}"),
    ("InvalidManifest", "The manifest of {} is wrong in its signature"),
    ("InvalidManifest", "The content of {} is no machine"),
    ("NoSuchKey", "{}"),
    ("NoSuchBucket", "{} is not there"),
    ("InternalError", "The image {} was not stored"),
    ("500", "Failure: 500 Internal Server Error {} was not stored"),
    ("Images", "Cannot use {}"),
)


def words_of(row: RefusalRow) -> Iterator[str]:
    """A row's codes and words, as somebody would have to spell them to have an image of that name."""
    for pattern in (row.code, row.words):
        for choice in re.split(r"[|()]", pattern):
            spelled = re.sub(r"\\[wSd.][*+]?|[^A-Za-z0-9 -]", "", choice).strip()
            yield from {spelled.replace(" ", joint) for joint in "-._/"} if spelled else ()


HOSTILE = sorted({word for row in ROWS for word in words_of(row)} | {"VirtualizationType", "my-signature"})


@pytest.mark.parametrize(("code", "message"), QUOTING, ids=lambda text: text)
@pytest.mark.parametrize("dialect", ["uec", "euca4"])
def test_a_name_inside_a_refusal_does_not_change_its_meaning(dialect: str, code: str, message: str) -> None:
    """Otherwise a user who drops an image `AccessDenied` would close the cloud to everybody."""

    def row(name: str) -> RefusalRow:
        return find_row(dialect, Refusal("ec2", 500, code, message.format(name)))

    expected = row("karmic")
    for word in HOSTILE:
        for name in (word, f"{word}-1", f"my-{word}", f"my.{word}.img", f"{word}.part.0"):
            assert row(name) is expected, name


@pytest.mark.parametrize("name", ["my access denied image", "message expired", "not authorized"])
def test_a_code_is_found_also_before_names_with_spaces(name: str) -> None:
    said = Refusal("ec2", 400, "InvalidAMIName.Duplicate", f"AMI name {name} is already in use by ami-1")
    assert find_row("aws", said).why == "an image of that name is registered already"


@pytest.mark.parametrize("code", ["403", "500", "InternalError", "InternalFailure"])
@pytest.mark.parametrize("message", ["SignatureDoesNotMatch", "SignatureDoesNotMatch: Not the same."])
def test_a_plain_text_refusal_may_begin_with_a_code(code: str, message: str) -> None:
    assert "secret key" in find_row("euca3", Refusal("s3", 403, code, message)).why


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.code or row.words or row.why)
def test_a_hint_gives_no_time_of_a_retry(row: Any) -> None:
    """The caller adds that: a verb by hand asks once, and the service by its own schedule."""
    assert "again" not in row.hint or not issubclass(row.kind, Deferred)
