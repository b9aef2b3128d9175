"""Strict parser of a bundle's manifest, which refuses whatever one server would misread.

The rules are those of all servers together. Several cut the signed elements out of the raw text by searching
for their tags, so these occur in it once and without attributes. Amazon's parser minds the order of elements.
The first Eucalyptus reads ASCII and knows a kernel or ramdisk only by the word `true`; later ones only by
`<type>`; all of them may infer it from the file's name as well. So all three have to agree.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast
from xml.etree import ElementTree

from uecwatchd.sandbox.errors import ApiError

ImageType = Literal["machine", "kernel", "ramdisk"]

MARK = "true"
SAFE_NAME = re.compile(r"[A-Za-z0-9._-]+")
# Any text of one line: whether it is the number of an account is asked only where the generation compares it.
USER = re.compile(r"[ -~]+")
NUMBER = re.compile(r"[1-9][0-9]*")
SHA1_HEX = re.compile(r"[0-9a-f]{40}")
HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+")
# What a plain manifest has no need of, and what readers disagree about.
STRANGE = ("<!", "<?", "&", "xmlns")
SIGNED_TAGS = ("<machine_configuration>", "</machine_configuration>", "<image>", "</image>")

# Each element's children, in order; an element not named here holds text.
CHILDREN: Mapping[str, str] = {
    "manifest": "version bundler machine_configuration image signature",
    "bundler": "name version release",
    "machine_configuration": "architecture( block_device_mapping)?( product_codes)?"
    "( kernel_id)?( ramdisk_id)?",
    "block_device_mapping": "mapping( mapping)*",
    "mapping": "virtual device",
    "product_codes": "product_code( product_code)*",
    "image": "name user type digest size bundled_size ec2_encrypted_key user_encrypted_key"
    " ec2_encrypted_iv user_encrypted_iv parts",
    "parts": "part( part)*",
    "part": "filename digest",
}
# Each element's attributes; a number's value is looked at later.
ATTRIBUTES: Mapping[str, tuple[str, str]] = {
    "digest": ("algorithm", "SHA1"),
    "ec2_encrypted_key": ("algorithm", "AES-128-CBC"),
    "user_encrypted_key": ("algorithm", "AES-128-CBC"),
    "parts": ("count", "[0-9]+"),
    "part": ("index", "[0-9]+"),
}
TYPE_BY_NAME: Mapping[str, ImageType] = {"vmlinuz": "kernel", "initrd": "ramdisk"}


@dataclass(frozen=True, slots=True)
class PartClaim:
    """File name and SHA-1 of one part, as the manifest says."""

    filename: str
    sha1: str


@dataclass(frozen=True, slots=True)
class ManifestClaims:
    """The values of a well-formed manifest, none of them proven. Hex as written; sizes in bytes."""

    type: ImageType
    architecture: str
    kernel: str | None  # a machine's
    ramdisk: str | None
    mapped: bool  # whether it has a block device mapping
    name: str
    user: str
    tar_sha1: str
    size: int
    bundled_size: int
    ec2_key: str
    ec2_iv: str
    user_key: str
    user_iv: str
    parts: tuple[PartClaim, ...]
    signed: bytes
    signature: bytes


def invalid(message: str) -> ApiError:
    return ApiError("InvalidManifest", message)


def read_claims(data: bytes, *, file_name: str) -> ManifestClaims:
    """Parse a manifest. Raises `ApiError` (InvalidManifest) at its first mistake."""
    text = _read_text(data)
    root = _parse(text)
    image = _child(root, "image")
    kind = _read_type(root, file_name=file_name)
    return ManifestClaims(
        type=kind,
        architecture=_matching(root, "machine_configuration/architecture", re.compile("[a-z0-9_]+")),
        kernel=_machine_id(root, "kernel_id", kind=kind),
        ramdisk=_machine_id(root, "ramdisk_id", kind=kind),
        mapped=root.find("machine_configuration/block_device_mapping") is not None,
        name=_matching(image, "name", SAFE_NAME),
        user=_matching(image, "user", USER),
        tar_sha1=_matching(image, "digest", SHA1_HEX),
        size=int(_matching(image, "size", NUMBER)),
        bundled_size=int(_matching(image, "bundled_size", NUMBER)),
        ec2_key=_matching(image, "ec2_encrypted_key", HEX),
        ec2_iv=_matching(image, "ec2_encrypted_iv", HEX),
        user_key=_matching(image, "user_encrypted_key", HEX),
        user_iv=_matching(image, "user_encrypted_iv", HEX),
        parts=_read_parts(_child(image, "parts")),
        signed=_cut(text, "machine_configuration") + _cut(text, "image"),
        signature=bytes.fromhex(_matching(root, "signature", HEX)),
    )


def _read_text(data: bytes) -> str:
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as error:
        raise invalid("The manifest is not ASCII") from error
    declaration, _, body = text.partition("?>")
    if not declaration.startswith("<?xml "):
        raise invalid("The manifest does not begin with an XML declaration")
    for strange in STRANGE:
        if strange in body:
            raise invalid(
                f"The manifest has {strange!r} in it: no DOCTYPE, comment, entity or namespace belongs there"
            )
    for tag in SIGNED_TAGS:
        if body.count(tag) != 1:
            raise invalid(f"The manifest must have {tag} exactly once, without attributes")
    return text


def _cut(text: str, tag: str) -> bytes:
    end = f"</{tag}>"
    return text[text.index(f"<{tag}>") : text.index(end) + len(end)].encode()


def _parse(text: str) -> ElementTree.Element:
    try:
        root = ElementTree.fromstring(text)  # noqa: S314  # no DOCTYPE and no entity got this far
    except ElementTree.ParseError as error:
        raise invalid(f"The manifest is not XML: {error}") from error
    if root.tag != "manifest":
        raise invalid(f"The manifest's root is <{root.tag}>")
    for element in root.iter():
        _check_attributes(element)
        _check_content(element)
    if root.findtext("version") != "2007-10-10":
        raise invalid("The manifest's version is not 2007-10-10")
    return root


def _check_attributes(element: ElementTree.Element) -> None:
    name, pattern = ATTRIBUTES.get(element.tag, ("", ""))
    if set(element.attrib) != ({name} if name else set()):
        raise invalid(f"<{element.tag}> has not the attributes it must have")
    if name and not re.fullmatch(pattern, element.attrib[name]):
        raise invalid(f"<{element.tag}> has {name}={element.attrib[name]!r}")


def _check_content(element: ElementTree.Element) -> None:
    content = element.text or ""
    expected = CHILDREN.get(element.tag)
    found = " ".join(child.tag for child in element)
    if not re.fullmatch(expected or "", found):
        raise invalid(
            f"<{element.tag}> has not the elements it must have, in their order, but: {found or 'none'}"
        )
    if expected and (content or any(child.tail for child in element)):
        raise invalid(f"<{element.tag}> has text or space between its elements")
    if not expected and (not content or content != content.strip()):
        raise invalid(f"<{element.tag}> is empty or has space around its text")


def _child(parent: ElementTree.Element, path: str) -> ElementTree.Element:
    """Return the one child at a path; `_check_content` has seen that it is there."""
    (child,) = parent.findall(path)
    return child


def _matching(parent: ElementTree.Element, path: str, pattern: re.Pattern[str]) -> str:
    text = _child(parent, path).text or ""
    if not pattern.fullmatch(text):
        raise invalid(f"<{path.rpartition('/')[2]}> cannot be {text[:80]!r}")
    return text


def _read_type(root: ElementTree.Element, *, file_name: str) -> ImageType:
    kind = cast(ImageType, _matching(root, "image/type", re.compile("machine|kernel|ramdisk")))
    for role in ("kernel", "ramdisk"):
        word = root.findtext(f"machine_configuration/{role}_id")
        if (word == MARK) != (kind == role):
            raise invalid(f"<type> says {kind}, but <{role}_id> is {word or 'absent'}")
        if kind != "machine" and kind != role and word is not None:
            raise invalid(f"A {kind} has no <{role}_id>")
    for tag in ("block_device_mapping", "product_codes"):
        if kind != "machine" and root.find(f"machine_configuration/{tag}") is not None:
            raise invalid(f"A {kind} has no <{tag}>")
    if file_name.startswith("windows"):
        raise invalid(
            "A manifest's name must not begin with 'windows': servers take it for a Windows machine"
        )
    for start, role_by_name in TYPE_BY_NAME.items():
        if file_name.startswith(start) and role_by_name != kind:
            raise invalid(
                f"The manifest's name begins with {start!r}, so servers take the {kind} for a {role_by_name}"
            )
    return kind


def _machine_id(root: ElementTree.Element, tag: str, *, kind: ImageType) -> str | None:
    return root.findtext(f"machine_configuration/{tag}") if kind == "machine" else None


def _read_parts(parts: ElementTree.Element) -> tuple[PartClaim, ...]:
    if parts.attrib["count"] != str(len(parts)):
        raise invalid(f"<parts> says count={parts.attrib['count']}, but there are {len(parts)}")
    for number, part in enumerate(parts):
        if part.attrib["index"] != str(number):
            raise invalid(f"Part number {number} has index={part.attrib['index']}")
    claims = tuple(
        PartClaim(_matching(p, "filename", SAFE_NAME), _matching(p, "digest", SHA1_HEX)) for p in parts
    )
    if len({claim.filename for claim in claims}) != len(claims):
        raise invalid("Two parts have one filename")
    return claims
