"""The manifest: a small XML document that describes a bundle, with its encrypted key and a signature.

It is written like this, but on one line, because the signature covers the text and not its meaning:

    manifest
      version                 the format's: 2007-10-10
      bundler                 who wrote it: name, version, release
      machine_configuration
        architecture          i386 or x86_64; others if the cloud has a name for them
        block_device_mapping  mapping {virtual, device}, each         machines only, optional
        product_codes         product_code, each                      machines only, optional
        kernel_id             on a machine its kernel's id; on a kernel the word "true"
        ramdisk_id            on a machine its ramdisk's id; on a ramdisk the word "true"
      image
        name                  of the file inside the bundle's tar archive
        user                  the account's number
        type                  machine, kernel or ramdisk
        digest                SHA-1 of the tar archive
        size                  of the image
        bundled_size          of all parts together
        ec2_encrypted_key     AES key, sealed for the cloud
        user_encrypted_key    the same, sealed for the user
        ec2_encrypted_iv      initialisation vector, sealed for the cloud
        user_encrypted_iv     the same, sealed for the user
        parts                 part {filename, digest}, each, numbered from 0
      signature

Reasons for this form:

- Servers do not canonicalise. They search the raw text for the tags of `machine_configuration` and `image`,
  cut both elements out, join them, and verify RSA PKCS#1 v1.5 with SHA-1 over that.
  So both tags have no attributes and occur once, and the signed text is never rendered again.
- Amazon's verifier parses the document, and renders it again with attributes in single quotes. With single
  quotes from the start, the text is the same for both.
- The order of elements matters to EC2, and the block device mapping must follow the architecture directly.
- UEC recognises a kernel or a ramdisk only by the word "true", later servers use the type: both are written.
  euca2ools 1.2 wrote the type "machine" on everything, so when reading, the word has priority.
- Servers also guess the type from the manifest's file name: see `names.bundle_prefix`.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast, get_args
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat
from xml.sax.saxutils import escape

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1

from uecwatchd.bundle.bundler import Part, Secret
from uecwatchd.bundle.damage import Damaged, damage_in
from uecwatchd.bundle.keys import HEX_PAIRS, seal
from uecwatchd.bundle.names import is_plain_name
from uecwatchd.system.version import version
from uecwatchd.types import Arch, Role

FORMAT_VERSION = "2007-10-10"
BUNDLER_RELEASE = "1"  # the classic tools write their build number here
DIGEST_ALGORITHM = "SHA1"
CIPHER_ALGORITHM = "AES-128-CBC"
DECLARATION = "<?xml version='1.0'?>"
SIGNATURE_HASH = SHA1()  # the one that every server uses

LIMIT_BYTES = 5 * 1024 * 1024  # the limit of Eucalyptus 4 and 5; 5 MiB list about 28,000 parts
SIZE_LIMIT_BYTES = 16 * 1024**4  # the largest file in ext4; a larger number can only be an attack
SIGNED_TAGS = ("machine_configuration", "image")
MARKS = ("true", "yes")  # in kernel_id or ramdisk_id UEC accepts both for "this is one"; we write the first

_NUMBER = re.compile(r"[0-9]{1,19}")
_SHA1 = re.compile(r"[0-9A-Fa-f]{40}")


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """A bundle's key and IV in hex, encrypted for one reader."""

    key: str
    iv: str


