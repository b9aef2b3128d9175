"""Images made and taken away: registered, waited for, deregistered."""

import time
from collections.abc import Callable, Mapping

from botocore.exceptions import ClientError

from uecwatchd import boundary
from uecwatchd.cloud.client import Cloud
from uecwatchd.cloud.dialect import fitting_name
from uecwatchd.cloud.images import AVAILABLE, Image, images, is_id, one, registered
from uecwatchd.cloud.refusal import code_of, translated
from uecwatchd.cloud.silence import quoted
from uecwatchd.errors import CloudAway, Deferred, Rejected
from uecwatchd.image import Role

WINDOWS = "windows"

# Of what came in place of an id, enough to see what it is.
ID_CHARACTERS = 60
ROLE_NAMES: Mapping[Role, str] = {"machine": "machine image", "kernel": "kernel", "ramdisk": "ramdisk"}

# Eucalyptus marks an image at the first request and takes it off its list at the second.
DEREGISTER_CALLS = 2

# OpenStack fetches, joins and converts the whole bundle meanwhile: some minutes for tens of GiB.
WAIT_SECONDS = 1800.0

# Often enough for a person who waits, and never two equal requests in one second, which Eucalyptus 3 takes
# for a replay.
POLL_EVERY_SECONDS = 3.0


def register(
    cloud: Cloud,
    *,
    location: str,
    name: str,
    description: str | None,
    arch: str,
    kernel: str | None,
    ramdisk: str | None,
    virtualization: str | None,
    platform: str,
    role: Role | None = None,
) -> str:
    """Register a manifest; the new image's id, of that `role`. Only what the dialect takes is sent.

    After a `CloudAway` nobody knows whether it was carried out: look with `at_location` before asking again.
    """
    wanted = {
        "Name": fitting_name(cloud.dialect, name),
        "Description": description,
        "Architecture": arch,
        "KernelId": kernel,
        "RamdiskId": ramdisk,
        "VirtualizationType": virtualization,
        "Platform": platform if platform == WINDOWS else None,  # no other is ever named
    }
    taken = {key: wanted[key] for key in wanted if key in cloud.dialect.register_parameters and wanted[key]}
    doing = f"registering {location}"
    with translated(cloud, doing), boundary.effect("RegisterImage"):
        answer = cloud.ec2.register_image(ImageLocation=location, **taken)
    if image_id := answer.get("ImageId"):
        return _believed(cloud, str(image_id), role, doing)
    why = "it answered without an id"
    raise CloudAway(
        f"cloud {cloud.name}, {doing}",
        why,
        "It is not registered twice: the cloud's list is looked through first.",
    )


def wait(
    cloud: Cloud,
    image_id: str,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    timeout: float = WAIT_SECONDS,
) -> Image:
    """Watch an image until it is available; one that is not listed yet is waited for as well.

    Raises `Rejected` if it fails, `Deferred` when `timeout` seconds have not been enough, and whatever
    `sleep` raises: that is how the wait is put down.
    """
    deadline = clock() + timeout
    while True:
        image = one(cloud, image_id)
        if image and image.state == AVAILABLE:
            registered(cloud, image)
            return image
        if image and image.state not in cloud.dialect.pending_states:
            raise _failed(cloud, image)
        if clock() >= deadline:
            raise _too_slow(cloud, image_id, image, timeout)
        sleep(POLL_EVERY_SECONDS)


def deregister(cloud: Cloud, image_id: str) -> None:
    """Take an image off the cloud's list, if it is there. Raises `Deferred` if it stays."""
    if one(cloud, image_id) is None:
        return
    for _ in range(DEREGISTER_CALLS):
        with translated(cloud, f"deregistering {image_id}"), boundary.effect("DeregisterImage"):
            try:
                cloud.ec2.deregister_image(ImageId=image_id)
            except ClientError as error:
                if not code_of(error).startswith("InvalidAMIID"):
                    raise
        if one(cloud, image_id) is None:
            return
    raise Deferred(
        f"cloud {cloud.name}, deregistering {image_id}",
        f"it is still listed after {DEREGISTER_CALLS} requests",
        "An instance of it may have to end first.",
    )


def probe(cloud: Cloud) -> None:
    """Ask both halves for what only a known user gets. Raises what is wrong."""
    with translated(cloud, "listing its buckets"):
        cloud.s3.list_buckets()
    images(cloud)


def _believed(cloud: Cloud, image_id: str, role: Role | None, doing: str) -> str:
    """Raises Rejected: there may be an image, so that somebody has to look before another is registered."""
    if is_id(cloud, image_id, role):
        return image_id
    what = f"a {ROLE_NAMES[role]}" if role else "an image"
    raise Rejected(
        f"cloud {cloud.name}, {doing}",
        f"it answered with {quoted(image_id[:ID_CHARACTERS])!r}, which is no id of {what}",
        f"See that the dialect ({cloud.dialect.name}) is right, and whether the cloud lists an image of that"
        " location: deregister it, then retry.",
    )


def _failed(cloud: Cloud, image: Image) -> Rejected:
    said = f" ({quoted(image.reason)})" if image.reason else ""
    return Rejected(
        f"cloud {cloud.name}, registering {image.location}",
        f"{image.id} is {quoted(image.state)}{said}",
        "See that the image boots on this cloud; its administrator's logs say more about the id.",
    )


def _too_slow(cloud: Cloud, image_id: str, image: Image | None, timeout: float) -> Deferred:
    state = f"still {quoted(image.state)}" if image else "not listed"
    return Deferred(
        f"cloud {cloud.name}, waiting for {image_id}",
        f"it is {state} after {timeout:.0f} s",
        "It is not registered twice.",
    )
