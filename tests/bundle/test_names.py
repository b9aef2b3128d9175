import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from uecwatchd.bundle.names import MARKS, TELLING, bundle_prefix, is_plain_name, manifest_name, portable_name


@pytest.mark.parametrize("kind", MARKS)
@given(name=st.text(max_size=300), token=st.from_regex(r"[0-9a-f]{8,16}", fullmatch=True))
@example(name="Windows 2008.img", token="0123abcd")
@example(name="", token="0123abcd")
def test_any_file_name_gives_a_prefix_that_every_server_takes_for_what_it_is(kind, name, token) -> None:
    prefix = bundle_prefix(kind, name, token=token)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", prefix)
    assert prefix.endswith(token)
    assert len(prefix) <= 100
    if kind == "machine":
        assert not prefix.lower().startswith(TELLING)
    else:
        assert prefix.startswith({"kernel": "vmlinuz-", "ramdisk": "initrd-"}[kind])


@pytest.mark.parametrize(
    ("kind", "name", "prefix"),
    [
        ("machine", "karmic.img", "karmic.img-77"),
        ("machine", "karmic server (new).img", "karmic-server-new-.img-77"),
        ("machine", "vmlinuz-like.img", "image-vmlinuz-like.img-77"),
        ("machine", "Windows.img", "image-Windows.img-77"),
        ("machine", "", "image-77"),
        ("kernel", "vmlinuz-2.6.31-14", "vmlinuz-2.6.31-14-77"),
        ("kernel", "vmlinuz", "vmlinuz-77"),
        ("kernel", "memdisk", "vmlinuz-memdisk-77"),
        ("kernel", "", "vmlinuz-77"),
        ("ramdisk", "initrd.img-2.6.31", "initrd-initrd.img-2.6.31-77"),
        ("ramdisk", "boot.floppy", "initrd-boot.floppy-77"),
    ],
)
def test_kernels_and_ramdisks_are_named_as_such_and_machines_are_not(kind, name, prefix) -> None:
    assert bundle_prefix(kind, name, token="77") == prefix
    assert manifest_name(prefix) == f"{prefix}.manifest.xml"


@pytest.mark.parametrize("name", ["karmic.img", "a b", "..img", "é", "-x"])
def test_a_plain_name_stays_in_its_folder(name: str) -> None:
    assert is_plain_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "/etc/shadow", "../x", "a/b", "a\n", "a\0", "\x1b[2J"])
def test_a_name_with_path_separators_or_control_characters_is_not_plain(name: str) -> None:
    assert not is_plain_name(name)


def test_a_name_without_portable_characters_becomes_image() -> None:
    assert portable_name("образ") == "image"
    assert portable_name("karmic.img") == "karmic.img"
