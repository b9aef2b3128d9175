"""Registration of images: register, wait for, deregister."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from botocore.exceptions import ClientError

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.dialects import fitting_name
from uecwatchd.clouds.errors.connection import quoted
from uecwatchd.clouds.errors.translate import code_of, request_id_in, translated
from uecwatchd.clouds.images import AVAILABLE, Image, find_image, is_id, list_images, remember_image
from uecwatchd.errors import BundleRefused, CloudAway, Deferred, Rejected
from uecwatchd.system import failpoints
from uecwatchd.types import Role

WINDOWS = "windows"

# Of what came in place of an id, enough to see what it is.
ID_CHARACTERS = 60
ROLE_NAMES: Mapping[Role, str] = {"machine": "machine image", "kernel": "kernel", "ramdisk": "ramdisk"}

# Eucalyptus marks an image at the first request and takes it off its list at the second.
DEREGISTER_CALLS = 2


@dataclass(frozen=True, slots=True)
class RegisterAnswer:
    """The cloud's answer to RegisterImage: the new image's id, and that of the request, if it has one."""

    image_id: str
    request_id: str = ""


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
) -> RegisterAnswer:
    """Register a manifest as an image of that `role`. Only what the dialect takes is sent.

    After a `CloudAway` nobody knows whether it was carried out: look with `image_at` before asking again.
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
    with translated(cloud, doing), failpoints.effect("RegisterImage"):
        answer = cloud.ec2.register_image(ImageLocation=location, **taken)
    if image_id := answer.get("ImageId"):
        fitting = _fitting_id(cloud, str(image_id), role, doing)
        return RegisterAnswer(fitting, request_id_in(answer["ResponseMetadata"]))
    why = "it answered without an id"
    raise CloudAway(
        f"cloud {cloud.name}, {doing}",
        why,
        "It is not registered twice: the cloud's list is looked through first.",
    )


def wait_until_available(
    cloud: Cloud, image_id: str, *, pauses: Iterable[float], sleep: Callable[[float], None]
) -> Image | None:
    """Look at an image until it is available, once more after each pause; None if it is not even then.

    One that is not listed yet counts as pending. Raises `BundleRefused` if it has failed, and whatever
    `sleep` raises: that is how the watch is stopped.
    """
    for pause in (0.0, *pauses):
        if pause:
            sleep(pause)
        image = find_image(cloud, image_id)
        if image:
            remember_image(cloud, image)  # in whatever state: one that has failed keeps its name
        if image and image.state == AVAILABLE:
            return image
        if image and image.state not in cloud.dialect.pending_states:
            raise _failed(cloud, image)
    return None


def deregister(cloud: Cloud, image_id: str) -> None:
    """Take an image off the cloud's list, if it is there. Raises `Deferred` if it stays."""
    if find_image(cloud, image_id) is None:
        return
    for _ in range(DEREGISTER_CALLS):
        with translated(cloud, f"deregistering {image_id}"), failpoints.effect("DeregisterImage"):
            try:
                cloud.ec2.deregister_image(ImageId=image_id)
            except ClientError as error:
                if not code_of(error).startswith("InvalidAMIID"):
                    raise
        if find_image(cloud, image_id) is None:
            return
    raise Deferred(
        f"cloud {cloud.name}, deregistering {image_id}",
        f"it is still listed after {DEREGISTER_CALLS} requests",
        "An instance of it may have to end first.",
    )


def probe_ec2(cloud: Cloud) -> None:
    """Ask both halves for what only a known user gets. Raises what is wrong."""
    with translated(cloud, "listing its buckets"):
        cloud.s3.list_buckets()
    list_images(cloud)


def _fitting_id(cloud: Cloud, image_id: str, role: Role | None, doing: str) -> str:
    """Return the id if it fits. Raises Rejected: there may be an image, so that somebody has to look before
    another is registered.
    """
    if is_id(cloud, image_id, role):
        return image_id
    what = f"a {ROLE_NAMES[role]}" if role else "an image"
    raise Rejected(
        f"cloud {cloud.name}, {doing}",
        f"it answered with {quoted(image_id[:ID_CHARACTERS])!r}, which is no id of {what}",
        f"See that the dialect ({cloud.dialect.name}) is right, and whether the cloud lists an image of that"
        " location: deregister it, then retry.",
    )


def _failed(cloud: Cloud, image: Image) -> BundleRefused:
    reason = f" ({quoted(image.reason)})" if image.reason else ""
    return BundleRefused(
        f"cloud {cloud.name}, registering {image.location}",
        f"{image.id} is {quoted(image.state)}{reason}",
        f"See that cloud_cert under [cloud.{cloud.name}], or in its eucarc, is this cloud's certificate, and"
        " that the image boots there; then retry the set. Its administrator's logs say more about the id.",
    )
