"""Check of the rights for test boots, where sets are tested by the configuration of their cloud."""

from collections.abc import Iterator

from uecwatchd.cli.check.finding import Finding, bad
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.images import AVAILABLE, list_images
from uecwatchd.clouds.instances import ask_to_launch, list_instances
from uecwatchd.config.records import CloudSettings
from uecwatchd.errors import UecError
from uecwatchd.service.attempt.boot import launch_request

MACHINE_IDS = ("emi-", "ami-")


def examine_launch(cloud: Cloud, settings: CloudSettings) -> Iterator[Finding]:
    """Ask for what a test boot needs, as far as that changes nothing."""
    try:
        running = len(list_instances(cloud))
        words = f"we may list instances (there are {running})"
        if not cloud.dialect.launch_dry_run:
            words += "; the first boot shows if we may start one"
        elif image := next((one for one in list_images(cloud) if _can_be_started(one.id, one.state)), None):
            ask_to_launch(cloud, launch_request(image, settings))
            words += f", and start one of {image.id}"
        else:
            words += "; whether we may start one is not known before an image is registered"
    except UecError as error:
        yield bad(error, cloud.name)
    else:
        yield Finding("ok", f"cloud {cloud.name}: for test boots {words}")


def _can_be_started(image_id: str, state: str) -> bool:
    return state == AVAILABLE and image_id.startswith(MACHINE_IDS)
