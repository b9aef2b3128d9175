"""The sidecar: a small file with the wishes of a user for an image.

The text is untrusted, so everything is limited, and all mistakes in it are raised as one `Rejected`.
"""

import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from posixpath import basename
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, StrictBool, TypeAdapter, ValidationError

from uecwatchd.config.documents import (
    MISTAKES_SHOWN,
    KeyPath,
    Malformed,
    NoTable,
    did_you_mean,
    dotted,
    join_first,
    nearest,
    parse_json,
    parse_toml,
    word_mistakes,
)
from uecwatchd.config.retention import RetentionRule
from uecwatchd.config.values import Expected, Line, PlainName, one_line, plain_name
from uecwatchd.errors import Halted, Rejected
from uecwatchd.install.recipe import RECIPE_KEYS, InstallRecipe, contradictions
from uecwatchd.system.text import quoted
from uecwatchd.types import SHA256_DIGITS, Arch

# Two hundred checksums and a long description take 20 KiB. A disk image with the name karmic.toml must not be
# read whole.
SIDECAR_LIMIT_BYTES = 64 * 1024
# No set has more files, and no cloud allows as many accounts or tags. Each bad entry takes a kilobyte until
# the message is made, and 64 KiB have space for thirty thousand.
MOST_ENTRIES = 200
# Each of these takes the TOML parser some microseconds, and dots in a key take the square of their number.
# With this limit, checked before parsing, 64 KiB take at most 10 ms instead of 17 s.
MOST_MARKS = 1000
MARKS: Mapping[bytes, str] = MappingProxyType(
    {b".": "dots", b"=": "equals signs", b",": "commas", b"[": "brackets", b"{": "braces"}
)

# Limits that hold for all clouds: names and descriptions as in RegisterImage, tags as in Eucalyptus 4.
NAME_MAX_CHARS = 128
DESCRIPTION_MAX_CHARS = 255
VERSION_MAX_CHARS = 64
TAGS_MAX = 10
TAG_KEY_MAX_CHARS = 127
TAG_VALUE_MAX_CHARS = 255

PLACEHOLDERS = ("stem", "date", "time", "sha8", "arch", "version")
NONE, FROM_IMAGE = "none", "from-image"

_ID = re.compile(r"[ae](mi|ki|ri)-([0-9A-Fa-f]{8}|[0-9A-Fa-f]{17})")
_ALMOST_ID = re.compile(r"[ae](mi|ki|ri)-[0-9A-Za-z]*")
_ID_ROLES = MappingProxyType({"mi": "machine image", "ki": "kernel", "ri": "ramdisk"})
_MACHINE = re.compile(r"""[^\w#;]*machine["']?\s*[:=]\s*["']?([^"'#\n,}]*)""", re.IGNORECASE)
# The number of an account, the id of a project, or the name of a user. The dialect decides which of them a
# cloud can share images with.
_ACCOUNT = re.compile(r"[0-9]{12}|[0-9a-f]{32}|(?![0-9-]+$)[A-Za-z0-9_@.+=,:-]{1,128}")
# All characters that some cloud accepts in the name of an image. The dialect may refuse more.
_NAME_TEXT = re.compile(r"[A-Za-z0-9()\[\] ./'@_-]*")


# --- validation of values ---------------------------------------------------------------------------------


def is_image_id(text: str) -> bool:
    """Return True for an id from a cloud: `eki-` or `aki-`, then 8 or 17 hex digits, in any case."""
    return _ID.fullmatch(text) is not None


def _machine(text: str) -> str:
    if is_image_id(text):
        raise ValueError(f"= {quoted(text)} is an id, but a machine image must be a file")
    return plain_name(text)


def _boot_file(role: Literal["ki", "ri"]) -> Callable[[str], str]:
    """Make the check of a kernel or ramdisk: a file, a fitting id, or one of two words."""

    def check(text: str) -> str:
        almost = _ALMOST_ID.fullmatch(text)
        if almost is None:
            return plain_name(text)
        if not is_image_id(text):
            raise ValueError(f"= {quoted(text)} is not an id, which has 8 or 17 hex digits")
        if almost[1] != role:
            raise ValueError(f"= {quoted(text)} is the id of a {_ID_ROLES[almost[1]]}")
        return text

    return check


