"""The client's table of generations held against the embedded cloud's: what we allow ourselves, it allows.

The two are written apart, so that a mistake must be made twice to stay hidden. Here they meet, fact by fact.
Each fact is put as a liberty, which one takes and the other gives: a number, a set, or whether at all, so
that `<=` holds where no more is taken than given. Where more is taken all the same, or less, is below
with the reason; any other difference is a mistake in one of the tables.
"""

import math
import re
import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import product
from typing import Any

import pytest

from uecwatchd.cli.check.clock import S3_WINDOW
from uecwatchd.clouds.dialects import DIALECTS, Dialect
from uecwatchd.sandbox.rules.ec2 import ImageIds
from uecwatchd.sandbox.rules.generations import RULES, GenerationRules

VERSIONS = {"s3": "v2", "s3v4": "v4"}  # botocore's words, and everybody's
BOOTERS = frozenset({"kernel", "ramdisk"})
# Of what RegisterImage takes, all that we ever send.
USED = frozenset(
    {
        *("Name", "Description", "Architecture", "KernelId", "RamdiskId"),
        *("VirtualizationType", "Platform"),
    }
)
PRIVATE = "private"  # what an object is that is given no canned ACL
# How an image's attribute is changed in the oldest form.
TOLD_BY = {"launchPermission": "UserGroup", "description": "Value"}

# A name for each character that a keyboard has, and some that it has not; and for both ends of the length.
CHARACTERS = (*string.printable, "ä", "\u2011", "\U0001d4a6")
NAMES = (*(f"ab{character}cd" for character in CHARACTERS), *("a" * n for n in (0, 1, 2, 3, 128, 129)))

BUCKETS = (
    *NAMES,
    *("a" * n for n in (63, 64, 255, 256)),
    *("UEC-Images", "my_images", "-ab", "ab-", ".ab", "a..b"),
)

# As some cloud has spelled an id, and as none has.
SHORT, LONG = "0f3c9e12", "0f3c9e120f3c9e123"
DIGITS = (SHORT, SHORT.upper(), LONG, LONG.upper(), SHORT[1:])


def spelled(letters: str, *digits: str) -> frozenset[str]:
    return frozenset(f"{letter}{role}i-{number}" for letter, role, number in product(letters, "mkr", digits))


IDS = spelled("eax", *DIGITS)


@dataclass(frozen=True, slots=True)
class Liberty:
    """`taken` by the client, `given` by the cloud. Of a `choice` one way is taken among those given."""

    taken: Callable[[Dialect], Any]
    given: Callable[[GenerationRules], Any]
    choice: bool = False


