"""Images that this host may take out of a cloud: made here by the ledger, and by their tags.

Several hosts may use one account, and each of them may find an image of another and use it. Then it writes
its own name into the tags. So an image belongs to a host only as long as both say so.
"""

from uecwatchd.clouds.attributes import read_tags
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.images import Image
from uecwatchd.ledger.records import BundleRecord
from uecwatchd.system.text import printable

OWNER_TAG, HOST_TAG = "owner", "host"
OUR_NAME = "uecwatchd"
# Eucalyptus lists an image in this state between the two requests that it needs to remove it. It is past any
# question about it.
LEAVING_STATE = "deregistered"


def reason_not_ours(bundle: BundleRecord, image: Image | None, cloud: Cloud, *, host: str) -> str:
    """Return why this host may not remove an image, empty if it may.

    The tags are read from the cloud now.
    `image` is as the cloud lists it, None if it is gone.
    """
    if bundle.state != "registered" or bundle.registered is None:
        return "it was not registered by this host, or before its ledger was lost"
    if image is None or image.state == LEAVING_STATE:
        return ""
    if image.location != bundle.location:
        return f"the cloud lists it for another bundle ({printable(image.location)})"
    return reason_tags_differ(image, cloud, host=host)


def reason_tags_differ(image: Image, cloud: Cloud, *, host: str, is_unpublished: bool = False) -> str:
    """Return why an image is not ours by its tags, empty if it is, or if the cloud has none.

    One that was made here and not published may have none yet: they are written after its test.
    """
    if not cloud.dialect.tag_limit:
        return ""
    tags = read_tags(cloud, image.id)
    if is_unpublished and not tags.keys() & {OWNER_TAG, HOST_TAG}:
        return ""
    if tags.get(OWNER_TAG) != OUR_NAME:
        return f"its tag {OWNER_TAG} is not {OUR_NAME}"
    if tags.get(HOST_TAG) != host:
        other = tags.get(HOST_TAG)
        return f"its tag {HOST_TAG} is {printable(other)}" if other else f"it has no tag {HOST_TAG}"
    return ""