@dataclass(frozen=True, slots=True)
class BlockDevice:
    """A row of a machine's block device mapping: `ami` → `sda`, `ephemeral0` → `sdb`."""

    virtual: str
    device: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Description of a bundle. `kernel_id` to `product_codes` are for machines only."""

    name: str
    user: str
    kind: Role
    arch: str  # as the cloud names it
    tar_sha1: str
    size: int
    bundled_size: int
    for_cloud: SealedSecret
    for_user: SealedSecret
    parts: tuple[Part, ...]
    kernel_id: str | None = None
    ramdisk_id: str | None = None
    block_devices: tuple[BlockDevice, ...] = ()
    product_codes: tuple[str, ...] = ()


def seal_secret(secret: Secret, key: RSAPublicKey) -> SealedSecret:
    return SealedSecret(seal(secret.key, key), seal(secret.iv, key))


# Writing


def write_manifest(manifest: Manifest, *, key: RSAPrivateKey) -> bytes:
    """Return the finished document, signed with the user's `key`."""
    machine, image = _machine_configuration(manifest), _image(manifest)
    bundler = _element(
        "bundler",
        _element("name", "uecwatchd"),
        _element("version", version()),
        _element("release", BUNDLER_RELEASE),
    )
    body = _element("version", FORMAT_VERSION) + bundler + machine + image
    signature = key.sign(signed_bytes(body.encode("ascii")), PKCS1v15(), SIGNATURE_HASH).hex()
    document = _element("manifest", body, _element("signature", signature))
    return (DECLARATION + document).encode("ascii")


def _machine_configuration(manifest: Manifest) -> str:
    inside = [_text("architecture", manifest.arch)]
    if manifest.block_devices:
        mappings = (
            _element("mapping", _text("virtual", device.virtual), _text("device", device.device))
            for device in manifest.block_devices
        )
        inside.append(_element("block_device_mapping", *mappings))
    if manifest.product_codes:
        codes = (_text("product_code", code) for code in manifest.product_codes)
        inside.append(_element("product_codes", *codes))
    kernel = MARKS[0] if manifest.kind == "kernel" else manifest.kernel_id
    ramdisk = MARKS[0] if manifest.kind == "ramdisk" else manifest.ramdisk_id
    inside += [_text("kernel_id", kernel)] if kernel else []
    inside += [_text("ramdisk_id", ramdisk)] if ramdisk else []
    return _element("machine_configuration", *inside)


def _image(manifest: Manifest) -> str:
    return _element(
        "image",
        _text("name", manifest.name),
        _text("user", manifest.user),
        _text("type", manifest.kind),
        _element("digest", manifest.tar_sha1, algorithm=DIGEST_ALGORITHM),
        _element("size", str(manifest.size)),
        _element("bundled_size", str(manifest.bundled_size)),
        _element("ec2_encrypted_key", manifest.for_cloud.key, algorithm=CIPHER_ALGORITHM),
        _element("user_encrypted_key", manifest.for_user.key, algorithm=CIPHER_ALGORITHM),
        _element("ec2_encrypted_iv", manifest.for_cloud.iv),
        _element("user_encrypted_iv", manifest.for_user.iv),
        _element("parts", *map(_part, manifest.parts), count=str(len(manifest.parts))),
    )


def _part(part: Part) -> str:
    digest = _element("digest", part.sha1, algorithm=DIGEST_ALGORITHM)
    return _element("part", _text("filename", part.name), digest, index=str(part.index))


def _text(tag: str, text: str) -> str:
    return _element(tag, escape(text).encode("ascii", "xmlcharrefreplace").decode())


def _element(tag: str, *inside: str, **attributes: str) -> str:
    marks = "".join(f" {name}='{value}'" for name, value in attributes.items())
    return f"<{tag}{marks}>{''.join(inside)}</{tag}>"


# Reading


def read_manifest(data: bytes, *, name: str = "manifest") -> Manifest:
    """Parse a manifest, our own or of other tools. Raises `Rejected` about `name`.

    Everything that two readers could interpret differently is refused: a DOCTYPE, comments, CDATA, a repeated
    element, parts out of order. The signature is not checked: see `check_signature`.
    """
    with damage_in(name):
        signed_bytes(data)
        root = _parse(data)
        machine, image = (_required_element(root, tag) for tag in SIGNED_TAGS)
        return _manifest(root, machine, image)


def signed_bytes(data: bytes) -> bytes:
    """Return the bytes that the signature covers, cut out as servers do. Raises `Damaged`."""
    if len(data) > LIMIT_BYTES:
        raise Damaged(f"as a manifest it is too long: {len(data)} bytes, at most {LIMIT_BYTES} are read")
    if not data.isascii():
        raise Damaged("as a manifest it has to be plain ASCII")
    return b"".join(_extract_element(data, tag) for tag in SIGNED_TAGS)


