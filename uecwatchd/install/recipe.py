"""The recipe of an installation: the table [install] of a sidecar.

It names an ISO image, or another image as the base of a layer, and what the installer needs to go through
without questions. A recipe is data of a user: it can name files beside it only, never a path of this host.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    TypeAdapter,
    ValidationError,
)

from uecwatchd.config.documents import Malformed, join_first, word_mistakes
from uecwatchd.config.retention import AGE, AGE_UNITS
from uecwatchd.config.values import Expected, PlainName, Size, one_line, plain_name
from uecwatchd.system.text import quoted

MIB = 1 << 20
# A floppy's worth of system is the least that anybody installs; the most is what a qcow2 is used for.
DISK_BYTES = (4 * MIB, 64 << 40)
MEMORY_BYTES = (16 * MIB, 1 << 40)
MOST_CPUS = 256  # of QEMU's machine type
FAT_REFUSES = '"*:<>?\\|'  # in names, also in long ones; mtools takes some of them as patterns
LABEL_MAX_CHARS = 11  # of FAT; ISO 9660 has more
ARGUMENTS_MAX_CHARS = 1500  # a kernel takes 2048, and ours are added
COMMAND_MAX_CHARS = 4000
MOST_COMMANDS = 100
MOST_PACKAGES = 200
MOST_RESTARTS = 20  # Windows needs two or three, with its updates a few more
MOST_OF_A_KIND = 2  # one IDE channel is for disks, the other one for CDs
SIZE_UNITS = ((4, "T"), (3, "G"), (2, "M"), (1, "K"))
DEFAULT_MEMORY = 512 * MIB
# An installer without hardware acceleration takes half an hour to an hour.
DEFAULT_LIMIT_SECONDS = 2 * 3600.0
LIMIT_SECONDS = (1.0, 7 * 86400.0)

# How the answers get to the installer: appended to its initrd, as a disk with a label, as a seed of
# cloud-init, on a floppy, or on a CD.
AnswersAs = Literal["initrd", "disk", "cidata", "floppy", "cdrom"]
Bus = Literal["virtio", "ide", "scsi"]

# What each installer looks for, by the usual names of its answers.
ANSWERS_NAMES: Mapping[AnswersAs, re.Pattern[str]] = MappingProxyType(
    {
        "floppy": re.compile(r"winnt\.sif$", re.IGNORECASE),
        "cdrom": re.compile(r"(auto)?unattend\.xml$", re.IGNORECASE),
        "cidata": re.compile(r"user-data$|autoinstall|\.ya?ml$", re.IGNORECASE),
        "initrd": re.compile(r"preseed|\.seed$", re.IGNORECASE),
    }
)
_PATH_PART = re.compile(r"[A-Za-z0-9._+@~ -]+")
_PACKAGE = re.compile(r"[A-Za-z0-9@][A-Za-z0-9@._+:=~/-]*")
_LABEL = re.compile(r"[A-Za-z0-9_-]+")


# --- validation of values ---------------------------------------------------------------------------------


def _seconds(value: object) -> object:
    """Return a time limit in seconds, from a text such as "2h" or "90s"."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,6}s", value):
        return float(value[:-1])
    found = AGE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('must be a number with a unit, such as "90s", "30m" or "2h"')
    return float(int(found[1]) * AGE_UNITS[found[2]])


def _path_in_iso(text: str) -> str:
    parts = text.removeprefix("/").split("/")
    if not all(_PATH_PART.fullmatch(part) and part not in (".", "..") for part in parts):
        raise ValueError(f'= {quoted(text)} is not a path in the ISO, such as "/casper/vmlinuz"')
    return "/".join(parts)


def _matching(pattern: re.Pattern[str], what: str, example: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f'= {quoted(text)} is not {what}, such as "{example}"')
        return text

    return AfterValidator(check)


def _between(least: int, most: int) -> AfterValidator:
    def check(size: int) -> int:
        if not least <= size <= most:
            bound = f"least {_as_written(least)}" if size < least else f"most {_as_written(most)}"
            raise ValueError(f"must be at {bound}")
        return size

    return AfterValidator(check)


def _as_written(size: int) -> str:
    """Return a size as a recipe has it, such as "64T"."""
    unit, name = next((1 << 10 * at, name) for at, name in SIZE_UNITS if size >= 1 << 10 * at)
    return f"{size // unit}{name}"


def _command(text: str) -> str:
    """Check a line of a shell. It may have tabs, and no other control characters."""
    one_line(text.replace("\t", " "))
    return text


def _number(value: object) -> object:
    if isinstance(value, bool):  # Python counts true as 1, and so would pydantic
        raise ValueError("must be a whole number")
    return value


