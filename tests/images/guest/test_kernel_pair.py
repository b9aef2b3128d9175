"""The kernel and ramdisk of a guest: which pair is meant, and what is said if none is."""

import gzip
import lzma
from pathlib import Path

import pytest

from tests.support.folder_files import FolderFiles
from tests.support.guest_images import Content, Link, bzimage, content_of, fill
from uecwatchd.images.guest.kernel_pair import NoKernelPair, find_kernel_pair, find_kernels
from uecwatchd.images.guest.tree import GuestTree

KERNEL = bzimage("6.1.0-9-amd64")
RAMDISK = b"070701" + bytes(600)
ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\0\x3e\0" + bytes(9000)


def tree(folder: Path, files: dict[str, Content]) -> GuestTree:
    return GuestTree({"/": FolderFiles(fill(folder, files))})


def boot(*versions: str, ramdisk: str = "initrd.img-{}") -> dict[str, Content]:
    found = dict[str, Content]()
    for version in versions:
        found[f"boot/vmlinuz-{version}"] = bzimage(version)
        found[f"boot/{ramdisk.format(version)}"] = RAMDISK
    return found


@pytest.mark.parametrize(
    "files",
    [
        boot("2.6.9-1-server", "2.6.31-14-server"),
        boot("2.6.31-14-server", "2.6.31-rc8-server"),
        boot("2.6.31-14-server", ramdisk="initramfs-{}.img"),
        boot("2.6.31-14-server", ramdisk="initrd-{}"),
        boot("2.6.31-14-server") | {"vmlinuz": Link("boot/vmlinuz-2.6.31-14-server")},
        boot("2.6.31-14-server")
        | {
            "boot/vmlinuz": Link("vmlinuz-2.6.31-14-server"),
            "boot/initrd": Link("initrd.img-2.6.31-14-server"),
        },
        boot("2.6.31-14-server") | {"boot/vmlinuz-9.9": bzimage("9.9")},
        boot("2.6.31-14-server") | {"boot/vmlinuz-9.9": b"", "boot/initrd.img-9.9": b""},
        boot("2.6.31-14-server") | {"boot/initrd.img-2.6.31-14-server.old-dkms": RAMDISK},
        boot("2.6.31-14-server", "9.9-rescue"),
        boot("2.6.31-14-server") | {"boot/vmlinux-2.6.31-14-server.gz": gzip.compress(ELF)},
        boot("2.6.31-14-server") | {"boot/vmlinux-2.6.31-14-server.xz": lzma.compress(ELF)},
        boot("2.6.31-14-server") | {"boot/vmlinuz-9.9": Link("nowhere"), "boot/initrd.img-9.9": RAMDISK},
        boot("2.6.31-14-server")
        | {"boot/vmlinuz-9.9": None, "boot/System.map-9.9": "x", "boot/config-9.9": "x"},
    ],
    ids=[
        "the newer one",
        "no candidate for release",
        "Fedora's name",
        "SUSE's name",
        "a link of Debian",
        "links of SUSE",
        "not one without a ramdisk",
        "no empty files",
        "no old ramdisk",
        "none for emergencies",
        "not SUSE's kernel for debuggers",
        "not one that is packed in another way",
        "no broken link",
        "nothing else",
    ],
)
def test_the_newest_kernel_with_a_ramdisk_is_chosen(tmp_path: Path, files: dict[str, Content]) -> None:
    pair = find_kernel_pair(tree(tmp_path, files))
    assert (pair.version, pair.kernel_facts.arch) == ("2.6.31-14-server", "x86_64")
    assert pair.kernel.path == "/boot/vmlinuz-2.6.31-14-server"
    assert pair.ramdisk
    assert "2.6.31-14-server" in pair.ramdisk.path


