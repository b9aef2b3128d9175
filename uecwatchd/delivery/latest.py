"""Marks of the image to be used: a tag with the name of its set, and a parameter.

The tag comes to the new image before it leaves the old one, so that a search always finds an image. For a
moment it may find two.
"""

from collections.abc import Callable, Iterable
from functools import partial

from uecwatchd.clouds.attributes import tag, untag
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.images import list_images
from uecwatchd.clouds.latest_parameter import point_parameter
from uecwatchd.errors import Stopped, UecError
from uecwatchd.ledger.versions import VersionRecord
from uecwatchd.system.text import printable
from uecwatchd.types import SetId

LATEST_TAG = "latest"
# The beginning of the remark about a mark that could not be made.
NOT_LATEST = "it is not marked as the latest"


def mark_latest(
    cloud: Cloud,
    set_id: SetId,
    image_id: str,
    versions: Iterable[VersionRecord],
    *,
    sleep: Callable[[float], None],
) -> None:
    """Have parameter and tag of a set lead to an image, as far as the cloud has them.

    Neither keeps the other from it. Raises the first error in the end.
    """
    steps: list[Callable[[], object]] = [partial(point_parameter, cloud, set_id.name, image_id, sleep=sleep)]
    if cloud.dialect.tag_limit:
        steps.append(partial(_move_tag, cloud, set_id, image_id, versions))
    do_each(steps)


def do_each(steps: Iterable[Callable[[], object]]) -> None:
    """Take all of several steps, and raise the first error in the end. A stop is raised at once."""
    errors: list[UecError] = []
    for step in steps:
        try:
            step()
        except Stopped:
            raise
        except UecError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _move_tag(cloud: Cloud, set_id: SetId, image_id: str, versions: Iterable[VersionRecord]) -> None:
    """Give an image the tag of its set, and take it from the other versions."""
    value = printable(set_id.name)
    tag(cloud, image_id, {LATEST_TAG: value})
    others = {one.image_id for one in versions if one.image_id != image_id}
    for image in list_images(cloud):
        if image.id in others and dict(image.tags).get(LATEST_TAG) == value:
            untag(cloud, image.id, [LATEST_TAG])
