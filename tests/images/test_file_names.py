"""Facts from names: the last resort, after the sidecar and the content."""

import pytest

from uecwatchd.images.file_names import arch_by_name, role_by_name, version_by_name


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("vmlinuz-2.6.28-11-server", "kernel"),
        ("karmic.vmlinuz", "kernel"),
        ("karmic-server-uec-amd64-vmlinuz-virtual", "kernel"),
        ("vmlinux", "kernel"),
        ("xen-kernel-3.2", "kernel"),
        ("memdisk", "kernel"),
        ("initrd.img-2.6.28-11-server", "ramdisk"),
        ("initramfs-5.14.0.img", "ramdisk"),
        ("karmic.initrd", "ramdisk"),
        ("karmic.ramdisk", "ramdisk"),
        ("kernel-initramfs.gz", "ramdisk"),
        ("karmic-server-uec-amd64-initrd-virtual", "ramdisk"),
        ("karmic.img", "machine"),
        ("KARMIC.IMG", "machine"),
        ("karmic.raw", "machine"),
        ("karmic.ami", "machine"),
        ("karmic.qcow2", "machine"),
        ("karmic.img.gz", "machine"),
        ("karmic.toml", None),
        ("karmic.emi", None),
        ("README", None),
    ],
)
def test_a_role_follows_from_a_name(name: str, role: str | None) -> None:
    assert role_by_name(name) == role


@pytest.mark.parametrize(
    ("name", "arch"),
    [
        ("ubuntu-9.10-server-uec-amd64.img", "x86_64"),
        ("centos_x86_64.img", "x86_64"),
        ("win-2k3-x64.img", "x86_64"),
        ("karmic-i386.img", "i386"),
        ("vmlinuz-2.6.31.i686", "i386"),
        ("i386-tools-for-amd64.img", None),
        ("famd64x.img", None),
        ("karmic.img", None),
    ],
)
def test_an_architecture_is_a_whole_word_of_the_name_and_the_only_one(name: str, arch: str | None) -> None:
    assert arch_by_name(name) == arch


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("vmlinuz-2.6.28-11-server", "2.6.28-11-server"),
        ("initrd.img-2.6.28-11-server", "2.6.28-11-server"),
        ("vmlinuz-5.14.0-70.el9.x86_64", "5.14.0-70.el9.x86_64"),
        ("initramfs-5.14.0-70.el9.x86_64.img", "5.14.0-70.el9.x86_64"),
        ("initrd-2.6.18-8.el5xen.img.gz", "2.6.18-8.el5xen"),
        ("initrd.img-2.6.31-14.old", "2.6.31-14.old"),
        ("vmlinuz", None),
        ("karmic.vmlinuz", None),
        ("initrd-virtual", None),
        ("ubuntu-9.10-server.img", None),
        ("memdisk", None),
    ],
)
def test_a_kernel_and_its_ramdisk_bear_one_version(name: str, version: str | None) -> None:
    assert version_by_name(name) == version