def check_signature(data: bytes, key: RSAPublicKey, *, name: str = "manifest") -> None:
    """Raise `Rejected` about `name` unless the owner of `key` signed these bytes."""
    with damage_in(name):
        signed = signed_bytes(data)
        signature = _value(_parse(data), "signature", HEX_PAIRS, "hex digits")
        try:
            key.verify(bytes.fromhex(signature), signed, PKCS1v15(), SIGNATURE_HASH)
        except InvalidSignature:
            raise Damaged(
                "its signature was not made with this certificate's key, or it was changed"
            ) from None


def _extract_element(data: bytes, tag: str) -> bytes:
    opening, closing = f"<{tag}>".encode(), f"</{tag}>".encode()
    start, end = data.find(opening), data.find(closing)
    if data.count(opening) != 1 or data.count(closing) != 1 or end < start:
        raise Damaged(f"it does not have exactly one element <{tag}>, bare of attributes")
    return data[start : end + len(closing)]


def _parse(data: bytes) -> Element:
    """Return the document's tree, with nothing in it but elements, attributes and text."""
    builder = TreeBuilder()
    # With a declared encoding the bytes could mean something else here than in a search for bytes.
    parser = expat.ParserCreate("US-ASCII")
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse("a DOCTYPE")
    parser.CommentHandler = _refuse("a comment")
    parser.StartCdataSectionHandler = _refuse("a CDATA section")
    parser.ProcessingInstructionHandler = _refuse("a processing instruction")
    try:
        parser.Parse(data, True)  # noqa: FBT003  a function in C, without keywords
    except expat.ExpatError as fault:
        raise Damaged(f"it is not well-formed XML: {fault}") from None
    return builder.close()


def _refuse(content: str) -> Callable[..., None]:
    def refuse(*_: object) -> None:
        raise Damaged(f"a manifest must not contain {content}")

    return refuse


def _manifest(root: Element, machine: Element, image: Element) -> Manifest:
    if root.tag != "manifest":
        raise Damaged(f"it is a <{root.tag}>, not a <manifest>")
    if (version := _optional_text(root, "version")) not in (None, FORMAT_VERSION):
        raise Damaged(f"it has format version {version}, and only {FORMAT_VERSION} is known")
    _value(root, "signature", HEX_PAIRS, "hex digits")
    kernel_id, ramdisk_id = _optional_text(machine, "kernel_id"), _optional_text(machine, "ramdisk_id")
    kind = _kind(_optional_text(image, "type"), kernel_id, ramdisk_id)
    parts = _parts(_required_element(image, "parts"))
    return Manifest(
        name=_file_name(image, "name"),
        user=_required_text(image, "user"),
        kind=kind,
        arch=_arch(machine),
        tar_sha1=_sha1(image),
        size=_size(image, "size"),
        bundled_size=_size(image, "bundled_size"),
        for_cloud=_sealed(image, "ec2"),
        for_user=_sealed(image, "user"),
        parts=parts,
        kernel_id=kernel_id if kind == "machine" else None,
        ramdisk_id=ramdisk_id if kind == "machine" else None,
        block_devices=_block_devices(machine),
        product_codes=_product_codes(machine),
    )


def _kind(declared: str | None, kernel_id: str | None, ramdisk_id: str | None) -> Role:
    if declared not in (None, *get_args(Role)):
        raise Damaged(f"its <type> is {declared}, not machine, kernel or ramdisk")
    roles: set[Role] = set()
    roles |= {"kernel"} if kernel_id in MARKS else set()
    roles |= {"ramdisk"} if ramdisk_id in MARKS else set()
    roles |= {cast(Role, declared)} if declared not in (None, "machine") else set()
    if len(roles) > 1:
        raise Damaged("it says both that this is a kernel and that it is a ramdisk")
    return roles.pop() if roles else "machine"


