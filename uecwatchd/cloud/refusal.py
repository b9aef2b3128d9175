"""What a cloud's refusals mean: whose turn it is to do something, and what.

The table is read from the top and its first fitting row decides.
Rows about words come before rows about statuses, for the same mistake has another status on nearly every
generation: an unreadable manifest is a 400 on UEC, a 406 on Eucalyptus 3 and a 500 on Eucalyptus 4, and what
will never work must not be tried for two days because it came as a 500.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from uecwatchd.cloud.silence import quoted, unheard
from uecwatchd.errors import CloudAway, Deferred, Halted, Rejected, UecError

ANY_STATUS = range(1000)

REQUEST_ID_HEADER = "x-amz-request-id"


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of refusal. `words` is looked for in "Code: message", whatever the case; empty fits all."""

    words: str
    kind: type[UecError]
    why: str
    hint: str
    statuses: range = ANY_STATUS

    def fits(self, status: int, said: str) -> bool:
        return status in self.statuses and re.search(self.words, said, re.IGNORECASE) is not None


ROWS = (
    # Who we are, and what time it is
    Row(
        "message replay detected",
        Deferred,
        "it takes two requests made in the same second for one request sent twice",
        "It is asked again by itself.",
    ),
    Row(
        "message (has )?expired|RequestTimeTooSkewed|RequestExpired|SignatureExpired"
        "|timestamp.*(expired|future)|RequestInTheFuture",
        Halted,
        "it finds our requests out of date, so its clock and ours differ",
        "Compare `date -u` on both machines, and let both follow one time server.",
    ),
    Row(
        "SignatureDoesNotMatch|signature.*(do(es)? not match|mismatch)|failed to verify signature"
        "|signature verification failed",
        Halted,
        "it did not accept our signature: the secret key is not that of the access key",
        "Copy secret_key again, or fetch new credentials and set eucarc; if the key is right, compare the"
        " dialect with the cloud.",
    ),
    Row(
        "InvalidAccessKeyId|InvalidClientTokenId|UnrecognizedClient|InvalidAccessKey\\b"
        "|access key id you provided",
        Halted,
        "it does not know our access key",
        "Fetch new credentials from this cloud and set eucarc, or access_key and secret_key.",
    ),
    Row(
        "AccessDenied|UnauthorizedOperation|not authorized",
        Halted,
        "our account may not do that: the bucket is another account's, or a right is missing",
        "Choose another bucket, or ask the cloud's administrator for the right.",
    ),
    Row(
        "AuthFailure|AuthorizationHeaderMalformed|user authentication failed|not authenticated",
        Halted,
        "it did not accept our credentials",
        "Fetch new credentials from this cloud and set eucarc, or access_key and secret_key, and region where"
        " the cloud has regions.",
    ),
    # The bucket
    Row(
        "you must own the bucket",
        Halted,
        "the bucket belongs to another account, and only its owner may register what lies in it",
        'Choose another bucket: bucket = "…" under [defaults] or in the sidecar.',
    ),
    Row(
        "BucketAlreadyExists|BucketNotOwned",
        Halted,
        "the bucket belongs to another account",
        'Choose another bucket: bucket = "…" under [defaults] or in the sidecar.',
    ),
    Row(
        "TooManyBuckets",
        Halted,
        "our account may have no more buckets",
        "Name a bucket that exists, delete one, or ask the cloud's administrator for a higher quota.",
    ),
    Row(
        "EntityTooLarge|QuotaExceeded|quota.*exceed|exceed.*quota",
        Halted,
        "the bucket is full, or our account's quota is",
        "Delete bundles that no image needs, choose another bucket, or ask the cloud's administrator for a"
        " higher quota.",
    ),
    Row(
        "NoSuchBucket",
        Deferred,
        "the bucket is not there",
        "If somebody deleted it, the next attempt makes it anew.",
    ),
    Row(
        "NoSuchKey",
        Rejected,
        "a file of the bundle is not in the bucket",
        "If somebody deleted it, deregister the image, and drop its files again.",
    ),
    Row(
        "BadDigest|InvalidDigest",
        Deferred,
        "what arrived is not what we sent",
        "It is sent again by itself.",
    ),
    # The manifest
    Row(
        "failed to read manifest file|manifest referenced is invalid or unavailable",
        Rejected,
        "it cannot read the manifest in the bucket",
        "See that s3_url and ec2_url are of one cloud, and that the dialect is right: some clouds must be"
        " allowed to read what we upload.",
    ),
    Row(
        "manifest has invalid signature|invalid manifest signature",
        Halted,
        "it does not know the certificate whose key signed the manifest",
        "Set user_cert and user_key to the pair that this cloud gave us, or fetch new credentials and set"
        " eucarc.",
    ),
    Row(
        "manifest'?s? (user|owner|account).*(is not|not match|not belong|mismatch|differ)",
        Halted,
        "the account number that we write into manifests is not that of the access key",
        "Correct account, or EC2_USER_ID (on newer clouds EC2_ACCOUNT_NUMBER) in the eucarc, or fetch new"
        " credentials and set eucarc.",
    ),
    Row(
        "cannot register image of size|image.*size.*exceeds",
        Rejected,
        "the image is larger than it takes",
        "Make the image smaller, or ask the cloud's administrator to raise the limit.",
    ),
    Row(
        "InvalidManifest",
        Rejected,
        "it finds a mistake in the manifest",
        "Compare the dialect with the cloud; its administrator's logs may say more than its answer.",
    ),
    # The registration
    Row(
        "only administrators can register",
        Rejected,
        "only its administrators may register kernels and ramdisks",
        'Name registered ones in the sidecar (kernel = "eki-…", ramdisk = "eri-…"), or give this service an'
        " administrator's credentials.",
    ),
    Row(
        "referenced (kernel|ramdisk) id is invalid|Invalid(AKI|ARI)ID|Invalid(Kernel|Ramdisk)",
        Rejected,
        "it has no kernel or ramdisk of that id",
        "Compare kernel and ramdisk in the sidecar with the ids that the cloud lists.",
    ),
    Row(
        "(kernel|ramdisk) id must be specified",
        Rejected,
        "it boots this image only with a kernel and a ramdisk",
        'Add the missing file to the set, or name a registered one in the sidecar (kernel = "eki-…",'
        ' ramdisk = "eri-…").',
    ),
    Row(
        "invalid image location|InvalidAMILocation",
        Rejected,
        "it does not accept the manifest's place in the bucket",
        "Choose a bucket name of 3 to 63 lower case letters, digits and hyphens.",
    ),
    Row(
        r"InvalidAMIName\.Duplicate",
        Rejected,
        "an image of that name is registered already",
        "Choose another name in the sidecar.",
    ),
    Row(
        r"InvalidAMIName\.Malformed",
        Rejected,
        "it does not accept the image's name",
        "Choose a name of 3 to 128 letters, digits and hyphens in the sidecar.",
    ),
    Row(
        "invalid virtuali[sz]ation|virtuali[sz]ation.?type",
        Rejected,
        "it does not boot images of that virtualization",
        "Change virtualization in the sidecar.",
    ),
    Row(
        "InvalidAMIID",
        Rejected,
        "it has no image of that id",
        "Compare the id with those that the cloud lists.",
    ),
    # The dialect
    Row(
        "failed to bind the following fields|UnknownParameter|MissingParameter|InvalidAction",
        Halted,
        "it is of another generation than its dialect says",
        "Set dialect to that of the cloud's version: uec, euca3, euca4, euca5, openstack or aws.",
    ),
    # What passes
    Row(
        "SlowDown|Throttl|RequestLimitExceeded|TooManyRequests|ServiceUnavailable|RequestTimeout\\b",
        CloudAway,
        "it is too busy just now",
        "It is asked again by itself.",
    ),
    # Nothing known was said: the status decides
    Row("", Halted, "it did not accept our credentials", "Run `uecwatchd check`.", range(401, 404)),
    Row(
        "^40[45]:",  # no code of its own: no S3 or EC2 said this
        Halted,
        "there is no such service at its address",
        "Compare ec2_url and s3_url with the cloud's eucarc, and region where the cloud has regions.",
        range(404, 406),
    ),
    Row(
        "",
        Halted,
        "the service is at another address",
        "Compare ec2_url and s3_url with the cloud's eucarc, and region where the cloud has regions.",
        range(300, 400),
    ),
    Row("", CloudAway, "it was too slow to hear us out", "It is asked again by itself.", range(408, 409)),
    Row("", CloudAway, "it is too busy just now", "It is asked again by itself.", range(429, 430)),
    Row(
        "",
        Rejected,
        "it refused",
        "Its own words say why; change that, then touch the set's files.",
        range(400, 500),
    ),
    Row(
        "",
        Halted,
        "it does not know this request",
        "Set dialect to that of the cloud's version: uec, euca3, euca4, euca5, openstack or aws.",
        range(501, 502),
    ),
    Row(
        "^500: Internal Server Error$",
        CloudAway,
        "it failed without a word",
        "It is asked again by itself. UEC 1.6 also answers so to wrong S3 credentials: if it goes on, fetch"
        " new ones and set eucarc.",
        range(500, 501),
    ),
    Row("", CloudAway, "it failed", "It is asked again by itself."),
)


