"""What a cloud's refusals mean: whose turn it is to do something, and what.

The table is read from the top and its first fitting row decides.
Rows about words come before rows about statuses, for the same mistake has another status on nearly every
generation: an unreadable manifest is a 400 on UEC, a 406 on Eucalyptus 3 and a 500 on Eucalyptus 4, and what
will never work must not be tried for two days because it came as a 500.

Whom no row knows by words is judged by its status. A 5xx passes, and who meets it for two days on end is
rejected after all, as with everything that is deferred; a 4xx is for the dropper to read.
"""

import re
from dataclasses import dataclass

from uecwatchd.errors import CloudAway, Deferred, Halted, Rejected, UecError

ANY_STATUS = range(1000)
EVERY_DIALECT: frozenset[str] = frozenset()

# Its RegisterImage has one sentence for whatever is the matter with a manifest, a bad signature included.
ONE_SENTENCE_FOR_MANIFESTS = frozenset({"uec"})

# Its S3 answers whoever it does not know with a 500 and an empty body, and so it does when its disk fails.
# Taken for our mistake: the probe that opens a gate again tells the two apart within half a minute, whereas a
# wrong secret key would be tried for two days, set by set.
REFUSES_WITHOUT_A_WORD = frozenset({"uec"})

# Up to 3.2 it has a status of its own for what it cannot bind to a field.
BINDING_IS_412 = frozenset({"euca3"})

# What an empty body is read as.
NO_WORD = "^500: Internal Server Error$"

NOT_KNOWN = "it did not accept our credentials"
OTHER_GENERATION = "it is of another generation than its dialect says"
SET_DIALECT = (
    'Set dialect to that of the cloud\'s version (uec, euca3, euca4, euca5, openstack or aws), or to "auto".'
)


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of refusal. `words` is looked for in "Code: message", whatever the case; empty fits all."""

    words: str
    kind: type[UecError]
    why: str
    hint: str
    statuses: range = ANY_STATUS
    dialects: frozenset[str] = EVERY_DIALECT

    def fits(self, dialect: str, status: int, said: str) -> bool:
        at_home = not self.dialects or dialect in self.dialects
        return at_home and status in self.statuses and re.search(self.words, said, re.IGNORECASE) is not None


ROWS = (
    # What is not understood is quoted whole, with values that would fit other rows
    Row("bind the following fields", Halted, OTHER_GENERATION, SET_DIALECT),
    # Who we are, and what time it is
    Row(
        "message replay detected",
        Deferred,
        "it takes two requests made in the same second for one request sent twice",
        "It is asked again by itself.",
    ),
    Row(
        "message (has )?expired|generated in the future|unable to parse date|RequestTimeTooSkewed"
        "|RequestExpired|SignatureExpired|RequestInTheFuture|timestamp.*(expired|future)"
        "|timestamp failed validation",
        Halted,
        "it finds our requests out of date, so its clock and ours differ",
        "Compare `date -u` on both machines, and let both follow one time server.",
    ),
    Row(
        "manifest.*signature",
        Halted,
        "it does not know the certificate whose key signed the manifest",
        "Set user_cert and user_key to the pair that this cloud gave us, or fetch new credentials and set"
        " eucarc.",
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
        "ExpiredToken|InvalidToken|TokenRefreshRequired",
        Halted,
        "our temporary credentials have run out",
        "See that whatever renews them runs; new ones are looked for by themselves.",
    ),
    Row(
        "manifest is not accessible"
        "|manifest'?s? (user|owner|account).*(is not|not match|not belong|mismatch|differ)",
        Halted,
        "the account number that we write into manifests is not that of the access key",
        "Correct account, or EC2_USER_ID (on newer clouds EC2_ACCOUNT_NUMBER) in the eucarc, or fetch new"
        " credentials and set eucarc.",
    ),
    Row(
        "access to (kernel|ramdisk) image .* denied",
        Rejected,
        "our account may not use that kernel or ramdisk",
        "Name another one in the sidecar, or ask its owner to share it with our account.",
    ),
    Row(
        "AuthFailure(?!.*not authorized)|AuthorizationHeaderMalformed|user authentication failed"
        "|not authenticated",
        Halted,
        NOT_KNOWN,
        "Fetch new credentials from this cloud and set eucarc, or access_key and secret_key, and region where"
        " the cloud has regions.",
    ),
    Row(
        "AccessDenied|UnauthorizedOperation|not authorized",
        Halted,
        "our account may not do that: the bucket is another account's, or a right is missing",
        "Choose another bucket, or ask the cloud's administrator for the right.",
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
        "manifest referenced is invalid or unavailable",
        Rejected,
        "it cannot read the manifest in the bucket, or does not know the certificate whose key signed it",
        "See that s3_url and ec2_url are of one cloud, and that user_cert and user_key are the pair that it"
        " gave us.",
        dialects=ONE_SENTENCE_FOR_MANIFESTS,
    ),
    Row(
        "failed to read manifest file|manifest referenced is invalid or unavailable",
        Rejected,
        "it cannot read the manifest in the bucket",
        "See that s3_url and ec2_url are of one cloud, and that the dialect is right: some clouds must be"
        " allowed to read what we upload.",
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
    Row(
        "not a valid userid|InvalidUserID|InvalidAMIAttributeItemValue",
        Rejected,
        "it has no account of a number that the image is to be shared with",
        "Correct share in the sidecar.",
    ),
    # The dialect
    Row(
        "UnknownParameter|MissingParameter|InvalidAction|InvalidQueryParameter",
        Halted,
        OTHER_GENERATION,
        SET_DIALECT,
    ),
    # What passes
    Row(
        "SlowDown|Throttl|RequestLimitExceeded|TooManyRequests|ServiceUnavailable|RequestTimeout\\b",
        CloudAway,
        "it is too busy just now",
        "It is asked again by itself.",
    ),
    # Nothing known was said: the status decides
    Row("", Halted, NOT_KNOWN, "Run `uecwatchd check`.", range(401, 404)),
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
    Row("", Halted, OTHER_GENERATION, SET_DIALECT, range(412, 413), dialects=BINDING_IS_412),
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
        SET_DIALECT,
        range(501, 502),
    ),
    Row(
        NO_WORD,
        Halted,
        "it failed without a word, as it also does when it does not know us",
        "If the cloud is well, fetch new credentials and set eucarc: the secret key for S3 is wrong.",
        range(500, 501),
        dialects=REFUSES_WITHOUT_A_WORD,
    ),
    Row(NO_WORD, CloudAway, "it failed without a word", "It is asked again by itself.", range(500, 501)),
    Row("", CloudAway, "it failed", "It is asked again by itself."),
)


def meaning(dialect: str, status: int, said: str) -> Row:
    """What an answer means; the last row fits everything."""
    return next(row for row in ROWS if row.fits(dialect, status, said))
