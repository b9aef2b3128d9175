"""The answers of an installation, in the form in which its installer looks for them.

Installers search media by their label, and files by their name:

    Debian       /preseed.cfg in its initrd
    Anaconda     /ks.cfg on a disk with the label OEMDRV
    Subiquity    user-data and meta-data, a seed of cloud-init, on a disk with the label CIDATA
    Windows      Autounattend.xml on a CD or floppy; WINNT.SIF on a floppy until Windows XP and 2003

A file that is an image already (.iso, .img) is handed over as it is. Disks and floppies are FAT, made with
mtools as the boot floppy of Windows.
"""

import json
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from uecwatchd.errors import Deferred, Rejected
from uecwatchd.images.floppy.make import FIXED_TIME, FLOPPY_BYTES, MCOPY, MFORMAT, SERIAL_NUMBER
from uecwatchd.install.cpio import cpio
from uecwatchd.install.recipe import AnswersAs, InstallRecipe, is_made_already, name_for
from uecwatchd.system.programs import Program, run_program
from uecwatchd.system.text import format_size

ANSWERS_LIMIT_BYTES = 64 << 20  # an overlay of Alpine with its packages is the largest
KIB = 1024
# The smallest file system that mformat makes without being told more, and what FAT needs beside the files.
SMALLEST_DISK_BYTES = 2 << 20
SPARE_BYTES = 256 * KIB
SECTOR_BYTES = 512
TIME_OUT_SECONDS = 60

MAKERS = (
    Program("xorriso", "xorriso", TIME_OUT_SECONDS, FIXED_TIME),
    Program("genisoimage", "genisoimage", TIME_OUT_SECONDS, FIXED_TIME),
)
DEFAULT_LABELS: Mapping[str, str] = MappingProxyType(
    {"ks.cfg": "OEMDRV", "user-data": "CIDATA", "preseed.cfg": "ANSWERS"}
)
ANSWERS_LABEL = "ANSWERS"

# What a machine is given a file as.
MediumKind = Literal["disk", "cdrom", "floppy"]
KINDS: Mapping[AnswersAs, MediumKind] = MappingProxyType(
    {"disk": "disk", "cidata": "disk", "floppy": "floppy", "cdrom": "cdrom"}
)


@dataclass(frozen=True, slots=True)
class Medium:
    """A made file, and what the machine is given it as."""

    path: Path
    kind: MediumKind


def make_medium(recipe: InstallRecipe, data: bytes, folder: Path, *, key: str) -> Medium | None:
    """Make the medium with the answers in `folder`; None if they are added to an initrd.

    Raises Rejected for answers that do not fit on it, and Deferred if a program is missing or fails.
    """
    medium, name = recipe.medium, recipe.answers
    if medium is None or name is None or medium == "initrd":
        return None
    if is_made_already(name):
        return _as_it_is(folder, data, medium)
    files = {name_for(name, medium): data}
    if medium == "cidata":
        files |= {"meta-data": meta_data(key)}
    label = recipe.label or DEFAULT_LABELS.get(name_for(name, medium), ANSWERS_LABEL)
    if medium == "floppy" and len(data) > FLOPPY_BYTES - 64 * KIB:
        why = f"a floppy has 1.44 MB, and it has {format_size(len(data))}"
        raise Rejected(f"{name}: it does not fit on a floppy", why, 'Add answers_as = "cdrom".')
    return _MAKERS[KINDS[medium]](files, folder, label)


def make_seed(files: Mapping[str, bytes], folder: Path) -> Medium:
    """Make a seed of cloud-init. Raises Deferred."""
    return _make_disk(files, folder, DEFAULT_LABELS["user-data"])


def meta_data(key: str) -> bytes:
    """Return the other half of a seed, with an id of the build: so it is a first boot."""
    return json.dumps({"instance-id": f"uecwatchd-{key}"}).encode() + b"\n"


def initrd_addition(name: str, data: bytes) -> bytes:
    """Return the archive with the answers, to be added to an initrd."""
    return b"".join(cpio([(name_for(name, "initrd"), stat.S_IFREG | 0o644, data)]))


def _as_it_is(folder: Path, data: bytes, medium: AnswersAs) -> Medium:
    path = folder / "answers.img"
    path.write_bytes(data)
    return Medium(path, KINDS[medium])


def _make_disk(files: Mapping[str, bytes], folder: Path, label: str) -> Medium:
    size = max(SMALLEST_DISK_BYTES, sum(map(len, files.values())) * 9 // 8 + SPARE_BYTES)
    shape = ["-h", "16", "-s", "63", "-T", str(-(-size // (16 * 63 * SECTOR_BYTES)) * 16 * 63)]
    return Medium(_make_fat(files, folder, label, shape), "disk")


def _make_floppy(files: Mapping[str, bytes], folder: Path, label: str) -> Medium:
    return Medium(_make_fat(files, folder, label, ["-f", "1440"]), "floppy")


def _make_fat(files: Mapping[str, bytes], folder: Path, label: str, shape: list[str]) -> Path:
    image, staged = folder / "answers.img", _staged(files, folder)
    image.unlink(missing_ok=True)
    # Relative names: in a path, mtools would read "@@" as an offset.
    given = ["-C", *shape, "-v", label, "-N", SERIAL_NUMBER, "-i", image.name, "::"]
    run_program(MFORMAT, given, folder=folder)
    for name in files:
        run_program(MCOPY, ["-i", image.name, f"{staged.name}/{name}", f"::{name}"], folder=folder)
    return image


def _make_cd(files: Mapping[str, bytes], folder: Path, label: str) -> Medium:
    staged = _staged(files, folder)
    options = ["-quiet", "-J", "-r", "-V", label, "-o", "answers.img", staged.name]
    missing: Deferred | None = None
    for program in MAKERS:
        mode = ["-as", "mkisofs"] if program.name == "xorriso" else []
        try:
            run_program(program, [*mode, *options], folder=folder)
        except Deferred as error:
            missing = missing or error
            continue
        return Medium(folder / "answers.img", "cdrom")
    raise missing or AssertionError


def _staged(files: Mapping[str, bytes], folder: Path) -> Path:
    staged = folder / "answers"
    staged.mkdir(exist_ok=True)
    for name, data in files.items():
        (staged / name).write_bytes(data)
    return staged


_MAKERS: Mapping[MediumKind, Callable[[Mapping[str, bytes], Path, str], Medium]] = MappingProxyType(
    {"disk": _make_disk, "floppy": _make_floppy, "cdrom": _make_cd}
)
