"""Files of a machine that boots: image, kernel and ramdisk, unbundled as a node does it."""

from collections.abc import Iterable
from pathlib import Path

from uecwatchd.sandbox.backend import Backend
from uecwatchd.sandbox.ec2 import bundle_checks
from uecwatchd.sandbox.ec2.manifest import invalid
from uecwatchd.sandbox.ec2.unbundle import unbundle
from uecwatchd.sandbox.state.machines import MachineFiles
from uecwatchd.sandbox.state.registry import RegisteredImage


def unbundle_members(backend: Backend, members: Iterable[RegisteredImage], folder: Path) -> MachineFiles:
    """Unbundle the images of a machine into a folder. Raises `ApiError` for a bundle that does not open."""
    files = {}
    for member in members:
        files[member.type] = folder / member.type
        _unbundle(backend, member, files[member.type])
    return MachineFiles(files["machine"], files.get("kernel"), files.get("ramdisk"))


def _unbundle(backend: Backend, member: RegisteredImage, path: Path) -> None:
    bundle = bundle_checks.read_bundle(
        backend.store, backend.identity, backend.rules.ec2, member.location, moment="run"
    )
    if bundle.secret is None:
        raise invalid(bundle.trouble)
    with path.open("wb") as file:
        unbundle(bundle.claims, bundle.parts, secret=bundle.secret, file=file)
        file.truncate(bundle.claims.size)