DiskSize = Annotated[Size, _between(*DISK_BYTES)]
MemorySize = Annotated[Size, _between(*MEMORY_BYTES)]
Cpus = Annotated[int, BeforeValidator(_number), Field(ge=1, le=MOST_CPUS)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=LIMIT_SECONDS[0], le=LIMIT_SECONDS[1])]
Restarts = Annotated[int, BeforeValidator(_number), Field(ge=0, le=MOST_RESTARTS)]
PathInIso = Annotated[str, AfterValidator(_path_in_iso)]
Package = Annotated[str, _matching(_PACKAGE, "the name of a package", "mediawiki")]
Label = Annotated[
    str, Field(max_length=LABEL_MAX_CHARS), _matching(_LABEL, "a label of letters and digits", "OEMDRV")
]
Arguments = Annotated[str, Field(max_length=ARGUMENTS_MAX_CHARS), AfterValidator(one_line)]
Command = Annotated[str, Field(min_length=1, max_length=COMMAND_MAX_CHARS), AfterValidator(_command)]


# --- the record -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InstallRecipe:
    """The way of a system to a new disk. Sizes are in bytes, names are of files beside the recipe."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    iso: PlainName | None = None
    base: Annotated[str, AfterValidator(plain_name)] | None = None  #: an image, or the name of a set
    disk: DiskSize | None = None  #: None: as large as the base
    memory: MemorySize = DEFAULT_MEMORY
    cpus: Cpus = 1
    answers: PlainName | None = None
    answers_as: AnswersAs | None = None  #: None: by the name of the answers
    label: Label | None = None  #: of the disk or CD with the answers
    kernel: PathInIso | None = None  #: in the ISO, started in place of its boot loader
    initrd: PathInIso | None = None
    arguments: Arguments = ""  #: of that kernel
    drivers: PlainName | None = None  #: a second ISO, or a floppy
    disk_bus: Bus = "virtio"
    second_disk: Bus | None = None  #: the bus of an empty disk, so that the system installs a driver for it
    restarts: Restarts = 0  #: of the installer itself; the one after them ends the installation
    network: Literal["none", "user"] = "none"
    time_limit: Seconds = DEFAULT_LIMIT_SECONDS  #: the second boot has half an hour of it
    expect: Expected | None = None  #: text of the second boot's console, in place of a login
    packages: Annotated[tuple[Package, ...], Field(max_length=MOST_PACKAGES)] = ()
    run: Annotated[tuple[Command, ...], Field(max_length=MOST_COMMANDS)] = ()
    keep: StrictBool = True  #: whether the built disk stays after the set is done

    @property
    def medium(self) -> AnswersAs | None:
        """The way of the answers to the installer; None if there are none."""
        if self.answers is None or self.answers_as is not None:
            return self.answers_as
        found = (way for way, pattern in ANSWERS_NAMES.items() if pattern.search(self.answers))
        return next(found, "disk")

    @property
    def files(self) -> Mapping[str, str]:
        """The names of its files by their keys. A base may also be the name of a set."""
        named = {key: getattr(self, key) for key in ("iso", "base", "answers", "drivers")}
        return {key: name for key, name in named.items() if name is not None}


RECIPE_KEYS = tuple(one.name for one in fields(InstallRecipe))
_SCHEMA = TypeAdapter(InstallRecipe)


def write_recipe(recipe: InstallRecipe) -> dict[str, object]:
    """Return the table of a recipe, without what is left open in it."""
    table = {key: getattr(recipe, key) for key in RECIPE_KEYS}
    sizes = {key: f"{table[key] >> 10}K" for key in ("disk", "memory") if table[key] is not None}
    lists = {key: list(table[key]) for key in ("packages", "run")}
    given = {**table, **sizes, **lists, "time_limit": f"{recipe.time_limit:.0f}s"}
    return {key: value for key, value in given.items() if value is not None}


def read_recipe(table: Mapping[str, object]) -> InstallRecipe:
    """Validate a table. Raises Malformed with all mistakes."""
    try:
        recipe = _SCHEMA.validate_python(dict(table))
    except ValidationError as error:
        found = word_mistakes(error, noun="key", known=lambda _: RECIPE_KEYS)
        raise Malformed(join_first(sentence for _, sentence in found)) from error
    if mistakes := join_first(contradictions(recipe)):
        raise Malformed(mistakes)
    return recipe


def contradictions(recipe: InstallRecipe) -> Iterator[str]:
    """Yield what in a recipe does not fit together, each as a sentence without a full stop."""
    yield from _source_mistakes(recipe)
    yield from _answers_mistakes(recipe)
    yield from _kernel_mistakes(recipe)
    yield from _layer_mistakes(recipe)
    yield from _drive_mistakes(recipe)
    names: dict[str, str] = {}
    for key, name in recipe.files.items():
        if name in names:
            yield f"install.{names[name]} and install.{key} are the same file, {name}"
        names[name] = key


def _source_mistakes(recipe: InstallRecipe) -> Iterator[str]:
    if recipe.iso is None and recipe.base is None:
        yield "install needs iso, the image of an installation CD, or base, another image"
    if recipe.iso is not None and recipe.base is not None:
        yield "install has iso and base: a layer is added to a base without an ISO, so leave one of them out"
    if recipe.iso is not None and recipe.disk is None:
        yield 'install needs disk, the size of the new disk, such as disk = "5G"'


def _answers_mistakes(recipe: InstallRecipe) -> Iterator[str]:
    if recipe.answers is None:
        for key in ("answers_as", "label"):
            if getattr(recipe, key) is not None:
                yield f"install.{key} is about answers, and there are none: add answers, or leave it out"
        return
    if recipe.medium is not None:
        yield from _name_mistakes(recipe.answers, recipe.medium)
    if recipe.medium == "initrd" and recipe.initrd is None:
        yield 'install.answers go to an initrd: name kernel and initrd in the ISO, or answers_as = "disk"'
    if recipe.label is not None and recipe.medium not in ("disk", "cdrom"):
        yield f'install.label is for answers on a disk or CD, and they are given as "{recipe.medium}"'
    if recipe.medium == "floppy" and recipe.drivers is not None and is_floppy_name(recipe.drivers):
        yield "install.answers and install.drivers are both floppies, and a machine boots with one of them"


def is_floppy_name(name: str) -> bool:
    """Tell if drivers are on a floppy, by the name of their image."""
    return name.lower().endswith((".img", ".ima", ".flp", ".vfd"))


def name_for(name: str, medium: AnswersAs) -> str:
    """Return the name under which an installer looks for a file of answers."""
    lower = name.lower()
    if medium == "cidata":
        return "user-data"
    if medium == "initrd" and ("preseed" in lower or lower.endswith(".seed")):
        return "preseed.cfg"
    if lower.endswith(".ks") or lower == "ks.cfg":
        return "ks.cfg"
    if lower.endswith("winnt.sif"):
        return "WINNT.SIF"
    if lower.endswith("unattend.xml"):
        return "Autounattend.xml"
    return name


def is_made_already(name: str) -> bool:
    """Tell if answers are an image of a disk, floppy or CD, by the name of their file."""
    return name.lower().endswith(".iso") or is_floppy_name(name)


def _name_mistakes(name: str, medium: AnswersAs) -> Iterator[str]:
    if medium not in ("disk", "floppy") or is_made_already(name):
        return
    name = name_for(name, medium)
    bad = next((letter for letter in name if letter in FAT_REFUSES), None)
    ending = {".": "ends in a dot", " ": "ends in a space"}.get(name[-1])
    if why := f"has {quoted(bad)}" if bad else ending:
        other = 'rename it, or add answers_as = "cdrom"'
        yield f"install.answers = {quoted(name)} cannot be on a disk or floppy: its name {why}; {other}"


def _kernel_mistakes(recipe: InstallRecipe) -> Iterator[str]:
    if recipe.kernel is None:
        for key in ("initrd", "arguments"):
            if getattr(recipe, key):
                yield f"install.{key} is for a kernel: name kernel too, a path in the ISO"
        return
    if recipe.iso is None:
        yield "install.kernel is a path in an ISO, and there is none: leave it out"
    if recipe.restarts:
        yield "install.restarts go on from the new disk, and with kernel each start is the installer's"


def _drive_mistakes(recipe: InstallRecipe) -> Iterator[str]:
    disks = [recipe.disk_bus, recipe.second_disk]
    if recipe.medium in ("disk", "cidata"):
        disks.append(recipe.disk_bus)
    cds = (recipe.iso, recipe.drivers and not is_floppy_name(recipe.drivers), recipe.medium == "cdrom")
    if disks.count("ide") > MOST_OF_A_KIND or sum(map(bool, cds)) > MOST_OF_A_KIND:
        yield "install has more drives than IDE has places, which are two disks and two CDs"


def _layer_mistakes(recipe: InstallRecipe) -> Iterator[str]:
    adds = bool(recipe.packages or recipe.run)
    if recipe.base is None:
        if adds:
            key = "packages" if recipe.packages else "run"
            yield f"install.{key} is for a base: with an ISO, the answers say what is installed"
        return
    if adds and recipe.answers is not None:
        yield "install has answers with packages or run: for a base, one of them is handed to cloud-init"
    if not (adds or recipe.answers or recipe.drivers or recipe.second_disk):
        yield "install.base alone changes nothing: add packages or run"
    if recipe.packages and recipe.network == "none":
        yield 'install.packages come over the network: add network = "user"'
