"""The first stage of a build: disk, kernel and media of an installation, in its folder."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from uecwatchd.errors import Deferred
from uecwatchd.install import answers
from uecwatchd.install.command import MachineMedia
from uecwatchd.install.cpio import padding
from uecwatchd.install.disks import copy_base, make_disk, make_second_disk
from uecwatchd.install.files import OpenFiles
from uecwatchd.install.iso import IsoImage
from uecwatchd.install.layer import layer_steps, user_data
from uecwatchd.install.recipe import is_floppy_name
from uecwatchd.install.request import DISK, BuildRequest

KERNEL, INITRD, TRIAL_KERNEL = "kernel", "initrd", "trial-kernel"
# Kernels of usual installers, to try an accelerator with.
KERNELS_IN_ISO = (
    "casper/vmlinuz",
    "install.amd/vmlinuz",
    "images/pxeboot/vmlinuz",
    "boot/vmlinuz-lts",
    "boot/vmlinuz-virt",
    "isolinux/vmlinuz",
    "live/vmlinuz",
    "vmlinuz",
)


@dataclass(frozen=True, slots=True)
class Preparation:
    """Request, open files and folder of a build; `check` raises to stop."""

    request: BuildRequest
    files: OpenFiles
    folder: Path
    check: Callable[[], None]


def prepare(work: Preparation) -> MachineMedia:
    """Make the disk and the media of an installation.

    Raises Rejected for files that nothing can be installed from, and Deferred.
    """
    recipe, files, folder = work.request.recipe, work.files, work.folder
    media = MachineMedia(DISK)
    if "iso" in files:
        media = _with_iso(work, media)
        make_disk(folder, recipe, check=work.check)
    else:
        name = files.name("base")
        copy_base(folder, recipe, files.descriptor("base"), name=name, check=work.check)
    media = _with_answers(work, media)
    if "drivers" in files:
        if is_floppy_name(files.name("drivers")):
            media = replace(media, floppy=files.path("drivers"))
        else:
            media = replace(media, cds=(*media.cds, files.path("drivers")))
    if recipe.second_disk:
        media = replace(media, second_disk=make_second_disk(folder, check=work.check).name)
    return media


def find_trial_kernel(work: Preparation) -> Path | None:
    """Return a kernel of the ISO, to try an accelerator with; None if none is known there."""
    if (work.folder / KERNEL).exists():
        return work.folder / KERNEL
    if "iso" not in work.files:
        return None
    iso = IsoImage(work.files.descriptor("iso"), name=work.files.name("iso"))
    for path in KERNELS_IN_ISO:
        if iso.has(path):
            _take_out(iso, path, work.folder / TRIAL_KERNEL)
            return work.folder / TRIAL_KERNEL
    return None


def _with_iso(work: Preparation, media: MachineMedia) -> MachineMedia:
    recipe, files = work.request.recipe, work.files
    iso = IsoImage(files.descriptor("iso"), name=files.name("iso"))
    media = replace(media, cds=(files.path("iso"),))
    if recipe.kernel is None:
        iso.check_bootable()
        return media
    _take_out(iso, recipe.kernel, work.folder / KERNEL)
    media = replace(media, kernel=KERNEL)
    if recipe.initrd is not None:
        _take_out(iso, recipe.initrd, work.folder / INITRD)
        media = replace(media, initrd=INITRD)
    return media


def _with_answers(work: Preparation, media: MachineMedia) -> MachineMedia:
    recipe, folder, key = work.request.recipe, work.folder, work.request.key
    medium: answers.Medium | None = None
    if "answers" in work.files:
        data = work.files.read_answers()
        medium = answers.make_medium(recipe, data, folder, key=key)
        if medium is None and recipe.answers is not None:
            _append(folder / INITRD, answers.initrd_addition(recipe.answers, data))
    elif any(layer_steps(recipe)):
        seed = {"user-data": user_data(recipe), "meta-data": answers.meta_data(key)}
        medium = answers.make_seed(seed, folder)
    if medium is None:
        return media
    if medium.kind == "cdrom":
        return replace(media, cds=(*media.cds, medium.path.name))
    if medium.kind == "floppy":
        return replace(media, floppy=medium.path.name)
    return replace(media, answers_disk=medium.path.name)


def _take_out(iso: IsoImage, path: str, target: Path) -> None:
    found = iso.find(path)
    target.unlink(missing_ok=True)
    try:
        with target.open("xb") as file:
            iso.copy(found, file.fileno())
    except OSError as error:
        why = error.strerror or str(error)
        raise Deferred(f"{target.parent}: cannot write there", why, "Free some space there.") from error


def _append(initrd: Path, archive: bytes) -> None:
    with initrd.open("ab") as file:
        file.write(padding(os.fstat(file.fileno()).st_size) + archive)
