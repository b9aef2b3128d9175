"""Kernels of other architectures, recognized by headers as their specifications have them."""

import gzip
import struct
from typing import get_args
from uuid import UUID

import pytest

from uecwatchd.images.detect import HEAD_BYTES, detect
from uecwatchd.images.file_facts import Facts
from uecwatchd.images.file_names import arch_by_name
from uecwatchd.images.partition_types import PARTITION_ARCH
from uecwatchd.images.suitability import reason_unsuitable
from uecwatchd.types import Arch

SIZE = 1 << 20


def look(*pieces: tuple[int, bytes], size: int = SIZE) -> Facts:
    head = bytearray(HEAD_BYTES)
    for at, data in pieces:
        head[at : at + len(data)] = data
    return detect(bytes(head), bytes(512), size=size)


def elf(machine: int, *, width: int, order: int, kind: int = 2, entry: int = 0) -> tuple[int, bytes]:
    """`width` is 1 for 32 bits and 2 for 64, `order` 1 for little-endian and 2 for big."""
    mark = "<" if order == 1 else ">"
    ident = b"\x7fELF" + bytes([width, order, 1]) + bytes(9)
    rest = struct.pack(mark + "HHI", kind, machine, 1) + struct.pack(
        mark + ("I" if width == 1 else "Q"), entry
    )
    return 0, ident + rest


def pe(machine: int) -> tuple[tuple[int, bytes], ...]:
    return (0, b"MZ"), (0x3C, struct.pack("<I", 0x80)), (0x80, b"PE\0\0" + struct.pack("<H", machine))


ARM64 = (56, b"ARM\x64")
KERNELS = {
    "arm64": ([ARM64], "arm64"),
    "arm64 as an EFI program": ([*pe(0xAA64), ARM64], "arm64"),
    "riscv64": ([(8, struct.pack("<Q", 0x200000)), (48, b"RISCV\0\0\0RSC\x05")], "riscv64"),
    "riscv32": ([(8, struct.pack("<Q", 0x400000)), (48, b"RISCV\0\0\0RSC\x05")], "riscv32"),
    "loongarch64": ([*pe(0x6264), (56, struct.pack("<I", 0x818223CD))], "loongarch64"),
    "s390x": ([(0x10008, b"S390EP")], "s390x"),
    "compressed for EFI": ([*pe(0xAA64), (4, b"zimg"), (56, struct.pack("<I", 0x818223CD))], "arm64"),
    "compressed for EFI, riscv64": (
        [*pe(0x5064), (4, b"zimg"), (56, struct.pack("<I", 0x818223CD))],
        "riscv64",
    ),
    "zImage": ([(0x24, struct.pack("<III", 0x016F2818, 0, SIZE))], "arm"),
    "zImage, big-endian": ([(0x24, struct.pack(">III", 0x016F2818, 0, SIZE))], "arm"),
    "uImage": ([(0, struct.pack(">7I4B", 0x27051956, 0, 0, SIZE - 64, 0, 0, 0, 5, 22, 2, 0))], "arm64"),
    "vmlinux of ppc64le": ([elf(21, width=2, order=1)], "ppc64le"),
    "vmlinux of ppc64": ([elf(21, width=2, order=2)], "ppc64"),
    "vmlinux that moves": ([elf(21, width=2, order=1, kind=3, entry=0xC000000000000000)], "ppc64le"),
    "vmlinux of s390x": ([elf(22, width=2, order=2)], "s390x"),
    "vmlinux of arm64": ([elf(183, width=2, order=1)], "arm64"),
    "vmlinux of riscv32": ([elf(243, width=1, order=1)], "riscv32"),
    "vmlinux of mips": ([elf(8, width=1, order=2)], "mips"),
    "vmlinux of mips64el": ([elf(8, width=2, order=1)], "mips64el"),
    "vmlinux of ia64": ([elf(50, width=2, order=1)], "ia64"),
}


@pytest.mark.parametrize(("pieces", "arch"), KERNELS.values(), ids=KERNELS)
def test_the_architecture_of_a_kernel_is_read_from_its_header(
    pieces: list[tuple[int, bytes]], arch: str
) -> None:
    facts = look(*pieces)
    assert (facts.role, facts.arch) == ("kernel", arch)
    assert reason_unsuitable("kernel", facts, size=SIZE) is None
    why, _ = reason_unsuitable("machine", facts, size=SIZE) or ("", "")
    assert why.startswith("it is a")


def test_a_compressed_kernel_is_decompressed_for_its_architecture() -> None:
    packed = gzip.compress(bytes(56) + b"ARM\x64" + bytes(4000))
    facts = detect(packed, packed[-512:], size=len(packed))
    assert (facts.format, facts.inside, facts.role, facts.arch) == ("gzip", "image", "kernel", "arm64")


@pytest.mark.parametrize("piece", [elf(62, width=2, order=1, kind=3), elf(21, width=2, order=1, kind=3)])
def test_a_program_is_no_kernel(piece: tuple[int, bytes]) -> None:
    assert look(piece).role is None


