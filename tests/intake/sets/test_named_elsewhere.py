"""No image goes up while a sidecar that nobody has understood may name it."""

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.scanned_folder import ALONE, MBR, NOW, again, decided, lay
from uecwatchd.intake.sets.assemble import assemble
from uecwatchd.intake.sets.records import FolderSets, FolderUsers
from uecwatchd.intake.spool import contents, scan

NAMES_BASE = 'machine = "base.img"\npublic = false\n'


def reasons(assembly: FolderSets) -> Mapping[str, str]:
    return {one.name: one.reason for one in assembly.waiting}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("web.toml", NAMES_BASE + "pubic = 1\n"),
        ("web.toml", NAMES_BASE.replace("false", "False")),
        ("web.toml", NAMES_BASE.replace("base.img", "/var/spool/base.img")),
        ("web.toml", NAMES_BASE.encode("utf-16")),
        ("web.toml", 'machine = "ba'),
        ("web.toml", "machine ="),
        ("web.toml", NAMES_BASE.replace("base.img", "bsae.img") + "pubic = 1\n"),
        ("web.json", '{"machine": "base.img", "public": false'),
        ("web.toml.txt", NAMES_BASE),
        ("web.yaml", "machine: base.img\npublic: false\n"),
    ],
)
def test_a_sidecar_with_a_mistake_holds_the_images_that_it_may_name(
    tmp_path: Path, name: str, said: str | bytes
) -> None:
    lay(tmp_path, {"base.img": MBR, name: said, "other.img": MBR, "other.toml": "public = false\n"})
    assembly = decided(tmp_path)
    assert [found.name for found in assembly.ready] == ["other"], "who has a sidecar is not held"
    assert name in reasons(assembly)["base"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("local.conf", 'MACHINE = "qemux86-64"\n'),
        ("build.env", "MACHINE=qemux86\n"),
        ("qemu.conf", "machine = q35\n"),
        ("inventory.yaml", "machine: m1.small\n"),
        ("circle.yml", "machine:\n  image: ubuntu\n"),
        ("db.toml", 'machine = "db.img"\nnmae = "x"\n'),
        ("gitlab.toml", "[runners.machine]\nx = 1\n"),
        ("old.toml", 'description = "the machine = old one\n'),
    ],
)
def test_a_sidecar_for_another_machine_holds_no_image(tmp_path: Path, name: str, said: str) -> None:
    lay(tmp_path, {"base.img": MBR, name: said})
    assert [found.name for found in decided(tmp_path).ready] == ["base"]


@pytest.mark.parametrize("said", ["public = maybe\n", b"\0" * 60_000, b"\xff\xfe" * 9, "a." * 10_000, "[1]"])
def test_a_sidecar_with_a_mistake_that_names_no_image_holds_none(tmp_path: Path, said: str | bytes) -> None:
    lay(tmp_path, {"base.img": MBR, "web.toml": said})
    assert [found.name for found in decided(tmp_path).ready] == ["base"]


@pytest.mark.parametrize("said", ["", 'machine = "ba', "public = false\n"])
def test_a_sidecar_that_is_just_being_saved_lets_go_of_no_image(tmp_path: Path, said: str) -> None:
    lay(tmp_path, {"base.img": MBR, "web.toml": said})
    (tmp_path / "base.img").touch()
    before = scan.scan(tmp_path, now=0.0)
    (tmp_path / "web.toml").write_text(NAMES_BASE)
    made = scan.scan(tmp_path, now=NOW, before=before)
    taken = {"web": tuple((path, made.stamp(path)) for path in ("web.toml", "base.img"))}
    (tmp_path / "web.toml").write_text(said)
    listing = scan.scan(tmp_path, now=NOW, before=made)
    assert not assemble(listing, rules=ALONE, taken=taken).ready
    assert "be unchanged" in reasons(assemble(listing, rules=ALONE))["base"], (
        "and not at the first look either"
    )
    assert not again(tmp_path, taken).ready, "and not once that has settled"