def known_by(pattern: re.Pattern[str] | None) -> frozenset[str]:
    """Return which forms of an account an image can be shared with: number, name, UEC number, project id."""
    named = ("123456789012", "alice", "8" * 38, "bob.smith-2", "1234-5678-9012", "")
    return frozenset(one for one in named if pattern and pattern.fullmatch(one))


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference: `taken` instead of what is given, and `why`."""

    taken: Any
    why: str


def limit(number: int | None) -> float:
    return math.inf if number is None else number


def known(rules: GenerationRules, action: str) -> frozenset[str]:
    """The parameters of an action, each by the first of its words; none if there is no such action."""
    return frozenset(name.partition(".")[0] for name in rules.ec2.actions.get(action, ()))


def matching(pattern: re.Pattern[str] | None, words: Iterable[str]) -> frozenset[str]:
    return frozenset(word for word in words if pattern and pattern.fullmatch(word))


def made(ids: ImageIds) -> frozenset[str]:
    """Those of our ids that the cloud itself might make."""
    fitting = (digits for digits in DIGITS if len(digits) == ids.digits)
    roles = ("machine", "kernel", "ramdisk")
    return frozenset(ids.spell(role, digits.lower()) for role, digits in product(roles, fitting))


def acls(rules: GenerationRules) -> frozenset[str]:
    """Those that an object may be sent with so that the cloud can read it then."""
    sent = frozenset({PRIVATE}) if rules.s3.owner_enforced else rules.s3.canned_acls
    return sent & rules.ec2.reader_acls if rules.ec2.reader_acls else sent


def has_hvm(rules: GenerationRules) -> bool:
    return "VirtualizationType" in known(rules, "RegisterImage")


def v2_spoken(dialect: Dialect) -> bool:
    return "v2" in (dialect.ec2_signature, VERSIONS[dialect.s3_signature])


# By the field of `Dialect`, with a second word where there is more than one to it.
LIBERTIES: Mapping[str, Liberty] = {
    "ec2_signature": Liberty(lambda d: {d.ec2_signature}, lambda r: r.ec2.signatures, choice=True),
    "s3_signature": Liberty(lambda d: {VERSIONS[d.s3_signature]}, lambda r: r.s3.signatures, choice=True),
    "signs_whole_path": Liberty(  # to sign less of it
        lambda d: d.s3_signature == "s3" and not d.signs_whole_path, lambda r: r.s3.bare_resource, choice=True
    ),
    "replay_refused": Liberty(  # to send one signature twice
        lambda d: v2_spoken(d) and not d.replay_refused,
        lambda r: not r.ec2.replay_refused and not r.s3.replay_refused,
        choice=True,
    ),
    "window.ahead": Liberty(lambda d: d.window.ahead, lambda r: r.ec2.ahead),
    "window.behind": Liberty(lambda d: d.window.behind, lambda r: r.ec2.behind),
    "window.s3": Liberty(lambda _: max(S3_WINDOW.ahead, S3_WINDOW.behind), lambda r: r.s3.window),
    "canned_acl": Liberty(lambda d: {d.canned_acl or PRIVATE}, acls, choice=True),
    "head_bucket": Liberty(lambda d: d.head_bucket, lambda r: r.s3.head_bucket),
    "key_prefix": Liberty(lambda d: d.key_prefix, lambda r: r.ec2.manifest_prefix and r.ec2.parts_beside),
    "unknown_query_keys": Liberty(lambda d: d.unknown_query_keys, lambda r: not r.s3.unknown_key_code),
    "bucket_pattern": Liberty(
        lambda d: matching(d.bucket_pattern, BUCKETS), lambda r: matching(r.s3.bucket_name, BUCKETS)
    ),
    "architectures": Liberty(
        lambda d: set(d.architectures.values()), lambda r: r.ec2.architectures, choice=True
    ),
    "bucket_quota": Liberty(lambda d: limit(d.bucket_quota), lambda r: r.s3.bucket_quota),
    "bucket_size": Liberty(lambda d: limit(d.bucket_size), lambda r: limit(r.s3.bucket_size)),
    "register_parameters": Liberty(
        lambda d: d.register_parameters, lambda r: known(r, "RegisterImage"), choice=True
    ),
    "register_parameters.used": Liberty(
        lambda d: d.register_parameters & USED, lambda r: known(r, "RegisterImage") & USED
    ),
    "name_pattern": Liberty(
        lambda d: matching(d.name_pattern, NAMES),
        lambda r: matching(r.ec2.image_name if "Name" in known(r, "RegisterImage") else None, NAMES),
    ),
    "name_pattern.none": Liberty(
        lambda d: d.name_pattern is None, lambda r: not r.ec2.name_required, choice=True
    ),
    "id_pattern": Liberty(lambda d: matching(d.id_pattern, IDS), lambda r: made(r.ec2.ids)),
    "id_pattern.missed": Liberty(  # not to know an id
        lambda d: IDS - matching(d.id_pattern, IDS), lambda r: IDS - made(r.ec2.ids), choice=True
    ),
    "found_by_id": Liberty(lambda d: d.found_by_id, lambda r: not r.ec2.lookup_broken),
    "paravirtual_needs": Liberty(  # to leave out
        lambda d: BOOTERS - d.paravirtual_needs, lambda r: set() if r.ec2.paravirtual_needs_both else BOOTERS
    ),
    "paravirtual_demands": Liberty(  # to leave out, if the sidecar says so
        lambda d: BOOTERS - d.paravirtual_demands,
        lambda r: set() if r.ec2.paravirtual_needs_both else BOOTERS,
    ),
    "windows_needs": Liberty(  # to leave out
        lambda d: BOOTERS - d.windows_needs, lambda r: BOOTERS if has_hvm(r) else set()
    ),
    "boots_disk_alone": Liberty(lambda d: d.boots_disk_alone, has_hvm),
    "kernels_by_administrators": Liberty(  # to have others register them
        lambda d: not d.kernels_by_administrators, lambda r: not r.ec2.administrators_only
    ),
    "disk_mapping": Liberty(
        lambda d: d.disk_mapping is not None, lambda r: not r.ec2.mapping_refused, choice=True
    ),
    "manifest_limit": Liberty(lambda d: limit(d.manifest_limit), lambda r: limit(r.ec2.manifest_size)),
    "image_limit": Liberty(
        lambda d: limit(d.image_limit.size if d.image_limit else None), lambda r: limit(r.ec2.image_size)
    ),
    "pending_states": Liberty(  # not to wait
        lambda d: "pending" not in d.pending_states, lambda r: not r.ec2.lifecycle.looks, choice=True
    ),
    "filters": Liberty(lambda d: d.filters, lambda r: "Filter" in known(r, "DescribeImages")),
    "tag_limit": Liberty(lambda d: d.tag_limit, lambda r: r.ec2.tags if "CreateTags" in r.ec2.actions else 0),
    "shares_with": Liberty(
        lambda d: known_by(d.shares_with.pattern if d.shares_with else None),
        lambda r: known_by(r.ec2.shared_with),
    ),
    "attributes": Liberty(
        lambda d: d.attributes,
        lambda r: {word for word, told in TOLD_BY.items() if told in known(r, "ModifyImageAttribute")},
    ),
    "public_by_default": Liberty(  # to take a new image for private
        lambda d: not d.public_by_default, lambda r: not r.ec2.public
    ),
    "deprecates": Liberty(lambda d: d.deprecates, lambda r: "EnableImageDeprecation" in r.ec2.actions),
    "tells_references": Liberty(
        lambda d: d.tells_references, lambda r: "DescribeImageReferences" in r.ec2.actions
    ),
    "has_parameters": Liberty(lambda d: d.has_parameters, lambda r: r.parameters),
    "account_checked": Liberty(  # to name another account
        lambda d: not d.account_checked, lambda r: not r.ec2.user_checked
    ),
    "offers_certificate": Liberty(lambda d: d.offers_certificate, lambda r: bool(r.ec2.certificates_path)),
    "launch_parameters": Liberty(
        lambda d: d.launch_parameters, lambda r: known(r, "RunInstances"), choice=True
    ),
    "token_listed": Liberty(lambda d: d.token_listed, lambda r: r.ec2.token_listed),
    "console_by_list": Liberty(
        lambda d: {"InstanceId.N" if d.console_by_list else "InstanceId"},
        lambda r: r.ec2.actions["GetConsoleOutput"],
        choice=True,
    ),
}
# What the embedded cloud has no fact of.
APART = {
    "name": "is the key of both tables",
    "versions": "is for people",
    "regional": "is of addresses, and the embedded cloud has but one",
    "shutdown_needs_volume": "is of volumes, and no image of a bundle has one",
    "launch_dry_run": "is of a question of `check`, which a cloud that ignores it would take for a launch",
    "opens_bundles": "is of what an image proves, and the embedded cloud opens every bundle at once",
}

NO_KERNEL = Difference({"ramdisk"}, "would take a machine that has no kernel, which boots nowhere")
SENDS_ACL = Difference({"aws-exec-read"}, "is asked once for each bucket whether it has ACLs, by sending one")
NO_PLATFORM = Difference(USED - {"Platform"}, "gets the kind of machine instead")
UNKNOWN = "may be any cloud, which is asked for no more than it needs"
# By liberty and generation.
DIFFERENCES: Mapping[tuple[str, str], Difference] = {
    # More is taken
    ("canned_acl", "openstack"): SENDS_ACL,
    ("canned_acl", "aws"): SENDS_ACL,
    ("bucket_quota", "openstack"): Difference(math.inf, "has any store behind it; the number is our own"),
    ("id_pattern", "euca3"): Difference(spelled("e", SHORT, SHORT.upper()), "has two forms, by version"),
    ("id_pattern", "euca4"): Difference(spelled("e", SHORT, SHORT.upper()), "has capitals if it was a 3"),
    ("id_pattern", "euca5"): Difference(
        spelled("ae", SHORT, LONG, SHORT.upper(), LONG.upper()), "has several forms, by version and history"
    ),
    ("id_pattern", "openstack"): Difference(spelled("a", SHORT, LONG), "has Amazon's forms, by version"),
    ("id_pattern", "aws"): Difference(spelled("a", SHORT, LONG), "has images from the days of short ids"),
    # Less is taken
    **{("paravirtual_needs", generation): NO_KERNEL for generation in ("uec", "euca3", "aws", "sandbox")},
    ("register_parameters.used", "openstack"): NO_PLATFORM,
    ("register_parameters.used", "aws"): NO_PLATFORM,
    ("register_parameters.used", "sandbox"): Difference(
        {"Name", "Description", "VirtualizationType"}, UNKNOWN
    ),
    ("head_bucket", "sandbox"): Difference(taken=False, why=UNKNOWN),
    ("filters", "sandbox"): Difference(taken=False, why=UNKNOWN),
    ("windows_needs", "sandbox"): Difference(set(), "has Windows booted as the first generations boot it"),
}


@pytest.mark.parametrize("generation", DIALECTS)
@pytest.mark.parametrize("name", LIBERTIES)
def test_a_dialect_permits_what_the_sandbox_accepts_except_for_listed_differences(
    generation: str, name: str
) -> None:
    liberty, difference = LIBERTIES[name], DIFFERENCES.get((name, generation))
    taken, given = liberty.taken(DIALECTS[generation]), liberty.given(RULES[generation])
    if difference:
        assert taken == difference.taken
        assert not (taken <= given if liberty.choice else taken == given), "there is no difference any more"
    else:
        assert taken <= given
        assert liberty.choice or taken == given


def test_both_tables_have_the_same_generations() -> None:
    assert DIALECTS.keys() == RULES.keys()


def test_every_field_of_a_dialect_is_compared_or_listed_as_an_exception() -> None:
    compared = {name.partition(".")[0] for name in LIBERTIES}
    assert compared | APART.keys() == {field.name for field in fields(Dialect)}
    assert not compared & APART.keys()


def test_every_listed_difference_names_an_existing_generation_and_field() -> None:
    assert DIFFERENCES.keys() <= set(product(LIBERTIES, DIALECTS))
