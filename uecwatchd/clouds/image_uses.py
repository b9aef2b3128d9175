"""Instances and templates of the account that use an image, as the cloud lists them now."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.errors.translate import translated
from uecwatchd.errors import Halted

# Those that have ended stay on the list for an hour, and need no image.
ENDED_STATE = "terminated"
# More than one account may have anywhere without asking for it, and some hundred megabytes of memory.
MOST_INSTANCES = 100_000
# EC2 answers with up to so many references in a page, and takes up to ten ids.
IMAGES_AT_ONCE = 10


def instances_by_image(cloud: Cloud) -> Mapping[str, tuple[str, ...]]:
    """Return the ids of instances that have not ended, by the id of each image, kernel and ramdisk.

    Raises Halted if there are more than can be looked at: then nothing is known about any image.
    """
    found = defaultdict[str, list[str]](list)
    instances = list(islice(_instances(cloud), MOST_INSTANCES + 1))
    if len(instances) > MOST_INSTANCES:
        raise Halted(
            f"cloud {cloud.name}, listing its instances",
            f"it lists more than {MOST_INSTANCES}",
            "Use an account of its own for this service.",
        )
    for instance in instances:
        if (instance.get("State") or {}).get("Name") == ENDED_STATE:
            continue
        for key in ("ImageId", "KernelId", "RamdiskId"):
            if image_id := instance.get(key):
                found[str(image_id)].append(str(instance.get("InstanceId")))
    return {image_id: tuple(ids) for image_id, ids in found.items()}


def _instances(cloud: Cloud) -> Iterator[Mapping[str, Any]]:
    after: dict[str, str] = {}
    while True:
        with translated(cloud, "listing its instances"):
            answer = cloud.ec2.describe_instances(**after)
        for reservation in answer.get("Reservations") or ():
            yield from reservation.get("Instances") or ()
        token = answer.get("NextToken")
        if not token or token == after.get("NextToken"):
            return
        after = {"NextToken": str(token)}


def references_by_image(cloud: Cloud, image_ids: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Return what else refers to images, such as launch templates, by image.

    Nothing where the cloud cannot tell.
    """
    if not cloud.dialect.tells_references:
        return {}
    found = defaultdict[str, list[str]](list)
    ids = sorted(set(image_ids))
    for start in range(0, len(ids), IMAGES_AT_ONCE):
        for one in _references(cloud, ids[start : start + IMAGES_AT_ONCE]):
            words = f"{one.get('ResourceType', 'resource')} {one.get('Arn', '')}".strip()
            found[str(one.get("ImageId"))].append(words)
    return {image_id: tuple(words) for image_id, words in found.items()}


def _references(cloud: Cloud, ids: list[str]) -> Iterator[Mapping[str, Any]]:
    after: dict[str, str] = {}
    while True:
        with translated(cloud, "asking what refers to its images"):
            answer = cloud.ec2.describe_image_references(ImageIds=ids, IncludeAllResourceTypes=True, **after)
        yield from answer.get("ImageReferences") or ()
        token = answer.get("NextToken")
        if not token or token == after.get("NextToken"):
            return
        after = {"NextToken": str(token)}