def test_an_image_that_its_sidecar_no_longer_names_may_be_a_set(tmp_path: Path) -> None:
    lay(tmp_path, {"base.img": MBR, "new.img": MBR, "web.toml": 'machine = "new.img"\n'})
    listing = scan.scan(tmp_path, now=NOW, seen=0.0)
    taken = {"web": (("base.img", listing.stamp("base.img")),)}
    assert {found.name for found in again(tmp_path, taken).ready} == {"base", "web"}


@pytest.mark.parametrize("users", [None, FolderUsers(frozenset({1}))])
@pytest.mark.parametrize("names", [1, 2, 3])
def test_an_image_waits_while_names_beside_it_are_left_out(
    tmp_path: Path, names: int, users: FolderUsers | None
) -> None:
    lay(tmp_path, {"karmic.img": MBR, "karmic.toml": "public = false\n", "a.txt": "", "b.txt": ""})
    listing = scan.scan(tmp_path, now=NOW, seen=0.0, budget=contents.ReadBudget(names=names))
    assert not assemble(listing, rules=replace(ALONE, users=users)).ready


def test_an_image_waits_while_there_is_no_room_for_what_a_sidecar_says(tmp_path: Path) -> None:
    lay(tmp_path, {"base.img": MBR, "web.toml": NAMES_BASE + "#" * 5000})
    listing = scan.scan(tmp_path, now=NOW, seen=0.0, budget=contents.ReadBudget(kept=1000))
    assert not assemble(listing, rules=ALONE).ready


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Cargo.toml", '[package]\nname = "x"\n[dependencies]\n'),
        ("pyproject.toml", "[build-system]\nrequires = []\n"),
        ("config.toml", "[runners]\nconcurrent = 1\n"),
        ("package.json", '{"builders": []}'),
    ],
)
def test_another_programs_document_beside_an_image_is_no_set(tmp_path: Path, name: str, said: str) -> None:
    lay(tmp_path, {"base.img": MBR, name: said})
    assembly = decided(tmp_path)
    assert [found.name for found in assembly.ready] == ["base"]
    assert not assembly.refused
    assert name in {misfit.path for misfit in assembly.unmatched}


@pytest.mark.parametrize("said", ["pubic = false\n", 'machin = "x.img"\n', "kernal = 1\n"])
def test_a_sidecar_of_nothing_but_misspelled_keys_is_still_a_sidecar(tmp_path: Path, said: str) -> None:
    lay(tmp_path, {"base.img": MBR, "base.toml": said})
    assert [one.name for one in decided(tmp_path).refused] == ["base"]


def test_an_editor_that_has_a_sidecar_open_is_reported(tmp_path: Path) -> None:
    lay(tmp_path, {"base.img": MBR, ".base.toml.swp": b"b0VIM 9.0"})
    assert "save that and close it" in reasons(decided(tmp_path))["base"]


def test_thousands_of_mistakes_beside_thousands_of_images_are_compared_in_no_long_time(
    tmp_path: Path,
) -> None:
    many = 3000
    for number in range(many):
        (tmp_path / f"a{number:05}.img").write_bytes(MBR)
        (tmp_path / f"b{number:05}.toml").write_text(f'machine = "c{number:05}.img"\nx = 1\n' * 3)
    begun = time.process_time()
    assembly = decided(tmp_path)
    assert time.process_time() - begun < 30, "by pairs it takes minutes"
    assert len(assembly.waiting) + len(assembly.refused) + len(assembly.ready) >= many


def test_ignored_names_of_one_owner_hold_only_the_images_of_that_owner(tmp_path: Path) -> None:
    alice, bob = 1000, 1001
    lay(tmp_path, {"alice.img": MBR, "bob.img": MBR, **{f"{number:03}.txt": "" for number in range(50)}})
    for path in tmp_path.iterdir():
        os.chown(path, alice if path.name == "alice.img" else bob, -1)
    listing = scan.scan(tmp_path, now=NOW, seen=0.0, budget=contents.ReadBudget(names=20))
    assert list(listing.left_out) == [bob]
    apart = assemble(listing, rules=replace(ALONE, users=FolderUsers(frozenset({0}))))
    assert [found.name for found in apart.ready] == ["alice"]
    assert assemble(listing, rules=ALONE).ready == (), "where they trust each other it may be for any"
