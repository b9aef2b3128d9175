"""Right bundles, made by several hands, and what RegisterImage asks beyond the bundle."""

import bz2
import gzip
import hashlib
import lzma
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

MAPPING = (
    "<block_device_mapping>"
    "<mapping><virtual>ami</virtual><device>sda</device></mapping>"
    "<mapping><virtual>root</virtual><device>/dev/sda</device></mapping>"
    "</block_device_mapping>"
)

# A bundle as an administrator would make it with what every system has, of the file $NAME in its folder.
BY_HAND = r"""
set -eu
hex() { od -An -v -tx1 | tr -d ' \n'; }
seal() { printf %s "$1" | openssl pkeyutl -encrypt -certin -inkey "$2" | hex; }
KEY=$(openssl rand -hex 16) IV=$(openssl rand -hex 16)
tar --format=gnu $TAR_OPTIONS -c "$NAME" > tar
gzip -c tar | openssl enc -aes-128-cbc -K "$KEY" -iv "$IV" | split -d -a 1 -b 16384 - "$NAME.part."
PARTS='' N=0
while [ -e "$NAME.part.$N" ]; do
  DIGEST=$(sha1sum < "$NAME.part.$N" | cut -d' ' -f1)
  PARTS="$PARTS<part index='$N'><filename>$NAME.part.$N</filename>\
<digest algorithm='SHA1'>$DIGEST</digest></part>"
  N=$((N + 1))
done
MACHINE="<machine_configuration><architecture>i386</architecture></machine_configuration>"
IMAGE="<image><name>$NAME</name><user>$EC2_USER_ID</user><type>machine</type>\
<digest algorithm='SHA1'>$(sha1sum < tar | cut -d' ' -f1)</digest><size>$(stat -c %s "$NAME")</size>\
<bundled_size>$(cat "$NAME".part.* | wc -c)</bundled_size>\
<ec2_encrypted_key algorithm='AES-128-CBC'>$(seal "$KEY" "$EUCALYPTUS_CERT")</ec2_encrypted_key>\
<user_encrypted_key algorithm='AES-128-CBC'>$(seal "$KEY" "$EC2_CERT")</user_encrypted_key>\
<ec2_encrypted_iv>$(seal "$IV" "$EUCALYPTUS_CERT")</ec2_encrypted_iv>\
<user_encrypted_iv>$(seal "$IV" "$EC2_CERT")</user_encrypted_iv>\
<parts count='$N'>$PARTS</parts></image>"
SIGNATURE=$(printf %s "$MACHINE$IMAGE" | openssl dgst -sha1 -sign "$EC2_PRIVATE_KEY" | hex)
printf %s "<?xml version='1.0'?><manifest><version>2007-10-10</version>\
<bundler><name>sh</name><version>1</version><release>1</release></bundler>\
$MACHINE$IMAGE<signature>$SIGNATURE</signature></manifest>" > "$NAME.manifest.xml"
rm tar
"""


@pytest.mark.parametrize("sparse", [False, True], ids=["plain", "old-gnu-sparse"])
def test_a_bundle_made_with_tar_gzip_openssl_and_split_is_registered(
    cloud: Any, s3: Any, ec2: Any, contents: Mapping[str, bytes], tmp_path: Path, *, sparse: bool
) -> None:
    name = f"by-hand-{'sparse' if sparse else 'plain'}"
    with (tmp_path / name).open("wb") as image:
        for _ in range(6):  # more holes than one tar header has room for
            image.write(contents["partition"][-8192:])
            image.seek(1 << 20, 1)
        image.write(contents["partition"])
    script = f". {cloud.eucarc}\n{BY_HAND}"
    environ = {"PATH": "/usr/bin:/bin", "NAME": name, "TAR_OPTIONS": "-S" if sparse else ""}
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environ, check=True)
    for path in tmp_path.iterdir():
        if path.name != name:
            s3.put_object(Bucket="images", Key=path.name, Body=path.read_bytes())
    image_id = ec2.register_image(ImageLocation=f"images/{name}.manifest.xml")["ImageId"]
    assert image_id.startswith("emi-")