def _name_template(text: str) -> str:
    try:
        pieces = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"= {quoted(text)} is no template: {error}") from error
    for literal, placeholder, form, conversion in pieces:
        if not _NAME_TEXT.fullmatch(literal):
            raise ValueError(f"= {quoted(text)} has characters that no cloud takes in a name")
        if placeholder is None:
            continue
        if placeholder not in PLACEHOLDERS:
            near = did_you_mean(placeholder, PLACEHOLDERS)
            raise ValueError(f"has an unknown placeholder {quoted('{' + placeholder + '}')}{near}")
        if form or conversion:
            raise ValueError(f"= {quoted(text)}: write {{{placeholder}}} without a format")
    return text


def _account(text: str) -> str:
    if not _ACCOUNT.fullmatch(text):
        known = "12 digits, 32 hex digits of a project, or the name of a user"
        raise ValueError(f"= {quoted(text)} is no account: {known}")
    return text


def _digest(text: str) -> str:
    if not SHA256_DIGITS.fullmatch(text):
        raise ValueError("is no SHA-256, which has 64 hex digits")
    return text.lower()


def _tag_key(text: str) -> str:
    if text.lower().startswith(("aws:", "euca:")):
        raise ValueError("begins like the cloud's own tags")
    return one_line(text)


def _each_once(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) < len(values):
        raise ValueError("names one twice")
    return values


Name = Annotated[str, Field(min_length=1, max_length=NAME_MAX_CHARS), AfterValidator(_name_template)]
Version = Annotated[str, Field(min_length=1, max_length=VERSION_MAX_CHARS), AfterValidator(one_line)]
Description = Annotated[str, Field(min_length=1, max_length=DESCRIPTION_MAX_CHARS), AfterValidator(one_line)]
TagKey = Annotated[str, Field(min_length=1, max_length=TAG_KEY_MAX_CHARS), AfterValidator(_tag_key)]
TagValue = Annotated[str, Field(max_length=TAG_VALUE_MAX_CHARS), AfterValidator(one_line)]


