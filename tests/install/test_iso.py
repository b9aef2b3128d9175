"""ISO images: their files by all three kinds of names, their boot records, and damaged ones."""

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uecwatchd.errors import Rejected
from uecwatchd.install.iso import IsoImage

LONG_NAME = "A rather long name, with capitals.x86_64"
# What makes the names long, and the ending of ISO 9660 otherwise.
WAYS = {"Rock Ridge": ["-r"], "Joliet": ["-J"], "both": ["-r", "-J"]}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("tree")
    (tree / "install.amd").mkdir()
    (tree / "install.amd/vmlinuz").write_bytes(os.urandom(5000))
    (tree / LONG_NAME).write_text("long")
    (tree / "empty").touch()
    (tree / "many").mkdir()
    for number in range(200):  # a folder of several sectors
        (tree / f"many/file-{number:03}").write_text(str(number))
    (tree / "boot.img").write_bytes(bytes(2048))
    return tree


def make(tree: Path, *options: str) -> Path:
    path = tree.parent / f"{'-'.join(options) or 'plain'}.iso".replace("/", "_")
    subprocess.run(["genisoimage", "-quiet", *options, "-o", path, tree], check=True, capture_output=True)
    return path


@contextmanager
def opened(path: Path) -> Iterator[IsoImage]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield IsoImage(descriptor, name=path.name)
    finally:
        os.close(descriptor)


def content(iso: IsoImage, path: str) -> bytes:
    descriptor = os.memfd_create("content")
    try:
        iso.copy(iso.find(path), descriptor)
        return os.pread(descriptor, 1 << 20, 0)
    finally:
        os.close(descriptor)


def test_a_copy_that_only_a_part_of_has_room_for_is_an_error(tree: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(make(tree, "-r")) as iso:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                content(iso, "install.amd/vmlinuz")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("way", WAYS)
def test_files_are_found_by_their_long_names(tree: Path, way: str) -> None:
    with opened(make(tree, *WAYS[way])) as iso:
        for path in ("install.amd/vmlinuz", LONG_NAME, "empty", "many/file-199"):
            assert content(iso, path) == (tree / path).read_bytes()
        assert not iso.has("many/file-200")
        assert not iso.has("install.amd")


def test_short_names_are_found_in_any_case(tree: Path) -> None:
    with opened(make(tree, "-iso-level", "1")) as iso:
        assert content(iso, "boot.img") == content(iso, "BOOT.IMG") == (tree / "boot.img").read_bytes()


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("install.amd/vmlinux", "Name a file that is in it (did you mean vmlinuz?)."),
        ("instal.amd/vmlinuz", 'It has no folder "instal.amd" (did you mean install.amd?).'),
        ("nothing", "Name a file that is in it."),
    ],
)
def test_a_missing_file_is_named_with_the_nearest_one(tree: Path, path: str, hint: str) -> None:
    with opened(make(tree, "-r")) as iso, pytest.raises(Rejected) as caught:
        iso.find(path)
    assert caught.value.hint == hint


def test_the_boot_record_tells_the_firmware(tree: Path) -> None:
    bios = ["-b", "boot.img", "-no-emul-boot"]
    with opened(make(tree, "-r", *bios)) as iso:
        assert iso.boot_ways() == {"bios"}
        iso.check_bootable()
    with opened(make(tree, "-r")) as iso:
        assert iso.boot_ways() == set()


def test_an_iso_for_uefi_only_is_refused(tree: Path) -> None:
    path = tree.parent / "uefi.iso"
    efi = ["-e", "boot.img", "-no-emul-boot"]
    command = ["xorriso", "-as", "mkisofs", "-quiet", "-r", *efi, "-o", str(path), str(tree)]
    subprocess.run(command, check=True, capture_output=True)
    with opened(path) as iso:
        assert iso.boot_ways() == {"uefi"}
        with pytest.raises(Rejected, match="it starts with UEFI only"):
            iso.check_bootable()


@pytest.fixture(scope="module")
def sound(tree: Path) -> bytes:
    return make(tree, "-r", "-J", "-b", "boot.img", "-no-emul-boot").read_bytes()


@given(places=st.lists(st.tuples(st.integers(16 * 2048, 40 * 2048), st.integers(0, 255)), max_size=40))
def test_a_damaged_iso_is_read_or_refused(sound: bytes, places: list[tuple[int, int]]) -> None:
    data = bytearray(sound)
    for place, value in places:
        data[place] = value
    descriptor = os.memfd_create("damaged")
    try:
        os.write(descriptor, data)
        iso = IsoImage(descriptor, name="damaged.iso")
        iso.boot_ways()
        for path in ("install.amd/vmlinuz", "many/file-199", "a/b/c"):
            if iso.has(path):
                content(iso, path)
    except Rejected as error:
        assert error.why  # noqa: PT017 (any of its sentences will do)
    finally:
        os.close(descriptor)