def test_a_kernel_without_a_number_has_the_version_of_its_header(tmp_path: Path) -> None:
    files: dict[str, Content] = {
        "boot/vmlinuz-linux": bzimage("6.9.1-arch1"),
        "boot/initramfs-linux.img": RAMDISK,
        "boot/initramfs-linux-fallback.img": RAMDISK,
    }
    pair = find_kernel_pair(tree(tmp_path, files))
    assert pair.version == "6.9.1-arch1"
    assert pair.ramdisk
    assert pair.ramdisk.path == "/boot/initramfs-linux.img"


def test_a_kernel_may_need_no_ramdisk(tmp_path: Path) -> None:
    pair = find_kernel_pair(tree(tmp_path, {"boot/vmlinuz-6.1": bzimage("6.1")}))
    assert (pair.version, pair.ramdisk) == ("6.1", None)


def test_a_kernel_in_the_root_is_found(tmp_path: Path) -> None:
    files: dict[str, Content] = {"vmlinuz-2.6.18": bzimage("2.6.18"), "initrd.img-2.6.18": RAMDISK}
    assert find_kernel_pair(tree(tmp_path, files)).kernel.path == "/vmlinuz-2.6.18"


def test_all_kernels_are_listed_the_newest_first(tmp_path: Path) -> None:
    files = boot("2.6.9", "2.6.31", "2.6.31-rc8") | {"boot/vmlinuz-2.6.40": bzimage("2.6.40")}
    versions = [kernel.version for kernel in find_kernels(tree(tmp_path, files))]
    assert versions == ["2.6.40", "2.6.31", "2.6.31-rc8", "2.6.9"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"etc/hostname": "karmic"}, "the image has no kernel: there is none in its folder /boot"),
        (
            boot("6.1.0-9-amd64", "6.1.0-9-cloud-amd64"),
            "two kernels of version 6.1.0-9: /boot/vmlinuz-6.1.0-9-amd64 and /boot/vmlinuz-6.1.0-9-cloud",
        ),
        (
            boot("6.1") | {"boot/initramfs-6.1.img": RAMDISK},
            "two ramdisks of version 6.1: /boot/initramfs-6.1.img and /boot/initrd.img-6.1 could both",
        ),
        (
            {"boot/vmlinuz-6.1": b"MZ\0\0zimg" + bytes(52) + b"\x40\0\0\0PE\0\0" + b"\x64\xaa" + bytes(2000)},
            "/boot/vmlinuz-6.1: the kernel in the image cannot be started: it is compressed for EFI",
        ),
        (
            {"boot/vmlinux-6.1.gz": gzip.compress(KERNEL), "boot/vmlinux-6.1.xz": lzma.compress(KERNEL)},
            "two kernels of version 6.1.0-9: /boot/vmlinux-6.1.gz and /boot/vmlinux-6.1.xz",
        ),
        (
            {"boot/vmlinuz-6.1": gzip.compress(KERNEL), "boot/initrd-6.1": RAMDISK},
            "cannot be started: it is gzip-compressed",
        ),
        ({"boot/vmlinuz-6.1": "a text"}, "cannot be started: it is a text file, not a kernel"),
        ({"boot/vmlinuz-6.1": KERNEL[:0x600]}, "cannot be started"),
    ],
    ids=["none", "two flavours", "two ramdisks", "zboot", "two that are packed", "packed", "text", "cut"],
)
def test_a_missing_or_ambiguous_kernel_is_refused_with_a_sentence(
    tmp_path: Path, files: dict[str, Content], said: str
) -> None:
    with pytest.raises(NoKernelPair) as refused:
        find_kernel_pair(tree(tmp_path, files))
    assert said in str(refused.value)
    assert refused.value.hint


def test_two_flavours_of_an_older_release_are_no_ambiguity(tmp_path: Path) -> None:
    files = boot("6.1.0-9-amd64", "6.1.0-9-cloud-amd64", "6.1.0-10-amd64")
    assert find_kernel_pair(tree(tmp_path, files)).version == "6.1.0-10-amd64"


def test_a_kernel_is_copied_as_it_is(tmp_path: Path) -> None:
    pair = find_kernel_pair(tree(tmp_path, boot("6.1")))
    assert content_of(pair.kernel) == bzimage("6.1")