def test_kernel_ramdisk_and_machine_are_registered_in_turn(
    forge: Any, ec2: Any, contents: Mapping[str, bytes]
) -> None:
    kernel_at = forge.bundle(contents["kernel"], type="kernel", prefix="vmlinuz-2.6.28")
    kernel = ec2.register_image(ImageLocation=kernel_at)["ImageId"]
    ramdisk_at = forge.bundle(contents["ramdisk"], type="ramdisk", prefix="initrd.img-2.6.28")
    ramdisk = ec2.register_image(ImageLocation=ramdisk_at)["ImageId"]
    location = forge.bundle(contents["partition"], kernel=kernel, ramdisk=ramdisk)
    machine = ec2.register_image(ImageLocation=location, Name="chain", Description="A chain")["ImageId"]
    assert [kernel[:4], ramdisk[:4], machine[:4]] == ["eki-", "eri-", "emi-"]
    (image,) = ec2.describe_images(ImageIds=[machine])["Images"]
    assert (image["KernelId"], image["RamdiskId"]) == (kernel, ramdisk)
    assert (image["ImageLocation"], image["State"]) == (location, "available")
    assert (image["ImageType"], image["Architecture"], image["Public"]) == ("machine", "x86_64", False)
    assert (image["Name"], image["Description"]) == ("chain", "A chain")


def test_a_windows_set_of_memdisk_and_floppy_is_registered(
    forge: Any, ec2: Any, contents: Mapping[str, bytes]
) -> None:
    memdisk = forge.bundle(contents["kernel"], type="kernel", prefix="memdisk")
    floppy = forge.bundle(contents["disk"], type="ramdisk", prefix="win-boot.img")
    kernel = ec2.register_image(ImageLocation=memdisk)["ImageId"]
    ramdisk = ec2.register_image(ImageLocation=floppy)["ImageId"]
    location = forge.bundle(contents["disk"], kernel=kernel, ramdisk=ramdisk, prefix="win-2k3.img")
    assert ec2.register_image(ImageLocation=location)["ImageId"].startswith("emi-")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_ramdisk_is_looked_into(
    compress: Any, forge: Any, ec2: Any, contents: Mapping[str, bytes]
) -> None:
    location = forge.bundle(compress(contents["ramdisk"]), type="ramdisk")
    assert ec2.register_image(ImageLocation=location)["ImageId"].startswith("eri-")


@pytest.mark.parametrize("magic", [b"\x7fELF", b"\x1f\x8b\x08"], ids=["elf", "gzip"])
def test_kernels_without_a_boot_sector_are_known(magic: bytes, forge: Any, ec2: Any) -> None:
    location = forge.bundle(magic + bytes(5000), type="kernel")
    assert ec2.register_image(ImageLocation=location)["ImageId"].startswith("eki-")


def test_the_bundle_of_the_smallest_image_is_one_part(forge: Any, ec2: Any) -> None:
    assert ec2.register_image(ImageLocation=forge.bundle(bytes(512)))["ImageId"].startswith("emi-")


def test_a_whole_disk_may_declare_itself_by_a_mapping(
    forge: Any, ec2: Any, contents: Mapping[str, bytes]
) -> None:
    location = forge.bundle(contents["disk"], fields=lambda fields: {**fields, "mapping": MAPPING})
    assert ec2.register_image(ImageLocation=location)["ImageId"].startswith("emi-")


def test_hvm_needs_a_disk_with_a_boot_sector(
    forge: Any, ec2: Any, refusal: Any, contents: Mapping[str, bytes]
) -> None:
    whole = forge.bundle(contents["disk"])
    image_id = ec2.register_image(ImageLocation=whole, VirtualizationType="hvm")["ImageId"]
    (image,) = ec2.describe_images(ImageIds=[image_id])["Images"]
    assert image["VirtualizationType"] == "hvm"
    part = forge.bundle(contents["partition"])
    refused = refusal(ec2.register_image, ImageLocation=part, VirtualizationType="hvm")
    assert refused.code == "InvalidManifest"
    assert "boot sector" in refused.message


def test_one_location_registered_twice_gives_two_ids(
    forge: Any, ec2: Any, contents: Mapping[str, bytes]
) -> None:
    location = forge.bundle(contents["partition"])
    first = ec2.register_image(ImageLocation=location)["ImageId"]
    second = ec2.register_image(ImageLocation=f"/{location}")["ImageId"]
    assert first != second
    found = [i for i in ec2.describe_images(Owners=["self"])["Images"] if i["ImageLocation"] == location]
    assert {image["ImageId"] for image in found} == {first, second}


def test_a_name_is_unique_until_its_image_is_gone(
    forge: Any, ec2: Any, refusal: Any, contents: Mapping[str, bytes]
) -> None:
    location = forge.bundle(contents["partition"])
    image_id = ec2.register_image(ImageLocation=location, Name="only-one")["ImageId"]
    refused = refusal(ec2.register_image, ImageLocation=location, Name="only-one")
    assert refused.code == "InvalidAMIName.Duplicate"
    assert image_id in refused.message
    ec2.deregister_image(ImageId=image_id)
    assert ec2.register_image(ImageLocation=location, Name="only-one")["ImageId"] != image_id


