"""Each rule of a registration by itself: a bundle that is right but for one thing, and the answer to it."""

import gzip
import re
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Wrong:
    """`how` gives the forge's arguments; `why` must be found in the answer; `code` is its code."""

    why: str
    how: Callable[[Any, Mapping[str, bytes]], dict[str, Any]]
    code: str = "InvalidManifest"


def replaced(old: str, new: str, *, count: int = 1) -> Callable[[str], str]:
    def edit(text: str) -> str:
        assert old in text
        return text.replace(old, new, count)

    return edit


def rewritten(pattern: str, new: str) -> Callable[[str], str]:
    def edit(text: str) -> str:
        changed = re.sub(pattern, new, text, count=1)
        assert changed != text
        return changed

    return edit


def field(**values: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda fields: {**fields, **values}


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def header(tar: bytes, **changes: bytes) -> bytes:
    """The first header with some bytes changed and its checksum put right."""
    block = bytearray(tar[:512])
    for place, value in changes.items():
        at = int(place.removeprefix("at"))
        block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + tar[512:]


def xml(old: str, new: str) -> dict[str, Any]:
    return {"xml": replaced(old, new)}


def swapped(parts: list[Any]) -> list[Any]:
    return [parts[1], parts[0], *parts[2:]]


def without_last_object(objects: dict[str, bytes]) -> dict[str, bytes]:
    last = sorted(key for key in objects if ".part." in key)[-1]
    return {key: data for key, data in objects.items() if key != last}


def with_flipped_object(objects: dict[str, bytes]) -> dict[str, bytes]:
    return {key: flipped(data, 7) if key.endswith(".part.1") else data for key, data in objects.items()}


AMI = "<mapping><virtual>ami</virtual><device>sda</device></mapping>"
MAPPING = f"<block_device_mapping>{AMI}</block_device_mapping>"

TEXT = {
    "a manifest that is not XML": Wrong(
        "not XML", lambda f, c: {"manifest": replaced("</manifest>", "</manifes>")}
    ),
    "an empty manifest": Wrong("XML declaration", lambda f, c: {"manifest": lambda text: ""}),
    "a manifest with no XML declaration": Wrong(
        "XML declaration", lambda f, c: {"manifest": replaced('<?xml version="1.0"?>', "")}
    ),
    "a manifest over 100 KiB": Wrong(
        "more than 102400", lambda f, c: {"manifest": replaced("by-hand", "x" * 102_400)}
    ),
    "a manifest in UTF-8": Wrong("not ASCII", lambda f, c: {"manifest": replaced("by-hand", "jardinière")}),
    "a DOCTYPE": Wrong(
        "'<!'", lambda f, c: {"manifest": replaced("<manifest>", "<!DOCTYPE manifest><manifest>")}
    ),
    "a comment": Wrong("'<!'", lambda f, c: {"manifest": replaced("<bundler>", "<!-- by hand --><bundler>")}),
    "an entity": Wrong("'&'", lambda f, c: {"manifest": replaced("by-hand", "by&amp;hand")}),
    "a processing instruction": Wrong(
        "'<?'", lambda f, c: {"manifest": replaced("<bundler>", "<?php?><bundler>")}
    ),
    "a namespace": Wrong(
        "xmlns", lambda f, c: {"manifest": replaced("<manifest>", "<manifest xmlns='urn:x'>")}
    ),
    "another root": Wrong(
        "root", lambda f, c: {"manifest": lambda text: text.replace("manifest>", "inventory>")}
    ),
    "another version": Wrong("2007-10-10", lambda f, c: {"manifest": replaced("2007-10-10", "2007-10-11")}),
    "space between elements": Wrong(
        "between its elements", lambda f, c: {"manifest": replaced("<bundler>", "\n  <bundler>")}
    ),
    "space around a value": Wrong("space around", lambda f, c: xml("x86_64<", "x86_64 <")),
    "an attribute on image": Wrong("<image> exactly once", lambda f, c: xml("<image>", "<image id='1'>")),
    "an attribute on machine_configuration": Wrong(
        "<machine_configuration> exactly once",
        lambda f, c: xml("<machine_configuration>", "<machine_configuration a='b'>"),
    ),
    "a second image": Wrong(
        "<image> exactly once",
        lambda f, c: {"manifest": replaced("<signature>", "<image></image><signature>")},
    ),
    "an unexpected element": Wrong("in their order", lambda f, c: xml("<size>", "<sha256>00</sha256><size>")),
    "no bundler": Wrong("in their order", lambda f, c: {"manifest": rewritten("<bundler>.*</bundler>", "")}),
    "no size": Wrong("in their order", lambda f, c: {"xml": rewritten("<size>[0-9]+</size>", "")}),
    "no type": Wrong("in their order", lambda f, c: xml("<type>machine</type>", "")),
    "type before user": Wrong(
        "in their order", lambda f, c: {"xml": rewritten("(<user>.*</user>)(<type>.*</type>)", r"\2\1")}
    ),
    "a mapping that does not follow the architecture": Wrong(
        "in their order",
        lambda f, c: xml(
            "</machine_configuration>", f"<kernel_id>eki-0</kernel_id>{MAPPING}</machine_configuration>"
        ),
    ),
    "no algorithm on a digest": Wrong(
        "attributes", lambda f, c: xml("<digest algorithm='SHA1'>", "<digest>")
    ),
    "another algorithm": Wrong("algorithm=", lambda f, c: xml("'SHA1'", "'SHA256'")),
    "another cipher": Wrong("algorithm=", lambda f, c: xml("AES-128-CBC", "AES-256-CBC")),
}

VALUES = {
    "an unknown architecture": Wrong("architecture", lambda f, c: {"fields": field(architecture="amd64")}),
    "an unknown type": Wrong("<type>", lambda f, c: {"fields": field(type="disk")}),
    "a size with a sign": Wrong("<size>", lambda f, c: {"fields": field(size=f"+{len(c['partition'])}")}),
    "a size of nothing": Wrong("<size>", lambda f, c: {"fields": field(size=0)}),
    "an image of 31 GiB": Wrong("exceeds the maximum", lambda f, c: {"fields": field(size=31 << 30)}),
    "a user that is not an account number": Wrong("<user>", lambda f, c: {"fields": field(user="admin")}),
    "another account's number": Wrong(
        "is not the account", lambda f, c: {"fields": field(user="123456789012")}
    ),
    "a tar digest in capitals": Wrong(
        "<digest>", lambda f, c: {"fields": lambda fields: {**fields, "digest": fields["digest"].upper()}}
    ),
    "a name with a slash": Wrong("<name>", lambda f, c: {"fields": field(name="../disk.img")}),
    "a wrong count of parts": Wrong(
        "count=", lambda f, c: {"xml": rewritten("count='[0-9]+'", "count='99'")}
    ),
    "no parts": Wrong("in their order", lambda f, c: {"fields": field(parts=[])}),
    "a gap in the indexes": Wrong("index=2", lambda f, c: xml("index='1'", "index='2'")),
    "a part's name with a slash": Wrong("<filename>", lambda f, c: xml("<filename>", "<filename>x/")),
    "two parts of one name": Wrong(
        "one filename", lambda f, c: {"xml": lambda text: text.replace(".part.1<", ".part.0<")}
    ),
    "a kernel without its mark": Wrong("says kernel", lambda f, c: {"fields": field(type="kernel")}),
    "a mark without its type": Wrong("says machine", lambda f, c: {"fields": field(kernel="true")}),
    "a ramdisk without its mark": Wrong("says ramdisk", lambda f, c: {"fields": field(type="ramdisk")}),
    "a kernel with a ramdisk": Wrong(
        "has no <ramdisk_id>",
        lambda f, c: {"content": c["kernel"], "type": "kernel", "fields": field(ramdisk="eri-00000000")},
    ),
    "a kernel with a block device mapping": Wrong(
        "has no <block_device_mapping>",
        lambda f, c: {"content": c["kernel"], "type": "kernel", "fields": field(mapping=MAPPING)},
    ),
    "a machine named like a kernel": Wrong(
        "take the machine for a kernel", lambda f, c: {"prefix": "vmlinuz-2.6"}
    ),
    "a machine named like a ramdisk": Wrong("for a ramdisk", lambda f, c: {"prefix": "initrd.img-2.6"}),
    "a machine named windows": Wrong("'windows'", lambda f, c: {"prefix": "windows-2003"}),
    "a kernel named like a ramdisk": Wrong(
        "take the kernel for a ramdisk",
        lambda f, c: {"content": c["kernel"], "type": "kernel", "prefix": "initrd-2.6"},
    ),
    "a kernel nobody registered": Wrong(
        "kernel id is invalid", lambda f, c: {"kernel": "eki-00000000"}, "InvalidAMIID.NotFound"
    ),
    "a ramdisk nobody registered": Wrong(
        "ramdisk id is invalid", lambda f, c: {"ramdisk": "eri-00000000"}, "InvalidAMIID.NotFound"
    ),
}

SEALS = {
    "a signature by another key": Wrong(
        "invalid signature", lambda f, c: {"signature": lambda s: f.sign("x", f.cloud.identity.cloud_key)}
    ),
    "a signature that is no hex": Wrong("<signature>", lambda f, c: {"signature": lambda s: s[1:]}),
    "an empty signature": Wrong("<signature> is empty", lambda f, c: {"signature": lambda s: ""}),
    "a byte changed after signing": Wrong(
        "invalid signature", lambda f, c: {"manifest": replaced("x86_64", "i386")}
    ),
    "a signature over double quotes": Wrong(
        "invalid signature", lambda f, c: {"manifest": lambda text: text.replace("'", '"')}
    ),
    "a key sealed for somebody else": Wrong(
        "ec2_encrypted_key",
        lambda f, c: {"fields": field(ec2_key=f.seal("00" * 16, f.cloud.identity.user_key))},
    ),
    "a key sealed as bytes": Wrong(
        "32 hex digits", lambda f, c: {"fields": field(ec2_key=f.seal("k" * 16, f.cloud.identity.cloud_key))}
    ),
    "a key sealed in capitals": Wrong(
        "32 hex digits", lambda f, c: {"fields": field(ec2_key=f.seal("AB" * 16, f.cloud.identity.cloud_key))}
    ),
    "a short initialization vector": Wrong(
        "ec2_encrypted_iv",
        lambda f, c: {"fields": field(ec2_iv=f.seal("00" * 8, f.cloud.identity.cloud_key))},
    ),
    "a sealed key cut short": Wrong(
        "cannot be decrypted",
        lambda f, c: {"fields": lambda fields: {**fields, "ec2_key": fields["ec2_key"][:-2]}},
    ),
    "an empty sealed key": Wrong("ec2_encrypted_key", lambda f, c: {"fields": field(ec2_key="")}),
    "a sealed key that is no hex": Wrong("ec2_encrypted_key", lambda f, c: {"fields": field(ec2_key="xyz")}),
    "another key for the user": Wrong(
        "sealed for the user",
        lambda f, c: {"fields": field(user_key=f.seal("00" * 16, f.cloud.identity.user_key))},
    ),
    "a user's key sealed for the cloud": Wrong(
        "user_encrypted_key",
        lambda f, c: {"fields": field(user_key=f.seal("00" * 16, f.cloud.identity.cloud_key))},
    ),
    "the wrong key for the right cloud": Wrong(
        "not gzip",
        lambda f, c: {
            "fields": field(
                ec2_key=f.seal("00" * 16, f.cloud.identity.cloud_key),
                user_key=f.seal("00" * 16, f.cloud.identity.user_key),
            )
        },
    ),
}

PARTS = {
    "a missing part": Wrong("is not in bucket", lambda f, c: {"objects": without_last_object}),
    "a flipped bit in a part": Wrong("has not the SHA-1", lambda f, c: {"objects": with_flipped_object}),
    "parts in the wrong order": Wrong("not gzip", lambda f, c: {"parts": swapped}),
    "an empty last part": Wrong("empty", lambda f, c: {"parts": lambda p: [*p, ("last.part", b"")]}),
    "a first part smaller than the second": Wrong(
        "must have one size",
        lambda f, c: {
            "parts": lambda p: [(p[0][0], p[0][1][:16]), (p[1][0], p[0][1][16:] + p[1][1]), *p[2:]]
        },
    ),
    "parts of 12 MiB": Wrong(
        "more than 11534336",
        lambda f, c: {"parts": lambda p: [(p[0][0], bytes(12 << 20)), (p[1][0], bytes(12 << 20))]},
    ),
    "a wrong sum of sizes": Wrong(
        "<bundled_size> says",
        lambda f, c: {"fields": lambda fields: {**fields, "bundled_size": fields["bundled_size"] + 16}},
    ),
    "a ciphertext of a broken length": Wrong(
        "not a multiple of 16", lambda f, c: {"cipher": lambda data: data + b"x"}
    ),
    "padding longer than a block": Wrong(
        "padding is wrong", lambda f, c: {"padded": lambda data: data[:-1] + b"\x11"}
    ),
    "padding with zeros": Wrong(
        "padding is wrong", lambda f, c: {"padded": lambda data: data[: -data[-1]] + bytes(data[-1])}
    ),
}

STREAMS = {
    "a tar that is not compressed": Wrong("not gzip", lambda f, c: {"gzip": lambda data: f.tar("x", b"y")}),
    "a zlib stream": Wrong(
        "not gzip", lambda f, c: {"gzip": lambda data: zlib.compress(gzip.decompress(data))}
    ),
    "a gzip cut short": Wrong("cut short", lambda f, c: {"gzip": lambda data: data[:-4]}),
    "a wrong gzip checksum": Wrong(
        "not gzip", lambda f, c: {"gzip": lambda data: flipped(data, len(data) - 8)}
    ),
    "a second gzip member": Wrong(
        "follows the bundle's gzip", lambda f, c: {"gzip": lambda data: data + gzip.compress(b"")}
    ),
    "a byte after the gzip member": Wrong(
        "follows the bundle's gzip", lambda f, c: {"gzip": lambda data: data + b"\0"}
    ),
    "a block of bytes after the gzip member": Wrong(
        "follows the bundle's gzip", lambda f, c: {"gzip": lambda data: data + bytes(100_000)}
    ),
    "a wrong tar digest": Wrong("tar's SHA-1", lambda f, c: {"fields": field(digest="0" * 40)}),
    "PAX headers": Wrong(
        "PAX",
        lambda f, c: {"tar": lambda tar: f.tar("x" * 101, c["partition"], format=tarfile.PAX_FORMAT)},
    ),
    "a tar in ustar format": Wrong(
        "not in GNU format",
        lambda f, c: {"tar": lambda tar: f.tar("disk.img", c["partition"], format=tarfile.USTAR_FORMAT)},
    ),
    "a long name before the file": Wrong(
        "type 'L'", lambda f, c: {"tar": lambda tar: f.tar("x" * 101, c["partition"])}
    ),
    "a folder before the file": Wrong(
        "type '5'", lambda f, c: {"tar": lambda tar: header(tar[:512], at156=b"5") + tar}
    ),
    "a symbolic link": Wrong("type '2'", lambda f, c: {"tar": lambda tar: header(tar, at156=b"2")}),
    "another member's name": Wrong(
        "tar's member is", lambda f, c: {"tar": lambda tar: f.tar("other.img", c["partition"])}
    ),
    "a member's path": Wrong(
        "tar's member is", lambda f, c: {"tar": lambda tar: f.tar("../disk.img", c["partition"])}
    ),
    "a wrong tar checksum": Wrong("cannot be read", lambda f, c: {"tar": lambda tar: flipped(tar, 136)}),
    "a size other than the member's": Wrong(
        "the manifest's image 66048", lambda f, c: {"fields": field(size=len(c["partition"]) + 512)}
    ),
    "a member cut short": Wrong("unexpected end of data", lambda f, c: {"tar": lambda tar: tar[:40_960]}),
    "a second member": Wrong(
        "follows the first member", lambda f, c: {"tar": lambda tar: tar[: 512 + 65_536] + f.tar("b", b"b")}
    ),
    "bytes in the trailer": Wrong(
        "follows the first member", lambda f, c: {"tar": lambda tar: tar[:-1] + b"x"}
    ),
    "no trailer": Wrong("does not end with zeros", lambda f, c: {"tar": lambda tar: tar[: 512 + 65_536]}),
    "a trailer that is not filled up": Wrong(
        "does not end with zeros", lambda f, c: {"tar": lambda tar: tar[: 512 + 65_536 + 1024]}
    ),
    "a trailer a record too long": Wrong(
        "does not end with zeros", lambda f, c: {"tar": lambda tar: tar + bytes(10_240)}
    ),
    "a bomb of zeros": Wrong(
        "does not end with zeros", lambda f, c: {"tar": lambda tar: tar + bytes(50 << 20)}
    ),
}

CONTENTS = {
    "a machine of a broken length": Wrong("multiple of 512", lambda f, c: {"content": c["partition"][:-1]}),
    "a qcow2": Wrong("a qcow image", lambda f, c: {"content": b"QFI\xfb" + c["partition"][4:]}),
    "a VMDK": Wrong("a VMDK", lambda f, c: {"content": b"KDMV" + c["partition"][4:]}),
    "a VDI": Wrong("a VDI", lambda f, c: {"content": bytes(64) + b"\x7f\x10\xda\xbe" + c["partition"][68:]}),
    "a fixed VHD": Wrong("a fixed VHD", lambda f, c: {"content": c["partition"] + b"conectix" + bytes(504)}),
    "a compressed image": Wrong("gzip", lambda f, c: {"content": b"\x1f\x8b\x08" + c["partition"][3:]}),
    "a kernel as a machine": Wrong("a Linux kernel", lambda f, c: {"content": c["kernel"][:19_968]}),
    "a ramdisk as a machine": Wrong("a cpio", lambda f, c: {"content": c["ramdisk"][:8704]}),
    "noise as a kernel": Wrong("no bzImage", lambda f, c: {"content": c["partition"], "type": "kernel"}),
    "a ramdisk as a kernel": Wrong("no bzImage", lambda f, c: {"content": c["ramdisk"], "type": "kernel"}),
    "noise as a ramdisk": Wrong("no cpio", lambda f, c: {"content": c["partition"], "type": "ramdisk"}),
    "a kernel as a ramdisk": Wrong("no cpio", lambda f, c: {"content": c["kernel"], "type": "ramdisk"}),
    "compressed noise as a ramdisk": Wrong(
        "inside is no cpio", lambda f, c: {"content": gzip.compress(c["partition"]), "type": "ramdisk"}
    ),
    "half a floppy sector as a ramdisk": Wrong(
        "no cpio", lambda f, c: {"content": c["disk"][:-1], "type": "ramdisk"}
    ),
}

TABLE = {**TEXT, **VALUES, **SEALS, **PARTS, **STREAMS, **CONTENTS}


@pytest.mark.parametrize("name", TABLE)
def test_what_is_wrong_in_one_place_is_refused_with_its_reason(
    name: str, forge: Any, ec2: Any, refusal: Any, contents: Mapping[str, bytes]
) -> None:
    wrong = TABLE[name]
    location = forge.bundle(**{"content": contents["partition"], **wrong.how(forge, contents)})
    refused = refusal(ec2.register_image, ImageLocation=location)
    assert (refused.code, refused.status) == (wrong.code, 400)
    assert wrong.why in refused.message
    assert location not in [image.location for image in forge.cloud.images]