def test_an_efi_program_is_no_kernel_that_a_cloud_starts() -> None:
    facts = look(*pe(0xAA64))
    assert (facts.format, facts.role, facts.arch) == ("pe", None, "arm64")
    assert reason_unsuitable("kernel", facts, size=SIZE) == (
        "it is an EFI program, not a kernel",
        "A kernel is a bzImage (vmlinuz), an ELF vmlinux, or memdisk for Windows.",
    )


def test_a_kernel_that_was_cut_short_is_reported() -> None:
    header = struct.pack(">7I4B", 0x27051956, 0, 0, 2 * SIZE, 0, 0, 0, 5, 22, 2, 0)
    why, _ = reason_unsuitable("kernel", look((0, header)), size=SIZE) or ("", "")
    assert "claims 2 MiB" in why


@pytest.mark.parametrize(
    ("type_", "arch"),
    [
        ("b921b045-1df0-41c3-af44-4c6f280d3fae", "arm64"),  # root
        ("b0e01050-ee5f-4390-949a-9101b17104e9", "arm64"),  # /usr
        ("df3300ce-d69f-4c92-978c-9bfb0f38d820", "arm64"),  # root's verity data
        ("6db69de6-29f4-4758-a7a5-962190f00ce3", "arm64"),  # their signature
        ("6e11a4e7-fbca-4ded-b9e9-e1a512bb664e", "arm64"),  # /usr's verity data
        ("69dad710-2ce4-4e3c-b16c-21a1d49abed3", "arm"),
        ("c31c45e6-3f39-412e-80fb-4809c4980599", "ppc64le"),
        ("72ec70a6-cf74-40e6-bd49-4bda08e8f224", "riscv64"),
        ("5eead9a9-fe09-4a1e-a1d7-520d00531306", "s390x"),
        ("77055800-792c-4f94-b39a-98c91b762bb6", "loongarch64"),
        ("4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "x86_64"),
    ],
)
def test_a_partition_type_says_the_architecture_of_a_disk(type_: str, arch: str) -> None:
    header = b"EFI PART" + bytes(24) + struct.pack("<Q", 2047) + bytes(32) + struct.pack("<QII", 2, 128, 128)
    assert look((512, header), (1024 + 128, UUID(type_).bytes_le)).arch == arch


def test_a_disk_for_several_architectures_is_for_that_of_the_hosts() -> None:
    root = {arch: type_ for type_, arch in reversed(PARTITION_ARCH.items())}
    header = b"EFI PART" + bytes(24) + struct.pack("<Q", 2047) + bytes(32) + struct.pack("<QII", 2, 128, 128)
    assert look((512, header), (1024, root["arm64"]), (1152, root["x86_64"])).arch == "x86_64"


def test_every_architecture_has_six_partition_types() -> None:
    found = list(PARTITION_ARCH.values())
    assert {arch: found.count(arch) for arch in get_args(Arch)} == dict.fromkeys(get_args(Arch), 6)


@pytest.mark.parametrize(
    ("name", "arch"),
    [
        ("debian-12-genericcloud-arm64.raw", "arm64"),
        ("Fedora-Cloud-Base.aarch64.img", "arm64"),
        ("jammy-server-cloudimg-armhf.img", "arm"),
        ("Fedora-Minimal.armhfp.raw", "arm"),
        ("noble-server-cloudimg-ppc64el.img", "ppc64le"),
        ("CentOS-7-ppc64le.img", "ppc64le"),
        ("CentOS-7-ppc64.img", "ppc64"),
        ("ubuntu_riscv64.img", "riscv64"),
        ("sles-S390X.raw", "s390x"),
        ("debian-mips64el.img", "mips64el"),
        ("web-arm64-and-s390x.img", None),
        ("debian-arm64v8.img", "arm64"),
        ("alpine-linux-arm-64-v8.img", "arm64"),
        ("x-aarch64le.img", "arm64"),
        ("android-arm64-v8a.img", "arm64"),
        ("x-armv8.2-a.img", "arm64"),
        ("fedora-arm32v7.img", "arm"),
        ("alpine-arm32v6.img", "arm"),
        ("alpine-linux-arm-v7.img", "arm"),
        ("alpine-linux-arm-v8.img", "arm64"),
        ("rpi-armv7hf.img", "arm"),
        ("rpi-armv6kz.img", "arm"),
        ("android-armeabi-v7a.img", "arm"),
        ("x-aarch32.img", "arm"),
        ("suse-ppc64_le.img", "ppc64le"),
        ("suse-powerpc64-el.img", "ppc64le"),
        ("suse-ppc64_legacy.img", "ppc64"),
        ("suse-ppc64be.img", "ppc64"),
        ("debian-mips64r6el.img", "mips64el"),
        ("debian-mips64_le.img", "mips64el"),
        ("debian-mips_el.img", "mipsel"),
        ("alma-x86_64_v2.img", "x86_64"),
        ("alma-x86_64v3.img", "x86_64"),
        ("go-amd64v1.img", "x86_64"),
        ("debian-riscv64imac.img", "riscv64"),
        ("alarm-server.img", None),
        ("charm64.img", None),
        ("armv.img", None),
        ("farmv7.img", None),
        ("robot-arm-v7.img", None),
        ("arm-wrestling.img", None),
    ],
)
def test_a_name_says_the_architecture_of_an_image(name: str, arch: str | None) -> None:
    assert arch_by_name(name) == arch
