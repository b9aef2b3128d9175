"""Checks that a spool folder can be filled from its bucket."""

from collections.abc import Iterable, Iterator
from itertools import islice

from uecwatchd.cli.check.bucket import KEY_PREFIX, put_and_remove
from uecwatchd.cli.check.finding import Finding, bad
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.errors.source_table import SOURCE_ROWS
from uecwatchd.clouds.objects import PAGE_KEYS, list_objects
from uecwatchd.errors import UecError
from uecwatchd.types import BucketPlace


def examine_sources(cloud: Cloud, places: Iterable[BucketPlace]) -> Iterator[Finding]:
    """Check that each can be listed, and takes and deletes results."""
    for place in places:
        try:
            listed = list_objects(cloud, place.bucket, place.prefix, first=SOURCE_ROWS)
            number = sum(1 for _ in islice(listed, PAGE_KEYS))
            # Under a name that is not fetched.
            put_and_remove(cloud, place.bucket, f"{place.prefix}.{KEY_PREFIX}", is_for_cloud=False)
        except UecError as error:
            yield bad(error, cloud.name)
        else:
            objects = f"{PAGE_KEYS} objects or more" if number == PAGE_KEYS else f"objects: {number}"
            what = f"cloud {cloud.name}: {place} can be listed ({objects}), and takes and deletes results"
            yield Finding("ok", what)
