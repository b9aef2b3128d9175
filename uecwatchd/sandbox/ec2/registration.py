"""RegisterImage: the request's values and the manifest's, and which of the two count."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from uecwatchd.sandbox.backend import Backend
from uecwatchd.sandbox.ec2 import bundle_checks, image_content, images
from uecwatchd.sandbox.ec2.bundle_checks import FetchedBundle
from uecwatchd.sandbox.ec2.manifest import ManifestClaims
from uecwatchd.sandbox.ec2.parameters import Action, Parameters, required
from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.http.responses import Payload
from uecwatchd.sandbox.rules.ec2 import Ec2Rules, ImageLifecycle
from uecwatchd.sandbox.state.registry import RegisteredImage

PLATFORMS = ("windows", "linux")
VIRTUALIZATIONS = ("paravirtual", "hvm")
# One that failed or was deregistered is no kernel for anybody.
LIVING = ("pending", "available")
FAILING = ImageLifecycle(looks=1, state="failed", reason="The image could not be made of its parts")


@dataclass(frozen=True, slots=True)
class RegisterRequest:
    """The values of a RegisterImage request. Empty text means a missing one."""

    name: str
    description: str
    architecture: str
    kernel: str
    ramdisk: str
    platform: str
    virtualization: str


def register(backend: Backend, parameters: Parameters) -> Payload:
    """Answer RegisterImage.

    One location may be registered twice and gets two ids, as on real servers: the client has to look first.
    """
    rules = backend.rules.ec2
    location = required(parameters, "ImageLocation").removeprefix("/")
    wanted = _read_request(backend, parameters)
    bundle = bundle_checks.read_bundle(backend.store, backend.identity, rules, location)
    _check_rights(backend, bundle.claims)
    _check_agreement(rules, parameters, bundle.claims)
    kernel, ramdisk = _choose_members(rules, wanted, bundle.claims)
    _check_member(backend, kernel, type_="kernel")
    _check_member(backend, ramdisk, type_="ramdisk")
    lifecycle = _lifecycle(backend, trouble=_trouble(rules, wanted, bundle))
    draft = _draft(backend, wanted, bundle, lifecycle, location=location, kernel=kernel, ramdisk=ramdisk)
    permissions = images.first_permissions(rules)
    return {"imageId": backend.registry.add_image(draft, ids=rules.ids, permissions=permissions).id}


def _trouble(rules: Ec2Rules, wanted: RegisterRequest, bundle: FetchedBundle) -> str:
    """Return the reason why no image can be made of the bundle, or an empty text.

    Raises `ApiError`: where this generation finds that out at once.
    """
    try:
        found = bundle_checks.inspect(bundle)
        if wanted.virtualization == "hvm" and not image_content.is_disk(found.head):
            raise ApiError("InvalidManifest", "An hvm image must be a whole disk with a boot sector")
    except ApiError as refused:
        if not rules.imports_later:
            raise
        return refused.message
    return ""


def _read_request(backend: Backend, parameters: Parameters) -> RegisterRequest:
    name, description = _read_words(backend, parameters)
    platform = _one_of(parameters, "Platform", PLATFORMS)
    virtualization = _one_of(parameters, "VirtualizationType", VIRTUALIZATIONS) or "paravirtual"
    if backend.rules.ec2.windows_is_hvm and platform == "windows":
        virtualization = "hvm"
    return RegisterRequest(
        name=name,
        description=description,
        architecture=_one_of(parameters, "Architecture", backend.rules.ec2.architectures),
        kernel=parameters.get("KernelId", ""),
        ramdisk=parameters.get("RamdiskId", ""),
        platform=platform,
        virtualization=virtualization,
    )


def _read_words(backend: Backend, parameters: Parameters) -> tuple[str, str]:
    name, description = parameters.get("Name", ""), parameters.get("Description", "")
    if backend.rules.ec2.name_required and "Name" not in parameters:
        raise ApiError("MissingParameter", "The request must contain the parameter Name")
    if "Name" in parameters and not backend.rules.ec2.image_name.fullmatch(name):
        raise ApiError("InvalidAMIName.Malformed", "AMI names have 3 to 128 letters, digits and a few marks")
    images.check_description(backend.rules.ec2, description)
    backend.registry.check_name(name)
    return name, description


def _one_of(parameters: Parameters, name: str, words: Collection[str]) -> str:
    word = parameters.get(name, "")
    if name in parameters and word not in words:
        raise ApiError("InvalidParameterValue", f"{name} cannot be {word}")
    return word


def _check_rights(backend: Backend, claims: ManifestClaims) -> None:
    allowed = backend.administrator or not backend.rules.ec2.administrators_only
    if claims.type != "machine" and not allowed:
        raise ApiError("OperationNotPermitted", f"Only administrators can register {claims.type} images.")


def _check_agreement(rules: Ec2Rules, parameters: Parameters, claims: ManifestClaims) -> None:
    if not rules.contradiction_refused:
        return
    claimed = {"Architecture": claims.architecture, "KernelId": claims.kernel, "RamdiskId": claims.ramdisk}
    for name, value in claimed.items():
        if name in parameters and parameters[name] != value:
            raise ApiError(
                "InvalidParameterValue", f"{name} is {parameters[name]}, the manifest says {value}"
            )


def _choose_members(rules: Ec2Rules, wanted: RegisterRequest, claims: ManifestClaims) -> tuple[str, str]:
    """Choose the ids of a machine's kernel and ramdisk, empty if it has none."""
    hvm = wanted.virtualization == "hvm"
    if claims.type != "machine" or (hvm and rules.hvm_alone):
        return "", ""
    kernel, ramdisk = wanted.kernel or claims.kernel or "", wanted.ramdisk or claims.ramdisk or ""
    for id_, word in ((kernel, "Kernel"), (ramdisk, "Ramdisk")):
        if rules.paravirtual_needs_both and not id_:
            raise ApiError("MissingParameter", f"{word} ID must be specified")
    return kernel, ramdisk