def _arch(machine: Element) -> str:
    arch = _required_text(machine, "architecture")
    if arch not in (*get_args(Arch), "aarch64", "armv7l"):  # Nova's words for arm64 and arm
        raise Damaged(f"its <architecture> is {arch}, and none that a cloud knows")
    return arch


def _sealed(image: Element, reader: str) -> SealedSecret:
    key, iv = f"{reader}_encrypted_key", f"{reader}_encrypted_iv"
    _check_algorithm(_required_element(image, key), CIPHER_ALGORITHM)
    return SealedSecret(*(_value(image, tag, HEX_PAIRS, "hex digits") for tag in (key, iv)))


def _parts(parts: Element) -> tuple[Part, ...]:
    listed = tuple(_listed_part(element, index) for index, element in enumerate(parts.iterfind("part")))
    if not listed or parts.get("count") != str(len(listed)):
        raise Damaged(f"it announces {parts.get('count')} parts and lists {len(listed)}")
    if len({part.name for part in listed}) != len(listed):
        raise Damaged("it lists two parts of one name")
    return listed


def _listed_part(element: Element, index: int) -> Part:
    if element.get("index") != str(index):
        raise Damaged(f"part {element.get('index')} stands where part {index} should")
    return Part(index, _file_name(element, "filename"), 0, _sha1(element))


def _block_devices(machine: Element) -> tuple[BlockDevice, ...]:
    mapping = _optional_element(machine, "block_device_mapping")
    rows: Iterable[Element] = () if mapping is None else mapping.iterfind("mapping")
    return tuple(BlockDevice(_required_text(row, "virtual"), _required_text(row, "device")) for row in rows)


def _product_codes(machine: Element) -> tuple[str, ...]:
    codes = _optional_element(machine, "product_codes")
    return (
        () if codes is None else tuple((code.text or "").strip() for code in codes.iterfind("product_code"))
    )


def _file_name(parent: Element, tag: str) -> str:
    name = _required_text(parent, tag)
    if not is_plain_name(name):
        raise Damaged(f"its <{tag}> is not a plain file name: {name!r}")
    return name


def _sha1(parent: Element) -> str:
    _check_algorithm(_required_element(parent, "digest"), DIGEST_ALGORITHM)
    return _value(parent, "digest", _SHA1, "40 hex digits").lower()


def _size(image: Element, tag: str) -> int:
    size = int(_value(image, tag, _NUMBER, "a plain number of bytes"))
    if size > SIZE_LIMIT_BYTES:
        raise Damaged(f"its <{tag}> says {size} bytes; no more than {SIZE_LIMIT_BYTES} are believed")
    return size


def _check_algorithm(element: Element, algorithm: str) -> None:
    if element.get("algorithm", algorithm).upper() != algorithm:
        raise Damaged(f"its <{element.tag}> is made with {element.get('algorithm')}, not {algorithm}")


def _value(parent: Element, tag: str, pattern: re.Pattern[str], described: str) -> str:
    text = _required_text(parent, tag)
    if not pattern.fullmatch(text):
        raise Damaged(f"its <{tag}> is not {described}")
    return text


def _required_text(parent: Element, tag: str) -> str:
    text = _text_of(_required_element(parent, tag))
    if not text:
        raise Damaged(f"its <{tag}> is empty")
    return text


def _optional_text(parent: Element, tag: str) -> str | None:
    """Return the text of an optional element. A missing and an empty one mean the same."""
    element = _optional_element(parent, tag)
    return None if element is None else _text_of(element) or None


def _text_of(element: Element) -> str:
    if len(element):
        raise Damaged(f"its <{element.tag}> holds elements where text should be")
    return (element.text or "").strip()


def _required_element(parent: Element, tag: str) -> Element:
    element = _optional_element(parent, tag)
    if element is None:
        raise Damaged(f"its <{parent.tag}> has no <{tag}>")
    return element


def _optional_element(parent: Element, tag: str) -> Element | None:
    found = parent.findall(tag)
    if len(found) > 1:
        raise Damaged(f"its <{parent.tag}> has {len(found)} elements <{tag}>")
    return found[0] if found else None
