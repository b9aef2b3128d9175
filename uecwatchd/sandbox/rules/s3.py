"""Rules of the S3 half.

If the versions of one generation differ, its row has the strictest of each rule.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

_OLD_LISTING = frozenset({"prefix", "marker", "max-keys", "delimiter"})
_LISTING = _OLD_LISTING | {
    *("encoding-type", "list-type", "continuation-token", "start-after", "fetch-owner"),
}
_PORTABLE_ACLS = frozenset(
    {
        *("private", "public-read", "public-read-write", "authenticated-read"),
        *("bucket-owner-read", "bucket-owner-full-control"),
    }
)
_ACLS = _PORTABLE_ACLS | {"aws-exec-read", "ec2-bundle-read", "log-delivery-write"}


@dataclass(frozen=True, slots=True)
class S3Rules:
    """Sizes in bytes, windows in seconds. A `…_code` is a refusal's error code; empty means no refusal."""

    paths: tuple[str, ...]  # the service's paths, without a slash at the end; the first is handed out
    names: frozenset[str]  # first labels of hosts with the root as a path; empty: any host
    # Who asks
    signatures: frozenset[str]  # versions understood: "v2", "v4"
    bare_resource: bool  # V2: whether a canonical resource without the service path is taken as well
    replay_refused: bool  # whether one version 2 signature counts once
    window: int  # how far a request's date may be off, in both directions
    skewed_code: str  # of a date beyond the window
    auth_failure_empty: bool  # whether a failed authentication is a 500 without a word
    # What can be asked
    head_bucket: bool
    listing_keys: frozenset[str]  # query keys of a listing
    harmless_keys: frozenset[str]  # query keys of any request that change nothing
    unknown_key_code: str  # of a query key that is none of these
    # Buckets
    bucket_name: re.Pattern[str]
    bucket_quota: int
    quota_first: bool  # whether the quota is looked at before the bucket that is asked for
    own_bucket_code: str  # of making one's own bucket again
    bucket_size: int | None  # of all objects in one; None: as much as fits
    # Objects
    canned_acls: frozenset[str]
    owner_enforced: bool  # whether a bucket takes no ACLs unless it was made to
    plus_is_space: bool  # in a key
    content_md5_checked: bool
    etag_quoted: bool

    @property
    def path(self) -> str:
        return self.paths[0]

    def find_path(self, path: str) -> str | None:
        """Return the service path above a path, both without percent signs, or None."""
        return next((mine for mine in self.paths if f"{path}/".startswith(f"{mine}/")), None)


# This row is no server, and not what all of them accept. It takes what any S3 client does by default, and
# most generations take: HEAD on a bucket, the encoding-type that boto3 adds to a listing, version 2 signed
# without the service path. The rows of the first servers refuse these. It takes no query keys beyond those of
# a listing, since a client can do without them.
_SANDBOX = S3Rules(
    paths=("/services/Walrus",),
    names=frozenset(),
    signatures=frozenset({"v2", "v4"}),
    bare_resource=True,
    replay_refused=False,
    window=15 * 60,
    skewed_code="RequestTimeTooSkewed",
    auth_failure_empty=False,
    head_bucket=True,
    listing_keys=_LISTING,
    harmless_keys=frozenset({"x-id"}),  # SDKs name the operation in the URL
    unknown_key_code="InvalidArgument",
    bucket_name=re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]"),
    bucket_quota=100,  # from 3.4; the older 5 would only forbid parallel tests
    quota_first=False,
    own_bucket_code="BucketAlreadyOwnedByYou",
    bucket_size=None,
    canned_acls=_ACLS,
    owner_enforced=False,
    plus_is_space=False,
    content_md5_checked=True,
    etag_quoted=True,
)
# 3.1 and 3.2: a query key its binding did not know, such as boto3's encoding-type, failed the request.
_EUCA3 = replace(
    _SANDBOX,
    signatures=frozenset({"v2"}),
    bare_resource=False,
    replay_refused=True,
    skewed_code="AccessDenied",
    head_bucket=False,
    listing_keys=_OLD_LISTING,
    harmless_keys=frozenset(),
    bucket_name=re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,254}"),
    bucket_quota=5,
    own_bucket_code="BucketAlreadyExists",
    plus_is_space=True,
)
# 4.0 to 4.3: the gateway in front of the store computes no digest of its own.
_EUCA4 = replace(
    _EUCA3,
    paths=("/services/objectstorage", "/services/Walrus", ""),
    names=frozenset({"s3", "objectstorage"}),  # in the cloud's own domain
    bare_resource=True,
    skewed_code="RequestTimeTooSkewed",
    head_bucket=True,
    unknown_key_code="",
    bucket_quota=100,
    own_bucket_code="",
    content_md5_checked=False,
)
_OTHERS = replace(
    _SANDBOX,
    paths=("",),
    signatures=frozenset({"v4"}),
    unknown_key_code="",
    bucket_name=re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
)

S3_RULES: Mapping[str, S3Rules] = {
    "sandbox": _SANDBOX,
    # 1.6: the binding's failures are 500 there, those of authentication too, and these say nothing at all.
    "uec": replace(
        _EUCA3,
        replay_refused=False,
        auth_failure_empty=True,
        unknown_key_code="InternalError",
        quota_first=True,
        own_bucket_code="BucketAlreadyOwnedByYou",
        bucket_size=5 << 30,
        content_md5_checked=False,
        etag_quoted=False,
    ),
    "euca3": _EUCA3,
    "euca4": _EUCA4,
    "euca5": replace(_EUCA4, signatures=frozenset({"v2", "v4"}), replay_refused=False),
    # Ceph's gateway and Swift know the canned ACLs of old, and not the one for bundles.
    "openstack": replace(_OTHERS, canned_acls=_PORTABLE_ACLS),
    "aws": replace(_OTHERS, owner_enforced=True),
}