def _check_member(backend: Backend, image_id: str, *, type_: str) -> None:
    if not image_id:
        return
    found = backend.registry.find_image(image_id)
    if found is None or found.type != type_ or found.state not in LIVING:
        raise ApiError("InvalidAMIID.NotFound", f"Referenced {type_} id is invalid: {image_id}")


def _draft(
    backend: Backend,
    wanted: RegisterRequest,
    bundle: FetchedBundle,
    lifecycle: ImageLifecycle,
    *,
    location: str,
    kernel: str,
    ramdisk: str,
) -> RegisteredImage:
    """Build the image's record without its id."""
    return RegisteredImage(
        id="",
        location=location,
        manifest_sha256=bundle.manifest_sha256,
        type=bundle.claims.type,
        architecture=wanted.architecture or bundle.claims.architecture,
        kernel=kernel,
        ramdisk=ramdisk,
        virtualization=wanted.virtualization if bundle.claims.type == "machine" else "",
        name=wanted.name,
        description=wanted.description,
        size=bundle.claims.size,
        platform=wanted.platform,
        state="pending" if lifecycle.looks else lifecycle.state,
        looks=lifecycle.looks,
        fate=lifecycle.state,
        reason=lifecycle.reason,
        registered=backend.clock().isoformat(timespec="milliseconds"),
    )


def _lifecycle(backend: Backend, *, trouble: str) -> ImageLifecycle:
    if trouble:
        lifecycle = replace(FAILING, reason=trouble)
    else:
        fails = backend.faults.strikes("image-fails")
        lifecycle = FAILING if fails else backend.rules.ec2.lifecycle
    looks = int(backend.faults.value("pending"))
    return replace(lifecycle, looks=looks) if looks else lifecycle


ACTIONS: Mapping[str, Action] = {"RegisterImage": register}