@pytest.mark.parametrize("name", ["ab", "a" * 129, "karmic-9.10", "karmic, server", "kärmic", ""])
def test_a_name_not_every_generation_takes_is_refused(name: str, ec2: Any, refusal: Any) -> None:
    refused = refusal(ec2.register_image, ImageLocation="images/none", Name=name)
    assert (refused.code, refused.status) == ("InvalidAMIName.Malformed", 400)


WRONG_REQUESTS = {
    "a location without a key": (
        {"ImageLocation": "images"},
        "InvalidParameterValue",
        "Invalid image location",
    ),
    "a key with a prefix": (
        {"ImageLocation": "images/a/b"},
        "InvalidParameterValue",
        "Invalid image location",
    ),
    "a location too long": (
        {"ImageLocation": "images/" + "k" * 249},
        "InvalidParameterValue",
        "Invalid image location",
    ),
    "a bucket that is not there": (
        {"ImageLocation": "nowhere/m"},
        "InvalidManifest",
        "Failed to read manifest",
    ),
    "a key that is not there": ({"ImageLocation": "images/m"}, "InvalidManifest", "Failed to read manifest"),
    "no location": ({}, "MissingParameter", "ImageLocation"),
    "an unknown parameter": (
        {"ImageLocation": "images/m", "BootMode": "uefi"},
        "UnknownParameter",
        "BootMode",
    ),
    "a long description": (
        {"ImageLocation": "images/m", "Description": "d" * 256},
        "InvalidParameterValue",
        "description",
    ),
    "an unknown virtualization": (
        {"ImageLocation": "images/m", "VirtualizationType": "container"},
        "InvalidParameterValue",
        "VirtualizationType",
    ),
}


@pytest.mark.parametrize("name", WRONG_REQUESTS)
def test_a_wrong_request_is_refused_before_the_bundle_is_looked_at(name: str, ec2: Any, refusal: Any) -> None:
    arguments, code, why = WRONG_REQUESTS[name]
    refused = refusal(ec2.register_image, **arguments)
    assert (refused.code, refused.status) == (code, 400)
    assert why in refused.message


def test_a_manifest_in_somebody_elses_bucket_is_refused(cloud: Any, ec2: Any, refusal: Any) -> None:
    cloud.grant_bucket_to_other("not-ours")
    refused = refusal(ec2.register_image, ImageLocation="not-ours/m.manifest.xml")
    assert (refused.code, refused.status) == ("AuthFailure", 403)
    assert "you must own the bucket" in refused.message


@pytest.mark.parametrize(
    ("parameter", "value"), [("Architecture", "i386"), ("KernelId", "eki-0"), ("RamdiskId", "eri-0")]
)
def test_a_request_that_contradicts_the_manifest_is_refused(
    parameter: str, value: str, forge: Any, ec2: Any, refusal: Any, contents: Mapping[str, bytes]
) -> None:
    location = forge.bundle(contents["partition"])
    refused = refusal(ec2.register_image, ImageLocation=location, **{parameter: value})
    assert refused.code == "InvalidParameterValue"
    assert "the manifest says" in refused.message
    assert ec2.register_image(ImageLocation=location, Architecture="x86_64")["ImageId"]


def test_a_ramdisk_cannot_stand_in_for_a_kernel(
    forge: Any, ec2: Any, refusal: Any, contents: Mapping[str, bytes]
) -> None:
    ramdisk = ec2.register_image(ImageLocation=forge.bundle(contents["ramdisk"], type="ramdisk"))["ImageId"]
    refused = refusal(ec2.register_image, ImageLocation=forge.bundle(contents["partition"], kernel=ramdisk))
    assert refused.code == "InvalidAMIID.NotFound"
    assert ramdisk in refused.message


def test_an_id_in_another_case_is_another_id(
    forge: Any, ec2: Any, refusal: Any, contents: Mapping[str, bytes]
) -> None:
    kernel = ec2.register_image(ImageLocation=forge.bundle(contents["kernel"], type="kernel"))["ImageId"]
    location = forge.bundle(contents["partition"], kernel=kernel.swapcase())
    refused = refusal(ec2.register_image, ImageLocation=location)
    assert refused.code == "InvalidAMIID.NotFound"


def test_a_part_changed_on_the_disk_is_found_out(
    cloud: Any, forge: Any, ec2: Any, refusal: Any, contents: Mapping[str, bytes]
) -> None:
    location = forge.bundle(contents["partition"])
    name = location.removeprefix("images/").removesuffix(".manifest.xml")
    (part,) = (stored for stored in cloud.objects("images") if stored.key == f"{name}.part.0")
    assert hashlib.md5(part.path.read_bytes()).hexdigest() == part.etag
    part.path.write_bytes(part.path.read_bytes()[:-1] + b"\x00")
    assert "has not the SHA-1" in refusal(ec2.register_image, ImageLocation=location).message
