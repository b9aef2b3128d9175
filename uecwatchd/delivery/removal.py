"""Removal of an image of ours from its cloud, with its bundle."""

from collections.abc import Callable

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.objects import remove_object
from uecwatchd.clouds.registration import deregister
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import BundleRecord


def remove_image(cloud: Cloud, bundle: BundleRecord, ledger: Ledger, *, check: Callable[[], None]) -> None:
    """Deregister an image, then delete its bundle: an image without its parts cannot start.

    After an interruption it starts again from the beginning: the ledger keeps the bundle until the end.
    `check` is called between the steps, and may raise to stop.
    """
    ledger.sessions.sure()
    deregister(cloud, bundle.image_id)
    for stored in bundle.objects:
        check()
        remove_object(cloud, bundle.bucket, stored.key)
    ledger.drop_bundle(bundle)
