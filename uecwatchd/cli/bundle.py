"""The verbs `bundle` and `unbundle`: bundles made by hand, with the rules of the service."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Literal, Required, TypedDict

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from uecwatchd.bundle.folder import (
    BundleCredentials,
    ImageProperties,
    WrittenBundle,
    bundle_to_folder,
    unbundle_to_folder,
)
from uecwatchd.bundle.keys import load_private_key, public_key
from uecwatchd.cli.output import put, put_json, say
from uecwatchd.cli.program_log import progress_shown
from uecwatchd.clouds.credentials.account import Account, bundle_user, gather, sealing_certificate
from uecwatchd.config.load import load
from uecwatchd.errors import Halted, Rejected, UecError
from uecwatchd.events import Event, Kind, Progress
from uecwatchd.images import digests
from uecwatchd.images.file_facts import Facts
from uecwatchd.images.file_names import arch_by_name, role_by_name
from uecwatchd.images.suitability import KEEP_HINT, reason_unsuitable
from uecwatchd.intake.sets.records import ROLE_WORDS
from uecwatchd.intake.spool.contents import detect_file
from uecwatchd.outputs.log import open_log
from uecwatchd.system.file_errors import open_for_reading
from uecwatchd.system.text import format_size
from uecwatchd.types import Arch, Role, SetId


class BadOptions(UecError):
    """Options that contradict each other, or the file."""

    exit_code = 64


class Opening(TypedDict, total=False):
    """Arguments of `unbundle_to_folder` about keys."""

    key: Required[RSAPrivateKey]
    side: Required[Literal["user", "cloud"]]
    signer: RSAPublicKey


def bundle(arguments: argparse.Namespace) -> int:
    account = _account(arguments)
    facts, size = _looked_at(arguments.file)
    properties = _properties(arguments, facts, size)
    disk = facts.disk if properties.kind == "machine" and not arguments.keep else None
    credentials = BundleCredentials(
        bundle_user(account), account.user_key, account.user_cert, sealing_certificate(account)
    )
    log = open_log(os.environ, sys.stderr)
    shown = SetId(str(arguments.file.parent), arguments.file.name)  # no set, but what is at work
    total = (disk.size or 0) if disk else size
    with progress_shown(log):
        made = bundle_to_folder(
            arguments.file,
            arguments.folder,
            properties,
            credentials,
            how="disk" if disk else "file",
            progress=lambda done: log.progress(Progress(shown, "bundle", shown.name, done, total)),
        )
    what = f"Bundled {arguments.file.name}: {format_size(made.manifest.size)} as {made.manifest.name}"
    log.tell(Event(Kind.DONE, what, shown))
    put_json(_as_json(made)) if arguments.json else put(str(made.path))
    return os.EX_OK


def _properties(arguments: argparse.Namespace, facts: Facts, size: int) -> ImageProperties:
    kind: Role = arguments.type or facts.role or role_by_name(arguments.file.name) or "machine"
    if kind != "machine" and (arguments.kernel or arguments.ramdisk):
        why = f"it is bundled as a {kind}, and only a machine image boots with others"
        raise BadOptions(f"{arguments.file}: --kernel and --ramdisk", why, "Leave them out.")
    _must_fit(arguments.file, kind, facts, size, keep=arguments.keep)
    arch: Arch = arguments.arch or facts.arch or arch_by_name(arguments.file.name) or "x86_64"
    return ImageProperties(kind, arch, arguments.kernel, arguments.ramdisk)


def _looked_at(file: Path) -> tuple[Facts, int]:
    """Return facts about a file, and its size in bytes. A link is followed, because a person has named it."""
    with open_for_reading(file) as image:
        size, content = os.fstat(image.fileno()).st_size, detect_file(file)
    if isinstance(content, UecError):
        raise content
    return content, size


def _must_fit(file: Path, kind: Role, facts: Facts, size: int, *, keep: bool) -> None:
    name = str(file)
    problem = reason_unsuitable(kind, facts, size=size, keep=keep, name=name)
    if problem is None:
        return
    why, hint = problem
    if facts.role not in (None, kind):
        hint = f"Leave --type out, and it is bundled as a {ROLE_WORDS[facts.role]}."
    elif reason_unsuitable(kind, facts, size=size, keep=True, name=name) is None:
        hint = _kept(hint)
    raise Rejected(f"{file.name}: it cannot be a {ROLE_WORDS[kind]}", why, hint)


def _kept(hint: str) -> str:
    """Return a hint with --keep, where the original hint names the sidecar."""
    if hint == KEEP_HINT:
        return "If the cloud can boot it all the same, add --keep."
    return f"{hint.rstrip('.')}; or, to bundle it as it is, add --keep."


def _as_json(made: WrittenBundle) -> dict[str, Any]:
    manifest = made.manifest
    return {
        "manifest": str(made.path),
        "role": manifest.kind,
        "arch": manifest.arch,
        "kernel": manifest.kernel_id,
        "ramdisk": manifest.ramdisk_id,
        "size": manifest.size,
        **digests.json_fields(made.digest),
        "bundled_size": manifest.bundled_size,
        "tar_sha1": manifest.tar_sha1,
        "parts": [{"name": part.name, "size": part.size, "sha1": part.sha1} for part in manifest.parts],
    }


def unbundle(arguments: argparse.Namespace) -> int:
    opening = _opening(arguments)
    shown = SetId(str(arguments.manifest.parent), arguments.manifest.name)
    with progress_shown(open_log(os.environ, sys.stderr)) as log:
        image, found = unbundle_to_folder(
            arguments.manifest,
            arguments.folder,
            **opening,
            progress=lambda done, total: log.progress(Progress(shown, "unbundle", shown.name, done, total)),
        )
    if not found.tar_checked:
        say(
            f"warning: {arguments.manifest} has the SHA-1 of no data for its archive, as euca2ools 1.2 and"
            " 1.3 wrote it; the sums of its parts and of what is compressed in them were checked"
        )
    fields = {"image": str(image), "size": found.size, **digests.json_fields(found.digest)}
    put_json(fields) if arguments.json else put(str(image))
    return os.EX_OK


def _opening(arguments: argparse.Namespace) -> Opening:
    """Return what opens a bundle: the cloud's private key, or ours with the check of the signature."""
    if arguments.cloud_key:
        return {"key": load_private_key(arguments.cloud_key, whose="the cloud's"), "side": "cloud"}
    account = _account(arguments)
    return {"key": account.user_key, "side": "user", "signer": public_key(account.user_cert)}


def _account(arguments: argparse.Namespace) -> Account:
    settings = load(arguments.config, environ=os.environ)
    if arguments.cloud not in settings.clouds:
        why = f"the configuration has {', '.join(sorted(settings.clouds)) or 'none'}"
        raise Halted(f"there is no cloud named {arguments.cloud}", why, "Name one of them with --cloud.")
    return gather(settings.clouds[arguments.cloud])
