"""Attributes of a registered image: tags, a description, and launch permissions.

Everything is read back: some servers answer "return: false" with a 200, and some say "true" and do nothing.
Permissions are asked for in the oldest form, which every server knows, groups and users each by themselves.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.errors.translate import translated
from uecwatchd.clouds.images import find_image
from uecwatchd.errors import Rejected
from uecwatchd.system import failpoints

ALL = "all"  # the group of everybody
# Of others, as clouds name them, by number or, the first generation, by name; and more than any image has.
ACCOUNT = re.compile(r"[A-Za-z0-9_@.+=,:-]{1,128}")
MOST_ACCOUNTS = 10_000
LAUNCH_PERMISSION, DESCRIPTION = "launchPermission", "description"


@dataclass(frozen=True, slots=True)
class Permissions:
    """Launch permissions beside the owner's: everybody, or these accounts."""

    public: bool
    accounts: frozenset[str]


def tag(cloud: Cloud, image_id: str, tags: Mapping[str, str]) -> None:
    """Write the missing and the changed tags.

    Raises Rejected: for a tag that did not stick. A refusal of the cloud raises what it means.
    """
    doing = f"tagging {image_id}"
    if not cloud.dialect.tag_limit:
        raise _not_done(cloud, doing, "it has no tags")
    before = read_tags(cloud, image_id)
    tags = {key: value for key, value in tags.items() if before.get(key) != value}
    if not tags:
        return
    with translated(cloud, doing), failpoints.effect("CreateTags"):
        cloud.ec2.create_tags(
            Resources=[image_id], Tags=[{"Key": key, "Value": value} for key, value in tags.items()]
        )
    there = read_tags(cloud, image_id)
    missing = sorted(key for key, value in tags.items() if there.get(key) != value)
    if missing:
        raise _not_done(cloud, doing, f"it has not kept {', '.join(missing)}")


def untag(cloud: Cloud, image_id: str, keys: Collection[str]) -> None:
    """Take tags away, whatever their values are. Raises `Rejected` for one that stays."""
    doing = f"taking tags off {image_id}"
    there = sorted(read_tags(cloud, image_id).keys() & set(keys))
    if not there:
        return
    with translated(cloud, doing), failpoints.effect("DeleteTags"):
        cloud.ec2.delete_tags(Resources=[image_id], Tags=[{"Key": key} for key in there])
    if left := sorted(read_tags(cloud, image_id).keys() & set(there)):
        raise _not_done(cloud, doing, f"it has kept {', '.join(left)}")


def describe(cloud: Cloud, image_id: str, text: str) -> None:
    """Ensure that an image has a description; most clouds took it at registration.

    An empty text removes it.
    """
    doing = f"describing {image_id}"
    if _description(cloud, image_id) == text:
        return
    if DESCRIPTION not in cloud.dialect.attributes:
        raise _not_done(cloud, doing, "it keeps no descriptions")
    with translated(cloud, doing), failpoints.effect("ModifyImageAttribute"):
        cloud.ec2.modify_image_attribute(ImageId=image_id, Attribute=DESCRIPTION, Value=text)
    if _description(cloud, image_id) != text:
        raise _not_done(cloud, doing, "it has not kept the description")


def share(
    cloud: Cloud, image_id: str, *, public: bool | None, accounts: Iterable[str] | None, widen: bool = False
) -> Permissions:
    """Let these start an image, and no others; None leaves a side alone. Returns the users afterwards.

    `widen` takes nobody's permission away, for a kernel that other images boot with as well.
    """
    doing = f"sharing {image_id}"
    before = permissions(cloud, image_id)
    wanted = _wanted(before, public=public, accounts=accounts, widen=widen)
    if before == wanted:
        return before
    for change in _changes(before, wanted):
        with translated(cloud, doing), failpoints.effect("ModifyImageAttribute"):
            cloud.ec2.modify_image_attribute(ImageId=image_id, Attribute=LAUNCH_PERMISSION, **change)
    after = permissions(cloud, image_id)
    if after != wanted:
        raise _not_done(cloud, doing, _difference(after, wanted))
    return after


def _wanted(
    before: Permissions, *, public: bool | None, accounts: Iterable[str] | None, widen: bool
) -> Permissions:
    asked = Permissions(
        before.public if public is None else public,
        before.accounts if accounts is None else frozenset(accounts),
    )
    if not widen:
        return asked
    return Permissions(before.public or asked.public, before.accounts | asked.accounts)


def permissions(cloud: Cloud, image_id: str) -> Permissions:
    with translated(cloud, f"looking who may start {image_id}"):
        answer = cloud.ec2.describe_image_attribute(ImageId=image_id, Attribute=LAUNCH_PERMISSION)
    given = answer.get("LaunchPermissions") or ()
    accounts = frozenset(str(one["UserId"]) for one in given if one.get("UserId"))
    if len(accounts) > MOST_ACCOUNTS or not all(ACCOUNT.fullmatch(account) for account in accounts):
        raise _not_done(cloud, f"looking who may start {image_id}", "it names accounts that are none")
    return Permissions(any(one.get("Group") == ALL for one in given), accounts)


def _changes(before: Permissions, wanted: Permissions) -> Iterable[Mapping[str, object]]:
    if wanted.public != before.public:
        yield {"OperationType": "add" if wanted.public else "remove", "UserGroups": [ALL]}
    if added := sorted(wanted.accounts - before.accounts):
        yield {"OperationType": "add", "UserIds": added}
    if removed := sorted(before.accounts - wanted.accounts):
        yield {"OperationType": "remove", "UserIds": removed}


def _difference(after: Permissions, wanted: Permissions) -> str:
    if after.public != wanted.public:
        return "it is still public" if after.public else "it is still private"
    lacking, left = wanted.accounts - after.accounts, after.accounts - wanted.accounts
    if lacking:
        return f"it is not shared with {', '.join(sorted(lacking))}"
    return f"it is still shared with {', '.join(sorted(left))}"


def read_tags(cloud: Cloud, image_id: str) -> Mapping[str, str]:
    """Return the tags of an image as the cloud has them now; none where there are none."""
    if not cloud.dialect.filters:
        image = find_image(cloud, image_id)
        return dict(image.tags) if image else {}
    with translated(cloud, f"reading the tags of {image_id}"):
        answer = cloud.ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [image_id]}])
    return {str(one.get("Key")): str(one.get("Value") or "") for one in answer.get("Tags") or ()}


def _description(cloud: Cloud, image_id: str) -> str:
    image = find_image(cloud, image_id)
    return image.description if image else ""


def _not_done(cloud: Cloud, doing: str, why: str) -> Rejected:
    return Rejected(
        f"cloud {cloud.name}, {doing}", why, "Ask its administrator; the image itself is registered."
    )
