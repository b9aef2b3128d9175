"""The abilities of a generation of cloud, in one line."""

from collections.abc import Iterator

from uecwatchd.clouds.dialects import Dialect
from uecwatchd.system.text import format_size


def facts(dialect: Dialect) -> str:
    return "; ".join((_signatures(dialect), _has(dialect), *_limits(dialect), *_behaviour(dialect)))


def _signatures(dialect: Dialect) -> str:
    s3 = {"s3": "V2", "s3v4": "V4"}[dialect.s3_signature]
    path = " over the whole path" if dialect.signs_whole_path else ""
    once = ", none twice" if dialect.replay_refused else ""
    return f"EC2 {dialect.ec2_signature.upper()}, S3 {s3}{path}{once}"


def _has(dialect: Dialect) -> str:
    capabilities = {
        "image names": dialect.name_pattern is not None,
        "filters": dialect.filters,
        f"{dialect.tag_limit} tags" if dialect.tag_limit else "tags": dialect.tag_limit > 0,
        "HEAD for buckets": dialect.head_bucket,
        "prefixes": dialect.key_prefix,
        f"ACL {dialect.canned_acl}" if dialect.canned_acl else "ACLs": dialect.canned_acl is not None,
    }
    names_by_support = {True: "", False: ""}
    for known in names_by_support:
        names_by_support[known] = ", ".join(name for name, there in capabilities.items() if there is known)
    return "; ".join(
        f"{word} {names_by_support[known]}"
        for known, word in ((True, "has"), (False, "no"))
        if names_by_support[known]
    )


def _limits(dialect: Dialect) -> Iterator[str]:
    if dialect.bucket_quota:
        each = f" of {format_size(dialect.bucket_size)}" if dialect.bucket_size else ""
        yield f"{dialect.bucket_quota} buckets{each}"
    if limit := dialect.image_limit:
        yield f"images up to {format_size(limit.size)}{'' if limit.fixed else ' by default'}"
    if dialect.manifest_limit:
        yield f"manifests up to {format_size(dialect.manifest_limit)}"


def _behaviour(dialect: Dialect) -> Iterator[str]:
    yield "boots whole disks alone" if dialect.boots_disk_alone else "boots no disk without a kernel"
    if dialect.account_checked:
        yield "account numbers are checked"
    yield "images may be public at first" if dialect.public_by_default else "images are private at first"
