"""The identity of a bundle: a digest of everything that makes an image what it is.

Equal identities need one bundle. The keys in the bucket are derived from it, so an image is found again by
its location even if the ledger was lost. A kernel's identity is its content, so that sets share it. That of a
machine contains what it boots with, its platform, and the name that its set wants for it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace

from uecwatchd.bundle.bundler import Secret
from uecwatchd.bundle.kept_bundles import KeptBundle
from uecwatchd.bundle.names import STEM_LIMIT, bundle_prefix, manifest_name, portable_name
from uecwatchd.clouds import images
from uecwatchd.delivery.request import BootFiles, UploadRequest, UploadTools
from uecwatchd.images.reading import is_prepared
from uecwatchd.ledger.records import BundleRecord

# 64 bits of the identity: names that do not meet by chance, in keys that a person can still read.
TOKEN_CHARS = 16
PREPARED_WORD = "-prepared"


def free_identity(request: UploadRequest, tools: UploadTools) -> str:
    """Return the identity to use for a member: a machine may need another than that of its contents.

    A kernel that left the cloud may have come back under another id. The image made with the old id has the
    place, and cannot boot. The one made instead of it has its ids in its identity, and keeps that one after
    the old image is gone.
    """
    boot = request.machine.boot
    identity = _digest(request, tools, boot.traits)
    if request.member.role != "machine":
        return identity
    begun = tools.begun_for(request).machines(request.digest)
    listed = images.recent_images(tools.cloud)
    there = images.image_at(tools.cloud, listed, _place(request, identity, begun))
    instead = _digest(request, tools, (boot.kernel or "", boot.ramdisk or ""))
    if there is None:
        return instead if instead in begun else identity
    return identity if _boots_alike(there, boot) else instead


def _digest(request: UploadRequest, tools: UploadTools, boot: tuple[str, str]) -> str:
    traits: list[object] = [
        request.member.role,
        request.digest,
        request.arch,
        tools.cloud.account.account,
    ]
    if request.member.role == "machine":
        machine = request.machine
        traits += [boot, machine.virtualization, machine.platform, request.bucket, *machine.name_traits]
    return hashlib.sha256(json.dumps(traits).encode()).hexdigest()


def _place(request: UploadRequest, identity: str, begun: Mapping[str, BundleRecord]) -> str:
    """Return the location of an image: a set of another name may have registered it."""
    if known := begun.get(identity):
        return known.location
    return f"{request.bucket}/{manifest_name(_prefix(request, identity))}"


def _boots_alike(there: images.Image, boot: BootFiles) -> bool:
    """Compare kernel and ramdisk as far as the cloud lists them.

    To a machine that has neither, the cloud may have given its defaults.
    """
    pairs = ((there.kernel, boot.kernel), (there.ramdisk, boot.ramdisk))
    return all(listed == wanted for listed, wanted in pairs if listed and wanted)


def is_anothers(request: UploadRequest, known: BundleRecord | None) -> bool:
    """Tell if a machine image of the same bytes belongs to another owner.

    Neither owner may decide who starts the other's image, or take it away. Kernels are shared.
    """
    if known is None or request.owner is None or request.member.role != "machine":
        return False
    return known.owner not in (None, request.owner)


def separate(request: UploadRequest) -> UploadRequest:
    """Make the request one for an image of the owner's own, under a name that differs from the other one."""
    machine = request.machine
    name = machine.name if machine.name_traits or machine.name is None else f"{machine.name}-{request.owner}"
    name_traits = (*machine.name_traits, f"owner {request.owner}")
    return replace(request, machine=replace(machine, name=name, name_traits=name_traits))


def generation_suffix(generation: int) -> str:
    """Return the end of the prefix of an upload that was begun again so often, empty for the first."""
    return f"-g{generation}" if generation else ""


def plan_bundle(
    request: UploadRequest, tools: UploadTools, identity: str, *, generation: int = 0, is_new: bool = False
) -> BundleRecord:
    """Return the record of a bundle that is not begun yet.

    It has the keys of the bundle that was made for another cloud, if there is one, unless it `is_new`.
    """
    plan = BundleRecord(
        cloud=tools.cloud.name,
        bucket=request.bucket,
        identity=identity,
        role=request.member.role,
        digest=request.digest,
        prefix=_prefix(request, identity) + generation_suffix(generation),
        state="planned",
        made_for=request.made_for,
        owner=request.owner,
        archive_name=_archive_name(request),
        generation=generation,
    )
    kept = None if is_new else tools.kept.find(request.content)
    return with_keys_of(plan, kept) if kept else with_new_keys(plan)


def with_keys_of(bundle: BundleRecord, kept: KeptBundle) -> BundleRecord:
    """Return the record of a bundle with the same parts as one that was made for another cloud."""
    secret = kept.secret
    return replace(bundle, secret_key=secret.key, secret_iv=secret.iv, archive_name=kept.name)


def with_new_keys(bundle: BundleRecord) -> BundleRecord:
    """Return the record of a bundle whose parts are all made again."""
    secret = Secret.random()
    return replace(bundle, secret_key=secret.key, secret_iv=secret.iv)


def _archive_name(request: UploadRequest) -> str:
    """Return the name of the image in the archive, of its content alone: parts with it suit every cloud.

    No account is in it, not even in a digest, because one cloud is not to learn of another.
    """
    return _prefix(request, hashlib.sha256(request.digest.encode()).hexdigest())


def _prefix(request: UploadRequest, identity: str) -> str:
    """Return the beginning of the bundle's keys, with a word for people.

    A machine has the name of its set, a kernel its version: nothing that differs between sets that share it.
    That an image was prepared is said here because some clouds have no other place for it.
    """
    role = request.member.role
    word = request.made_for.name if role == "machine" else request.member.facts.version or ""
    if is_prepared(request.member.reading):
        word = f"{portable_name(word)[: STEM_LIMIT - len(PREPARED_WORD)]}{PREPARED_WORD}"
    return bundle_prefix(role, word, token=identity[:TOKEN_CHARS])
