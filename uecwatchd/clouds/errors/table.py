"""The table of refusals: who has to act, and how.

The table is read from the top and its first fitting row decides.
Rows about words come before rows about statuses, for the same mistake has another status on nearly every
generation: an unreadable manifest is a 400 on UEC, a 406 on Eucalyptus 3 and a 500 on Eucalyptus 4, and what
will never work must not be tried for two days because it came as a 500.

Messages quote names that users have chosen, and a cloud must not be suspended for everybody because somebody
calls an image `AccessDenied`. So codes are looked for where codes stand, and messages are searched only for
what no name can be: several words of a sentence.

A refusal without known words is judged by its status. A 5xx passes by itself, and a set that meets it for two
days is rejected after all, like every deferred set; a 4xx is for the dropper to read if it is the cloud's:
it has a code of its own, or the one form that has none.
"""

from collections.abc import Iterable
from itertools import chain

from uecwatchd.clouds.errors.refusals import EC2_ALONE, S3_ALONE, Refusal, RefusalRow
from uecwatchd.errors import BundleRefused, CloudAway, Deferred, Halted, Rejected

# Its RegisterImage has one sentence for whatever is the matter with a manifest, a bad signature included.
ONE_SENTENCE_FOR_MANIFESTS = frozenset({"uec"})

# Its S3 answers strangers with a 500 and an empty body, and so it does when its disk fails.
# Taken for our mistake: the next probe of the suspended cloud tells the two apart within half a minute,
# whereas a wrong secret key would be tried for two days, set by set.
REFUSES_WITHOUT_A_WORD = frozenset({"uec"})

# Up to 3.2 it has a status of its own for what it cannot bind to a field.
BINDING_IS_412 = frozenset({"euca3"})

# What an empty body is read as.
NO_WORD = "^Internal Server Error$"

NOT_KNOWN = "it did not accept our credentials"
NO_RIGHT = "our account may not do that: the bucket is another account's, or a right is missing"
ASK_FOR_RIGHT = "Choose another bucket, or ask the cloud's administrator for the right."
NO_RIGHT_OF_EC2 = "our account may not do that: a right is missing"
ASK_FOR_RIGHT_OF_EC2 = "Ask the cloud's administrator for the right."
OTHER_GENERATION = "it is of another generation than its dialect says"
SET_DIALECT = (
    'Set dialect to that of the cloud\'s version (uec, euca3, euca4, euca5, openstack or aws), or to "auto".'
)
REFUSED = "it refused"
SEE_ITS_WORDS = "Its own words say why; change that, then retry the set."
NO_SERVICE = "there is no such service at its address"
SPEAKS_TLS = "it speaks TLS at that address"
WRITE_HTTPS = "Write https:// instead of http:// in ec2_url or s3_url, or correct the port."
# What servers say in plain words there: nginx, Apache, those in Go, Tomcat.
HTTP_WHERE_TLS_IS = (
    "plain HTTP request was sent to HTTPS port|speaking plain HTTP to an SSL-enabled server port"
    "|sent an HTTP request to an HTTPS server|combination of host and port requires TLS"
)
# These mean the same from a cloud, from a web server before it, and from a proxy on the way.
TOO_SLOW, TOO_LARGE, TOO_EARLY, TOO_MANY = 408, 413, 425, 429
SAID_BY_ANYBODY = frozenset({TOO_SLOW, TOO_LARGE, TOO_EARLY, TOO_MANY})