@contextmanager
def translated(cloud_name: str, doing: str) -> Iterator[None]:
    """Turn every error of botocore into one of ours; `doing` says what was tried ("uploading b/x.part.0")."""
    what = f"cloud {cloud_name}, {doing}"
    try:
        yield
    except ClientError as error:
        raise _refused(what, error.response) from error
    except (BotoCoreError, ResponseParserError) as error:
        raise unheard(what, error) from error


def code_of(error: ClientError) -> str:
    """The cloud's word for its refusal, such as NoSuchBucket; the status where an answer had no body."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _refused(what: str, response: Mapping[str, Any]) -> UecError:
    code = str(response.get("Error", {}).get("Code") or "")
    message = str(response.get("Error", {}).get("Message") or "")
    metadata = response.get("ResponseMetadata", {})
    status = int(metadata.get("HTTPStatusCode", 0))
    row = next(row for row in ROWS if row.fits(status, f"{code}: {message}"))
    why = f"{row.why} ({status} {quoted(f'{code}: {message}')})"
    return row.kind(what, why, row.hint, request_id=_request_id(metadata))


def _request_id(metadata: Mapping[str, Any]) -> str:
    headers = metadata.get("HTTPHeaders", {})
    return str(
        metadata.get("RequestId") or headers.get(REQUEST_ID_HEADER) or headers.get("x-amzn-requestid", "")
    )