# --- the record -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sidecar:
    """Wishes for one set. `given` are the keys that were set, here or under [defaults]."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: Name = "{stem}-{sha8}"
    version: Version | None = None
    description: Description | None = None
    machine: Annotated[str, AfterValidator(_machine)] | None = None
    kernel: Annotated[str, AfterValidator(_boot_file("ki"))] | None = None  # file, id, "none", "from-image"
    ramdisk: Annotated[str, AfterValidator(_boot_file("ri"))] | None = None  # the same
    arch: Arch | None = None
    platform: Literal["linux", "windows"] = "linux"
    hypervisor: Literal["kvm", "xen"] = "kvm"  # whose kernel and ramdisk are taken out of an archive
    virtualization: Literal["paravirtual", "hvm"] | None = None
    convert: Literal["raw", "keep"] = "raw"
    layout: Literal["disk", "partition"] = "disk"  # "partition": of a whole disk, only that of its root
    require: Literal["ready"] | None = None
    prepare: StrictBool = False
    test: StrictBool = False  # boot the image once before it is published
    expect: Expected | None = None  # text of the console of a system that is up, in place of a login
    clouds: Annotated[tuple[Line, ...], Field(min_length=1), AfterValidator(_each_once)] = ("default",)
    best_effort: Annotated[tuple[Line, ...], AfterValidator(_each_once)] = ()  # clouds it is done without
    bucket: Line = "uec-images"
    on_existing: Literal["reuse", "replace", "fail"] = "reuse"
    public: StrictBool = False
    share: Annotated[tuple[Annotated[str, AfterValidator(_account)], ...], AfterValidator(_each_once)] = ()
    tags: Annotated[Mapping[TagKey, TagValue], Field(max_length=TAGS_MAX)] = field(default_factory=dict)
    retention: RetentionRule = field(default_factory=RetentionRule)
    install: InstallRecipe | None = None  # makes the machine image
    sha256: Mapping[PlainName, Annotated[str, AfterValidator(_digest)]] = field(default_factory=dict)
    # `_check` fills it in under this alias, which no user can write.
    given: Annotated[frozenset[str], Field(validation_alias="[given]")] = frozenset()


KEYS = tuple(one.name for one in fields(Sidecar) if one.name != "given")
_SCHEMA = TypeAdapter(Sidecar)


class ForeignDocument(Rejected):
    """JSON or TOML of another program, under the name of a sidecar."""


class UnusableSidecar(Rejected):
    """A sidecar with mistakes. `machines` are the images that its text names."""

    machines: tuple[str, ...] = ()


class NotASidecar(Malformed):
    """A text without any key of a sidecar."""


def parse_sidecar(data: bytes, *, is_json: bool) -> Sidecar:
    """Parse the text. Raises Malformed with all mistakes."""
    try:
        return _parsed(data, is_json=is_json)
    except Malformed as error:
        error.machines = machines_in(data)
        raise


def _parsed(data: bytes, *, is_json: bool) -> Sidecar:
    table = parse_json(bounded(data)) if is_json else _parse_toml(data)
    # People write TOML, and misspell keys; programs write JSON.
    is_misspelled = not is_json and any(nearest(key, KEYS) for key in list(table)[:MISTAKES_SHOWN])
    if table and not table.keys() & set(KEYS) and not is_misspelled:
        found = join_first(quoted(key) for key in table)
        raise NotASidecar(f"it has none of the keys that a sidecar has, but {found}")
    return _check(table)


def unusable_sidecar(file_name: str, error: Malformed) -> Rejected:
    """Return the error for a file whose text is malformed.

    It is ForeignDocument for JSON without any key of a sidecar: many programs put such files beside images.
    """
    if isinstance(error, NotASidecar | NoTable):
        instead = f"; or write {basename(file_name)[:-5]}.toml, and it is left alone"
        return ForeignDocument(
            f"{file_name}: it is not a sidecar of uecwatchd",
            str(error) if isinstance(error, NotASidecar) else "it is JSON, but no object",
            f"Move it away or rename it{'' if file_name.lower().endswith('.toml') else instead}.",
        )
    hint = f"Correct {basename(file_name)} and save it again."
    misread = UnusableSidecar(f"{file_name}: it cannot be used", str(error), hint)
    misread.machines = error.machines
    return misread


def machines_in(data: bytes) -> tuple[str, ...]:
    """Return the values of `machine` in a text, with any encoding and any mistakes.

    A value is empty, or cut short, if it is so in the text.
    """
    text = data.replace(b"\0", b"").decode(errors="replace")  # UTF-16 as well
    return tuple(found[1].strip() for line in text.splitlines() if (found := _MACHINE.match(line)))


def read_defaults(table: Mapping[str, object]) -> Sidecar:
    """Read `[defaults]` of the configuration, which may hold any sidecar key. Raises Halted."""
    try:
        if "install" in table:
            raise Malformed("install is for sidecars: a recipe is about one image")
        return _check(table)
    except Malformed as error:
        hint = "Correct the configuration, then run `uecwatchd check`."
        raise Halted("[defaults]", str(error), hint) from error


def with_defaults(sidecar: Sidecar, defaults: Sidecar) -> Sidecar:
    """Add keys from `defaults` that the sidecar does not have, each as a whole."""
    added = {key: getattr(defaults, key) for key in defaults.given - sidecar.given}
    return replace(sidecar, **added, given=sidecar.given | defaults.given)


def render_name(
    template: str, *, stem: str, fingerprint: str, arch: str | None, version: str | None, when: datetime
) -> str:
    """Fill in the template of a name; date and time are in UTC. Raises Rejected if a value is missing.

    `fingerprint` is a digest in hex of everything that the image is made of.
    """
    moment = when.astimezone(UTC)
    values = {
        "stem": stem,
        "date": f"{moment:%Y%m%d}",
        "time": f"{moment:%H%M%S}",
        "sha8": fingerprint[:8],
        "arch": arch,
        "version": version,
    }
    for _, placeholder, _, _ in string.Formatter().parse(template):
        if placeholder is not None and values[placeholder] is None:
            why = f"its name is to hold {{{placeholder}}}, which nothing says"
            raise Rejected(stem, why, f'Add {placeholder} = "…" to the sidecar, or change the name.')
    return template.format_map(values)


# --- reading ----------------------------------------------------------------------------------------------


def bounded(data: bytes) -> bytes:
    if len(data) > SIDECAR_LIMIT_BYTES:
        raise Malformed(f"larger than the {SIDECAR_LIMIT_BYTES} bytes that metadata may have")
    return data


def _parse_toml(data: bytes) -> dict[str, object]:
    for mark, words in MARKS.items():
        if bounded(data).count(mark) > MOST_MARKS:
            raise Malformed(f"it has more than {MOST_MARKS} {words}")
    return parse_toml(data)


def _limit_entries(table: Mapping[str, object]) -> None:
    """Limit the size of every list and table, before their entries are validated."""
    if len(table) > MOST_ENTRIES:
        raise Malformed(f"it must not have more than {MOST_ENTRIES} keys")
    for key, value in table.items():
        if isinstance(value, list | tuple | dict) and len(value) > MOST_ENTRIES:
            raise Malformed(f"{dotted((key,))} must not have more than {MOST_ENTRIES} entries")


def _check(table: Mapping[str, object]) -> Sidecar:
    """Validate the table. Raises Malformed with all mistakes."""
    _limit_entries(table)
    try:
        sidecar = _SCHEMA.validate_python({**table, "[given]": frozenset(table)})
    except ValidationError as error:
        found = word_mistakes(error, noun="key", known=_known_keys)
        raise Malformed(join_first(sentence for _, sentence in found)) from error
    if mistakes := join_first(_contradictions(sidecar)):
        raise Malformed(mistakes)
    return sidecar


def _known_keys(path: KeyPath) -> Iterable[str]:
    return RECIPE_KEYS if path and path[0] == "install" else KEYS


def _contradictions(sidecar: Sidecar) -> Iterator[str]:
    if sidecar.install:
        yield from contradictions(sidecar.install)
        yield from _beside_recipe(sidecar)
    for key in KEYS:
        if key in sidecar.given and getattr(sidecar, key) is None:
            yield f"{key} is null: leave it out instead"
    if sidecar.prepare and sidecar.convert == "keep":
        yield 'prepare changes the disk in a file, and with convert = "keep" that is not read'
    if sidecar.prepare and sidecar.platform == "windows":
        yield 'prepare is for Linux, and platform = "windows"'
    if sidecar.layout == "partition":
        if sidecar.convert == "keep":
            yield 'layout = "partition" is read from the disk, and with convert = "keep" that is not read'
        if sidecar.virtualization == "hvm":
            yield 'layout = "partition" leaves no disk, and with virtualization = "hvm" a node boots one'
    wants_from_image = FROM_IMAGE in (sidecar.kernel, sidecar.ramdisk)
    if wants_from_image and sidecar.convert == "keep":
        yield '"from-image" is read from the disk, and with convert = "keep" that is not read'
    if wants_from_image and sidecar.virtualization == "hvm":
        yield '"from-image" is for a kernel beside the image, and with virtualization = "hvm" there is none'
    roles: dict[str, str] = {}
    for role in ("machine", "kernel", "ramdisk"):
        name = getattr(sidecar, role)
        if name is None or name in (NONE, FROM_IMAGE) or is_image_id(name):
            continue
        if name in roles:
            yield f"{roles[name]} and {role} are the same file, {name}"
        roles[name] = role


def _beside_recipe(sidecar: Sidecar) -> Iterator[str]:
    """Yield what does not go together with a recipe."""
    if sidecar.machine:
        yield "machine names a file, and install makes the image: leave one of them out"
    if sidecar.convert == "keep":
        yield 'install makes a disk in a qcow2, and with convert = "keep" that is not read'