ROWS = (
    # What quotes a whole request, or a name with spaces in it, says enough by its first words or its code
    RefusalRow(Halted, OTHER_GENERATION, SET_DIALECT, words="bind the following fields"),
    RefusalRow(
        Rejected,
        "an image of that name is registered already",
        "Deregister the image that has it, or choose another name in the sidecar.",
        code=r"InvalidAMIName\.Duplicate",
    ),
    RefusalRow(
        Rejected,
        "it does not accept the image's name",
        "Choose a name of 3 to 128 letters, digits and hyphens in the sidecar.",
        code=r"InvalidAMIName\.Malformed",
    ),
    RefusalRow(
        Rejected,
        "it boots this image only with a kernel and a ramdisk",
        'Add the missing file to the set, or name a registered one in the sidecar (kernel = "eki-…",'
        ' ramdisk = "eri-…").',
        words="(kernel|ramdisk) id must be specified",
    ),
    RefusalRow(
        Halted,
        OTHER_GENERATION,
        SET_DIALECT,
        code="UnknownParameter|MissingParameter|InvalidAction|InvalidQueryParameter",
    ),
    RefusalRow(Halted, SPEAKS_TLS, WRITE_HTTPS, words=HTTP_WHERE_TLS_IS, statuses=range(400, 401)),
    # Who we are, and what time it is
    RefusalRow(
        Deferred,
        "it takes two requests made in the same second for one request sent twice",
        "No action is needed.",
        words="message replay detected",
    ),
    RefusalRow(
        Halted,
        "it finds our requests out of date, so its clock and ours differ",
        "Compare `date -u` on both machines, and let both follow one time server.",
        code="RequestTimeTooSkewed|RequestExpired|SignatureExpired|RequestInTheFuture",
        words="message (has )?expired|generated in the future|unable to parse date"
        "|timestamp ((is|has|was) )?(expired|in the future)|timestamp failed validation",
    ),
    RefusalRow(
        Halted,
        f"{OTHER_GENERATION}: it does not take our version of the signature",
        SET_DIALECT,
        code="MissingAuthenticationToken",
        words="invalid authorization header|use AWS4-HMAC-SHA256|version [24] of the signature is not taken",
    ),
    RefusalRow(
        Halted,
        "it does not know the certificate whose key signed the manifest",
        "Set user_cert and user_key to the pair that this cloud gave us, or fetch new credentials and set"
        " eucarc.",
        words="manifest has (an )?invalid signature|invalid manifest: failed to verify signature",
    ),
    RefusalRow(
        Halted,
        "it did not accept our signature: the secret key is not that of the access key",
        "Copy secret_key again, or fetch new credentials and set eucarc; if the key is right, compare the"
        " dialect with the cloud.",
        code="SignatureDoesNotMatch|InvalidSignature",
        words="signatures? (do(es)? not match|mismatch)|signature we calculated does not match"
        "|failed to verify signature|signature verification failed",
    ),
    RefusalRow(
        Halted,
        "it does not know our access key",
        "Fetch new credentials from this cloud and set eucarc, or access_key and secret_key.",
        code="InvalidAccessKey(Id)?|InvalidClientTokenId|UnrecognizedClient",
        words="access key id you provided",
    ),
    RefusalRow(
        Halted,
        "our temporary credentials have run out",
        "See that whatever renews them runs; new ones are looked for by themselves.",
        code="ExpiredToken|InvalidToken|TokenRefreshRequired",
    ),
    RefusalRow(
        Halted,
        "the account number that we write into manifests is not that of the access key",
        "Correct account, or EC2_USER_ID (on newer clouds EC2_ACCOUNT_NUMBER) in the eucarc, or fetch new"
        " credentials and set eucarc.",
        words="manifest is not accessible"
        r"|manifest('s)? <?(user|owner|account)>? (\w+ )?(is not|differs|does not (match|belong))",
    ),
    RefusalRow(
        Rejected,
        "our account may not use that kernel or ramdisk",
        "Name another one in the sidecar, or ask its owner to share it with our account.",
        words=r"access to (kernel|ramdisk) image \S+ (is )?denied",
    ),
    RefusalRow(
        Rejected,
        "our account may not make an image public, or take that back",
        "Take public out of the sidecar, or ask the cloud's administrator for the right publicize_image.",
        words="publicize_image",
        halves=EC2_ALONE,
    ),
    RefusalRow(Halted, NO_RIGHT_OF_EC2, ASK_FOR_RIGHT_OF_EC2, words="not authorized", halves=EC2_ALONE),
    RefusalRow(Halted, NO_RIGHT, ASK_FOR_RIGHT, words="not authorized"),
    RefusalRow(
        Halted,
        NOT_KNOWN,
        "Fetch new credentials from this cloud and set eucarc, or access_key and secret_key; if they are"
        " right, compare the dialect with the cloud, and region where it has regions.",
        code="AuthFailure|AuthorizationHeaderMalformed|AuthorizationQueryParametersError",
        words="user authentication failed|not authenticated",
    ),
    RefusalRow(
        Halted,
        NO_RIGHT_OF_EC2,
        ASK_FOR_RIGHT_OF_EC2,
        code="AccessDenied|UnauthorizedOperation",
        halves=EC2_ALONE,
    ),
    RefusalRow(Halted, NO_RIGHT, ASK_FOR_RIGHT, code="AccessDenied|UnauthorizedOperation"),
    # The bucket
    RefusalRow(
        Halted,
        "it keeps the bucket in another region than the one that we ask in",
        "Set region and s3_url to the bucket's, or choose another bucket.",
        code="IllegalLocationConstraintException|InvalidLocationConstraint|(Permanent|Temporary)Redirect",
    ),
    RefusalRow(
        Halted,
        "the bucket belongs to another account, and only its owner may register what is in it",
        'Choose another bucket: bucket = "…" under [defaults] or in the sidecar.',
        words="you must own the bucket",
    ),
    RefusalRow(
        Halted,
        "the bucket belongs to another account",
        'Choose another bucket: bucket = "…" under [defaults] or in the sidecar.',
        code="BucketAlreadyExists|BucketNotOwned",
    ),
    RefusalRow(
        Halted,
        "our account may have no more buckets",
        "Name a bucket that exists, delete one, or ask the cloud's administrator for a higher quota.",
        code="TooManyBuckets",
    ),
    RefusalRow(
        Halted,
        "the bucket is full, or our account's quota is",
        "Delete bundles that no image needs, choose another bucket, or ask the cloud's administrator for a"
        " higher quota.",
        code=r"EntityTooLarge|\w*QuotaExceeded",
        words=r"quota (is |was |has been )?exceeded|exceed(s|ed)? (\w+ )?quota",
    ),
    RefusalRow(
        Deferred,
        "somebody else is making or deleting the bucket at this moment",
        "No action is needed.",
        code="OperationAborted",
    ),
    RefusalRow(
        Halted,
        "its EC2 does not know the bucket that S3 has just taken the bundle into",
        "See that s3_url and ec2_url are of one cloud: compare both with its eucarc.",
        code="NoSuchBucket",
        words="(specified )?bucket does not exist",
        halves=EC2_ALONE,
    ),
    RefusalRow(
        Deferred,
        "the bucket is not there",
        "If somebody deleted it, the next attempt makes a new one.",
        code="NoSuchBucket",
    ),
    RefusalRow(
        Rejected,
        "a file of the bundle is not in the bucket",
        "If somebody deleted it, deregister the image, and drop its files again.",
        code="NoSuchKey",
    ),
    RefusalRow(
        Deferred,
        "what arrived is not what we sent",
        "No action is needed.",
        code="BadDigest|InvalidDigest",
    ),
    # The manifest
    RefusalRow(
        BundleRefused,
        "it cannot read the manifest in the bucket, or does not know the certificate whose key signed it",
        "See that s3_url and ec2_url are of one cloud, that user_cert and user_key are the pair that it gave"
        " us and cloud_cert is its own; then retry the set.",
        words="manifest referenced is invalid or unavailable",
        dialects=ONE_SENTENCE_FOR_MANIFESTS,
    ),
    RefusalRow(
        BundleRefused,
        "it cannot read the manifest in the bucket",
        "See that s3_url and ec2_url are of one cloud, and that the dialect is right: some clouds must be"
        " allowed to read what we upload.",
        words="failed to read manifest file|manifest referenced is invalid or unavailable",
    ),
    RefusalRow(
        Rejected,
        "the image is larger than it takes",
        "Make the image smaller, or ask the cloud's administrator to raise the limit.",
        words="cannot register image of size|image size exceeds",
    ),
    RefusalRow(
        BundleRefused,
        "it finds a mistake in the manifest",
        "Compare cloud_cert and the dialect with the cloud, then retry the set; its administrator's"
        " logs may say more than its answer.",
        code="InvalidManifest",
    ),
    # The registration
    RefusalRow(
        Rejected,
        "only its administrators may register kernels and ramdisks",
        'Name registered ones in the sidecar (kernel = "eki-…", ramdisk = "eri-…"), or give this service an'
        " administrator's credentials and retry the set.",
        words="only administrators can register",
    ),
    RefusalRow(
        Rejected,
        "it has no kernel or ramdisk of that id",
        "Compare kernel and ramdisk in the sidecar with the ids that the cloud lists.",
        code=r"Invalid(AKI|ARI)ID|Invalid(Kernel|Ramdisk)\w*",
        words="referenced (kernel|ramdisk) id is invalid",
    ),
    RefusalRow(
        Rejected,
        "it does not accept the manifest's place in the bucket",
        "Choose a bucket name of 3 to 63 lower case letters, digits and hyphens.",
        code="InvalidAMILocation",
        words="invalid image location",
    ),
    RefusalRow(
        Rejected,
        "it does not boot images of that virtualization",
        "Change virtualization in the sidecar.",
        words="(invalid|unknown|unsupported) virtuali[sz]ation[ -]?(type)?"
        "|parameter virtuali[sz]ationtype is invalid"
        r"|virtuali[sz]ation type (\S+ )?is (invalid|not (valid|supported))",
    ),
    RefusalRow(
        Rejected,
        "it has no image of that id",
        "Compare the id with those that the cloud lists.",
        code="InvalidAMIID",
    ),
    RefusalRow(
        Rejected,
        "it has no account of a number that the image is to be shared with",
        "Correct share in the sidecar.",
        code="InvalidUserID|InvalidAMIAttributeItemValue",
        words="not a valid userid",
    ),
    # What passes
    RefusalRow(
        CloudAway,
        "it is too busy just now",
        "No action is needed.",
        code=r"SlowDown|(Request)?Throttl\w*|RequestLimitExceeded|TooManyRequests|ServiceUnavailable"
        "|RequestTimeout",
    ),
    # Nothing known was said: the status decides
    RefusalRow(Halted, NOT_KNOWN, "Run `uecwatchd check`.", statuses=range(401, 404)),
    RefusalRow(
        Halted,
        NO_SERVICE,
        "Compare ec2_url and s3_url with the cloud's eucarc, and region where the cloud has regions.",
        code="40[45]",  # no code of its own: no S3 or EC2 said this
        statuses=range(404, 406),
    ),
    RefusalRow(Halted, OTHER_GENERATION, SET_DIALECT, statuses=range(412, 413), dialects=BINDING_IS_412),
    RefusalRow(
        CloudAway,
        "it was too slow to hear us out",
        "No action is needed.",
        statuses=range(TOO_SLOW, TOO_SLOW + 1),
    ),
    RefusalRow(
        Halted,
        "something before it takes no request as large as ours",
        "Have the web server or proxy that stands before it take 11 MiB, since a part of a bundle has 10"
        " (nginx: client_max_body_size 11m;).",
        code=f"{TOO_LARGE}",  # no code of its own, as above
        statuses=range(TOO_LARGE, TOO_LARGE + 1),
    ),
    RefusalRow(
        CloudAway,
        "it wants to be asked later",
        "No action is needed.",
        statuses=range(TOO_EARLY, TOO_EARLY + 1),
    ),
    RefusalRow(
        CloudAway, "it is too busy just now", "No action is needed.", statuses=range(TOO_MANY, TOO_MANY + 1)
    ),
    RefusalRow(Rejected, REFUSED, SEE_ITS_WORDS, words=r"^Failure: \d{3}", statuses=range(400, 500)),
    RefusalRow(
        Halted,
        "it refused, and not in the way of a cloud",
        "Compare ec2_url and s3_url with the cloud's eucarc, and see whether a web server or proxy before it"
        " answers in its place.",
        code=r"\d{3}",  # no code of its own, as above
        statuses=range(400, 500),
    ),
    RefusalRow(Rejected, REFUSED, SEE_ITS_WORDS, statuses=range(400, 500)),
    RefusalRow(Halted, "it does not know this request", SET_DIALECT, statuses=range(501, 502)),
    RefusalRow(
        Halted,
        "it failed without a word, as it also does when it does not know us or our clock is wrong",
        "If the cloud is well, compare `date -u` on both machines; if the clocks agree, the secret key for S3"
        " is wrong: fetch new credentials and set eucarc.",
        words=NO_WORD,
        statuses=range(500, 501),
        halves=S3_ALONE,
        dialects=REFUSES_WITHOUT_A_WORD,
    ),
    RefusalRow(
        CloudAway,
        "it failed without a word",
        "No action is needed.",
        words=NO_WORD,
        statuses=range(500, 501),
    ),
    RefusalRow(CloudAway, "it failed", "No action is needed."),
)


def find_row(dialect: str, refusal: Refusal, first: Iterable[RefusalRow] = ()) -> RefusalRow:
    """Return the first row that fits an answer, of those in `first` and then of the table.

    The last row of the table fits everything.
    """
    return next(row for row in chain(first, ROWS) if row.fits(dialect, refusal))
