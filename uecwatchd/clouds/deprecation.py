"""Deprecation: an image stays usable, and is no longer shown to others who look for one."""

from collections.abc import Callable
from datetime import UTC, datetime

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.errors.translate import translated
from uecwatchd.clouds.images import find_image
from uecwatchd.errors import Deferred
from uecwatchd.system import failpoints

# EC2 takes a time in the future only, in whole minutes.
AHEAD_SECONDS = 120.0


def deprecate(cloud: Cloud, image_id: str, *, now: Callable[[], float]) -> None:
    """Deprecate an image from about now on, if it is not deprecated yet.

    Raises Deferred if it stays as it was.
    """
    doing = f"deprecating {image_id}"
    if _is_deprecated(cloud, image_id):
        return
    at = datetime.fromtimestamp(now() + AHEAD_SECONDS, UTC).replace(second=0, microsecond=0)
    with translated(cloud, doing), failpoints.effect("EnableImageDeprecation"):
        cloud.ec2.enable_image_deprecation(ImageId=image_id, DeprecateAt=at)
    if not _is_deprecated(cloud, image_id):
        raise _not_changed(cloud, doing)


def restore(cloud: Cloud, image_id: str) -> None:
    """Take the deprecation of an image back, if it has one. Raises Deferred if it stays."""
    doing = f"taking the deprecation of {image_id} back"
    if not _is_deprecated(cloud, image_id):
        return
    with translated(cloud, doing), failpoints.effect("DisableImageDeprecation"):
        cloud.ec2.disable_image_deprecation(ImageId=image_id)
    if _is_deprecated(cloud, image_id):
        raise _not_changed(cloud, doing)


def _is_deprecated(cloud: Cloud, image_id: str) -> bool:
    image = find_image(cloud, image_id)
    return image is not None and bool(image.deprecated)


def _not_changed(cloud: Cloud, doing: str) -> Deferred:
    return Deferred(
        f"cloud {cloud.name}, {doing}",
        "it answered with success, and nothing has changed",
        "Ask its support.",
    )
