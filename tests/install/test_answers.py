"""Answers on their media, read by other programs than those that made them."""

import subprocess
from pathlib import Path

import pytest

from uecwatchd.errors import Rejected
from uecwatchd.install.answers import initrd_addition, make_medium, make_seed, meta_data
from uecwatchd.install.cpio import padding
from uecwatchd.install.recipe import InstallRecipe, name_for

KEY = "0" * 32
DATA = "Grüße\n".encode() * 50


def made(tmp_path: Path, name: str, *, data: bytes = DATA, **keys: object) -> Path:
    medium = make_medium(InstallRecipe(answers=name, **keys), data, tmp_path, key=KEY)
    assert medium
    return medium.path


def in_fat(image: Path, name: str) -> bytes:
    return subprocess.run(["mtype", "-i", image, f"::{name}"], check=True, capture_output=True).stdout


def label_of(image: Path) -> str:
    command = ["blkid", "-p", "-o", "value", "-s", "LABEL", image]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize(
    ("name", "file", "label"),
    [
        ("server.ks", "ks.cfg", "OEMDRV"),
        ("answers", "answers", "ANSWERS"),
        ("my.user-data", "user-data", "CIDATA"),
        ("x.winnt.sif", "WINNT.SIF", "ANSWERS"),
    ],
)
def test_each_installer_finds_its_file_under_its_label(
    tmp_path: Path, name: str, file: str, label: str
) -> None:
    image = made(tmp_path, name)
    assert in_fat(image, file) == DATA
    assert label_of(image) == label


def test_the_label_of_the_recipe_has_priority(tmp_path: Path) -> None:
    assert label_of(made(tmp_path, "server.ks", label="MINE")) == "MINE"


def test_a_seed_has_an_id_of_its_build(tmp_path: Path) -> None:
    seed = make_seed({"user-data": DATA, "meta-data": meta_data(KEY)}, tmp_path).path
    assert in_fat(seed, "meta-data") == b'{"instance-id": "uecwatchd-00000000000000000000000000000000"}\n'


def test_answers_on_a_cd_have_long_names(tmp_path: Path) -> None:
    image = made(tmp_path, "autounattend.xml")
    listed = subprocess.run(["isoinfo", "-J", "-f", "-i", image], check=True, capture_output=True, text=True)
    assert listed.stdout == "/Autounattend.xml\n"
    assert label_of(image) == "ANSWERS"


def test_large_answers_get_a_larger_disk_and_no_floppy(tmp_path: Path) -> None:
    data = b"x" * (5 << 20)
    assert in_fat(made(tmp_path, "x.apkovl.tar.gz", data=data), "x.apkovl.tar.gz") == data
    with pytest.raises(Rejected, match=r"a floppy has 1\.44 MB, and it has 5 MiB"):
        made(tmp_path, "winnt.sif", data=data)


def test_an_image_is_handed_over_as_it_is(tmp_path: Path) -> None:
    assert made(tmp_path, "mine.iso", answers_as="cdrom").read_bytes() == DATA


def test_an_initrd_gets_the_answers_behind_its_own_files(tmp_path: Path) -> None:
    first = initrd_addition("a", b"1")
    archive = first + padding(len(first)) + initrd_addition("my.preseed", DATA)
    rest = archive[len(first) :]
    subprocess.run(["cpio", "-i", "--quiet"], input=rest, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "preseed.cfg").read_bytes() == DATA
    assert make_medium(InstallRecipe(answers="my.preseed"), DATA, tmp_path, key=KEY) is None


def test_other_names_stay() -> None:
    assert name_for("my answers", "disk") == "my answers"
