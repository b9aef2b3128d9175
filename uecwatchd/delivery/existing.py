"""Images that the account has already: the member's own, failed ones in its place, holders of its name."""

from uecwatchd.bundle.names import manifest_name
from uecwatchd.clouds import images, registration
from uecwatchd.clouds.dialects import fitting_name
from uecwatchd.clouds.errors.connection import quoted
from uecwatchd.delivery.request import UploadRequest, UploadTools
from uecwatchd.errors import Halted, Rejected
from uecwatchd.events import Event, Kind
from uecwatchd.intake.sets.records import ROLE_WORDS
from uecwatchd.ledger.records import BundleRecord

Images = tuple[images.Image, ...]


def own_images(
    request: UploadRequest, tools: UploadTools, known: BundleRecord | None, bundle: BundleRecord
) -> Images:
    """Return the account's images.

    A list of a moment ago will do if nothing was begun and it has nothing in our way: the upload comes next.
    """
    cloud = tools.cloud
    recent = () if known else images.recent_images(cloud)
    if known or image_of_bundle(bundle, recent, tools) or _name_holder(request, tools, bundle, recent):
        return images.list_images(cloud)
    return recent


def image_of_bundle(bundle: BundleRecord, listed: Images, tools: UploadTools) -> images.Image | None:
    """Return the image that was registered from this bundle, if there is one.

    Kernels and ramdisks are looked for in every bucket: their keys come from their content alone, and a cloud
    takes their name only once.
    """
    if bundle.role == "machine":
        return images.image_at(tools.cloud, listed, bundle.location)
    return images.image_of_manifest(tools.cloud, listed, manifest_name(bundle.prefix))


def check_is_ours(
    request: UploadRequest, tools: UploadTools, known: BundleRecord | None, there: images.Image
) -> None:
    """Raise Rejected if the set wants a new image and has not begun this one: `on_existing = "fail"`."""
    mine = known and known.made_for == request.made_for and known.owner in (None, request.owner)
    if not request.must_be_new or mine:
        return
    raise Rejected(
        f"{request.made_for.name}: it is registered already",
        f'{there.id} on cloud {tools.cloud.name} has the same content, and on_existing = "fail"',
        f'Use {there.id}, deregister it, or say on_existing = "reuse" in the sidecar.',
    )


def check_id(request: UploadRequest, tools: UploadTools, there: images.Image) -> None:
    """Raise Halted if the cloud lists an image of this location under an id of another role."""
    if images.is_id(tools.cloud, there.id, request.member.role):
        return
    raise Halted(
        f"cloud {tools.cloud.name}, looking for {there.location}",
        f"it lists it as {there.id}, which is no id of a {ROLE_WORDS[request.member.role]}",
        "Ask its administrator: an instance of it would boot something else.",
    )


def deregister_failed(request: UploadRequest, tools: UploadTools, failed: Images) -> None:
    """Deregister images of our location that have failed: they would keep the name."""
    for image in failed:
        tools.ledger.sessions.sure()
        registration.deregister(tools.cloud, image.id)
        what = f"deregistered {image.id}, which is {image.state}, to register it again"
        fields = {"cloud": tools.cloud.name}
        tools.listener.tell(
            Event(Kind.REGISTERED, f"{request.made_for.name}: {what}", request.made_for, fields=fields)
        )


def check_name_is_free(
    request: UploadRequest, tools: UploadTools, bundle: BundleRecord, listed: Images
) -> None:
    """Raise Rejected if another image of the account has the name, before gigabytes go up."""
    holder = _name_holder(request, tools, bundle, listed)
    if holder is None:
        return
    other = ", or choose a name that changes with the content, such as {stem}-{sha8}"
    raise Rejected(
        f"{request.made_for.name}: the name {holder.name} is taken",
        f"{holder.id or 'an image'} on cloud {tools.cloud.name} has it, with another content"
        f" (it is {quoted(holder.state)})",
        f"Deregister {holder.id or 'it'}{other if request.machine.name else ''}.",
    )


def _name_holder(
    request: UploadRequest, tools: UploadTools, bundle: BundleRecord, listed: Images
) -> images.Image | None:
    name = fitting_name(tools.cloud.dialect, request.machine.name or bundle.prefix)
    return images.image_named(listed, name)
